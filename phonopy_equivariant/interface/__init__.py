"""The only modules that touch Phonopy objects or ASE calculators."""
