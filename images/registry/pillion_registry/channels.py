"""The persistent connections to the instances: one per instance and origin, shared by its heartbeats and its patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pillion_common.http.client import Channel
from pillion_common.names import Url, parse_url
from pillion_common.networks import TargetRule
from pillion_registry.catalog import Record

OnClosed = Callable[[str], None]
_Key = tuple[str, tuple[str, str, int]]  # who registered it (that decides what may be called), and scheme, host, port


class Channels:
    """Opens channels when first asked for, closes them when their instance goes or registers anew with another address.

    Args:
        rule: which addresses may be called.
        on_closed: told the instance's id when its peer closes an idle connection: it may have died.
    """

    def __init__(self, rule: TargetRule, on_closed: OnClosed) -> None:
        self._rule = rule
        self._on_closed = on_closed
        self._open: dict[str, dict[_Key, Channel]] = {}

    def open(self, record: Record, url: Url) -> Channel:
        """Return a channel of the caller's own, to be closed by it."""
        return Channel(url, allow=partial(self._allows, record.registrant))

    def get(self, record: Record, url: Url) -> Channel:
        """Return the channel that a URL of an instance shares with its other URLs."""
        channels = self._open.setdefault(record.instance_id, {})
        key = (record.registrant, url.origin)
        channel = channels.get(key)
        if channel is None:
            closed = partial(self._on_closed, record.instance_id)
            channel = channels[key] = Channel(url, allow=partial(self._allows, record.registrant), on_closed=closed)
        return channel

    def renew(self, record: Record) -> None:
        """Close the channels that a new registration of an instance has no use for."""
        channels = self._open.get(record.instance_id)
        if channels:
            given = record.registration
            urls = [parse_url(url, "URL") for url in (given.heartbeat_url, given.service_update_url) if url]
            for key in channels.keys() - {(record.registrant, url.origin) for url in urls}:
                channels.pop(key).close()

    def drop(self, instance_id: str) -> None:
        """Close an instance's channels."""
        for channel in self._open.pop(instance_id, {}).values():
            channel.close()

    def close(self) -> None:
        """Close all."""
        for instance_id in list(self._open):
            self.drop(instance_id)

    def _allows(self, registrant: str, address: str) -> bool:
        return self._rule.allows(address, registrant)
