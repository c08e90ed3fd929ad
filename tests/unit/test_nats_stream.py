"""What a stream makes of JetStream's answers."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import nats.errors
import pytest
from nats.js.api import StreamConfig

from pillion_common.errors import Unavailable
from pillion_common.nats_link import NatsPlace
from pillion_common.nats_stream import LEAD_S, Doubtful, Overtaken, Stream
from pillion_registry.store import nats_bucket
from pillion_registry.store.nats_bucket import Bucket

KEPT = {"stream": "S", "seq": 7}
REPEATED = {"stream": "S", "seq": 7, "duplicate": True}
DOUBTFUL = {"stream": "S", "seq": 0, "duplicate": True}
REFUSED = {"error": {"code": 400, "err_code": 10071, "description": "wrong last sequence: 1"}, "stream": "S", "seq": 0}


class Servers:
    """Gives these answers, one after another, and the last one for ever.

    Args:
        holder: whose message is the last one of its subject: "us", or somebody else's name.
    """

    def __init__(self, *answers: dict[str, Any] | None, holder: str = "us") -> None:
        self.answers = list(answers)
        self.names: list[str] = []
        self.waited_s: list[float] = []  # for an answer of any replica; the one that is asked hangs
        self.holder = holder

    @property
    def link(self) -> Any:
        return SimpleNamespace(client=self, stands=True, place=NatsPlace(("nats://h:1",), 3, "p"))

    async def request(self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None) -> SimpleNamespace:
        if ".DIRECT.GET." in subject:
            self.waited_s.append(timeout)
            raise nats.errors.TimeoutError
        if headers is None:
            name = self.names[-1] if self.holder == "us" else self.holder
            block = base64.b64encode(f"NATS/1.0\r\nNats-Msg-Id: {name}\r\n\r\n".encode()).decode()
            return SimpleNamespace(data=json.dumps({"message": {"seq": 9, "subject": "$KV.p_b.k", "hdrs": block}}).encode())
        self.names.append(headers["Nats-Msg-Id"])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise nats.errors.TimeoutError
        return SimpleNamespace(data=json.dumps(answer).encode())


async def send(answer: dict[str, Any]) -> int:
    stream = Stream(cast(Any, Servers(answer).link), StreamConfig(name="S"), "a test")
    return await stream.send("s.a", b"x", {"Nats-Msg-Id": "one"}, 1.0)


async def test_what_was_kept_now_or_before_has_its_number() -> None:
    assert await send(KEPT) == await send(REPEATED) == 7


async def test_a_message_that_was_refused_is_not_taken_for_kept_when_it_is_sent_again() -> None:
    """A cluster of nats-server 2.10 answers so: it has noted the name of what it refused."""
    with pytest.raises(Overtaken):
        await send(REFUSED)
    with pytest.raises(Doubtful):
        await send(DOUBTFUL)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_bucket, "RETRY_S", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_a_write_that_may_be_under_way_is_asked_for_under_its_name_until_it_is_there() -> None:
    servers = Servers(DOUBTFUL, DOUBTFUL, REPEATED)
    assert await Bucket(servers.link, "b", "a test", 1).put("k", b"v", 3, 5.0) == 7
    assert len(servers.names) == 3
    assert len(set(servers.names)) == 1


@pytest.mark.usefixtures("at_once")
async def test_a_write_of_which_nothing_comes_was_overtaken() -> None:
    servers = Servers(DOUBTFUL)
    with pytest.raises(Overtaken):
        await Bucket(servers.link, "b", "a test", 1).put("k", b"v", 3, 5.0)
    assert len(servers.names) == nats_bucket.MAX_DOUBTS + 1


@pytest.mark.usefixtures("at_once")
async def test_a_write_whose_answer_was_lost_is_known_again_by_its_name() -> None:
    """nats-server from 2.12 on looks at the condition first, and refuses the repeat of what it has kept."""
    servers = Servers(None, REFUSED)
    assert await Bucket(servers.link, "b", "a test", 1).put("k", b"v", 3, 5.0) == 9
    assert len(set(servers.names)) == 1
    for others in (Servers(None, REFUSED, holder="theirs"), Servers(REFUSED)):  # kept or not, another's came since; or before
        with pytest.raises(Overtaken):
            await Bucket(others.link, "b", "a test", 1).put("k", b"v", 3, 5.0)


async def test_without_a_server_nothing_is_sent() -> None:
    servers = Servers(KEPT)
    link = servers.link
    link.stands = False
    with pytest.raises(Unavailable, match="not reached"):
        await Bucket(link, "b", "a test", 1).put("k", b"v", 3, 0.0)
    assert servers.names == []


async def test_what_a_server_that_hangs_is_asked_for_the_leader_gives_soon() -> None:
    """It is asked in its turn for as long as its route counts as whole, a minute and more."""
    servers = Servers(holder="theirs")
    entry = await Bucket(servers.link, "b", "a test", 1).numbered(9)
    assert entry is not None
    assert entry.seq == 9
    assert servers.waited_s == [LEAD_S]
