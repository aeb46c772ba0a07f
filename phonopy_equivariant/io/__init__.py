"""Files: crystals in, results out."""
