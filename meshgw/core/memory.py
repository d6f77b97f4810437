"""Memory that was given back to the C library, which keeps it for later.

Source: malloc_trim(3). Start-up reads a configuration and imports much; what it needed for that is not needed again.
"""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Let the C library give what is free back to the system; false where it has nothing, or no way to."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another library than glibc
        return False
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return bool(trim(0))
