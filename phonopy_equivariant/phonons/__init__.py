"""Force constants and dynamical matrices inside phonopy's objects."""
