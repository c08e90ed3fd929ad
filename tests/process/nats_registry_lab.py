"""Some of the registry's stores on one bucket in NATS, for tests."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from nats_lab import NatsServer, store_uri

from pillion_common.models import Registration, State
from pillion_common.nats_link import parse_place
from pillion_registry.catalog import Record
from pillion_registry.store.base import Put, SetState, Stored
from pillion_registry.store.mirror import News
from pillion_registry.store.nats import NatsStore

PLACE = "http://10.0.0.1:80"
GIVE_UP_S = 1.0


class Opened:
    """A store that was loaded, what it was then, and the news since."""

    def __init__(self, store: NatsStore, stored: Stored) -> None:
        self.store = store
        self.stored = stored
        self.news: list[News] = []
        store.listen(self.news.append)

    def states(self) -> dict[str, State]:
        return {key: one.kept.state for key, one in self.store.mirror.instances.items()}


@asynccontextmanager
async def stores(*servers: NatsServer, count: int = 2, give_up_s: float = GIVE_UP_S) -> AsyncIterator[list[Opened]]:
    """Open some stores on one new bucket."""
    uri = store_uri(list(servers), prefix=f"t{secrets.token_hex(6)}", replicas=min(3, len(servers)))
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(count):
            store = NatsStore(parse_place(uri), give_up_s=give_up_s)
            stack.push_async_callback(store.close)
            opened.append(Opened(store, await store.load()))
        yield opened


def record(instance_id: str = "i1", generation: int = 1, url: str = "", incarnation: int | None = None, name: str = "Log") -> Record:
    given = Registration(name, url or f"{PLACE}/{instance_id}", heartbeat_url=PLACE, instance_id=instance_id, incarnation=incarnation)
    return Record(instance_id, generation, "10.0.0.9", 1000.5, given)


def put(one: Record, state: State = State.STARTING, replaced: tuple[str, ...] = ()) -> Put:
    return Put(one, state, 1000.5, replaced, 0)


def became(state: State, expected: int | None = None, firm: bool = True, instance_id: str = "i1", hidden: float | None = None) -> SetState:
    return SetState(instance_id, 1, state, "why", 2000.0, 0, hidden_until_s=hidden, expected=expected, firm=firm)


async def until(look: object, within_s: float = 5.0) -> None:
    assert callable(look)
    async with asyncio.timeout(within_s):
        while not look():
            await asyncio.sleep(0.01)


async def settled(*some: Opened) -> None:
    """Return when all have seen the same."""
    await until(lambda: len({one.store.mirror.revision for one in some}) == 1)
