"""One crystal from file to results."""
