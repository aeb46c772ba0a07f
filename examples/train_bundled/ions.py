"""Charges and radii from which prototypes are filled.

Effective ionic radii (Å) of the commonest charges, six neighbours unless the ion is too small:
R. D. Shannon, Acta Cryst. A 32, 751 (1976); doi:10.1107/S0567739476001551. They fix where a
relaxation starts and which ions fit a site, nothing else.
"""

from __future__ import annotations

CATIONS: dict[str, dict[int, float]] = {
    "Li": {1: 0.76},
    "Na": {1: 1.02},
    "K": {1: 1.38},
    "Rb": {1: 1.52},
    "Cs": {1: 1.67},
    "Cu": {1: 0.77, 2: 0.73},
    "Ag": {1: 1.15},
    "Au": {1: 1.37, 3: 0.85},
    "Be": {2: 0.45},
    "Mg": {2: 0.72},
    "Ca": {2: 1.00},
    "Sr": {2: 1.18},
    "Ba": {2: 1.35},
    "Zn": {2: 0.74},
    "Cd": {2: 0.95},
    "Mn": {2: 0.83, 3: 0.65, 4: 0.53},
    "Fe": {2: 0.78, 3: 0.65},
    "Co": {2: 0.75, 3: 0.61},
    "Ni": {2: 0.69},
    "Ge": {2: 0.73, 4: 0.53},
    "Sn": {2: 1.18, 4: 0.69},
    "Pb": {2: 1.19, 4: 0.78},
    "B": {3: 0.27},
    "Al": {3: 0.54},
    "Ga": {3: 0.62},
    "In": {3: 0.80},
    "Y": {3: 0.90},
    "La": {3: 1.03},
    "As": {3: 0.58, 5: 0.46},
    "Sb": {3: 0.76, 5: 0.60},
    "Bi": {3: 1.03},
    "Cr": {3: 0.62, 6: 0.44},
    "Ti": {3: 0.67, 4: 0.61},
    "V": {3: 0.64, 4: 0.58, 5: 0.54},
    "C": {4: 0.16},
    "Si": {4: 0.40},
    "Zr": {4: 0.72},
    "Hf": {4: 0.71},
    "Mo": {4: 0.65, 6: 0.59},
    "W": {4: 0.66, 6: 0.60},
    "Te": {4: 0.97, 6: 0.56},
    "Se": {4: 0.50},
    "N": {5: 0.13},
    "P": {5: 0.38},
    "Nb": {4: 0.68, 5: 0.64},
    "Ta": {5: 0.64},
    "I": {5: 0.95},
    "S": {6: 0.29},
}

ANIONS: dict[str, dict[int, float]] = {
    "O": {-2: 1.40},
    "S": {-2: 1.84},
    "Se": {-2: 1.98},
    "Te": {-2: 2.21},
    "F": {-1: 1.33},
    "Cl": {-1: 1.81},
    "Br": {-1: 1.96},
    "I": {-1: 2.20},
    "H": {-1: 1.40},
    "N": {-3: 1.46},
    "P": {-3: 2.00},
    "As": {-3: 2.10},
    "Sb": {-3: 2.30},
    "C": {-4: 1.60},
    "Si": {-4: 2.10},
    "Ge": {-4: 2.15},
}

# Anions (and carbon) by how often structures should have them.
WEIGHTS = {"O": 8.0, "F": 2.0, "S": 2.0, "N": 2.0, "Cl": 2.0, "H": 0.3, "C": 0.5}
