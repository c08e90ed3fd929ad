"""How large an entry may be: what is beyond is left out, and the entry says so. Pure.

An entry's size is that of its message in UTF-8 and of its sender's own fields in JSON. One that is over the bound loses fields that find no
room, then the end of its message: `"Message":"aaaa…[cut: 10420224 bytes]","Cut":10420224`.
"""

from __future__ import annotations

from typing import Any

import msgspec

MAX_ENTRY_BYTES = 64 * 1024
MAX_FIELDS_BYTES = 32 * 1024
MAX_FIELDS = 64
MAX_CHAR_BYTES = 4  # of UTF-8

_encode = msgspec.json.Encoder().encode


def mark(missing: int) -> str:
    """Return what stands at the end of a message of whose entry so many bytes were left out."""
    return f"…[cut: {missing} bytes]"


def fit(message: str, fields: dict[str, Any], missing: int = 0) -> tuple[str, dict[str, Any]]:
    """Return the message and the fields of an entry, cut to the bound.

    Args:
        message: without lone surrogates.
        fields: the sender's own; those that come first are kept first.
        missing: bytes that were left out already.
    """
    if not missing and len(fields) <= MAX_FIELDS:
        size = len(_encode(fields))
        if size <= MAX_FIELDS_BYTES and size + MAX_CHAR_BYTES * len(message) <= MAX_ENTRY_BYTES:
            return message, fields
    kept: dict[str, Any] = {}
    taken = 0
    for name, value in fields.items():
        size = len(_encode(value)) + len(_encode(name)) + len(":,")
        if len(kept) < MAX_FIELDS and taken + size <= MAX_FIELDS_BYTES:
            kept[name] = value
            taken += size
        else:
            missing += size
    encoded = message.encode()
    if len(encoded) > MAX_ENTRY_BYTES - taken:
        message = cut_text(encoded, MAX_ENTRY_BYTES - taken).decode()
        missing += len(encoded) - len(message.encode())
    if not missing:
        return message, kept
    cut_before = kept.get("Cut")  # by the sender itself
    total = missing + cut_before if type(cut_before) is int and cut_before > 0 else missing
    return message + mark(total), {**kept, "Cut": total}


def cut_text(text: bytes, room: int) -> bytes:
    """Return the first bytes of a text, at most so many, that end with a whole character. What is no UTF-8 is cut where it falls."""
    end = room
    while end < len(text) and room - end < 3 and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[: end if end < len(text) and text[end] & 0xC0 != 0x80 else room]
