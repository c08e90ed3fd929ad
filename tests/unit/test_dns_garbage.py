"""Bytes and names that are no query: refused in few bytes or not answered, and nothing is brought down."""

from __future__ import annotations

from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSError, DNSHeader, DNSLabel, DNSQuestion, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st
from zone_lab import zone

from pillion_sidecar.dns.message import Edns, Malformed, read

# What is no query.


def header(**bits: int) -> DNSHeader:
    made = DNSHeader(id=4660, **{name: value for name, value in bits.items() if name not in ("q", "a", "auth", "ar")})
    made.q, made.a, made.auth, made.ar = (bits.get(name, 0) for name in ("q", "a", "auth", "ar"))
    return made


def raw(after: bytes = b"", **bits: int) -> bytes:
    buffer = DNSRecord(header(**bits)).pack()  # which sets the counts to what is there: none
    counts = b"".join(bits.get(name, 0).to_bytes(2, "big") for name in ("q", "a", "auth", "ar"))
    return bytes(buffer[:4]) + counts + after


QUESTION = b"\4Twin\7pillion\0\0\1\0\1"
OPT = b"\0\0\x29\4\0\0\0\0\0\0\0"


def reply_to(query: bytes) -> tuple[str, int] | None:
    answer = zone().answer(query, udp=True)
    if answer is None:
        return None
    reply = DNSRecord.parse(answer)
    assert answer[:2] == query[:2]
    assert reply.header.qr == 1
    return RCODE.get(reply.header.rcode), len(answer)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", None),
        (b"\x12\x34", None),
        (raw(QUESTION, q=1)[:11], None),
        (raw(QUESTION, q=1, qr=1), None),
        (raw(qr=1, opcode=5), None),
        (raw(QUESTION, q=1, opcode=1), ("NOTIMP", 12)),
        (raw(QUESTION, q=1, opcode=2), ("NOTIMP", 12)),
        (raw(QUESTION, q=1, opcode=4), ("NOTIMP", 12)),
        (raw(QUESTION, q=1, opcode=5), ("NOTIMP", 12)),
        (raw(QUESTION, q=1, opcode=15), ("NOTIMP", 12)),
        (raw(), ("FORMERR", 12)),
        (raw(q=1), ("FORMERR", 12)),
        (raw(QUESTION[:-1], q=1), ("FORMERR", 12)),
        (raw(QUESTION * 2, q=2), ("FORMERR", 12)),
        (raw(QUESTION, q=65535), ("FORMERR", 12)),
        (raw(QUESTION + OPT, q=1, a=1), ("FORMERR", 12)),
        (raw(QUESTION + OPT, q=1, auth=1), ("FORMERR", 12)),
        (raw(QUESTION + OPT + OPT, q=1, ar=2), ("FORMERR", 12)),
        (raw(QUESTION + OPT * 3, q=1, ar=3), ("FORMERR", 12)),
        (raw(QUESTION + b"\1x" + OPT, q=1, ar=1), ("FORMERR", 12)),
        (raw(QUESTION + OPT[:-1], q=1, ar=1), ("FORMERR", 12)),
        (raw(b"\xc0\x0c\0\1\0\1", q=1), ("FORMERR", 12)),
        (raw(b"\xc0\x0e\0\1\0\1", q=1), ("FORMERR", 12)),
        (raw(b"\x80" + b"x" * 128 + b"\0\0\1\0\1", q=1), ("FORMERR", 12)),
        (raw(b"\2\xff\xfe\0\0\1\0\1", q=1), ("FORMERR", 12)),
        (raw((b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1", q=1), ("FORMERR", 12)),
        (raw(QUESTION + bytes(500), q=1), ("FORMERR", 12)),
        (raw(QUESTION, q=1), ("NOERROR", 12 + len(QUESTION) + 16)),
        (raw(QUESTION + b"junk", q=1), ("NOERROR", 12 + len(QUESTION) + 16)),
        (raw((b"\x3f" + b"x" * 63) * 3 + b"\x35" + b"x" * 53 + b"\7pillion\0\0\1\0\1", q=1), ("NXDOMAIN", 339)),
        (raw((b"\x3f" + b"x" * 63) * 3 + b"\x36" + b"x" * 54 + b"\7pillion\0\0\1\0\1", q=1), ("FORMERR", 12)),
    ],
)
def test_what_is_no_query_is_refused_in_few_bytes_or_not_answered(query: bytes, expected: tuple[str, int] | None) -> None:
    assert reply_to(query) == expected


def test_a_chain_of_pointers_ends_somewhere() -> None:
    chain = b"".join((0xC000 | (12 + 2 * index)).to_bytes(2, "big") for index in range(240))
    assert reply_to(raw(b"\0\0" + chain, q=1)) is not None
    assert reply_to(raw(QUESTION + chain, q=1, ar=2)) == ("FORMERR", 12)


def like_a_query(pieces: list[bytes], counts: list[int], flags: int) -> bytes:
    return b"\x12\x34" + flags.to_bytes(2, "big") + b"".join(number.to_bytes(2, "big") for number in counts) + b"".join(pieces)


A_PIECE = st.sampled_from(
    [QUESTION, OPT, b"\0", b"\xc0\x0c", b"\xc0\x0e", b"\4Twin", b"\7pillion", b"\4addr", b"\x080a000007"]
) | st.binary(max_size=40)
QUERIES: Any = st.binary(max_size=600) | st.builds(
    like_a_query,
    st.lists(A_PIECE, max_size=12),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.sampled_from([0, 0x0100, 0x0120]) | st.integers(0, 65535),
)


@given(QUERIES, st.booleans())
def test_no_bytes_whatsoever_bring_it_down(query: bytes, udp: bool) -> None:
    answer = zone().answer(query, udp=udp)
    if answer is None:
        assert len(query) < 12 or query[2] & 0x80
        return
    assert answer[:2] == query[:2]
    assert answer[2] & 0x80
    DNSRecord.parse(answer)  # whatever it is, it is a message


@given(st.text(min_size=1, max_size=40), st.sampled_from(["A", "AAAA", "SRV", "ANY"]))
def test_no_name_whatsoever_brings_it_down(text: str, kind: str) -> None:
    labels = tuple(label[:63] for label in text.encode("utf-8", "replace").split(b".") if label)
    query = DNSRecord(q=DNSQuestion(DNSLabel((*labels, b"pillion")), getattr(QTYPE, kind)))
    assert zone().answer(query.pack(), udp=True) is not None


# What is a query, dnslib reads the same way.

LABELS: Any = st.lists(st.binary(min_size=1, max_size=63).filter(bytes.isascii), max_size=6).filter(
    lambda labels: sum(len(label) + 1 for label in labels) < 255
)
OPTIONS: Any = st.lists(st.builds(EDNSOption, st.integers(0, 65535), st.binary(max_size=20)), max_size=3)
EDNS: Any = st.none() | st.builds(
    lambda most, version, do, options: EDNS0(udp_len=most, version=version, flags="do" * do, opts=options),
    st.integers(0, 65535),
    st.integers(0, 255),
    st.booleans(),
    OPTIONS,
)


def as_dnslib_reads(query: bytes) -> tuple[Any, ...]:
    asked = DNSRecord.parse(query)
    options = [record for record in asked.ar if record.rtype == QTYPE.OPT]
    edns = Edns(options[0].edns_len, options[0].edns_ver, bool(options[0].edns_do)) if options else None
    return query[:2], bool(asked.header.rd), asked.q.qname.label, asked.q.qtype, asked.q.qclass, edns


@given(LABELS, st.integers(0, 65535), st.integers(0, 65535), st.booleans(), EDNS)
def test_a_query_is_read_as_it_was_written(labels: list[bytes], kind: int, net: int, wanted: bool, edns: Any) -> None:
    made = DNSRecord(DNSHeader(id=4660, rd=wanted), q=DNSQuestion(DNSLabel(labels), kind, net))
    if edns is not None:
        made.add_ar(edns)
    query = bytes(made.pack())
    found = read(query)
    assert found == (b"\x12\x34", wanted, tuple(labels), kind, net, found.edns)
    assert found == as_dnslib_reads(query)
    assert (found.edns is None) == (edns is None)


@given(QUERIES)
def test_whatever_is_read_dnslib_reads_the_same_way(query: bytes) -> None:
    if len(query) < 12:
        return
    try:
        found = read(query)
    except Malformed:
        return
    try:
        expected = as_dnslib_reads(query)
    except (DNSError, ValueError):  # an option or a record's data, neither of which is looked at
        assert query[11]
        return
    assert found == expected
