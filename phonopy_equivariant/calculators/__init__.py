"""Potentials as calculators of ASE and phonopy, and relaxation."""
