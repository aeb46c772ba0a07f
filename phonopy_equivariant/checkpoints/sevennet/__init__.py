"""Checkpoints of SevenNet (arXiv:2402.03789), read without torch."""
