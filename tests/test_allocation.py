"""Memory that is freed stays with the process, so that the next run of a program is not slowed."""

import platform
import subprocess
import sys

import pytest

# 64 MB written and freed, ten times in a thread: page faults of the last nine
SCRIPT = """
import ctypes, resource, threading
import phonopy_equivariant as pe
if {keep}:
    assert pe.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def use():
    for k in range(10):
        block = libc.malloc(ctypes.c_size_t(2**26))
        ctypes.memset(block, 1, 2**26)
        libc.free(ctypes.c_void_p(block))
        if k == 0:
            start.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
start = []
thread = threading.Thread(target=use)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start[0])
"""


def faults(keep: bool, **environment: str) -> int:
    """Return the page faults of nine uses of 64 MB."""
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_kept():
    assert faults(keep=True) < 200
    assert faults(keep=False) > 1000  # what the setting is for


def test_settings_of_the_environment_are_left_alone():
    code = "import phonopy_equivariant as pe; print(pe.keep_freed_memory())"
    command = [sys.executable, "-c", code]
    environment = {"MALLOC_ARENA_MAX": "2"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
