"""Registries that share one catalogue in NATS, as operators and their peers see them: any of them will do, and none is missed for long."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from classic import Classic
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers, store_uri
from programs import Program, eventually, program
from registry_lab import states
from replica_lab import QUICK, WAIT_S, Replicas, listed, post, register, replicas
from stub_log import stub_log

pytestmark = DROPS_CONNECTIONS
TOKEN = "let-me-in-please-0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_servers(tmp_path_factory.mktemp("nats")) as [server]:
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def trio(server: NatsServer) -> Iterator[Replicas]:
    with replicas([server]) as trio:
        yield trio


def peers(stack: ExitStack, count: int) -> list[Classic]:
    return [stack.enter_context(Classic()) for _ in range(count)]


def id_of(lab: Replicas, owner: Program, begin: str) -> str:
    """Return an instance's id that one registry would have."""
    return next(one for one in (f"{begin}-{number}" for number in range(200)) if lab.owner(one) is owner)


def table(peer: Classic) -> set[str]:
    return {url for _, url in peer.table}


# One catalogue.


def test_what_one_took_in_all_list_alike_and_each_reads_what_it_wrote(trio: Replicas, stack: ExitStack) -> None:
    for number, peer in enumerate(peers(stack, 6)):
        one = trio.all[number % 3]
        answer = peer.register(one.url, f"S{number}").json()
        mine = listed(one)
        assert peer.url in {found["ServiceURL"] for found in mine["Services"]}  # at once
        assert mine["Revision"] >= answer["Revision"]
        trio.wait_for(peer.url, "up")
    eventually(lambda: len({str(listed(one)) for one in trio.all}) == 1)
    first = listed(trio.all[0])
    assert len(first["Services"]) == 6
    assert [(listed(one)["Revision"], listed(one)["Epoch"]) for one in trio.all] == [(first["Revision"], first["Epoch"])] * 3


def test_any_takes_a_report_an_undrain_and_a_departure_of_what_another_looks_after(trio: Replicas, stack: ExitStack) -> None:
    peer, other = peers(stack, 2)
    known = register(trio.all[0], peer, "Db")
    trio.wait_for(peer.url, "up")
    first, second = trio.others(trio.owner(known))
    peer.heartbeat = 503
    assert post(first, known, "state", State="down", Reason="out of paper").json()["State"] == "down"
    assert states(first) == {peer.url: "down"}
    trio.wait_for(peer.url, "down")
    peer.heartbeat = "ok"
    assert post(second, known, "state", State="up").status_code == 200  # has its owner check it
    trio.wait_for(peer.url, "up")
    assert post(first, known, "drain").json()["State"] == "draining"
    trio.wait_for(peer.url, "draining")
    assert post(second, known, "undrain").status_code == 200
    trio.wait_for(peer.url, "up")
    assert requests.delete(first.url + "/services", data=peer.url, timeout=WAIT_S).status_code == 200
    trio.wait_for(peer.url, None)
    again = register(trio.all[1], other, "Db")
    assert post(trio.others(trio.owner(again))[0], again, "forget").status_code == 200
    trio.wait_for(other.url, None)
    seen = len(other.heartbeats)
    time.sleep(0.6)
    assert len(other.heartbeats) <= seen + 1  # nobody checks it any more


def test_a_drain_waits_for_dependents_that_others_tell(trio: Replicas, stack: ExitStack) -> None:
    asked = trio.all[0]
    provider, mine, *theirs = peers(stack, 5)
    known = register(asked, provider, "Db", InstanceID=id_of(trio, trio.all[1], "db"))
    dependents = [mine, *theirs]
    for number, (peer, owner) in enumerate(zip(dependents, [trio.all[1], trio.all[1], trio.all[2], trio.all[2]], strict=True)):
        register(asked, peer, f"Shop{number}", ["Db"], InstanceID=id_of(trio, owner, f"shop{number}"))
    for peer in (provider, *dependents):
        trio.wait_for(peer.url, "up")
    eventually(lambda: all(table(peer) == {provider.url} for peer in dependents))
    for peer in dependents:
        peer.delay_s = 0.4
    told = post(asked, known, "drain").json()
    assert [peer.table for peer in dependents] == [[], [], [], []]
    assert (told["State"], told["Acknowledged"], told["Waiting"]) == ("draining", 4, [])
    post(asked, known, "undrain")
    eventually(lambda: all(table(peer) == {provider.url} for peer in dependents))
    theirs[1].patch = 500
    told = post(asked, known, "drain", Timeout=1.0).json()
    assert (told["Acknowledged"], len(told["Waiting"])) == (3, 1)
    assert [peer.faults for peer in dependents] == [[]] * 4


