"""A zone with every kind of provider, and short ways to ask it, for tests."""

from __future__ import annotations

from itertools import count

from dnslib import EDNS0, QTYPE, RCODE, DNSLabel, DNSRecord
from fake_table import FakeTable

from pillion_sidecar.dns.zone import Zone
from pillion_sidecar.wire import Provider

HOSTS: dict[str, tuple[bytes, ...]] = {"db.internal": (bytes([10, 0, 1, 1]), bytes(15) + b"\2"), "nowhere": ()}

TABLE = FakeTable(
    {
        "GradingService": (
            Provider("GradingService", "http://10.0.0.7:6000", "g1", "west", 3),
            Provider("GradingService", "http://10.0.0.8:6001/v2", "g2", "east"),
            Provider("GradingService", "http://[fd00::1]:6000", "g3"),
        ),
        "Db": (Provider("Db", "http://db.internal:5432"),),
        "Lost": (Provider("Lost", "http://nowhere:1"),),
        "Half": (Provider("Half", "http://nowhere:1"), Provider("Half", "http://10.0.0.9:1")),
        "Slow": (Provider("Slow", "http://slow.internal:1"), Provider("Slow", "http://slower.internal:1")),
        "Mail": (),
        "Unheard": None,
        "shop.cart.v1": (Provider("shop.cart.v1", "http://10.0.0.9:80"),),
        "Twin": (Provider("Twin", "http://10.0.0.1:1"),),
        "twin": (Provider("twin", "http://10.0.0.2:1"),),
        "Odd": (
            Provider("Odd", "no url"),
            Provider("Odd", "http://[fe80::1%25eth0]:80"),
            Provider("Odd", "http://" + "x" * 64 + ":80"),
            Provider("Odd", "http://[::ffff:10.0.0.3]:80", weight=-1),
            Provider("Odd", "http://10.0.0.4:80", weight=1 << 40),
        ),
    }
)


def zone(table: FakeTable = TABLE, own_zone: str = "", domain: str = "pillion") -> Zone:
    # Each number is less than the one before: so the order of the table is turned round.
    numbers = count(0, -1)
    return Zone(table, own_zone, domain, HOSTS.get, lambda: next(numbers) / 1e9 + 0.9)


def ask(name: str, kind: str = "A", where: Zone | None = None, *, udp: bool = True, edns: int = 1232, klass: str = "IN") -> DNSRecord:
    query = DNSRecord.question(DNSLabel(name.encode()), kind, klass)
    if edns:
        query.add_ar(EDNS0(udp_len=edns))
    answer = (where or zone()).answer(query.pack(), udp=udp)
    assert answer is not None
    reply = DNSRecord.parse(answer)
    assert reply.header.id == query.header.id
    assert (reply.header.qr, reply.header.ra, reply.header.rd, reply.header.opcode) == (1, 0, 1, 0)
    assert [str(question) for question in reply.questions] == [str(question) for question in query.questions]
    return reply


def told(reply: DNSRecord) -> list[str]:
    """Return the answers as dig +short shows them."""
    return [record.rdata.toZone() for record in reply.rr]


def code(reply: DNSRecord) -> str:
    """Return the code, and whether it is an empty answer with an SOA."""
    soa = [record for record in reply.auth if record.rtype == QTYPE.SOA]
    empty = " nothing" if not reply.rr and soa else ""
    return f"{RCODE.get(reply.header.rcode)}{empty}"
