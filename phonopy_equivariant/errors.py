"""The one exception this package raises on bad input."""


class PhonopyEquivariantError(ValueError):
    """Bad input: the message is one line that names the input and the remedy.

    The command line prints the message without a traceback and exits with status 1.
    """
