"""Second derivatives by plain automatic differentiation: the independent twins."""
