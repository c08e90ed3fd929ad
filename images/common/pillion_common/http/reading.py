"""How much is read from a socket at once.

asyncio asks for 256 KB each time. For that the C library maps memory, cuts it down to what came, and unmaps it: three system calls and a
page fault, for a request of a hundred bytes as well. What is under 128 KB comes from the heap. (uvloop reads into one buffer it keeps.)
"""

from __future__ import annotations

import asyncio

READ_BYTES = 64 * 1024


def read_less_at_once(transport: asyncio.BaseTransport) -> None:
    """Bound what asyncio's own transport reads at once; others are left as they are."""
    if hasattr(transport, "max_size"):
        transport.max_size = READ_BYTES