def test_why_asks_whoever_tells_the_consumer(trio: Replicas, stack: ExitStack) -> None:
    provider, consumer = peers(stack, 2)
    register(trio.all[0], provider, "Db")
    known = register(trio.all[0], consumer, "Shop", ["Db"])
    for peer in (provider, consumer):
        trio.wait_for(peer.url, "up")
    eventually(lambda: table(consumer) == {provider.url})

    def why(one: Program, consumer: str = "Shop") -> dict[str, Any]:
        answer = requests.get(one.url + "/why", params={"consumer": consumer, "service": "Db"}, timeout=WAIT_S)
        return dict(answer.json()["Findings"][0])

    eventually(lambda: [why(one)["Code"] for one in trio.all] == ["fine"] * 3, why=lambda: str([why(one) for one in trio.all]))
    consumer.patch = 500
    more = stack.enter_context(Classic())
    register(trio.all[0], more, "Db")
    trio.wait_for(more.url, "up")
    eventually(lambda: [why(one, known)["Code"] for one in trio.all].count("fine") == 0, why=lambda: str([why(one) for one in trio.all]))
    assert len({why(one)["Code"] for one in trio.all}) == 1


def test_each_event_stands_once_in_the_log_whoever_saw_it(trio: Replicas, stack: ExitStack) -> None:
    log = stack.enter_context(stub_log())
    body = {"ServiceName": "LogService", "ServiceURL": log.url, "HeartbeatURL": f"{log.url}/livez"}
    assert requests.post(f"{trio.all[0].url}/services", json=body, timeout=WAIT_S).status_code == 200
    trio.wait_for(log.url, "up")
    some = peers(stack, 6)
    for number, peer in enumerate(some):
        register(trio.all[number % 3], peer, f"S{number}", InstanceID=f"s{number}")
        trio.wait_for(peer.url, "up")
    some[0].die()
    trio.wait_for(some[0].url, "down")
    post(trio.all[1], "s1", "drain")
    requests.delete(trio.all[2].url + "/services", data=some[2].url, timeout=WAIT_S)

    def told() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {f"S{number}": [] for number in range(6)}
        for entry in sorted(log.entries, key=lambda one: str(one["Time"])):
            if entry.get("Subject") in found:
                found[entry["Subject"]].append(entry["Event"])
        return found

    wanted = {f"S{number}": ["registered", "up"] for number in range(6)}
    wanted["S0"].append("down")
    wanted["S1"] += ["draining", "drained"]
    wanted["S2"].append("left")
    eventually(lambda: told() == wanted, 5, lambda: str(told()))
    time.sleep(0.5)
    assert told() == wanted


# One of them dies, leaves, or stands still.


def test_a_hiding_ends_though_who_hid_it_and_who_had_it_were_killed(server: NatsServer, stack: ExitStack) -> None:
    with replicas([server]) as trio:
        peer = stack.enter_context(Classic())
        known = register(trio.all[0], peer, "Db")
        trio.wait_for(peer.url, "up")
        owner = trio.owner(known)
        asked = trio.others(owner)[0]
        assert post(asked, known, "hide", Seconds=4).json()["State"] == "draining"
        ends = time.monotonic() + 4
        trio.wait_for(peer.url, "draining")
        asked.kill()
        owner.kill()
        time.sleep(2.5)
        assert states(trio.live[0]) == {peer.url: "draining"}
        trio.wait_for(peer.url, "up", 5)
        assert time.monotonic() > ends - 0.2


