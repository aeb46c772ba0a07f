"""Defaults that Python functions and the options of commands share. Nothing is imported here."""

# Relaxation of crystals
FMAX = 1e-4  # eV/Å
SYMPREC = 1e-4  # Å, within which symmetry is recognised and made exact

# Molecules
MOLECULE_FMAX = 1e-7  # eV/Å
SYMMETRY_TOLERANCE = 0.01  # Å
TEMPERATURE = 298.15  # K
PRESSURE = 101325.0  # Pa
LINE_WIDTH = 10.0  # cm⁻¹
