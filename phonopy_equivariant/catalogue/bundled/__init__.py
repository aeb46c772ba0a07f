"""Potentials inside the package: a card ``NAME.yaml`` and a checkpoint ``NAME.npz``."""

from pathlib import Path

FOLDER = Path(__file__).parent
# of the command line and of load_potential
DEFAULT_MODEL = "pe-crystal-3"