def test_who_is_hidden_and_registers_again_stays_hidden(trio: Replicas, stack: ExitStack) -> None:
    peer = stack.enter_context(Classic())
    given = {"InstanceID": "db-1", "Incarnation": 7}
    register(trio.all[0], peer, "Db", **given)
    trio.wait_for(peer.url, "up")
    assert post(trio.all[1], "db-1", "hide", Seconds=2).status_code == 200
    trio.wait_for(peer.url, "draining")
    register(trio.all[2], peer, "Db", **given)
    time.sleep(0.8)
    assert [states(one)[peer.url] for one in trio.all] == ["draining"] * 3
    trio.wait_for(peer.url, "up", 4)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_others_take_over_what_one_had_and_its_dependents_miss_nothing(server: NatsServer, stack: ExitStack, how: str) -> None:
    with replicas([server]) as trio:
        gone = trio.all[1]
        asked = trio.all[0]
        dying, staying, coming, new = peers(stack, 4)
        register(asked, dying, "Db", InstanceID=id_of(trio, gone, "dying"))
        register(asked, staying, "Db", InstanceID=id_of(trio, gone, "staying"))
        classic = peers(stack, 6)
        for number, peer in enumerate(classic):
            register(asked, peer, f"C{number}", ["Db"], InstanceID=id_of(trio, gone, f"c{number}"))
        (modern,) = peers(stack, 1)
        register(asked, modern, "Modern", ["Db"], InstanceID=id_of(trio, gone, "modern"), Protocol=2)
        for peer in (dying, staying, *classic, modern):
            trio.wait_for(peer.url, "up")
        eventually(lambda: all(table(peer) == {dying.url, staying.url} for peer in classic))
        for peer in classic[:4]:
            peer.delay_s = 0.8
        register(asked, coming, "Db", InstanceID=id_of(trio, trio.all[2], "coming"))
        trio.wait_for(coming.url, "up")
        eventually(lambda: all(len(peer.patch_headers) == len(peer.patches) + 1 for peer in classic[:4]))
        for peer in classic[:4]:
            peer.delay_s = 0.0  # an Added is under way to these, slowly, and what comes after it would be quicker
        patches = len(modern.patches)
        if how == "kill":
            gone.kill()
        else:
            assert gone.stop() == 0
        ended = time.monotonic()
        dying.die()
        trio.wait_for(dying.url, "down", 6)
        took_s = time.monotonic() - ended
        assert took_s < (4.0 if how == "kill" else 2.0)
        register(trio.live[-1], new, "Db")
        trio.wait_for(new.url, "up")
        right = {staying.url, coming.url, new.url}
        eventually(lambda: all(table(peer) == right for peer in classic), 8, lambda: str([table(peer) ^ right for peer in classic]))
        time.sleep(0.5)
        assert all(len(peer.table) == 3 for peer in classic)
        assert [fault for peer in classic for fault in peer.faults if "twice" in fault] == []
        eventually(lambda: any(patch.get("Full") for patch in modern.patches[patches:]))
        (full, *_) = [patch for patch in modern.patches[patches:] if patch.get("Full")]
        assert full["Epoch"] == listed(trio.live[0])["Epoch"]


def test_one_that_stood_still_goes_on_as_one_of_them(server: NatsServer, stack: ExitStack) -> None:
    with replicas([server]) as trio:
        paused = trio.all[1]
        provider, late, *dependents = peers(stack, 6)
        register(trio.all[0], provider, "Db", InstanceID=id_of(trio, paused, "db"))
        for number, peer in enumerate(dependents):
            register(trio.all[0], peer, f"C{number}", ["Db"], InstanceID=id_of(trio, paused, f"c{number}"))
        for peer in (provider, *dependents):
            trio.wait_for(peer.url, "up")
        eventually(lambda: all(table(peer) == {provider.url} for peer in dependents))
        os.kill(paused.process.pid, signal.SIGSTOP)
        try:
            register(trio.all[0], late, "Db")
            eventually(lambda: all(table(peer) == {provider.url, late.url} for peer in dependents), 5)
            time.sleep(2)
        finally:
            os.kill(paused.process.pid, signal.SIGCONT)
        late.die()
        trio.wait_for(late.url, "down")
        trio.settle()
        eventually(lambda: all(table(peer) == {provider.url} for peer in dependents), 5)
        time.sleep(1)
        assert [peer.table for peer in dependents] == [[("Db", provider.url)]] * 4
        assert [peer.faults for peer in dependents] == [[]] * 4
        downs = [event for one in trio.all for event in one.events("instance_down")]
        assert {event["url"] for event in downs} == {late.url}
        answer = requests.get(paused.url + "/readyz", timeout=WAIT_S)
        assert answer.status_code == 200, answer.text


# NATS dies.


