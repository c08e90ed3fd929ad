"""Providers that register, die, drain, leave and come back, so many changes a second, through any replica."""

from __future__ import annotations

import asyncio
import json
import random
import time

from failover import FailOver, Outcome
from players import Player
from processes import Died
from truth import Truth

DRAIN_S = 1.0  # the most time that a drain waits for dependents
LINGER_S = 1.0  # after its drain a provider works on for so long
MOST_AT_ONCE = 100
UP_SHARE = 0.7


class Provider(Player):
    """One provider.

    Args:
        service: its name.
        classic: it speaks only the first section of the protocol, so that it leaves by DELETE and knows no drain.
    """

    def __init__(self, number: int, service: str, classic: bool) -> None:
        super().__init__(number)
        self.service = service
        self.classic = classic
        self.up = self.busy = False
        self.instance_id = ""

    def words(self) -> bytes:
        """Return the registration of its present life."""
        return self.registration(self.service, **({} if self.classic else {"Protocol": 2, "Incarnation": self.incarnation}))


class Churn:
    """Changes one provider after the other.

    Attributes:
        changes: how many there were, by kind; skipped: how often nobody was free for one.
    """

    def __init__(self, providers: list[Provider], truth: Truth, replicas: FailOver, per_second: float, seed: int = 1) -> None:
        self._providers = providers
        self._truth = truth
        self._replicas = replicas
        self._every_s = 1 / per_second
        self._random = random.Random(seed)
        self._running = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.changes = {"come": 0, "die": 0, "leave": 0}
        self.skipped = 0
        self.faults: list[str] = []

    async def begin(self) -> None:
        """Bring all providers up."""
        free = asyncio.Semaphore(8)

        async def one(provider: Provider) -> None:
            async with free:
                await self._come(provider)

        await asyncio.gather(*(one(provider) for provider in self._providers))
        self._running.set()

    async def run(self) -> None:
        """Make changes for ever."""
        due = time.monotonic()
        while True:
            await self._running.wait()
            due = max(due + self._every_s, time.monotonic() - 10 * self._every_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not self._running.is_set():
                continue  # paused meanwhile
            free = [one for one in self._providers if not one.busy and self._truth.settled(one.url)]
            if not free or len(self._tasks) >= MOST_AT_ONCE:
                self.skipped += 1
                continue
            self._start(self._pick(free))

    def go_on(self) -> None:
        """Make changes again."""
        self._running.set()

    async def pause(self) -> None:
        """Make no more changes, and return when those under way are over."""
        self._running.clear()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _pick(self, free: list[Provider]) -> Provider:
        """Return one that is to change: where too few are up, one that comes."""
        few = sum(one.up for one in self._providers) < UP_SHARE * len(self._providers)
        return self._random.choice([one for one in free if one.up != few] or free)

    def _start(self, provider: Provider) -> None:
        kind = self._random.choice(("die", "leave")) if provider.up else "come"
        self.changes[kind] += 1
        provider.busy = True
        task = asyncio.create_task(self._change(provider, kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, provider: Provider, kind: str) -> None:
        try:
            await {"come": self._come, "die": self._die, "leave": self._leave}[kind](provider)
        except (Died, OSError, KeyError, ValueError) as exc:
            self.faults.append(f"{provider.service} at {provider.url} could not {kind}: {exc!r}")
        finally:
            provider.busy = False

    async def _come(self, provider: Provider) -> None:
        provider.incarnation += 1
        await provider.listen()
        self._truth.change(provider.url, provider.service, None, time.monotonic())
        outcome = await self._write("POST", "/services", provider.words())
        if outcome.status != 200:
            self.faults.append(f"a registration was answered {outcome.status}: {outcome.body.decode()[:300]}")
        provider.instance_id = json.loads(outcome.body)["InstanceID"]
        provider.up = True
        self._truth.change(provider.url, provider.service, True, time.monotonic())

    async def _die(self, provider: Provider) -> None:
        provider.die()
        provider.up = False
        self._truth.change(provider.url, provider.service, False, time.monotonic())

    async def _leave(self, provider: Provider) -> None:
        provider.up = False
        self._truth.change(provider.url, provider.service, None, time.monotonic())
        if not provider.classic:
            body = json.dumps({"Timeout": DRAIN_S}).encode()
            self._expect(await self._write("POST", f"/services/{provider.instance_id}/drain", body), provider, "drain")
            self._truth.change(provider.url, provider.service, False, time.monotonic())
            await asyncio.sleep(LINGER_S)
        self._expect(await self._write("DELETE", "/services", provider.url.encode()), provider, "leave")
        if provider.classic:
            self._truth.change(provider.url, provider.service, False, time.monotonic())
        provider.die()

    def _expect(self, outcome: Outcome, provider: Provider, what: str) -> None:
        # Where a try had no answer it may have been carried out.
        if outcome.status != 200 and not (outcome.status == 404 and outcome.doubtful):
            told = f"{outcome.status} by replica {outcome.replica + 1}: {outcome.body.decode()[:300]}"
            self.faults.append(f"{provider.instance_id}, which is registered, wanted to {what}, and was answered {told}")

    async def _write(self, method: str, path: str, body: bytes) -> Outcome:
        self._turn += 1
        return await self._replicas.write(self._turn, method, path, body)
