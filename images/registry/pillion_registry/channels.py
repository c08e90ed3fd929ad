"""The persistent connections to the instances: one per instance and origin, shared by its heartbeats and its patches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from pillion_common.http.client import Channel
from pillion_common.names import parse_url
from pillion_common.trust import TargetRule
from pillion_registry.catalog import Record

OnClosed = Callable[[str, int], None]


class Channels:
    """Opens channels when first asked for, closes them when their instance goes or registers anew.

    Args:
        rule: which addresses may be called.
        on_closed: told (instance id, generation) when a peer closes an idle connection: it may have died.
    """

    def __init__(self, rule: TargetRule, on_closed: OnClosed) -> None:
        self._rule = rule
        self._on_closed = on_closed
        self._open: defaultdict[str, dict[tuple[object, ...], Channel]] = defaultdict(dict)

    def open(self, record: Record, url: str) -> tuple[Channel, str]:
        """Return a channel of the caller's own, to be closed by it, and the target for its request line."""
        parts = parse_url(url, "URL")
        return Channel(parts, allow=lambda address: self._rule.allows(address, record.registrant)), parts.target

    def get(self, record: Record, url: str) -> tuple[Channel, str]:
        """Return the channel that a URL of an instance shares with its other URLs, and the target for its request line."""
        parts = parse_url(url, "URL")
        key = (record.generation, parts.origin)
        channel = self._open[record.instance_id].get(key)
        if channel is None:
            channel = Channel(
                parts,
                allow=lambda address: self._rule.allows(address, record.registrant),
                on_closed=lambda: self._on_closed(record.instance_id, record.generation),
            )
            self._open[record.instance_id][key] = channel
        return channel, parts.target

    def drop(self, instance_id: str) -> None:
        """Close an instance's channels."""
        for channel in self._open.pop(instance_id, {}).values():
            channel.close()

    def close(self) -> None:
        """Close all."""
        for instance_id in list(self._open):
            self.drop(instance_id)
