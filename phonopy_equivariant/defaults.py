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

# Quasi-harmonic approximation
VOLUMES = 11
VOLUME_RANGE = (-6.0, 8.0)  # %, of the volume at rest
VOLUME_FMAX = 1e-5  # eV/Å, at every volume
MESH = 100.0  # Å, as phonopy's
T_MAX = 1000.0  # K
T_STEP = 10.0  # K
