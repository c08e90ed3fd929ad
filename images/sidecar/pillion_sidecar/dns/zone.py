"""What DNS tells of the provider table: from the bytes of a query to the bytes of its answer. Pure.

With the zone `pillion` and two providers of GradingService, one of them in our own zone:

    GradingService.pillion.              A    10.0.0.7, 10.0.0.8         AAAA likewise
    GradingService.pillion.              SRV  0 1 6000 0a000007.addr.pillion., 1 1 6000 0a000008.addr.pillion.
    _GradingService._tcp.pillion.        SRV  the same
    0a000007.addr.pillion.               A    10.0.0.7; the address is in the name, so it holds for as long as anybody keeps it

Answers: NOERROR with records; NOERROR without any (the name is known, but nobody provides it, or nothing of that type); NXDOMAIN (not
among what is looked for here); SERVFAIL (the registry was not heard about it yet); REFUSED (outside the zone).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pillion_common.errors import InvalidInput
from pillion_common.names import packed_address, parse_url
from pillion_sidecar.dns import message as message
from pillion_sidecar.dns.message import AAAA, ANY, AXFR, IXFR, SOA, SRV, THE_QUESTION, A, Query
from pillion_sidecar.table.known import Known
from pillion_sidecar.wire import Provider

MAX_PROVIDERS = 64  # told in one answer; of more, others each time

_TARGET = re.compile(r"[0-9a-f]{8}|[0-9a-f]{32}")

AddressesOf = Callable[[str], tuple[bytes, ...] | None]


class Unresolved(Exception):
    """The answer needs addresses of these hosts first."""

    def __init__(self, hosts: set[str]) -> None:
        super().__init__(", ".join(sorted(hosts)))
        self.hosts = hosts


class _Found(NamedTuple):
    """What is to be said: a code, the records asked for, and those that only go along."""

    rcode: int
    answers: tuple[bytes, ...] = ()
    additional: tuple[bytes, ...] = ()


class _Endpoint(NamedTuple):
    host: str
    packed: bytes | None  # of a literal address
    target: bytes  # the DNS name of its host
    port: int
    weight: int
    priority: int


class Zone:
    """Answers queries about one zone.

    Args:
        table: what is known.
        own_zone: where the app runs; providers there have the better priority.
        domain: the zone's name, without a dot at its end.
        addresses: a host name's addresses, 4 or 16 bytes each; none if it has none; None if it has to be looked up first.
        rand: a number from 0 to below 1, for the order of answers.
    """

    def __init__(self, table: Known, own_zone: str, domain: str, addresses: AddressesOf, rand: Callable[[], float] = random.random) -> None:
        self._table = table
        self._own_zone = own_zone
        self._domain = tuple(domain.lower().split("."))
        self._addresses = addresses
        self._rand = rand
        self._names: tuple[str, ...] | None = None
        self._by_lower: dict[str, str] = {}
        self._between: set[str] = set()
        self._targets = _known_name(f"addr.{domain}")
        apex = _known_name(domain)
        # Of these five numbers only the last matters here: for how long "there is no such thing" may be kept.
        times = b"".join(number.to_bytes(4, "big") for number in (1, 60, 60, 60, message.TTL_S))
        self._soa = message.record(apex, SOA, apex + _known_name(f"hostmaster.{domain}") + times)

    def answer(self, query: bytes, *, udp: bool) -> bytes | None:
        """Answer one query.

        Args:
            udp: the answer must fit what the client takes over UDP, else it is cut and says so (TC).

        Returns:
            The answer; None if there is nothing to answer.

        Raises:
            Unresolved: ask again when these hosts have been looked up.
        """
        if len(query) < message.HEADER_BYTES or query[2] & 0x80:
            return None  # answers to answers could go back and forth for ever
        if query[2] >> 3 & 0x0F:
            return message.refusal(query, message.NOTIMP)
        try:
            asked = message.read(query)
        except message.Malformed:
            return message.refusal(query, message.FORMERR)
        found = _Found(message.BADVERS) if asked.edns is not None and asked.edns.version else self._find(asked)
        nothing = found.rcode in (message.NOERROR, message.NXDOMAIN) and not found.answers
        return message.write(asked, found.rcode, found.answers, (self._soa,) if nothing else (), found.additional, udp=udp)

    def _find(self, asked: Query) -> _Found:
        labels = [label.decode() for label in asked.labels]
        lower = tuple(label.lower() for label in labels)
        depth = len(lower) - len(self._domain)
        if asked.net not in (message.IN, message.ANY_CLASS) or lower[max(depth, 0) :] != self._domain or asked.kind in (AXFR, IXFR):
            return _Found(message.REFUSED)
        if depth == 0:
            return _Found(message.NOERROR, (self._soa,) if asked.kind in (SOA, ANY) else ())
        if any("." in label for label in lower[:depth]):
            return _Found(message.NXDOMAIN)  # no service name, though it would read like one
        self._know_names()
        text = ".".join(labels[:depth])
        if (name := self._named(text)) is not None:
            return self._tell(name, asked.kind, addresses=True)
        if lower[depth - 1] == "_tcp" and text[0] == "_" and (name := self._named(text[1 : -len("._tcp")])) is not None:
            return self._tell(name, asked.kind, addresses=False)
        if depth == 2 and lower[1] == "addr" and _TARGET.fullmatch(lower[0]):
            return _Found(message.NOERROR, _address_records(THE_QUESTION, [bytes.fromhex(lower[0])], asked.kind))
        return _Found(message.NOERROR if text.lower() in self._between else message.NXDOMAIN)

    def _know_names(self) -> None:
        """Keep an index of the names, and of what lies between them and the zone: a name above one that exists exists as well."""
        names = self._table.names()
        if names != self._names:
            self._names = names
            self._by_lower = {name.lower(): name for name in sorted(names, reverse=True)}
            parts = [name.split(".") for name in self._by_lower]
            between = {".".join(part[index:]) for part in parts for index in range(1, len(part))}
            self._between = {"addr", "_tcp", *between, *(f"{text}._tcp" for text in between)}

    def _named(self, text: str) -> str | None:
        """Return the service meant, in whatever case; of two that differ in nothing else, the one written like that, or the first."""
        assert self._names is not None
        return text if text in self._names else self._by_lower.get(text.lower())

    def _tell(self, name: str, kind: int, *, addresses: bool) -> _Found:
        entries = self._table.find(name)
        if entries is None:
            return _Found(message.SERVFAIL)
        endpoints = self._choose(entries)
        answers: tuple[bytes, ...] = ()
        additional: tuple[bytes, ...] = ()
        if addresses and kind in (A, AAAA, ANY):
            found, silent = self._all_addresses(endpoints)
            if not found and silent:
                return _Found(message.SERVFAIL)  # there are providers, under names that do not resolve now
            answers = _address_records(THE_QUESTION, found, kind)
        if kind in (SRV, ANY):
            unlike = {(one.host, one.port): one for one in endpoints}.values()
            answers += tuple(message.service_record(THE_QUESTION, one.priority, one.weight, one.port, one.target) for one in unlike)
            targets = {one.packed: one.target for one in endpoints if one.packed is not None}
            additional = tuple(message.address_record(target, packed) for packed, target in targets.items())
        return _Found(message.NOERROR, answers, additional)

    def _choose(self, entries: Iterable[Provider]) -> list[_Endpoint]:
        """Return what can be told of some providers: in another order each time, for most clients take the first; our own zone before."""
        chosen: list[_Endpoint] = []
        for entry in sorted(entries, key=lambda entry: (self._priority(entry), self._rand())):
            if (endpoint := self._endpoint(entry)) is not None:
                chosen.append(endpoint)
                if len(chosen) == MAX_PROVIDERS:
                    break
        return chosen

    def _priority(self, entry: Provider) -> int:
        return 1 if self._own_zone and entry.zone != self._own_zone else 0

    def _endpoint(self, entry: Provider) -> _Endpoint | None:
        """Return where a provider is; None if DNS has no way to tell."""
        try:
            url = parse_url(entry.url, "URL")
        except InvalidInput:
            return None
        packed = packed_address(url.host)
        target = message.name(url.host) if packed is None else _target_of(packed) + self._targets
        if target is None or (":" in url.host and packed is None):
            return None  # an address with a scope
        weight = min(max(1 if entry.weight is None else entry.weight, 0), 65535)
        return _Endpoint(url.host, packed, target, url.port, weight, self._priority(entry))

    def _all_addresses(self, endpoints: list[_Endpoint]) -> tuple[list[bytes], bool]:
        """Return the addresses of all, each once, and whether there is a host without one.

        Raises:
            Unresolved: some are not known yet.
        """
        found: dict[bytes, None] = {}
        unknown: set[str] = set()
        silent = False
        for one in endpoints:
            addresses = (one.packed,) if one.packed is not None else self._addresses(one.host)
            if addresses is None:
                unknown.add(one.host)
            else:
                silent = silent or not addresses
                found.update(dict.fromkeys(addresses))
        if unknown:
            raise Unresolved(unknown)
        return list(found), silent


def _address_records(owner: bytes, addresses: Iterable[bytes], kind: int) -> tuple[bytes, ...]:
    """Return A and AAAA records, those that are asked for."""
    size = {A: 4, AAAA: 16}.get(kind)
    return tuple(message.address_record(owner, packed) for packed in addresses if kind == ANY or len(packed) == size)


def _target_of(packed: bytes) -> bytes:
    """Return the label that stands for an address, as it goes over the wire."""
    text = packed.hex().encode()
    return bytes((len(text),)) + text


def _known_name(text: str) -> bytes:
    wire = message.name(text)
    assert wire is not None, text  # the settings let nothing else through
    return wire
