"""``python -m phonopy_equivariant`` is the command ``phonopy-equivariant``."""

import sys

from phonopy_equivariant.cli import main

if __name__ == "__main__":
    sys.exit(main())
