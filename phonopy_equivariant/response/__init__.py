"""Analytic second derivatives of the energy: three independent roads to the same number."""
