"""Training of layered potentials on energies, forces, stresses, Hessians and spectra."""
