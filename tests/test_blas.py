"""BLAS has one thread while a response is computed, and its own number afterwards."""

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from phonopy_equivariant.response.bloch import lattice
from phonopy_equivariant.runtime.blas import one_blas_thread


def blas_threads():
    controller = ThreadpoolController().select(user_api="blas")
    return {library["num_threads"] for library in controller.info()}


@pytest.fixture
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        if blas_threads() != {2}:
            pytest.skip("BLAS has one thread here")
        yield


def test_the_response_has_one_thread(two_threads, monkeypatch, potential, crystal):
    seen = []
    original = lattice.bloch_force_constants

    def noted(*args):
        seen.append(blas_threads())
        return original(*args)

    monkeypatch.setattr(lattice, "bloch_force_constants", noted)
    lattice.lattice_force_constants(potential, crystal, np.array([[0.1, 0.2, 0.3]]))
    assert seen == [{1}]
    assert blas_threads() == {2}


def test_contexts_of_several_threads_may_overlap(two_threads):
    entered, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        entered.wait()
    leave.set()
    thread.join()
    assert blas_threads() == {2}


def test_an_error_inside_gives_the_threads_back(two_threads):
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        1 / 0  # noqa: B018
    assert blas_threads() == {2}
