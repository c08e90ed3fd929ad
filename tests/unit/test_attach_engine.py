"""What the Docker SDK says, read as facts; and its errors, as ours."""

from __future__ import annotations

from typing import Any

import docker
import pytest
import requests
from docker.errors import APIError, DockerException, NotFound

from pillion_attach import engine as engine_module
from pillion_attach.engine import Engine, connected
from pillion_attach.facts import Registry, Token
from pillion_common.errors import PillionError

COMPOSE = {"com.docker.compose.project": "p", "com.docker.compose.service": "shop"}


def attrs(name: str = "shop", **more: Any) -> dict[str, Any]:
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "RestartCount": 0,
        "State": {"Status": more.get("status", "running"), "ExitCode": 0},
        "Config": {
            "Image": more.get("image", "example/shop"),
            "Labels": more.get("labels"),
            "Env": more.get("env"),
            "ExposedPorts": {port: {} for port in more.get("exposed", ())},
        },
        "HostConfig": {"NetworkMode": more.get("mode", "default"), "PortBindings": {port: [] for port in more.get("bound", ())}},
        "NetworkSettings": {"Networks": more.get("networks", {"bridge": {}})},
        "Mounts": more.get("mounts", []),
    }


class FakeContainer:
    def __init__(self, facts: dict[str, Any]) -> None:
        self.attrs = facts
        self.name = facts["Name"].lstrip("/")
        self.labels = facts["Config"]["Labels"] or {}
        self.did: list[str] = []
        self.log = b""
        self.answer: tuple[int | None, bytes] = (0, b"ok\n")

    def remove(self, **words: Any) -> None:
        self.did.append(f"remove {words}")

    def stop(self, **words: Any) -> None:
        self.did.append(f"stop {words}")

    def logs(self, **words: Any) -> bytes:
        return self.log

    def exec_run(self, words: list[str]) -> tuple[int | None, bytes]:
        return self.answer


class FakeCollection:
    """Containers, networks or volumes, by name."""

    def __init__(self, *things: Any) -> None:
        self.things = {thing.name: thing for thing in things}
        self.asked: list[Any] = []

    def get(self, name: str) -> Any:
        if name not in self.things:
            raise NotFound(f"no {name}")
        return self.things[name]

    def list(self, **words: Any) -> list[Any]:
        self.asked.append(words)
        return list(self.things.values())

    def create(self, name: str, labels: dict[str, str]) -> None:
        self.asked.append((name, labels))

    def run(self, **words: Any) -> None:
        self.asked.append(words)


class Named:
    def __init__(self, name: str, fails: Exception | None = None) -> None:
        self.name = name
        self.did: list[Any] = []
        self._fails = fails

    def connect(self, container: str) -> None:
        self.did.append(("connect", container))

    def disconnect(self, container: str, force: bool) -> None:
        self.did.append(("disconnect", container, force))
        if self._fails:
            raise self._fails

    def remove(self) -> None:
        self.did.append("remove")


