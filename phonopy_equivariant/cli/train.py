"""``phonopy-equivariant train``: a YAML file to a checkpoint."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from phonopy_equivariant.cli.bars import opened
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_device_option,
    add_json_option,
    add_logging_options,
    parser_arguments,
)

if TYPE_CHECKING:
    from phonopy_equivariant.training.loop import Report, TrainingResult

_DESCRIPTION = """\
Train a potential, or fine-tune one, on energies, forces, stresses, Hessians and phonon
frequencies. CONFIG.yaml names the data, the loss, the model to start from and the output folder;
unknown keys are refused. An interrupted run (Ctrl-C, SIGTERM, kill -9) is continued by the same
command, exactly as if it had not been interrupted.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant train nacl.yaml
  phonopy-equivariant train nacl.yaml --restart      begin anew
  phonopy-equivariant run NaCl.cif --model nacl/best.npz --band auto -p

nacl.yaml, from random weights:
  output: nacl
  model: {cutoff: 5.0, num_interactions: 2, hidden_irreps: 32x0e + 32x1o + 16x2e, l_max: 2}
  sets:
    - {path: NaCl.extxyz, valid: 0.1, batch_size: 4}
  loss:
    energy: {weight: 10}
    forces: {weight: 1000}
  steps: 2000

To fine-tune a published model, in place of "model: ...":
  finetune_from: nequix-mp-1-pft

The folder gets best.npz (lowest validation loss), last.npz, state.npz (to continue from), log.csv
and config.yaml. All keys: docs/training.md.
"""

# What the progress bar shows, beside the loss, of the names in a row.
_SHOWN = ("forces", "hessian", "spectrum")


def add_command(commands: Commands) -> None:
    """Add the parser of ``train``."""
    parser = commands.add_parser(
        "train",
        help="train or fine-tune a potential",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    parser.add_argument("config", metavar="CONFIG", help="YAML file")
    parser.add_argument(
        "--restart", action="store_true", help="begin anew, not where a run stopped"
    )
    add_device_option(parser)
    add_json_option(parser)
    add_logging_options(parser)
    parser.set_defaults(function=_main)


def _main(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_jax
    from phonopy_equivariant.training.config import read_config

    console = Console.of(args, "train")
    config = read_config(args.config)  # its mistakes, before JAX starts
    with console.stage("Starting JAX"):
        start_jax(args.device, console)
        from phonopy_equivariant.training.loop import Trainer
    with console.stage("Reading data"):
        trainer = Trainer(config, args.restart, console.warn)
    console.report("Data", trainer.contents)
    start = trainer.progress.step
    if start:
        console.say(f"Going on from step {start} of {config.output}.")
    try:
        with _watched(console, start, config.steps) as show:
            result = trainer.run(show)
    finally:
        trainer.close()
    console.report("Training", _lines(result))
    results = {"step": result.step, "validation_loss": result.best, "stopped": result.stopped}
    follow = [f"phonopy-equivariant run STRUCTURE --model {result.checkpoint} --band auto"]
    console.conclude(results, [str(result.checkpoint)], follow)
    return 0


def _lines(result: TrainingResult) -> list[str]:
    lines = [f"steps            {result.step}{', stopped early' if result.stopped else ''}"]
    if result.best < float("inf"):
        lines.append(f"validation loss  {result.best:.6g}")
    return [*lines, f"checkpoint       {result.checkpoint}"]


@contextlib.contextmanager
def _watched(console: Console, start: int, steps: int) -> Iterator[Callable[[Report], None]]:
    """Show steps: a bar on a terminal, else a line after each validation (all lines with -v)."""
    if console.verbosity and console.is_terminal:
        with opened(console.error, "Training", steps) as bar:
            bar.count(start)

            def show(report: Report) -> None:
                bar.note(_summary(report.values))
                bar.count(report.step)

            yield show
        return

    def line(report: Report) -> None:
        text = f"step {report.step}/{report.steps}: {_summary(report.values)}"
        if "valid_loss" in report.values:
            console.say(text)
        else:
            console.detail(text)

    yield line


def _summary(values: dict[str, float]) -> str:
    """Return the losses of a row and the errors that tell most, validation where there is one."""
    kind = "valid" if "valid_loss" in values else "train"
    texts = [f"loss {values['train_loss']:.4g}"]
    if kind == "valid":
        texts.append(f"valid {values['valid_loss']:.4g}")
    for key, value in values.items():
        if key.startswith(f"{kind}/") and key.endswith(_SHOWN):
            texts.append(f"{key.split('/', 1)[1]} {value:.4g}")
    return ", ".join(texts)
