"""Space-group symmetry of q and of atoms."""
