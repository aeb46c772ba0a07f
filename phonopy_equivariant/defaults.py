"""Defaults and limits that functions and options of commands share. Nothing is imported here."""

# Relaxation of crystals
FMAX = 1e-4  # eV/Å
SYMPREC = 1e-4  # Å, within which symmetry is recognised and made exact

# Phonons
PHONOPY_SYMPREC = 1e-5  # Å, phonopy's own tolerance of its search for symmetry
GRUNEISEN_MESH = (10, 10, 10)
PHONON_MESH = 50.0  # Å: the length from which phonopy's script makes the mesh of --pdos auto
BAND_POINTS = 51  # q of each segment of a path

# Molecules
MOLECULE_FMAX = 1e-7  # eV/Å
SYMMETRY_TOLERANCE = 0.01  # Å
TEMPERATURE = 298.15  # K
PRESSURE = 101325.0  # Pa
LINE_WIDTH = 10.0  # cm⁻¹

# Training data; force limit, split and widths are those of Fang et al., arXiv:2403.11347
MAX_FORCE = 5.0  # eV/Å
TRAINING_FRACTION = 0.97
PERTURBED_POSITIONS = 0.1  # Å
PERTURBED_CELL = 0.05  # Å

# Quasi-harmonic approximation
VOLUMES = 11
VOLUME_RANGE = (-6.0, 8.0)  # %, of the volume at rest
VOLUME_FMAX = 1e-5  # eV/Å, at every volume
MESH = 100.0  # Å, as phonopy's
T_MAX = 1000.0  # K
T_STEP = 10.0  # K

FEWEST_VOLUMES = 5  # that an equation of state needs
FEWEST_LENGTHS = 4  # along an axis, for a polynomial of third degree
EQUATIONS_OF_STATE = ("vinet", "birch_murnaghan", "murnaghan")  # phonopy's names
LARGEST_PRESSURE = 1000.0  # GPa, far above what potentials are trained for

# Unstable modes
MAX_CELLS = 2  # primitive cells of a supercell: Γ and the zone boundary
LARGEST_CELLS = 8
MAX_ATOMS = 40  # of a distorted cell
MAX_STRUCTURES = 20
THRESHOLD = 0.1  # THz below zero, from which a mode is followed

# Self-consistent phonons
SSCHA_TEMPERATURE = 300.0  # K
SNAPSHOTS = 200  # displaced supercells of an iteration
ITERATIONS = 10
SSCHA_DIAMETER = 10.0  # Å, of a supercell that nobody gave
SSCHA_MESH = 100.0  # Å, as phonopy's

# Convergence with supercell and mesh
CONVERGENCE = 1e-3  # of 3NkT, 3Nk, 3Nk and the largest frequency
LARGEST_SUPERCELL = 500  # atoms
THIRD_ORDER_TOLERANCE = 0.01  # interpolation error of third derivatives with supercell="auto"
