"""Potentials inside the package, if any: a card ``NAME.yaml`` and a checkpoint ``NAME.npz``."""

from pathlib import Path

FOLDER = Path(__file__).parent
# of the command line and of load_potential; bundled or published
DEFAULT_MODEL = "nequix-mp-1-pft"