class FakeClient:
    def __init__(self, *containers: FakeContainer) -> None:
        self.containers = FakeCollection(*containers)
        self.networks = FakeCollection(Named("net"))
        self.volumes = FakeCollection(Named("sec"))
        self.images = FakeCollection(Named("pillion/sidecar:dev"))
        self.api = self
        self.closed = False

    def ping(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def engine_with(*facts: dict[str, Any]) -> tuple[Engine, FakeClient]:
    client = FakeClient(*map(FakeContainer, facts))
    return Engine(client), client


def test_a_container_is_read_as_an_app() -> None:
    facts = attrs(
        labels={"pillion.dev/zone": "z", **COMPOSE, "com.docker.compose.config-hash": "1"},
        env=["A=1=2", "B"],
        exposed=["80/tcp", "53/udp"],
        bound=["81/tcp"],
        mode="p_default",
        networks={"p_default": {}, "net": {}},
        status="paused",
    )
    engine, _ = engine_with(facts)
    shop = engine.container("shop")
    assert shop is not None
    assert (shop.id, shop.status, shop.project, shop.app.service) == ("id-of-shop", "paused", "p", "shop")
    assert shop.app.ports == (80, 81)
    assert shop.app.environ == {"A": "1=2", "B": ""}
    assert shop.app.networks == ("p_default", "net")
    assert shop.app.network_mode == ""
    assert engine.container("nobody") is None


def test_composes_labels_on_an_image_do_not_make_a_container_composes() -> None:
    shop = engine_with(attrs(labels=COMPOSE))[0].container("shop")
    assert shop is not None
    assert (shop.project, shop.app.service) == ("", "")


@pytest.mark.parametrize("mode", ["default", "bridge"])
def test_the_engines_own_bridge_is_an_ordinary_network(mode: str) -> None:
    shop = engine_with(attrs(mode=mode))[0].container("shop")
    assert shop is not None
    assert (shop.app.network_mode, shop.app.networks) == ("", ("bridge",))


@pytest.mark.parametrize(
    ("mode", "read"),
    [("host", "host"), ("none", "none"), ("container:other", "container:other"), ("container:0123456789abcdef", "container:0123456789ab")],
)
def test_an_app_without_a_network_of_its_own_is_seen(mode: str, read: str) -> None:
    shop = engine_with(attrs(mode=mode, networks={mode: {}}), attrs("other"))[0].container("shop")
    assert shop is not None
    assert (shop.app.network_mode, shop.app.networks) == (read, ())


@pytest.mark.parametrize("more", [{"labels": {"pillion.dev/attached-to": "shop"}}, {"image": "pillion/sidecar:dev"}])
def test_a_sidecar_that_stands_beside_it_is_seen(more: dict[str, Any]) -> None:
    shop = engine_with(attrs(), attrs("side", mode="container:id-of-shop", exposed=["7070/tcp"], **more))[0].container("shop")
    assert shop is not None
    assert (shop.beside, shop.neighbour_ports) == ("side", (7070,))


def test_others_in_its_network_are_no_sidecars_but_have_ports() -> None:
    shop = engine_with(attrs(), attrs("proxy", mode="container:id-of-shop", exposed=["81/tcp"]))[0].container("shop")
    assert shop is not None
    assert (shop.beside, shop.neighbour_ports) == ("", (81,))


@pytest.mark.parametrize(
    ("env", "mounts", "token"),
    [
        ([], [], Token("none")),
        (
            ["PILLION_TOKEN_FILE=/run/secrets/pillion/token"],
            [{"Type": "volume", "Name": "sec", "Destination": "/run/secrets/pillion"}],
            Token("volume", "sec"),
        ),
        (["PILLION_TOKEN_FILE=/s/a/t"], [{"Type": "bind", "Source": "/h", "Destination": "/s/"}], Token("file", "/h/a/t")),
        (["PILLION_TOKEN_FILE=/s/t"], [{"Type": "bind", "Source": "/h/t", "Destination": "/s/t"}], Token("file", "/h/t")),
        (["PILLION_TOKEN_FILE=/s/t"], [{"Type": "volume", "Name": "x", "Destination": "/data"}], None),
    ],
)
def test_a_registry_is_found_with_its_names_networks_and_token(env: list[str], mounts: list[Any], token: Token | None) -> None:
    networks = {"net": {"Aliases": ["registry", "r-1"]}, "bridge": {"Aliases": None}, "also": None}
    engine, client = engine_with(attrs("r-1", env=env, mounts=mounts, networks=networks))
    assert engine.registries() == [Registry("r-1", ("r-1", "registry"), ("also", "net"), token)]
    assert client.containers.asked[0]["filters"] == {"label": "org.opencontainers.image.title=pillion-registry"}


def test_what_is_here_and_what_is_not() -> None:
    engine, _ = engine_with()
    assert engine.has_image("pillion/sidecar:dev")
    assert not engine.has_image("x")
    assert engine.has_network("net")
    assert not engine.has_network("x")
    assert engine.has_volume("sec")
    assert not engine.has_volume("x")
    assert engine.network_names() == {"net"}


def test_networks_and_volumes_are_changed_and_what_is_gone_is_fine() -> None:
    engine, client = engine_with()
    engine.join("net", "shop")
    engine.leave("net", "shop")
    engine.leave("gone", "shop")
    assert client.networks.get("net").did == [("connect", "shop"), ("disconnect", "shop", True)]
    engine.make_volume("v", {"a": "b"})
    assert client.volumes.asked == [("v", {"a": "b"})]
    engine.remove_volume("sec")
    engine.remove_volume("gone")
    assert client.volumes.get("sec").did == ["remove"]
    client.networks.things["not-in"] = Named("not-in", APIError("no", explanation="container x is not connected to network"))
    engine.leave("not-in", "shop")
    client.networks.things["bad"] = Named("bad", APIError("no", explanation="the daemon is on fire"))
    with pytest.raises(PillionError, match="the engine could not take shop out of the network bad: the daemon is on fire"):
        engine.leave("bad", "shop")
    with pytest.raises(PillionError, match="could not put shop into the network gone"):
        engine.join("gone", "shop")


def test_a_container_is_started_with_its_mounts() -> None:
    engine, client = engine_with()
    engine.start({"name": "s", "image": "i"}, [{"type": "volume", "source": "v", "target": "/t", "read_only": True}])
    [given] = client.containers.asked
    assert (given["name"], given["detach"], given["mounts"]) == (
        "s",
        True,
        [{"Type": "volume", "Source": "v", "Target": "/t", "ReadOnly": True}],
    )


def test_only_the_apps_own_sidecar_is_removed() -> None:
    engine, client = engine_with(attrs("side", labels={"pillion.dev/attached-to": "shop"}), attrs("other"))
    engine.stop("side", 9)
    engine.remove("side", "shop")
    engine.remove("other", "shop")
    engine.remove("gone", "shop")
    engine.stop("gone", 9)
    assert client.containers.get("side").did == ["stop {'timeout': 9}", "remove {'v': True, 'force': True}"]
    assert client.containers.get("other").did == []


def test_states_answers_and_last_words() -> None:
    engine, client = engine_with(attrs("side", status="exited"))
    assert engine.state("side") == ("exited", 0, 0)
    assert engine.state("gone") == ("gone", 0, 0)
    side = client.containers.get("side")
    assert engine.run_inside("side", ["x"]) == (0, "ok")
    side.answer = (None, b"")
    assert engine.run_inside("side", ["x"]) == (126, "")
    assert engine.run_inside("gone", ["x"])[0] == 126
    side.log = b'{"level":"info","message":"fine"}\nplain\n{"level":"error","message":"no such file"}\n[]\n'
    assert engine.last_words("side") == ["no such file"]
    side.log = b"pillion sidecar: --name: is needed\n\n"
    assert engine.last_words("side") == ["pillion sidecar: --name: is needed"]


def test_the_sidecar_of_an_app_is_found_by_its_label() -> None:
    engine, client = engine_with(attrs("side"))
    found = engine.sidecar_of("shop")
    assert found is not None
    assert found["Name"] == "/side"
    assert client.containers.asked[0]["filters"] == {"label": "pillion.dev/attached-to=shop"}
    assert engine_with()[0].sidecar_of("shop") is None


def test_all_names_are_listed() -> None:
    class Api(FakeClient):
        def containers(self, all: bool) -> list[dict[str, Any]]:  # type: ignore[override]
            return [{"Names": ["/a"]}, {"Names": ["/b", "/c"]}, {}]

    client = FakeClient()
    client.api = object.__new__(Api)
    assert Engine(client).names() == ["a", "b", "c"]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    monkeypatch.setattr(engine_module.docker, "from_env", lambda **words: made)
    return made


def test_the_connection_is_closed(client: FakeClient) -> None:
    with connected() as engine:
        assert engine.has_network("net")
    assert client.closed


@pytest.mark.parametrize("error", [DockerException("no socket"), requests.ConnectionError("refused")])
def test_an_engine_that_does_not_answer_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**words: Any) -> Any:
        raise error

    monkeypatch.setattr(docker, "from_env", fail)
    with pytest.raises(PillionError, match=r"no container engine answers: .* Start Docker"), connected():
        pass


def test_an_engine_that_goes_away_is_told(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise requests.ReadTimeout("slow")

    monkeypatch.setattr(client.images, "get", fail)
    with pytest.raises(PillionError, match="the engine could not look for x: slow"), connected() as engine:
        engine.has_image("x")
