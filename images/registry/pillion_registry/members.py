"""The registries that share a catalogue, as they show themselves to each other: leases in a bucket, renewed twice a second.

And a way to ask one of them something: a subject of its own, for questions that only whoever has an instance can answer.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import nats.errors
from nats.aio.msg import Msg

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_link import NatsLink
from pillion_common.nats_stream import Overtaken, StreamGone, refusal
from pillion_common.tasks import Supervisor
from pillion_registry.sharing import FENCE_S, LEASE_S, RENEW_S, Sharing
from pillion_registry.store.feed import Feed
from pillion_registry.store.nats_bucket import Bucket, Entry

LEASE_BYTES = 1 << 20
AWAY_RENEW_S = 0.1  # while we are away: the sooner NATS takes one, the sooner we are back
KEPT_S = 10.0  # a lease goes by itself
LOOK_S = 0.1
OPEN_AGAIN_S = 0.5
MAX_UNHEARD = 100  # renewals of which the echo is waited for
SURE_LOOKS = 3  # in which nothing of our own lease was heard: then it is given up

Answer = Callable[[bytes], Awaitable[bytes]]

_log = EventLog("replicas")


class _Lease(msgspec.Struct, frozen=True, rename="pascal"):
    """What a registry tells of itself.

    Attributes:
        deaf: it hears nothing of its own lease, and gives it up: whoever can hear this goes on in its place at once.
    """

    number: int
    deaf: bool = False


class Members:
    """Keeps our lease, and hears of the others'.

    Args:
        name: of this registry, for people; it gets a random part, for each start is another member.
        changed: called when other members are live than before.
        lapsed: called when we are back after the others may have taken over what is ours.
        answer: answers a question of another member.
        current: whether what is known here of the catalogue is of this moment; while not, the lease is not renewed.
        catch_up: returns when it is, after a lapse; raises Unavailable.
    """

    def __init__(
        self,
        link: NatsLink,
        name: str,
        changed: Callable[[], None],
        lapsed: Callable[[], None],
        answer: Answer,
        current: Callable[[], bool],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self.me = f"{name}-{secrets.token_hex(3)}"
        self.sharing = Sharing(self.me)
        self._link = link
        self._bucket = Bucket(link, "replicas", "leases of registries", LEASE_BYTES, max_age_s=KEPT_S)
        self._feed = Feed(self._bucket, self._take)
        self._changed = changed
        self._lapsed = lapsed
        self._answer = answer
        self._current = current
        self._catch_up = catch_up
        self._sent: deque[tuple[int, float]] = deque(maxlen=MAX_UNHEARD)
        self._number = 0
        self._away = True  # until we are back: our lease is heard, and the catalogue is of this moment
        self._deaf = False  # we have given our lease up
        self._unheard_looks = 0
        self._alike_until = -math.inf  # until then the others' deafness is what ours was
        self._renew_now = asyncio.Event()
        self._coming_back: asyncio.Task[None] | None = None
        self._leaving = False
        self._tasks = Supervisor()
        self._gone: Callable[[str], None] = lambda _: None

    def fenced(self) -> bool:
        """Return whether nobody may be told anything from here now."""
        return self._away or self.sharing.fenced(time.monotonic())

    async def begin(self, gone: Callable[[str], None]) -> None:
        """Join the others.

        Args:
            gone: called with the reason when nothing but a new start helps.
        """
        self._gone = gone
        while True:
            try:
                await self._bucket.stream.made()
                break
            except Unavailable as exc:
                _log.warn_seldom("store_not_open", f"the bucket for leases cannot be opened: {exc.message}; trying again")
                await asyncio.sleep(OPEN_AGAIN_S)
        await self._link.client.subscribe(self._subject(self.me), cb=self._asked)
        for what, work in (("leases", self._follow()), ("renewals", self._renew()), ("members", self._look())):
            self._tasks.spawn(what, self._until_left(what, work))

    async def joined(self, timeout_s: float) -> None:
        """Return when our lease is heard, or the time is over: then it goes on by itself."""
        ends = time.monotonic() + timeout_s
        while self.fenced() and time.monotonic() < ends:
            await asyncio.sleep(LOOK_S / 4)

    async def leave(self) -> None:
        """Take our leave, so that the others go on at once."""
        self._leaving = True
        self._feed.stop()
        if self._link.stands:  # else nobody hears us, and our lease ends by itself
            with suppress(Unavailable, Overtaken):
                entry = await self._bucket.get(self.me)
                if entry is not None:
                    await self._bucket.put(self.me, b"", entry.seq, RENEW_S, deletes=True)
        await self._tasks.stop()

    async def ask(self, member: str, question: bytes, timeout_s: float) -> bytes:
        """Ask another member; returns its answer.

        Raises:
            Unavailable: it does not answer.
        """
        try:
            return (await self._link.client.request(self._subject(member), question, timeout=timeout_s)).data
        except (nats.errors.Error, OSError) as exc:
            raise refusal(exc) from exc

    def _subject(self, member: str) -> str:
        return f"{self._link.place.prefix}.registry.{member}"

    async def _asked(self, message: Msg) -> None:
        self._tasks.spawn("answer", self._reply(message))

    async def _reply(self, message: Msg) -> None:
        with suppress(nats.errors.Error, OSError, Unavailable):  # who asks asks again
            await message.respond(await self._answer(message.data))

    async def _until_left(self, what: str, work: Awaitable[None]) -> None:
        """Do what must go on; without it this registry would hold what it has and look after nothing."""
        try:
            await work
        finally:
            if not self._leaving:
                self._gone(f"{what}: the task that sees to them has ended")

    async def _follow(self) -> None:
        try:
            await self._feed.run()
        except StreamGone as exc:
            self._gone(exc.args[0])

    async def _renew(self) -> None:
        while not self._leaving:
            # Without a server nats-py would keep all of them, and send them when one is back.
            if self._link.stands and (self._deaf or self._current()):
                self._number += 1
                if not self._deaf:
                    self._sent.append((self._number, time.monotonic()))
                with suppress(nats.errors.Error, OSError):
                    await self._bucket.tell(self.me, msgspec.json.encode(_Lease(self._number, self._deaf)))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._renew_now.wait(), AWAY_RENEW_S if self.fenced() else RENEW_S)
            self._renew_now.clear()

    def _take(self, entry: Entry) -> None:
        """Take a lease, or the end of one."""
        now = time.monotonic()
        if entry.deleted:
            self.sharing.left(entry.key)
        elif (lease := _read(entry.value)) is None:
            return
        elif entry.key == self.me:
            self._heard_own(lease, now)
        elif lease.deaf and now > self._alike_until and not self._away:
            self.sharing.left(entry.key)
        else:
            self.sharing.heard(entry.key, now)
        self._look_once()

    def _heard_own(self, lease: _Lease, now: float) -> None:
        if lease.deaf and self._deaf:  # so we are not any more
            self._deaf = False
            self._renew_now.set()
        while self._sent and self._sent[0][0] <= lease.number:
            sent_number, sent_at = self._sent.popleft()
            if sent_number == lease.number:
                self.sharing.heard_own(sent_at, now)

    def _give_up(self) -> None:
        """Give our lease up, for we hear nothing of it; what was sent before is void, for the others hear of both in this order."""
        _log.warning("lease_given_up", f"nothing of our own lease was heard for {FENCE_S:g} s: the others are told to go on")
        self._away = self._deaf = True
        self._sent.clear()
        self._renew_now.set()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._look_for_own()
            self._look_once()

    def _look_for_own(self) -> None:
        """Give our lease up once it has not been heard for long enough: where only the way to us is cut, the others hear that."""
        fenced = not self._away and self.sharing.fenced(time.monotonic())
        self._unheard_looks = self._unheard_looks + 1 if fenced else 0
        if self._unheard_looks >= SURE_LOOKS and self._link.stands:
            self._give_up()

    def _look_once(self) -> None:
        now = time.monotonic()
        if self.sharing.lapsed(now):
            if not self._away and self.sharing.live:
                _log.warning("lease_lapsed", f"nothing of our own lease was heard for {LEASE_S:g} s: telling nobody anything until it is")
            self._away = True
        elif self._away:
            if not self.sharing.fenced(now) and (self._coming_back is None or self._coming_back.done()):
                self._coming_back = self._tasks.spawn("coming back", self._come_back())
        elif self.sharing.look(now):
            self._tell()

    async def _come_back(self) -> None:
        """Go on after a lapse, or begin: first learn what has changed meanwhile."""
        try:
            await self._catch_up()
        except Unavailable as exc:
            _log.warn_seldom("not_current", f"what has changed meanwhile cannot be read: {exc.message}; trying again")
            return
        now = time.monotonic()
        if self.sharing.fenced(now):
            return
        self._away = False
        if self.sharing.live:  # else this is the beginning
            self._alike_until = now + LEASE_S
        if self.sharing.look(now):
            self._tell()
        self._lapsed()

    def _tell(self) -> None:
        live = self.sharing.live
        _log.info("members", f"{len(live)} registries share the catalogue: {', '.join(live)}", members=live)
        self._changed()


def _read(value: bytes) -> _Lease | None:
    try:
        return msgspec.json.decode(value, type=_Lease)
    except msgspec.MsgspecError:
        return None
