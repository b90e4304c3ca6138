"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's names for what is set, in malloc.h."""


def keep_freed() -> None:
    """Keep what is freed for what is asked for next, in this process, instead of giving it back to the system.

    torch's allocator on the CPU is the C library's. glibc gives blocks of some MB back as they are freed; the next
    batch or activation of that size is then mapped anew, and the system fills it with zeros page by page as it is
    first written to, which takes longer than the writing. For processes that train or prepare batches. Does
    nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
