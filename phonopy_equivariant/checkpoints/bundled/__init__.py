"""The potential inside the package: its checkpoint ``NAME.npz`` and its card ``NAME.yaml``."""

DEFAULT_MODEL = "pe-crystal-1"
