"""Asks the sidecars of consumers whether they reach the providers that they were told of: `POST /reach` on their peer listeners.

Only those are asked that registered with the token, which alone proves to them who asks; older ones have no such route. What they answer
counts for some seconds, so that whoever may read cannot have them dial all day.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from pillion_common.errors import InvalidInput, PeerError
from pillion_common.logs import EventLog
from pillion_common.models import State, decode, encode
from pillion_common.names import address_of, parse_url
from pillion_common.networks import TargetRule
from pillion_common.trust import Token
from pillion_registry.catalog import Catalog, Instance, Record
from pillion_registry.channels import Channels
from pillion_registry.lanes import Lanes
from pillion_registry.prober import tidy
from pillion_registry.wire import ReachAnswer, ReachRequest, Unreached

MAX_URLS = 20  # what a sidecar dials for one question
MAX_ASKED = 3  # consumers, for one who asks why
MAX_ASKING = 16  # who ask why at the same time; for more there is no finding
MAX_KEPT = 1_000
FRESH_S = 5.0
TIMEOUT_S = 2.0
ROUTE, UPDATES = "/reach", "/services"

_log = EventLog("registry")


class Reach:
    """Asks, and remembers the answers for a moment.

    Args:
        rule: which addresses may be called for whom; a provider cannot have others dialled for it.
        token: None asks nobody.
    """

    def __init__(
        self, catalog: Catalog, channels: Channels, rule: TargetRule, token: Token | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._catalog = catalog
        self._channels = channels
        self._rule = rule
        self._token = token
        self._clock = clock
        self._asking = 0
        self._lanes = Lanes()
        self._kept: OrderedDict[tuple[str, int, str], tuple[float, tuple[Unreached, ...]]] = OrderedDict()

    async def unreached(self, consumer: str, service: str) -> dict[str, tuple[Unreached, ...]]:
        """Return which providers some instances of a consumer cannot connect to, by the instances' ids.

        Args:
            consumer: a service's name, or the id of one instance.
        """
        urls = self._urls(service)
        asked = list(self._who(consumer, service)) if urls else []
        if not asked or self._asking >= MAX_ASKING:
            return {}
        self._asking += 1
        try:
            answers = await asyncio.gather(*(self._ask(record, service, urls) for record in asked))
        finally:
            self._asking -= 1
        return {record.instance_id: answer for record, answer in zip(asked, answers, strict=True) if answer}

    def _who(self, consumer: str, service: str) -> Iterator[Record]:
        one = self._catalog.get(consumer)
        some = [one] if one else self._catalog.named(consumer)
        return islice((instance.record for instance in some if self._may_be_asked(instance, service)), MAX_ASKED)

    def _may_be_asked(self, instance: Instance, service: str) -> bool:
        given = instance.record.registration
        if self._token is None or not instance.record.trusted or instance.gone or given.protocol != 2 or service not in given.requires:
            return False
        # A path of its own is an agent's, which stands elsewhere than its apps.
        return bool(given.service_update_url) and parse_url(given.service_update_url or "", "URL").target == UPDATES

    def _urls(self, service: str) -> tuple[str, ...]:
        up = (one.record for one in self._catalog.named(service) if one.state is State.UP)
        return tuple(record.url for record in up if self._may_be_dialled(record))[:MAX_URLS]

    def _may_be_dialled(self, record: Record) -> bool:
        host = parse_url(record.url, "URL").host
        return address_of(host) is None or self._rule.allows(host, record.registrant)

    async def _ask(self, record: Record, service: str, urls: tuple[str, ...]) -> tuple[Unreached, ...]:
        key = record.instance_id, record.generation, service
        async with self._lanes.hold(record.instance_id):  # a sidecar dials for one at a time
            kept = self._kept.get(key)
            if kept is not None and self._clock() - kept[0] < FRESH_S:
                return tuple(one for one in kept[1] if one.url in urls)
            found = await self._request(record, service, urls)
            self._kept[key] = self._clock(), found
            self._kept.move_to_end(key)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return found

    async def _request(self, record: Record, service: str, urls: tuple[str, ...]) -> tuple[Unreached, ...]:
        """Return what one sidecar answers; nothing if it does not."""
        assert self._token is not None
        channel = self._channels.open(record, parse_url(record.registration.service_update_url or "", "ServiceUpdateURL"))
        headers = ("Content-Type: application/json", self._token.header)
        try:
            answer = await channel.request("POST", ROUTE, body=encode(ReachRequest(service, urls)), headers=headers, timeout_s=TIMEOUT_S)
            said = decode(answer.body, ReachAnswer) if answer.status == 200 else ReachAnswer()
        except (PeerError, InvalidInput) as exc:
            _log.debug("reach_failed", f"{record.instance_id} does not say what it reaches: {exc.message}", instance=record.instance_id)
            return ()
        finally:
            channel.close()
        return tuple(Unreached(one.url, tidy(one.error)) for one in said.unreached if one.url in urls)
