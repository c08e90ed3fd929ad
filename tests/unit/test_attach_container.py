"""Attaching to a container and taking it off again, on an engine that is played: what is done, in which order, and what is taken back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from pillion_attach import container, container_plan
from pillion_attach.container_plan import ContainerPlan, Here
from pillion_attach.facts import App, Container, Registry, Token, Wishes
from pillion_common.errors import ConfigError, PillionError

HERE = Registry("r", ("registry",), ("net",), Token("volume", "sec"))
ALL = Here({"shop"}, {"pillion/sidecar:dev"}, {"net"}, {"sec"})
SHOP = Container(App("shop", ports=(80,), networks=("bridge",)), "abc123", "running")
NOT_READY = json.dumps({"Status": "not ready", "Checks": {"registered": "ok", "app": "127.0.0.1:80 refused"}})


def planned(shop: Container = SHOP, wishes: Wishes | None = None, here: Here = ALL) -> ContainerPlan:
    return container_plan.plan(shop, wishes or Wishes(), [HERE], here)


def refused(shop: Container, wishes: Wishes | None = None, here: Here = ALL) -> list[str]:
    with pytest.raises(ConfigError) as error:
        planned(shop, wishes, here)
    return error.value.faults


class FakeEngine:
    """Notes what is done; `answers` are what the sidecar says one after another, the last one for ever."""

    def __init__(self, *answers: tuple[int, str], state: tuple[str, int, int] = ("running", 0, 0)) -> None:
        self.done: list[str] = []
        self._answers = list(answers) or [(0, "")]
        self._state = state
        self.sidecar: dict[str, Any] | None = None
        self.break_at = ""
        self.breaks_with: Callable[[], BaseException] = KeyboardInterrupt

    def _do(self, what: str) -> None:
        self.done.append(what)
        if self.break_at and what.startswith(self.break_at):
            self.break_at = ""
            raise self.breaks_with()

    def sidecar_of(self, app: str) -> dict[str, Any] | None:
        return self.sidecar

    def join(self, network: str, container: str) -> None:
        self._do(f"join {network} {container}")

    def leave(self, network: str, container: str) -> None:
        self._do(f"leave {network} {container}")

    def make_volume(self, name: str, labels: dict[str, str]) -> None:
        self._do(f"make volume {name}")

    def remove_volume(self, name: str) -> None:
        self._do(f"remove volume {name}")

    def start(self, parameters: dict[str, Any], mounts: list[dict[str, Any]]) -> None:
        self._do(f"start {parameters['name']}")

    def stop(self, name: str, timeout_s: int) -> None:
        self._do(f"stop {name}")

    def remove(self, name: str, app: str) -> None:
        self._do(f"remove {name}")

    def state(self, name: str) -> tuple[str, int, int]:
        return self._state

    def run_inside(self, name: str, words: list[str]) -> tuple[int, str]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def last_words(self, name: str) -> list[str]:
        return ["the token does not fit"]


class FakeClock:
    """Time that passes only in `sleep`."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self._on_sleep = on_sleep

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        self._on_sleep()


def attach(engine: FakeEngine, on_sleep: Callable[[], None] = lambda: None) -> tuple[bool, list[str]]:
    said: list[str] = []
    return container.attach(engine, planned(), said.append, 2.0, FakeClock(on_sleep)), said


def sidecar(*, network: str = "", project: str = "") -> dict[str, Any]:
    labels = {"pillion.dev/attached-to": "shop", "pillion.dev/joined-network": network, "com.docker.compose.config-hash": project}
    mounts = [{"Type": "volume", "Name": "spool", "RW": True}, {"Type": "volume", "Name": "sec", "RW": False}, {"Type": "bind"}]
    return {"Name": "/shop-sidecar", "Config": {"Labels": {key: text for key, text in labels.items() if text}}, "Mounts": mounts}


def test_the_sidecar_shares_the_containers_network_and_is_hardened() -> None:
    plan = planned(wishes=Wishes({"requires": "Db"}))
    assert (plan.sidecar, plan.join, plan.spool) == ("shop-sidecar", "net", "shop-sidecar-spool")
    given = plan.parameters
    assert given["network_mode"] == "container:abc123"
    assert given["labels"] == {
        "pillion.dev/attached-to": "shop",
        "pillion.dev/joined-network": "net",
        "com.docker.compose.project": "",
        "com.docker.compose.service": "",
    }
    assert given["restart_policy"] == {"Name": "unless-stopped"}
    assert (given["user"], given["read_only"], given["cap_drop"], given["mem_limit"], given["pids_limit"]) == (
        "10001:10001",
        True,
        ["ALL"],
        "64m",
        32,
    )
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert given["environment"]["PILLION_REQUIRES"] == "Db"
    assert plan.mounts == [
        {"type": "volume", "source": "shop-sidecar-spool", "target": "/var/lib/pillion", "read_only": False},
        {"type": "volume", "source": "sec", "target": "/run/secrets/pillion", "read_only": True},
    ]


