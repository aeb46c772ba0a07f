"""How JAX is run: compilation, kept programs, cache folders, memory allocation."""
