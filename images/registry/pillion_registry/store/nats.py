"""The store of replicas: a JetStream key-value bucket that all of them write to by compare and set, and follow.

What is here of it (`mirror`) changes only as the bucket tells, in its order, so that all replicas come to the same; a write is answered
when NATS has it on a majority of its servers and this replica has seen it itself. A revision is the number of the bucket's newest message:
one history for all replicas.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from pillion_common.errors import Conflict, InvalidInput, PillionError, StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_common.models import State
from pillion_common.nats_link import RETRY_AFTER_S, NatsLink, NatsPlace
from pillion_common.nats_stream import Overtaken, StreamGone
from pillion_common.tasks import Supervisor
from pillion_registry.lanes import Lanes
from pillion_registry.store.base import Acknowledged, Change, Known, OnDone, Outdated, Put, Remove, SetState, Store, Stored, StoredInstance
from pillion_registry.store.deciding import Due, keys_of, outdated, state_of
from pillion_registry.store.echoes import SEEN_S, Echoes
from pillion_registry.store.feed import Feed
from pillion_registry.store.mirror import Mirror, News
from pillion_registry.store.nats_bucket import Bucket, Entry
from pillion_registry.store.nats_wire import Gone, Kept, Told, read_told, write

GIVE_UP_S = 5.0  # a write waits so long for NATS
TRIES = 16  # against other writers of the same instance
MAX_WAITING = 10_000
CATCH_UP_S = 0.02
OPEN_AGAIN_S = 0.5
LOOK_S = 1.0
SILENT_S = 3.0  # without a word of the bucket
MARK_S = 600.0  # a deleted key's marker stays, for those who were away
AWAY_S = MARK_S / 2  # who was away for longer compares all keys
SURE = (2, 11, 0)  # whose servers agree on each compare-and-set; see docs/registry.md
OLD = "nats-server before 2.11 may, in a cluster, keep a write that should have been refused: see that it is 2.11 or newer"
CATALOG_BYTES, KNOWN_BYTES = 128 << 20, 64 << 20  # which the servers set aside

_log = EventLog("store")


class NatsStore(Store):
    """Keeps the catalogue in a bucket that other registries keep theirs in as well.

    Args:
        place: the cluster.
        token_file: for the cluster.
        give_up_s: how long a write waits for JetStream.
    """

    def __init__(self, place: NatsPlace, token_file: str = "", give_up_s: float = GIVE_UP_S) -> None:
        self.link = NatsLink(place, "pillion-registry", token_file)
        self._services = Bucket(self.link, "services", "the catalogue", CATALOG_BYTES)
        self.known = Bucket(self.link, "known", "what classic dependents know", KNOWN_BYTES, followed=False)
        self._feed = Feed(self._services, self._take)
        self._give_up_s = give_up_s
        self.mirror = Mirror()
        self._listener: Callable[[News], None] | None = None
        self._unheard: list[News] = []  # that came before anybody listened
        self._lanes = Lanes()
        self._waiting = 0
        self._echoes = Echoes()
        self._tasks = Supervisor()
        self._writes: set[asyncio.Task[None]] = set()
        self._epoch = ""  # tells this bucket from one that is made anew under its name
        self._following: asyncio.Task[None] | None = None
        self._opened = self._closed = False
        self._lost: asyncio.Future[str]

    # A store's life.

    async def load(self) -> Stored:
        """Connect, make the buckets if need be, and read all there is; waits for NATS as long as it takes."""
        self._lost = asyncio.get_running_loop().create_future()
        await self.link.open()
        self._tasks.spawn("nats-refused", self._refused())
        while not self._opened:
            try:
                await self._open()
            except Unavailable as exc:
                _log.warn_seldom("store_not_open", f"the catalogue's bucket cannot be opened: {exc.message}; trying again")
                await asyncio.sleep(OPEN_AGAIN_S)
        known = await self._all_known()
        self._tasks.spawn("bucket", self._watch())
        instances = [
            StoredInstance(one.record, one.kept.state, one.kept.since, one.kept.reason, self._fitting(known, instance_id))
            for instance_id, one in self.mirror.instances.items()
        ]
        self._unheard.clear()  # what they say is in here
        instances.sort(key=lambda one: one.record.generation)
        return Stored(self._epoch, self.mirror.revision, tuple(instances))

    def listen(self, listener: Callable[[News], None]) -> None:
        """Tell a listener all that has changed since `load`, and from now on. It must not raise."""
        unheard, self._unheard = self._unheard, []
        for news in unheard:
            listener(news)
        self._listener = listener

    def submit(self, changes: Sequence[Change], on_done: OnDone) -> None:
        """Keep the changes, each when its turn among those of its instance has come; `on_done` when all were seen here."""
        refused: Unavailable | None = None
        if not self._opened or self._closed or self._waiting >= MAX_WAITING:
            refused = Unavailable("the store has too much waiting; try again soon", code="store_busy")
        elif self.link.down_s() > self._give_up_s:  # others have waited already, in vain
            refused = Unavailable(self.link.fault() or "", code="store_failed", retry_after_s=RETRY_AFTER_S)
        if refused is not None:
            asyncio.get_running_loop().call_soon(on_done, refused)
            return
        self._waiting += 1
        known = {one.record.instance_id: self.mirror.instances.get(one.record.instance_id) for one in changes if isinstance(one, Put)}
        due = Due(time.monotonic() + self._give_up_s, known)
        task = asyncio.get_running_loop().create_task(self._commit(tuple(changes), due, on_done))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Finish what was committed and let go."""
        self._closed = True
        if self._writes:
            await asyncio.wait(self._writes, timeout=self._give_up_s + SEEN_S)
        self._feed.stop()
        await self._tasks.stop()
        await self.link.close()

    def fault(self) -> str | None:
        """Return why nothing can be kept now, and since when."""
        if (fault := self.link.fault()) is not None:
            return fault
        silent_s = self.silent_s()
        return f"the catalogue's bucket in NATS has said nothing for {silent_s:.0f} s" if silent_s > SILENT_S else None

    async def lost(self) -> str:
        """Return why nothing but a new start helps, as soon as that is so."""
        return await asyncio.shield(self._lost)

    # Reading.

    async def _open(self) -> None:
        info = await self._services.stream.made()
        await self.known.stream.made()
        self._epoch = await self._services.identity()
        if self.link.place.replicas > 1 and self.link.server_version() < SURE:
            _log.warning("old_nats", OLD)
        self._following = self._following or self._tasks.spawn("feed", self._run_feed())
        await self.catch_up()
        self.mirror.revision = max(self.mirror.revision, info.state.last_seq)
        self._opened = True

    async def catch_up(self) -> None:
        """Return when this replica has seen all that the bucket has.

        Raises:
            Unavailable: nobody answers.
        """
        last = await self._services.last()
        while self.mirror.revision < last:
            await asyncio.sleep(CATCH_UP_S)

    def silent_s(self) -> float:
        """Return for how long nothing was heard of the bucket; it is heard of twice a second."""
        return time.monotonic() - self._feed.heard_at

    async def _run_feed(self) -> None:
        try:
            await self._feed.run()
        except StreamGone as exc:
            self.lose(f"{exc.args[0]}, and the catalogue with it")
        finally:
            if not self._closed:
                self.lose("nothing follows the catalogue's bucket any more")

    async def _refused(self) -> None:
        await self.link.lost_for_good()
        self.lose(f"{self.link.fault()}; NATS has refused this registry for good: see --store-token-file")

    def lose(self, why: str) -> None:
        """Note that nothing but a new start helps."""
        if not self._lost.done():
            self._lost.set_result(why)

    def _take(self, entry: Entry) -> None:
        """Take the bucket's next message in."""
        try:
            news = self.mirror.take(entry, time.monotonic())
        except InvalidInput as exc:
            _log.error("value_unreadable", f"{entry.key} in the catalogue's bucket cannot be read: {exc.message}", instance=entry.key)
            return
        finally:
            self._echoes.wake(self.mirror.revision)
        if news is None:
            return
        if self._listener is not None:
            self._listener(news)
        elif self._opened:
            self._unheard.append(news)

    async def reached(self, revision: int, timeout_s: float = SEEN_S) -> None:
        """Return when this replica has seen a revision.

        Raises:
            Unavailable: it has not within the time.
        """
        if revision > self.mirror.revision:
            await self._echoes.wait(revision, timeout_s)

    async def _all_known(self) -> dict[str, Told]:
        while True:
            try:
                entries = await self.known.entries()
                break
            except Unavailable as exc:
                _log.warn_seldom("store_not_open", f"what dependents know cannot be read: {exc.message}; trying again")
                await asyncio.sleep(OPEN_AGAIN_S)
        known = {}
        for entry in entries:
            with suppress(InvalidInput):
                if not entry.deleted:
                    known[entry.key] = read_told(entry.value)
        return known

    def _fitting(self, known: dict[str, Told], instance_id: str) -> Known | None:
        told = known.get(instance_id)
        return told.known if told is not None and self.mirror.has(instance_id, told.generation) else None

    # Writing.

    async def _commit(self, changes: tuple[Change, ...], due: Due, on_done: OnDone) -> None:
        error: PillionError | None = None
        try:
            async with self._lanes.hold(*keys_of(changes)):
                for change in changes:
                    await self._write(change, due)
        except PillionError as exc:
            error = (
                exc
                if isinstance(exc, Conflict | StorageFull | Outdated)
                else Unavailable(exc.message, code="store_failed", retry_after_s=RETRY_AFTER_S)
            )
        finally:
            self._waiting -= 1
        try:
            on_done(error)
        except Exception as exc:  # a fault of one caller is not the others'
            asyncio.get_running_loop().call_exception_handler({"message": "a caller of the store failed", "exception": exc})

    async def _write(self, change: Change, due: Due) -> None:
        ends = due.ends
        match change:
            case Put():
                await self._put(change, due)
            case SetState():
                await self._set_state(change, ends)
            case Remove(instance_id, generation, _, hand, reason, firm):
                await self._remove(instance_id, generation, Gone(reason, hand.kind, hand.by), ends, firm)
            case Acknowledged(instance_id, generation, known) if self.mirror.has(instance_id, generation):
                await self.known.set(instance_id, write(Told(generation, dict(known))))

    async def _put(self, put: Put, due: Due) -> None:
        record, state, ends = put.record, put.state, due.ends
        first = due.known[record.instance_id]
        hidden_until_s = None
        for _ in range(TRIES):
            now = self.mirror.instances.get(record.instance_id)
            if now is not first:  # another replica has changed it meanwhile
                if outdated(put, now):
                    raise Conflict(f"a newer incarnation of {record.instance_id} has registered meanwhile", code="old_incarnation")
                state = state_of(put, now)
            if now is not None and now.kept.hidden_until is not None and state_of(put, now) is State.DRAINING:
                state, hidden_until_s = State.DRAINING, now.kept.hidden_until  # registering again ends no hiding
            since_s = put.since_s if state is put.state else record.registered_s
            kept = Kept(
                record.generation, record.registrant, record.registered_s, record.registration, state, since_s,
                trusted=record.trusted, hidden_until=hidden_until_s, kind=put.hand.kind, by=put.hand.by,
            )  # fmt: skip
            if await self._try(record.instance_id, write(kept), ends):
                break
        else:
            raise Unavailable(f"too many registries write to {record.instance_id}; try again")
        for instance_id in put.replaced:
            await self._clear(instance_id, record.generation, ends)

    async def _set_state(self, change: SetState, ends: float) -> None:
        for _ in range(TRIES):
            one = self.mirror.instances.get(change.instance_id)
            if change.expected not in (None, one.revision if one else 0):
                if change.firm:
                    raise Outdated(f"{change.instance_id} has changed meanwhile; try again", retry_after_s=RETRY_AFTER_S)
                return
            if one is None or one.kept.generation != change.generation:
                return
            if change.state is State.DOWN and one.kept.state is State.DRAINING:
                return  # nobody is told of it any more, and it was drained for good
            kept = Kept(
                one.kept.generation, one.kept.registrant, one.kept.registered, one.kept.registration, change.state, change.since_s,
                change.reason, one.kept.trusted, change.hidden_until_s, change.hand.kind, change.hand.by,
            )  # fmt: skip
            if await self._try(change.instance_id, write(kept), ends):
                return
        raise Unavailable(f"too many registries write to {change.instance_id}; try again")

    async def _remove(self, instance_id: str, generation: int, gone: Gone, ends: float, firm: bool) -> None:
        for _ in range(TRIES):
            seen = self.mirror.revision_of(instance_id)
            if firm and instance_id in self.mirror.instances and not self.mirror.has(instance_id, generation):
                raise Outdated(f"{instance_id} has registered anew meanwhile; try again", retry_after_s=RETRY_AFTER_S)
            if self.mirror.has(instance_id, generation):
                if await self._try(instance_id, write(gone), ends, deletes=True):
                    return
            elif not firm or await self.confirm(instance_id, seen):  # somebody else was first; and may have registered anew
                return
        raise Unavailable(f"too many registries write to {instance_id}; try again")

    async def _clear(self, key: str, generation: int, ends: float) -> None:
        """Delete what was replaced by a registration of this generation, unless it has registered anew since."""
        for _ in range(TRIES):
            one = self.mirror.instances.get(key)
            if key not in self.mirror.losers and (one is None or one.kept.generation >= generation):
                return
            if await self._try(key, write(Gone("replaced by a new registration")), ends, deletes=True):
                return

    async def _try(self, key: str, value: bytes, ends: float, deletes: bool = False) -> bool:
        """Write a key if it still is as it is known here, and wait until that is seen; else learn what it is."""
        left_s = ends - time.monotonic()
        if left_s <= 0.0:  # earlier writes of this instance took all the time
            raise Unavailable("NATS does not answer")
        try:
            seq = await self._services.put(key, value, self.mirror.revision_of(key), left_s, deletes)
        except Overtaken:
            entry = await self._services.get(key)
            if entry is None:
                self.mirror.marks.pop(key, None)
            else:
                await self.reached(entry.seq)
            return False
        seen_by = time.monotonic() + SEEN_S
        await self.reached(seq)
        # A later write of the same instance takes the place of this one, so that who follows more slowly never sees it: what is here may
        # still be older, until the later one comes.
        while self.mirror.revision_of(key) < seq:
            await self.reached(self.mirror.revision + 1, max(0.0, seen_by - time.monotonic()))
        return True

    async def confirm(self, instance_id: str, seen: int) -> bool:
        """Return whether what was decided about an instance when it had this revision holds; else learn what is true now.

        Raises:
            Unavailable: nobody can say.
        """
        entry = await self._services.get(instance_id)
        if entry is None or entry.seq <= seen:
            return True
        await self.reached(entry.seq)
        return False

    # Keeping it tidy.

    async def _watch(self) -> None:
        """Look after the bucket: whether it is still the same, who was missed while this replica was away, what nobody needs any more."""
        heard_at, away = self._feed.heard_at, False
        for turn in itertools.count():
            await asyncio.sleep(LOOK_S)
            was, heard_at = heard_at, self._feed.heard_at
            away = away or heard_at - was > AWAY_S
            with suppress(Unavailable, Overtaken):
                if away:
                    await self._compare()
                    away = False
                if turn % 10 == 0 and self.fault() is None:
                    await self._tidy()

    async def _tidy(self) -> None:
        if await self._services.identity(make=False) != self._epoch:
            self.lose("the catalogue's bucket is another one")
            return
        await self.known.stream.made()
        for key in list(self.mirror.losers):
            await self._clear(key, 0, time.monotonic() + self._give_up_s)
        for key, seq in self.mirror.old_marks(time.monotonic() - MARK_S):
            await self._services.purge(key, seq)
            self.mirror.marks.pop(key, None)

    async def _compare(self) -> None:
        """Note who was deleted while this replica was away for so long that the markers are gone."""
        await self.catch_up()
        revision = self.mirror.revision  # who came later need not be among the keys
        present = set(await self._services.keys())
        for key in self.mirror.missing(present, revision):
            self._take(Entry(self.mirror.revision, key, b"", True))
