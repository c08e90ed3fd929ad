"""Unpacks bodies, never more of them than the bound: a small body that stands for gigabytes costs no more than one that is just too large.

Pure. gzip (RFC 1952) and zstd (RFC 8878), each a row of members.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import zstandard

from pillion_common.errors import InvalidInput, TooLarge, WrongType

MAX_UNPACKED_BYTES = 8 * 1024 * 1024
MAX_MEMBERS = 1024  # of one body: what is written in pieces has many, one that is made of empty ones would keep us busy
MAX_WINDOW_BYTES = 8 * 1024 * 1024  # more may not be asked for in HTTP (RFC 9659)

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_PIECE = 64 * 1024
_ZSTD_PIECE = 256  # zstandard unpacks all that it is given: these can be 85 blocks of 128 KB each, 11 MB

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
    if name == b"zstd":
        return unpack_zstd
    shown = name[:40].decode("ascii", "replace")
    raise WrongType(f"the body is packed as {shown!r}; send it with Content-Encoding: gzip or zstd, or without one")


def unpack_gzip(body: bytes, max_bytes: int = MAX_UNPACKED_BYTES) -> bytes:
    """Return what a gzip body stands for.

    Raises:
        InvalidInput: it is no gzip, is damaged, or ends too early. TooLarge: it stands for more than max_bytes.
    """

    def unpack(member: Any, packed: bytes, room: int) -> tuple[bytes, bytes]:
        piece = member.decompress(packed, room)
        return piece, member.unused_data if member.eof else member.unconsumed_tail

    try:
        return _unpack(body, _GZIP_PIECE, lambda: zlib.decompressobj(_GZIP), unpack, max_bytes)
    except zlib.error as exc:
        raise InvalidInput(f"the body is not gzip: {exc}", code="bad_gzip") from exc
    except EOFError as exc:
        raise InvalidInput("the gzip body ends too early", code="bad_gzip") from exc


def unpack_zstd(body: bytes, max_bytes: int = MAX_UNPACKED_BYTES) -> bytes:
    """Return what a zstd body stands for.

    Raises:
        InvalidInput: it is no zstd, is damaged, or ends too early. TooLarge: it stands for more than max_bytes.
    """

    def unpack(member: Any, packed: bytes, room: int) -> tuple[bytes, bytes]:
        piece = member.decompress(packed)
        return piece, member.unused_data if member.eof else b""

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        return _unpack(body, _ZSTD_PIECE, decompressor.decompressobj, unpack, max_bytes)
    except zstandard.ZstdError as exc:
        raise InvalidInput(f"the body is not zstd: {exc}", code="bad_zstd") from exc
    except EOFError as exc:
        raise InvalidInput("the zstd body ends too early", code="bad_zstd") from exc


def _unpack(
    body: bytes, piece_bytes: int, begin: Callable[[], Any], unpack: Callable[[Any, bytes, int], tuple[bytes, bytes]], max_bytes: int
) -> bytes:
    """Unpack all members.

    Args:
        piece_bytes: of the body, how much is unpacked at once.
        begin: begins a member.
        unpack: given the member, some packed bytes and how many unpacked ones are worth having, returns unpacked ones and what is left.
    """
    pieces: list[bytes] = []
    size = members = 0
    member = begin()
    for start in range(0, len(body), piece_bytes):
        packed = body[start : start + piece_bytes]
        while packed:
            if member.eof:
                member = begin()
                members += 1
            piece, packed = unpack(member, packed, max_bytes - size + 1)
            size += len(piece)
            if size > max_bytes or members >= MAX_MEMBERS:
                raise TooLarge(f"the body is over {max_bytes} bytes when it is unpacked; send less at a time")
            pieces.append(piece)
    if not member.eof:
        raise EOFError
    return b"".join(pieces)
