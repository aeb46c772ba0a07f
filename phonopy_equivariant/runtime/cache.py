"""JAX's persistent compilation cache: what one run compiled, the next one loads.

Machine code is only fit for the processor it was compiled for, and clusters share home folders
between processors of several kinds: each kind, and each version of JAX, has a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# Functions that compile faster than this (s) are not worth a file.
_MINIMUM_SECONDS = 0.3


def quiet_xla() -> None:
    """Silence XLA's log, which is read when JAX is imported; later this does nothing.

    XLA reports two of its own tuning flags as missing from the processor, in pages of text, each
    time it loads a function (seen in jaxlib 0.10.1). JAX's own default is 1, which a process that
    runs this one may have handed down.
    """
    if "jaxlib" not in sys.modules and os.environ.get(_LOG_LEVEL, "1") == "1":
        os.environ[_LOG_LEVEL] = "3"


def enable_at_first_use() -> None:
    """Keep compiled functions on disk unless the user has decided otherwise.

    A process that imported JAX before this package, with XLA's log on, would be flooded by it
    (:func:`quiet_xla`) and has to ask for the cache itself.
    """
    import jax

    config: Any = jax.config
    decided = os.environ.get(_LOG_LEVEL, "1") != "1"
    if decided and not config.jax_compilation_cache_dir:
        enable_compilation_cache()


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Make JAX keep compiled functions on disk; return the folder, or None if it cannot.

    The package calls this when it first compiles, unless JAX was imported before it. A program
    calls it to name a folder of its own.

    Parameters
    ----------
    folder
        Where to keep them. Default: what ``JAX_COMPILATION_CACHE_DIR`` names, as it is; without
        it ``jax/<versions>-<processor>`` in this package's folder of the user's cache.

    Returns
    -------
    Path or None
        None where the folder cannot be written, or where the user has turned the cache off with
        ``JAX_ENABLE_COMPILATION_CACHE=false``; the computation then runs without a cache.

    """
    quiet_xla()
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    requested = folder or os.environ.get(CACHE_VARIABLE)
    path = Path(requested).expanduser() if requested else default_folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK | os.X_OK):
        return None
    config.update("jax_compilation_cache_dir", str(path))
    compilation_cache.reset_cache()  # what was compiled before has settled that there is none
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        config.update("jax_persistent_cache_min_compile_time_secs", _MINIMUM_SECONDS)
    return path


def default_folder() -> Path:
    """Return the folder in the user's cache for this version of JAX and this processor."""
    import jax
    import jaxlib
    import pooch

    name = f"{jax.__version__}-{jaxlib.__version__}-{processor()}"
    return Path(pooch.os_cache("phonopy_equivariant")) / "jax" / name


def processor() -> str:
    """Return a short name of the kind of processor: architecture and a hash of its features."""
    features = _features()
    digest = hashlib.sha256(features.encode()).hexdigest()[:8]
    return f"{platform.machine() or 'unknown'}-{digest}"


def _features() -> str:
    """Return what tells processors apart: the instruction sets where the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    fields = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    features: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in fields:
            features.setdefault(key.strip(), " ".join(sorted(value.split())))
    return repr(sorted(features.items())) if features else platform.processor()
