"""Weights on disk: published formats, our own, and the registry of names."""
