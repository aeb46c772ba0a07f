"""Published and bundled models: their cards and registry. Data only, no JAX."""
