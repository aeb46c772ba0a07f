"""Bloch response: force constants at any q on the primitive cell."""
