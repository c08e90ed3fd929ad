"""Unpacks bodies, never more of them than the bound: a small body that stands for gigabytes costs no more than one that is just too large.

Pure. gzip (RFC 1952) alone: every client has it, and the standard library.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from pillion_common.errors import InvalidInput, TooLarge, WrongType

MAX_UNPACKED_BYTES = 8 * 1024 * 1024
MAX_MEMBERS = 1024  # of one gzip body: what is written in pieces has many, one that is made of empty ones would keep us busy

_PIECE = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS

Unpack = Callable[[bytes], bytes]


def unpacker(coding: bytes) -> Unpack | None:
    """Return what unpacks bodies with this Content-Encoding; None if they are not packed.

    Raises:
        WrongType: it is not known here.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return None
    if name in (b"gzip", b"x-gzip"):
        return unpack_gzip
    shown = name[:40].decode("ascii", "replace")
    raise WrongType(f"the body is packed as {shown!r}; send it with Content-Encoding: gzip, or without one")


def unpack_gzip(body: bytes, max_bytes: int = MAX_UNPACKED_BYTES) -> bytes:
    """Return what a gzip body stands for.

    Raises:
        InvalidInput: it is no gzip, is damaged, or ends too early. TooLarge: it stands for more than max_bytes.
    """
    pieces: list[bytes] = []
    size = members = 0
    member = zlib.decompressobj(_GZIP)
    try:
        for start in range(0, len(body), _PIECE):
            packed = body[start : start + _PIECE]
            while packed:
                if member.eof:
                    member = zlib.decompressobj(_GZIP)
                    members += 1
                piece = member.decompress(packed, max_bytes - size + 1)
                size += len(piece)
                if size > max_bytes or members >= MAX_MEMBERS:
                    raise TooLarge(f"the body is over {max_bytes} bytes when it is unpacked; send less at a time")
                pieces.append(piece)
                packed = member.unused_data if member.eof else member.unconsumed_tail
    except zlib.error as exc:
        raise InvalidInput(f"the body is not gzip: {exc}", code="bad_gzip") from exc
    if not member.eof:
        raise InvalidInput("the gzip body ends too early", code="bad_gzip")
    return b"".join(pieces)
