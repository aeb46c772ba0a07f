"""Third derivatives of the energy of a crystal from first-order responses."""
