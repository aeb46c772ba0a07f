"""Checkpoints of the nequip framework (arXiv:2504.16068), read without torch."""
