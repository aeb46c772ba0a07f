"""Which source of this package the process runs.

Modules are imported one by one, some of them hours after the first, and the files may have changed
in between: an upgrade under a running notebook. What is filed under a hash of the source must come
from that source alone, so the state of all files is noted when the package is first imported.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def imported_source() -> str | None:
    """Return a hash of the source that modules were and will be imported from.

    Returns
    -------
    str or None
        None where the files are not those of the time when the package was first imported, or
        where there are none.

    """
    try:
        if not _AT_IMPORT or _states() != _AT_IMPORT:
            return None
        digest = _digest()
        return digest if _states() == _AT_IMPORT else None
    except OSError:  # files go while a new version is installed
        return None


def _states() -> dict[str, tuple[int, int, int]]:
    """Return what changes with the content of each file: time, size and place on the disk."""
    states = {}
    for folder, _, names in os.walk(_PACKAGE):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                status = os.stat(path)
                states[path] = status.st_mtime_ns, status.st_size, status.st_ino
    return states


@functools.cache
def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(_AT_IMPORT):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


_AT_IMPORT = _states()