def test_a_token_file_is_mounted_by_its_whole_path() -> None:
    assert planned(wishes=Wishes(token=Token("file", "tok"))).mounts[1]["source"] == os.path.abspath("tok")
    assert len(planned(wishes=Wishes(token=Token("none"))).mounts) == 1


def test_an_app_in_the_registrys_network_joins_nothing() -> None:
    plan = planned(Container(App("shop", ports=(80,), networks=("net",)), "a", "running"))
    assert plan.join is None
    assert "pillion.dev/joined-network" not in plan.parameters["labels"]


def test_a_container_of_compose_is_named_by_its_service_and_the_user_told_what_lasts() -> None:
    plan = planned(Container(App("p-shop-1", ports=(80,), service="shop"), "a", "running", project="p"))
    assert plan.settled["name"] == "Shop"
    assert "For good: pillion attach compose FILE shop" in plan.notes[1]


@pytest.mark.parametrize(
    ("shop", "reason"),
    [
        (Container(App("shop", ports=(80,)), "a", "exited"), "shop is not running, it is exited: docker start shop"),
        (Container(App("shop", ports=(80,)), "a", "paused"), "shop is not running, it is paused: docker unpause shop"),
        (Container(App("shop", ports=(80,)), "a", "running", beside="shop-sidecar"), "first `pillion detach shop`"),
        (Container(App("shop", ports=(80,)), "a", "running", neighbour_ports=(7071,)), "shop uses port 7071 itself"),
        (Container(App("shop", network_mode="host", ports=(80,)), "a", "running"), "pillion agent"),
        (Container(App("shop", ports=(80, 81)), "a", "running"), "shop has the ports 80, 81"),
    ],
)
def test_who_cannot_have_a_sidecar(shop: Container, reason: str) -> None:
    [fault] = refused(shop)
    assert reason in fault


def test_everything_that_is_missing_is_told_at_once() -> None:
    told = refused(Container(App("shop"), "a", "exited"), here=Here({"shop-sidecar"}, (), (), ()))
    assert len(told) == 6
    assert "there is a container shop-sidecar already" in told[2]
    assert "docker compose -f compose/dev.yml build log-sidecar" in told[3]
    assert "there is no network net" in told[4]
    assert "there is no volume sec with the token" in told[5]
    assert "docker pull example.com/x:1" in refused(SHOP, Wishes(image="example.com/x:1"))[0]


def test_what_the_plan_needs_is_known_before_it_is_looked_for() -> None:
    assert container_plan.wanted(Wishes(), SHOP, [HERE]) == ("net", "sec")
    assert container_plan.wanted(Wishes(network="n", token=Token("none")), SHOP, [HERE]) == ("n", None)


def test_attaching_joins_starts_and_waits_until_it_is_ready() -> None:
    engine = FakeEngine((1, NOT_READY), (0, ""))
    ready, said = attach(engine)
    assert ready
    assert engine.done == ["join net shop", "make volume shop-sidecar-spool", "start shop-sidecar"]
    assert said[-3] == "ready: Shop is registered, with port 80"
    assert said[-1].endswith("to take it off: pillion detach shop")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(NOT_READY, "app: 127.0.0.1:80 refused"), ("connection refused", "connection refused"), ("", "it did not answer")],
)
def test_a_sidecar_that_is_not_ready_in_time_stays_and_the_reason_is_told(answer: str, reason: str) -> None:
    engine = FakeEngine((1, answer))
    ready, said = attach(engine)
    assert not ready
    assert f"it is not ready yet: {reason}" in said
    assert "start shop-sidecar" in engine.done[-1]


@pytest.mark.parametrize("state", [("exited", 2, 0), ("restarting", 2, 1), ("running", 2, 1), ("gone", 0, 0)])
def test_a_sidecar_that_ends_is_taken_back_and_its_last_words_are_told(state: tuple[str, int, int]) -> None:
    engine = FakeEngine(state=state)
    with pytest.raises(PillionError) as error:
        attach(engine)
    assert ("somebody removed it" if state[0] == "gone" else "the token does not fit") in error.value.message
    assert engine.done[3:] == ["remove shop-sidecar", "remove volume shop-sidecar-spool", "leave net shop"]


