"""The log service's numbers as Prometheus reads them, made when it asks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pillion_log.store.base import StoreStats

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts:
    """What the intake has counted since the start; whoever takes entries in adds to it."""

    __slots__ = ("accepted", "duplicates", "rejected")

    def __init__(self) -> None:
        self.accepted = self.duplicates = self.rejected = 0


class Tailed(NamedTuple):
    """How the tails are."""

    streams: int
    missed: int


class Heard(NamedTuple):
    """What came over one transport of syslog since the start.

    Attributes:
        malformed: of those received, the ones without a header that can be read; they are kept.
        dropped: found no room; None over TCP, where a sender waits.
        refused: connections or datagrams of senders who may not send, or are too many.
    """

    received: int
    malformed: int
    dropped: int | None
    refused: int


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    values: Iterable[tuple[str, float]]  # labels, value


def exposition(stats: StoreStats, fault: str | None, tails: Tailed, counts: Counts | None, syslog: Mapping[str, Heard]) -> bytes:
    """Return all numbers in Prometheus' text format. Names of services need no escape.

    Args:
        syslog: by transport; empty if none is taken.
    """
    lines: list[str] = []
    for metric in [*_intake(counts), *_syslog(syslog), *_store(stats, fault), *_tails(tails)]:
        name = f"pillion_log_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        lines += [f"{name}{labels} {value:.17g}" for labels, value in metric.values]
    return ("\n".join(lines) + "\n").encode()


def _intake(counts: Counts | None) -> list[_Metric]:
    if counts is None:
        return []
    return [
        _Metric("accepted_total", "counter", "Entries stored since the start.", [("", counts.accepted)]),
        _Metric("duplicates_total", "counter", "Entries that were sent again and not stored again.", [("", counts.duplicates)]),
        _Metric("rejected_total", "counter", "Lines that were no entries.", [("", counts.rejected)]),
    ]


def _syslog(heard: Mapping[str, Heard]) -> list[_Metric]:
    rows = [(f'{{transport="{transport}"}}', one) for transport, one in heard.items()]
    metrics = [
        _Metric("syslog_received_total", "counter", "Messages of syslog that were read.", [(label, one.received) for label, one in rows]),
        _Metric(
            *("syslog_malformed_total", "counter", "Of these, those without a header that can be read; they are kept."),
            [(label, one.malformed) for label, one in rows],
        ),
        _Metric(
            *("syslog_dropped_total", "counter", "Datagrams that came faster than they could be stored."),
            [(label, one.dropped) for label, one in rows if one.dropped is not None],
        ),
        _Metric(
            *("syslog_refused_total", "counter", "Connections or datagrams of senders who may not send, or are too many."),
            [(label, one.refused) for label, one in rows],
        ),
    ]
    return metrics if heard else []


def _store(stats: StoreStats, fault: str | None) -> list[_Metric]:
    services = [(f'{{service="{name}"}}', count) for name, count in sorted(stats.services.items())]
    return [
        _Metric("entries", "gauge", "Entries that are kept.", [(label, count.lines) for label, count in services]),
        _Metric("bytes", "gauge", "Bytes of the entries that are kept, unpacked.", [(label, count.bytes) for label, count in services]),
        _Metric("gaps", "gauge", "Entries missing, by the gaps that are kept.", [(label, count.gaps) for label, count in services]),
        _Metric("written_bytes_total", "counter", "Bytes of log ever written here, unpacked.", [("", stats.end)]),
        _Metric("removed_bytes_total", "counter", "Bytes of log that retention removed since the start.", [("", stats.removed_bytes)]),
        _Metric("disk_bytes", "gauge", "Bytes that the store takes on its disk.", [("", stats.disk_bytes)]),
        _Metric("damaged", "gauge", "Places found since the start that the medium gave back changed.", [("", stats.damaged)]),
        _Metric("store_fault", "gauge", "1 while nothing can be stored.", [("", 0 if fault is None else 1)]),
    ]


def _tails(tails: Tailed) -> list[_Metric]:
    return [
        _Metric("tails", "gauge", "Tails that are open.", [("", tails.streams)]),
        _Metric("tail_missed_total", "counter", "Entries that tails which read too slowly were not sent.", [("", tails.missed)]),
    ]
