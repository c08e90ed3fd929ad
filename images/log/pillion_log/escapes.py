"""What makes an entry harmless: characters that end a line, move a terminal's cursor or turn the reading direction are shown, never sent.

In storage they become JSON escapes, so that one line of the file is one entry for every reader, `cat` included; in text output they become
the same escapes for the eye: a line end is shown as the two characters `\\n`. Pure.
"""

from __future__ import annotations

import json
import re


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# C0 and C1 controls with DEL, line and paragraph separators, the marks that turn the reading direction (UAX #9), and what nobody sees:
# invisible operators, byte order marks, annotations, and the tags in which a second text can be hidden.
_HOSTILE = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2065),
    *range(0x2066, 0x206A),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xE0000, 0xE0080),
]
_TEXT = {code: _SHORT.get(chr(code)) or _escape(code) for code in _HOSTILE}

# JSON itself escapes C0. All others stand in a JSON text only inside strings, so each can be replaced by its escape wherever it is found.
_ENCODED = re.compile("|".join(re.escape(chr(code)) for code in _HOSTILE if code >= 0x7F).encode())


def escape_json(encoded: bytes) -> bytes:
    """Return a JSON text of the same meaning without hostile characters."""
    return encoded if encoded.isascii() and 0x7F not in encoded else _ENCODED.sub(_as_json, encoded)


def escape_text(text: str) -> str:
    """Return one line of text, with each hostile character shown as its escape."""
    return text if text.isascii() and text.isprintable() else text.translate(_TEXT)


def _as_json(match: re.Match[bytes]) -> bytes:
    return json.dumps(match[0].decode())[1:-1].encode()
