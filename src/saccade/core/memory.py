"""How the C library keeps memory that was freed, while the same large arrays are made again and again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # M_... of <malloc.h>
MiB = 2**20
# Up to 2 GiB, and no array is a mapping of its own; afterwards what glibc comes to by itself where large arrays are freed.
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 * MiB}
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 * MiB, TRIM_THRESHOLD: 64 * MiB, TOP_PAD: 128 * 1024}


@contextmanager
def kept() -> Iterator[None]:
    """Freed memory stays with the process, and goes back to the system at the end.

    By itself glibc gives large arrays back at once and asks for them anew (mallopt(3), M_MMAP_THRESHOLD), so that each step of training on
    a processor touches all its pages for the first time (`benchmarks/memory.py`). Where there is no glibc nothing is done.
    """
    library = _glibc()
    if library is None:
        yield
        return
    for name, value in KEPT.items():
        library.mallopt(name, value)
    try:
        yield
    finally:
        for name, value in USUAL.items():
            library.mallopt(name, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it has both calls."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):  # Windows
        return None
