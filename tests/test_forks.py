"""A process that was forked after JAX had started says so; it never hangs."""

import multiprocessing
import os
import subprocess
import sys
import warnings

import jax
import pytest
from ase.build import bulk
from conftest import small_config

import phonopy_equivariant as pe
from phonopy_equivariant.potential import random_potential

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_every_entrance_is_closed_in_a_forked_child(potential):
    jax.block_until_ready(jax.numpy.ones(3))  # JAX runs in this process
    entrances = {
        "evaluate": lambda: potential.evaluate(bulk("NaCl", "rocksalt", 5.6)),
        "load": pe.load_potential,
        "weights": lambda: random_potential(small_config(), seed=2),
    }

    def child(end):
        for name, enter in entrances.items():
            try:
                enter()
            except pe.PhonopyEquivariantError as error:
                end.send((name, str(error)))

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX and Python 3.12 warn of what is tried here
        process.start()
    try:
        for name in entrances:
            assert here.poll(60), f"{name} hangs"
            told, message = here.recv()
            assert told == name
            assert "forked after JAX had started" in message
            assert "get_context('spawn')" in message
            assert "\n" not in message
    finally:
        process.kill()
        process.join()


def test_a_child_forked_before_jax_started_computes():
    code = (
        "import os, jax\n"
        "from phonopy_equivariant.runtime.compilation import compiled\n"
        "double = compiled()(lambda x: x + x)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(int(double(4.0)))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.stdout == "8\n", done.stderr