@pytest.mark.parametrize(
    ("step", "taken_back"),
    [
        ("join", ["leave net shop"]),
        ("make volume", ["remove volume shop-sidecar-spool", "leave net shop"]),
        ("start", ["remove shop-sidecar", "remove volume shop-sidecar-spool", "leave net shop"]),
    ],
)
def test_ctrl_c_at_any_step_leaves_nothing(step: str, taken_back: list[str]) -> None:
    engine = FakeEngine()
    engine.break_at = step
    with pytest.raises(KeyboardInterrupt):
        attach(engine)
    assert engine.done[-len(taken_back) :] == taken_back


def test_ctrl_c_while_waiting_leaves_nothing_and_a_second_one_does_not_disturb_that() -> None:
    engine = FakeEngine((1, NOT_READY))

    def remove(name: str, app: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        engine.done.append("removed all the same")

    def interrupted() -> None:
        raise KeyboardInterrupt

    engine.remove = remove  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        attach(engine, interrupted)
    assert engine.done[-3:] == ["removed all the same", "remove volume shop-sidecar-spool", "leave net shop"]


def test_what_cannot_be_taken_back_is_told_and_the_rest_is_taken_back() -> None:
    engine = FakeEngine(state=("exited", 1, 0))
    engine.break_at, engine.breaks_with = "remove volume", lambda: PillionError("the volume is in use")
    said: list[str] = []
    with pytest.raises(PillionError, match="the token does not fit"):
        container.attach(engine, planned(), said.append, 2.0, FakeClock())
    assert said[-1] == "not all could be taken back: the volume is in use"
    assert engine.done[-1] == "leave net shop"


def detach(engine: FakeEngine, **more: Any) -> list[str]:
    said: list[str] = []
    container.detach(engine, "shop", said.append, clock=FakeClock(), **more)
    return said


def status(waiting: int) -> tuple[int, str]:
    return 0, json.dumps({"Spool": {"Waiting": waiting}})


def test_detaching_stops_first_and_removes_all_that_attaching_made() -> None:
    engine = FakeEngine(status(0))
    engine.sidecar = sidecar(network="net")
    said = detach(engine)
    assert engine.done == ["stop shop-sidecar", "remove shop-sidecar", "remove volume spool", "leave net shop"]
    assert said[-1] == "done: shop has no sidecar any more"


def test_lines_that_are_leaving_get_the_time_for_it() -> None:
    engine = FakeEngine(status(3), status(1), status(0))
    engine.sidecar = sidecar()
    detach(engine)
    assert "remove volume spool" in engine.done


def test_lines_that_nobody_took_stay_in_their_volume() -> None:
    engine = FakeEngine(status(3))
    engine.sidecar = sidecar()
    said = detach(engine)
    assert engine.done == ["stop shop-sidecar", "remove shop-sidecar"]
    assert any("the volume spool stays: it holds 3 log lines" in line for line in said)


@pytest.mark.parametrize("answer", [(1, "gone"), (0, "no JSON"), (0, "[]")])
def test_a_sidecar_that_does_not_answer_can_be_taken_off(answer: tuple[int, str]) -> None:
    engine = FakeEngine(answer)
    engine.sidecar = sidecar()
    detach(engine)
    assert engine.done == ["stop shop-sidecar", "remove shop-sidecar", "remove volume spool"]


def test_a_dry_run_only_tells() -> None:
    engine = FakeEngine()
    engine.sidecar = sidecar(network="net")
    assert detach(engine, dry_run=True) == [
        "would stop and remove the container shop-sidecar, and remove the volume spool",
        "would take shop out of the network net",
    ]
    assert engine.done == []


def test_ctrl_c_does_not_leave_it_half_detached() -> None:
    engine = FakeEngine(status(0))
    engine.sidecar = sidecar()
    engine.stop = lambda name, timeout_s: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[method-assign]
    detach(engine)
    assert engine.done == ["remove shop-sidecar", "remove volume spool"]


def test_what_was_not_attached_by_hand_is_not_detached_by_hand() -> None:
    engine = FakeEngine()
    with pytest.raises(ConfigError, match="shop has no sidecar that `pillion attach docker` has started"):
        detach(engine)
    engine.sidecar = sidecar(project="p")
    with pytest.raises(ConfigError, match="take shop off with `pillion detach compose FILE shop`"):
        detach(engine)
    assert engine.done == []
