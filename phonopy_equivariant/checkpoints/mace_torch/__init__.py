"""Conversion of mace-torch models into checkpoints of this package."""
