"""DNS messages (RFC 1035, RFC 6891): reads queries and writes answers. Pure.

No library does it, for that would cost each app a megabyte (docs/adr/0018): a query is one name and perhaps EDNS, and every answer's owner
is the question, so a record is a pointer to it and a few fixed fields. The tests hold both to what dnslib reads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

A, SOA, AAAA, SRV, OPT, IXFR, AXFR, ANY = 1, 6, 28, 33, 41, 251, 252, 255
IN, ANY_CLASS = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

# Whoever keeps an answer sends to the dead until it forgets it: so nobody is to keep one. (Consul's default for services as well.)
TTL_S = 0
HEADER_BYTES = 12
MAX_QUERY_BYTES = 512  # one name, at most 255 bytes, and a few options
MAX_ADDITIONAL = 2  # EDNS and a signature
MAX_NAME_BYTES = 255
MAX_LABEL_BYTES = 63
POINTER = 0xC0  # a name goes on elsewhere in the message: two bytes, the end of what is here
PLAIN_BYTES = 512  # what any client takes over UDP
MOST_UDP_BYTES = 1232  # more may be cut into fragments on its way (DNS flag day 2020)
MOST_TCP_BYTES = 65535

THE_QUESTION = b"\xc0\x0c"  # a pointer to the name at byte 12

_COUNTS = struct.Struct("!4H")  # of questions, answers, authority records, additional records
_KIND_AND_NET = struct.Struct("!2H")
_RECORD = struct.Struct("!HHIH")  # behind its owner: type, class, TTL, length of what follows

_TTL = TTL_S.to_bytes(4, "big")


class Malformed(Exception):
    """The query is none."""


class Edns(NamedTuple):
    """What a client says of itself: the most bytes it takes over UDP, the version it speaks, its DO bit."""

    most_bytes: int
    version: int
    do: bool


class Query(NamedTuple):
    """A query with its one question: the name's labels as they were written."""

    id: bytes
    recursion_desired: bool
    labels: tuple[bytes, ...]
    kind: int
    net: int
    edns: Edns | None


def read(query: bytes) -> Query:
    """Read a query: at least a header, with QR 0 and opcode 0. What comes after what the header counts is not looked at.

    Raises:
        Malformed: it is not one question, and nothing else.
    """
    *others, additional = _COUNTS.unpack_from(query, 4)
    if len(query) > MAX_QUERY_BYTES or others != [1, 0, 0] or additional > MAX_ADDITIONAL:
        raise Malformed
    try:
        labels, at = _name_at(query, HEADER_BYTES)
        kind, net = _KIND_AND_NET.unpack_from(query, at)
        edns = _edns_at(query, at + _KIND_AND_NET.size, additional)
    except (IndexError, struct.error) as exc:
        raise Malformed from exc
    return Query(query[:2], bool(query[2] & 1), labels, kind, net, edns)


def _name_at(query: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """Return the labels of a question's name, and where it ends. It has no pointer: there is no name before it."""
    labels = []
    while length := query[at]:
        label = query[at + 1 : at + 1 + length]
        if length > MAX_LABEL_BYTES or len(label) < length or not label.isascii():
            raise Malformed
        labels.append(label)
        at += 1 + length
    if not _is_name(labels):
        raise Malformed
    return tuple(labels), at + 1


def _edns_at(query: bytes, at: int, count: int) -> Edns | None:
    """Return what the EDNS record says, the one among `count` additional records at most."""
    edns = None
    for _ in range(count):
        owner = at
        at = _after_name(query, at)
        kind, most_bytes, flags, length = _RECORD.unpack_from(query, at)
        at += _RECORD.size + length
        if at > len(query) or (kind == OPT and (edns is not None or query[owner])):
            raise Malformed
        if kind == OPT:
            edns = Edns(most_bytes, flags >> 16 & 0xFF, bool(flags & 0x8000))
    return edns


def _after_name(query: bytes, at: int) -> int:
    """Return where a name ends, wherever it goes on."""
    while length := query[at]:
        if length >= POINTER:
            return at + 2
        if length > MAX_LABEL_BYTES:
            raise Malformed
        at += 1 + length
    return at + 1


def name(text: str) -> bytes | None:
    """Return a host or domain as a DNS name; None if it cannot be one."""
    labels = tuple(text.encode("ascii", "replace").rstrip(b".").split(b"."))
    return _wire(labels) if all(labels) and _is_name(labels) else None


def record(owner: bytes, kind: int, data: bytes) -> bytes:
    """Return one record."""
    return b"%b%b%b%b%b%b" % (owner, kind.to_bytes(2, "big"), b"\0\1", _TTL, len(data).to_bytes(2, "big"), data)


def address_record(owner: bytes, packed: bytes) -> bytes:
    """Return the A or AAAA record of an address, 4 or 16 bytes."""
    return record(owner, A if len(packed) == 4 else AAAA, packed)


def service_record(owner: bytes, priority: int, weight: int, port: int, target: bytes) -> bytes:
    """Return an SRV record (RFC 2782)."""
    return record(owner, SRV, b"".join(number.to_bytes(2, "big") for number in (priority, weight, port)) + target)


def refusal(query: bytes, rcode: int) -> bytes:
    """Return the shortest answer there is: the header alone, with a code."""
    return query[:2] + bytes((0x80 | (query[2] & 0x79), rcode)) + bytes(8)


def write(
    query: Query, rcode: int, answers: Sequence[bytes], authority: Sequence[bytes], additional: Sequence[bytes], *, udp: bool
) -> bytes:
    """Return an answer with as many records as the client takes.

    Those that only go along are left out first, for a client that needs them can ask. Leaving out answers is told by TC: ask over TCP.
    """
    edns = query.edns
    tail = b"" if edns is None else _options(edns, rcode)
    question = b"%b%b%b" % (_wire(query.labels), query.kind.to_bytes(2, "big"), query.net.to_bytes(2, "big"))
    most_bytes = MOST_TCP_BYTES if not udp else PLAIN_BYTES if edns is None else min(max(edns.most_bytes, PLAIN_BYTES), MOST_UDP_BYTES)
    left = most_bytes - HEADER_BYTES - len(question) - len(tail) - sum(map(len, authority))
    told = _as_fit(answers, left)
    cut = len(told) < len(answers)
    along = () if cut else _as_fit(additional, left - sum(map(len, told)))
    ours = rcode in (NOERROR, NXDOMAIN)
    flags = 0x8000 | 0x0400 * ours | 0x0200 * cut | 0x0100 * query.recursion_desired | (rcode & 0x0F)
    numbers = (flags, 1, len(told), len(authority), len(along) + bool(tail))
    header = query.id + b"".join(number.to_bytes(2, "big") for number in numbers)
    return b"".join((header, question, *told, *authority, *along, tail))


def _as_fit(records: Sequence[bytes], left: int) -> Sequence[bytes]:
    for count, one in enumerate(records):
        left -= len(one)
        if left < 0:
            return records[:count]
    return records


def _options(edns: Edns, rcode: int) -> bytes:
    """Return our EDNS record: version 0, the upper bits of the code, their DO bit."""
    ttl = bytes((rcode >> 4, 0, 0x80 * edns.do, 0))
    return b"\0" + OPT.to_bytes(2, "big") + MOST_UDP_BYTES.to_bytes(2, "big") + ttl + b"\0\0"


def _wire(labels: Sequence[bytes]) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def _is_name(labels: Sequence[bytes]) -> bool:
    return all(len(label) <= MAX_LABEL_BYTES for label in labels) and sum(len(label) + 1 for label in labels) < MAX_NAME_BYTES
