"""Addresses of the providers whose URL has a host name: looked up when DNS is asked for them, and kept for a moment."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from pillion_common.errors import PeerError
from pillion_common.http.resolver import Resolver, default_resolver
from pillion_common.names import packed_address

KEPT_S = 1.0
LOOK_UP_S = 2.0  # a client asks again after 5 s
MAX_KEPT = 1024


class HostNames:
    """The addresses of host names.

    Args:
        domain: a host below it is none: looking it up could end in asking ourselves.
        resolver: None is the one this process shares.
    """

    def __init__(self, domain: str, resolver: Resolver | None = None) -> None:
        self._own = f".{domain}"
        self._resolver = resolver
        self._kept: dict[str, tuple[float, tuple[bytes, ...]]] = {}

    def get(self, host: str) -> tuple[bytes, ...] | None:
        """Return a host's addresses, 4 or 16 bytes each, none if it has none; None if it has to be looked up."""
        if host.rstrip(".").endswith(self._own):
            return ()
        kept = self._kept.get(host)
        return kept[1] if kept is not None and time.monotonic() < kept[0] else None

    async def look_up(self, hosts: set[str]) -> None:
        """Look hosts up, beside each other; `get` knows them then. One that is not found within LOOK_UP_S has no address."""
        found: dict[str, tuple[bytes, ...]] = {}
        done = asyncio.Event()

        def take(host: str, answer: list[str] | PeerError) -> None:
            texts = [] if isinstance(answer, PeerError) else answer
            found[host] = tuple(packed for text in texts if (packed := packed_address(text)) is not None)
            if len(found) == len(hosts):
                done.set()

        resolver = self._resolver or default_resolver()
        questions = [resolver.ask(host, partial(take, host)) for host in hosts]
        try:
            async with asyncio.timeout(LOOK_UP_S):
                await done.wait()
        except TimeoutError:
            pass
        finally:
            for question in questions:
                if question is not None:
                    question.cancel()
        if len(self._kept) + len(hosts) > MAX_KEPT:
            self._kept.clear()
        until = time.monotonic() + KEPT_S
        self._kept.update({host: (until, found.get(host, ())) for host in hosts})
