"""What every store of the registry promises, over every store. What SQLite alone must bear: test_sqlite_store."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers, store_uri

from pillion_common.errors import ConfigError, PillionError
from pillion_common.models import ProviderEntry, Registration, State
from pillion_registry.catalog import Record
from pillion_registry.store import Store, open_store
from pillion_registry.store.base import Acknowledged, Put, Remove, SetState, Stored

pytestmark = DROPS_CONNECTIONS

A = "http://10.0.0.1:80"
FULL = Registration(
    "Log", A, ("Db",), A + "/services", A + "/heartbeat", "i1", "1.2", "east", 5, ("x", "y"), {"k": "ä\u0000\U0001f600"}, 2, 2**62
)
KNOWN = {"Db": (ProviderEntry("Db", "http://10.0.0.2:80", "d1", zone="west"),), "Empty": ()}


def a_record(instance_id: str = "i1", generation: int = 1, registration: Registration | None = None) -> Record:
    own = registration or msgspec.structs.replace(FULL, service_url=f"{A}/{instance_id}")  # no two are at one place
    return Record(instance_id, generation, "10.0.0.9", 1000.5, own, trusted=True)


def put(instance_id: str = "i1", generation: int = 1, replaced: tuple[str, ...] = (), revision: int = 1) -> Put:
    return Put(a_record(instance_id, generation), State.STARTING, 1000.5, replaced, revision)


class Lab:
    """A store that can be closed and opened again."""

    def __init__(self, kind: str, folder: Path, nats: NatsServer | None = None) -> None:
        self.kind = kind
        self.nats = nats
        self.uri = "memory:" if kind == "memory" else f"sqlite:{folder / 'registry.db'}"
        if nats is not None:
            self.uri = store_uri([nats], prefix=f"t{secrets.token_hex(6)}")
        self.store: Store = open_store(self.uri)

    async def reopen(self) -> Stored:
        """Close, and load what was kept; the memory store keeps it in its object."""
        await self.store.close()
        if self.kind != "memory":
            self.store = open_store(self.uri)
        return await self.store.load()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


@pytest.fixture(params=["memory", "sqlite", "nats"])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(request.param, tmp_path, request.getfixturevalue("server") if request.param == "nats" else None)
    yield lab
    await lab.store.close()


async def test_a_new_store_is_empty(lab: Lab) -> None:
    stored = await lab.store.load()
    begin = 1 if lab.kind == "nats" else 0  # a bucket's first message is its own mark
    assert (stored.revision, stored.instances) == (begin, ())
    assert len(stored.epoch) >= 16


async def test_a_record_comes_back_as_it_was_put(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put()])
    (one,) = (await lab.reopen()).instances
    assert one.record == a_record()
    assert (one.state, one.since_s, one.reason, one.known) == (State.STARTING, 1000.5, None, None)


async def test_records_come_back_in_the_order_of_their_generations(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put("z", 1), put("a", 2), put("m", 3)])
    assert [one.record.instance_id for one in (await lab.reopen()).instances] == ["z", "a", "m"]


async def test_a_put_takes_the_place_of_the_same_id_and_of_the_replaced(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put("i1", 1), put("i2", 2)])
    await lab.store.commit([Acknowledged("i2", 2, KNOWN)])
    await lab.store.commit([put("i2", 3, replaced=("i1", "unknown"), revision=3)])
    (one,) = (await lab.reopen()).instances
    assert (one.record.instance_id, one.record.generation, one.known) == ("i2", 3, None)


async def test_a_state_is_kept(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put()])
    await lab.store.commit([SetState("i1", 1, State.DOWN, "refused: ä", 2000.25, 0)])
    (one,) = (await lab.reopen()).instances
    assert (one.state, one.reason, one.since_s) == (State.DOWN, "refused: ä", 2000.25)


async def test_what_a_dependent_knows_is_kept(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put()])
    await lab.store.commit([Acknowledged("i1", 1, KNOWN)])
    (one,) = (await lab.reopen()).instances
    assert one.known == KNOWN


async def test_a_late_word_about_another_generation_changes_nothing(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put(generation=2)])
    await lab.store.commit(
        [SetState("i1", 1, State.DOWN, "old", 1.0, 0), Acknowledged("i1", 1, KNOWN), SetState("none", 1, State.UP, None, 1.0, 0)]
    )
    (one,) = (await lab.reopen()).instances
    assert (one.state, one.reason, one.known) == (State.STARTING, None, None)


async def test_a_removed_record_is_gone_and_removing_a_strange_one_does_no_harm(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put("i1", 1), put("i2", 2)])
    await lab.store.commit([Remove("i1", 1, 3), Remove("unknown", 1, 3)])
    assert [one.record.instance_id for one in (await lab.reopen()).instances] == ["i2"]


async def test_the_changes_of_one_commit_are_applied_in_order(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put(), Remove("i1", 1, 2), put(generation=2), SetState("i1", 2, State.UP, None, 3.0, 0)])
    (one,) = (await lab.reopen()).instances
    assert (one.record.generation, one.state) == (2, State.UP)


async def test_the_revision_after_a_restart_is_higher_than_any_before(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put(revision=41)])
    # Where the store itself numbers the changes, as the bucket of NATS does, no number of ours counts.
    assert (await lab.reopen()).revision > (0 if lab.nats else 41 + 1000)


async def test_it_is_higher_after_a_second_restart_in_which_nothing_was_registered(lab: Lab) -> None:
    """Checks raise the revision as well, and they alone may have happened between two restarts."""
    await lab.store.load()
    await lab.store.commit([put(revision=41)])
    first = (await lab.reopen()).revision
    await lab.store.commit([SetState("i1", 1, State.UP, None, 5.0, 0)])
    assert (await lab.reopen()).revision > first + (0 if lab.nats else 1)


async def test_a_removal_of_an_earlier_generation_takes_nothing_away(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put("i1", 2), put("i2", 1)])
    await lab.store.commit([Remove("i1", 1, 3)])
    assert sorted(one.record.instance_id for one in (await lab.reopen()).instances) == ["i1", "i2"]


async def test_the_epoch_stays_as_long_as_the_memory(lab: Lab) -> None:
    epoch = (await lab.store.load()).epoch
    assert (await lab.reopen()).epoch == epoch
    assert (await lab.reopen()).epoch == epoch


async def test_two_stores_have_two_epochs(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Lab(lab.kind, tmp_path_factory.mktemp("other"), lab.nats)
    assert (await lab.store.load()).epoch != (await other.store.load()).epoch
    await other.store.close()


async def test_commits_that_come_all_at_once_are_all_kept(lab: Lab) -> None:
    await lab.store.load()
    await asyncio.gather(*(lab.store.commit([put(f"i{n}", n, revision=n)]) for n in range(1, 501)))
    await asyncio.gather(*(lab.store.commit([Remove(f"i{n}", n, 500 + n)]) for n in range(1, 501, 2)))
    assert {one.record.instance_id for one in (await lab.reopen()).instances} == {f"i{n}" for n in range(2, 501, 2)}


async def test_a_commit_whose_caller_gave_up_harms_no_other(lab: Lab) -> None:
    await lab.store.load()
    commits = [asyncio.ensure_future(lab.store.commit([put(f"i{n}", n)])) for n in range(1, 50)]
    await asyncio.sleep(0)
    for commit in commits[::2]:
        commit.cancel()
    await asyncio.gather(*commits, return_exceptions=True)
    await asyncio.wait_for(lab.store.commit([put("last", 99)]), 5)
    kept = {one.record.instance_id for one in (await lab.reopen()).instances}
    assert {f"i{n}" for n in range(2, 50, 2)} | {"last"} <= kept


async def test_close_keeps_what_was_committed_and_may_be_called_twice(lab: Lab) -> None:
    await lab.store.load()
    await lab.store.commit([put()])
    await lab.store.close()
    assert len((await lab.reopen()).instances) == 1
    await lab.store.close()
    await lab.store.close()


async def test_submit_tells_once_in_the_loops_thread_and_never_before_it_returns(lab: Lab) -> None:
    await lab.store.load()
    told: list[tuple[PillionError | None, str]] = []
    lab.store.submit([put()], lambda error: told.append((error, threading.current_thread().name)))
    assert told == []
    await lab.store.commit([put("i2", 2)])
    await asyncio.sleep(0)
    assert told == [(None, "MainThread")]
    assert [one.record.instance_id for one in (await lab.reopen()).instances] == ["i1", "i2"]


async def test_what_is_submitted_and_committed_is_applied_in_the_order_of_the_calls(lab: Lab) -> None:
    await lab.store.load()
    order: list[str] = []
    lab.store.submit([put()], lambda _: order.append("put"))
    lab.store.submit([SetState("i1", 1, State.UP, None, 2.0, 0)], lambda _: order.append("up"))
    lab.store.submit([Remove("i1", 1, 2), put("i1", 2)], lambda _: order.append("again"))
    await lab.store.commit([SetState("i1", 2, State.DRAINING, "leaving", 3.0, 0)])
    await asyncio.sleep(0)
    assert order == ["put", "up", "again"]
    (one,) = (await lab.reopen()).instances
    assert (one.record.generation, one.state, one.reason) == (2, State.DRAINING, "leaving")


async def test_a_caller_that_fails_when_told_harms_no_other(lab: Lab) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    await lab.store.load()
    told: list[PillionError | None] = []

    def fail(error: PillionError | None) -> None:
        raise RuntimeError("a caller's own fault")

    lab.store.submit([put("i1", 1)], fail)
    lab.store.submit([put("i2", 2)], told.append)
    await asyncio.wait_for(lab.store.commit([put("i3", 3)]), 5)
    await asyncio.sleep(0)
    assert told == [None]
    assert [str(fault["exception"]) for fault in faults] == ["a caller's own fault"]
    assert len((await lab.reopen()).instances) == 3


@pytest.mark.parametrize(
    "registration",
    [
        Registration("Log", A),
        Registration("Log", A, (), zone="", tags=(), metadata={}),
        Registration("Log", A, metadata={"quotes": "'\"`\\ $[0] %s ?", "null": "a\x00b", "words": "ä\u2028\U0001f600\ud7ff"}),
        Registration("Log", A, metadata={f"k{n}": "x" * 1000 for n in range(10)}),
    ],
    ids=["least", "empty", "strange characters", "10 KB"],
)
async def test_a_registration_comes_back_to_the_letter(lab: Lab, registration: Registration) -> None:
    await lab.store.load()
    await lab.store.commit([Put(a_record(registration=registration), State.UP, 1753300000.1234567, (), 1)])
    await lab.store.commit([SetState("i1", 1, State.DOWN, 'it\'s "ä"\x00', 1753300000.7654321, 2)])
    (one,) = (await lab.reopen()).instances
    assert one.record == a_record(registration=registration)
    assert (one.state, one.reason, one.since_s) == (State.DOWN, 'it\'s "ä"\x00', 1753300000.7654321)
    await lab.store.commit([SetState("i1", 1, State.UP, None, 5.0, 3)])
    assert (await lab.reopen()).instances[0].reason is None


@pytest.mark.parametrize("uri", ["", "mysql:x", "sqlite:", "memory:x", "registry.db"])
def test_an_unknown_uri_is_a_configuration_fault(uri: str) -> None:
    with pytest.raises(ConfigError, match="use sqlite:PATH or memory:"):
        open_store(uri)