def test_without_nats_reads_go_on_writes_wait_and_nothing_is_withdrawn(tmp_path: Path, stack: ExitStack) -> None:
    with nats_servers(tmp_path) as [server], replicas([server], count=2) as pair:
        one, other = pair.all
        provider, dependent, late = peers(stack, 3)
        known = register(one, provider, "Db")
        register(one, dependent, "Shop", ["Db"])
        for peer in (provider, dependent):
            pair.wait_for(peer.url, "up")
        eventually(lambda: table(dependent) == {provider.url})
        before = [listed(each) for each in pair.all]
        server.kill()
        began = time.monotonic()
        answers: list[tuple[float, requests.Response]] = []

        def write(what: Any) -> None:
            answers.append((0.0, what()))
            answers[-1] = time.monotonic() - began, answers[-1][1]

        writes = [
            lambda: requests.post(one.url + "/services", json=late.registration("Db"), timeout=WAIT_S),
            lambda: post(other, known, "drain"),
            lambda: requests.delete(one.url + "/services", data=dependent.url, timeout=WAIT_S),
            lambda: post(one, known, "state", State="down"),
            lambda: post(one, known, "forget"),
        ]
        threads = [threading.Thread(target=write, args=(what,)) for what in writes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert [answer.status_code for _, answer in answers] == [503] * len(writes), [answer.text for _, answer in answers]
        assert all(int(answer.headers["Retry-After"]) >= 1 for _, answer in answers)
        assert max(took_s for took_s, _ in answers) < 7
        for each in pair.all:
            answer = requests.get(each.url + "/readyz", timeout=WAIT_S)
            assert answer.status_code == 503
            assert "NATS" in answer.json()["Checks"]["store"]
            assert requests.get(each.url + "/livez", timeout=WAIT_S).status_code == 200
        dependent.patches.clear()
        time.sleep(0.5)
        assert [listed(each)["Services"] for each in pair.all] == [each["Services"] for each in before]
        assert dependent.patches == []
        server.start()
        eventually(lambda: all(requests.get(each.url + "/readyz", timeout=WAIT_S).status_code == 200 for each in pair.all), 15)
        time.sleep(0.5)
        assert [states(each) for each in pair.all] == [{provider.url: "up", dependent.url: "up"}] * 2  # what was refused was not kept
        register(other, late, "Db")
        pair.wait_for(late.url, "up")
        eventually(lambda: table(dependent) == {provider.url, late.url}, 5, lambda: str(dependent.table))
        provider.die()
        pair.wait_for(provider.url, "down")
        eventually(lambda: dependent.table == [("Db", late.url)])
        assert [fault for fault in dependent.faults if "twice" in fault] == []
        assert listed(one)["Epoch"] == before[0]["Epoch"]


# Starting.


def test_the_token_for_nats_comes_from_a_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(TOKEN)
    bad.write_text("something-else-0123456789")
    with nats_servers(tmp_path, 1, {"authorization": {"token": TOKEN}}) as [server]:
        store = ("--store", store_uri([server]), *QUICK)
        with program("registry", *store, "--store-token-file", str(good)) as running, Classic() as peer:
            register(running, peer, "Db")
            eventually(lambda: states(running) == {peer.url: "up"})
            refused = Program(("registry", "--listen", "127.0.0.1:0", *store, "--store-token-file", str(bad)), {})
            try:
                eventually(lambda: any("--store-token-file" in line for line in refused.lines), WAIT_S)
                assert not any(TOKEN in line for line in refused.lines + running.lines)
            finally:
                refused.stop()


def test_one_that_starts_later_knows_all_and_takes_its_share(server: NatsServer, stack: ExitStack) -> None:
    store = ("--store", store_uri([server], prefix=f"t{secrets.token_hex(6)}"), *QUICK)
    with program("registry", *store, "--member", "r0") as first:
        lab = Replicas([first])
        lab.settle()
        dependents = peers(stack, 8)
        (provider,) = peers(stack, 1)
        register(first, provider, "Db")
        for number, peer in enumerate(dependents):
            register(first, peer, f"C{number}", ["Db"])
        lab.wait_for(provider.url, "up")
        eventually(lambda: all(table(peer) == {provider.url} for peer in dependents))
        second = stack.enter_context(program("registry", *store, "--member", "r1"))
        lab.all.append(second)
        lab.settle()
        assert listed(second)["Services"] == listed(first)["Services"]
        provider.die()
        lab.wait_for(provider.url, "down")
        eventually(lambda: all(table(peer) == set() for peer in dependents))
        assert [peer.faults for peer in dependents] == [[]] * 8


def test_one_that_waits_for_nats_at_its_start_can_be_stopped(tmp_path: Path) -> None:
    with nats_servers(tmp_path) as [server]:
        store = store_uri([server])
        server.kill()
        waiting = Program(("registry", "--listen", "127.0.0.1:0", "--store", store, *QUICK), {})
        eventually(lambda: waiting.events("nats_unreachable"), WAIT_S)
        began = time.monotonic()
        assert waiting.stop() == 0
        assert time.monotonic() - began < 3
