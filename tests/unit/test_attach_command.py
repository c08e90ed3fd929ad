"""`pillion attach` and `pillion detach` as one types them: words, files, exit codes; without an engine, or with one that is played."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pillion_attach import attach, compose, compose_file, container, detach, options
from pillion_attach.facts import App, Container, Registry, Token
from pillion_common import command
from pillion_common.errors import PillionError

BASE = "# mine\nservices:\n  shop: {image: example/shop, expose: [80]}\n  cart: {image: example/cart, expose: [81], profiles: [debug]}\n"
HERE = Registry("r-1", ("r-1", "registry"), ("net",), Token("volume", "sec"))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither compose nor an engine; and SIGTERM afterwards as it was."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(compose, "find_compose", lambda: None)
    for module in (attach, compose, detach):
        monkeypatch.setattr(module, "connected", nobody)
    yield
    signal.signal(signal.SIGTERM, before)


@contextmanager
def nobody() -> Iterator[Any]:
    raise PillionError("no container engine answers")
    yield


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "compose.yml"
    path.write_text(BASE)
    return path


@pytest.fixture
def written(base: Path) -> Callable[[], dict[str, Any]]:
    return lambda: dict(yaml.safe_load((base.parent / "docker-compose.pillion.yml").read_text()))


def test_attaching_writes_the_override_and_says_what_to_type(
    base: Path, written: Callable[[], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert attach.main(["compose", "compose.yml", "shop", "cart"]) == 0
    assert base.read_text() == BASE
    assert list(written()["services"]) == ["shop", "shop-sidecar", "cart", "cart-sidecar"]
    assert [path.name for path in sorted(base.parent.iterdir())] == ["compose.yml", "docker-compose.pillion.yml"]
    out = capsys.readouterr().out
    assert "wrote docker-compose.pillion.yml; compose.yml is as it was" in out
    assert "docker compose is not here, so compose.yml was read directly" in out
    assert "added: shop-sidecar beside shop (name Shop, port 80)" in out
    assert "shop joins the network compose_default, where the registry is" in out
    assert out.endswith("now type:\n  docker compose -f compose.yml -f docker-compose.pillion.yml --profile debug up -d\n")


def test_attaching_again_with_more_brings_it_up_to_date(base: Path, written: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    attach.main(["compose", "compose.yml", "shop", "--name", "Store", "--requires", "Db"])
    assert attach.main(["compose", "compose.yml", "shop", "--zone", "z"]) == 0
    env = written()["services"]["shop-sidecar"]["environment"]
    assert (env["PILLION_NAME"], env["PILLION_REQUIRES"], env["PILLION_ZONE"]) == ("Store", "Db", "z")
    assert "brought up to date: shop-sidecar" in capsys.readouterr().out


def test_a_dry_run_prints_the_file_and_writes_nothing(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attach.main(["compose", "compose.yml", "shop", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["services"]["shop-sidecar"]["network_mode"] == "service:shop"
    assert err.startswith("nothing was written")
    assert "now type:" in err
    assert list(base.parent.iterdir()) == [base]


def test_the_override_may_lie_elsewhere_but_not_on_the_base(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base.parent / "deploy").mkdir()
    assert attach.main(["compose", "compose.yml", "shop", "--output", "deploy/o.yml"]) == 0
    assert "-f compose.yml -f deploy/o.yml up -d" in capsys.readouterr().out
    assert attach.main(["compose", "compose.yml", "shop", "--output", "./compose.yml"]) == 2
    assert "is the compose file itself" in capsys.readouterr().err
    assert attach.main(["compose", "compose.yml", "shop", "--output", "nowhere/o.yml"]) == 1
    assert "nowhere/o.yml cannot be written" in capsys.readouterr().err


def test_a_refusal_exits_with_2_and_writes_nothing(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attach.main(["compose", "compose.yml", "shp"]) == 2
    assert "pillion attach: compose.yml has no service 'shp'; did you mean shop?" in capsys.readouterr().err
    assert list(base.parent.iterdir()) == [base]


def test_what_compose_does_not_take_is_not_written(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    target = base.parent / "docker-compose.pillion.yml"
    attach.main(["compose", "compose.yml", "shop"])
    target.chmod(0o640)
    before = target.read_text()
    monkeypatch.setattr(compose, "find_compose", lambda: ["false"])
    monkeypatch.setattr(compose, "read_project", lambda file, command: compose_file.read_project(file, None))
    assert attach.main(["compose", "compose.yml", "cart"]) == 2
    assert "docker compose does not take compose.yml with " in capsys.readouterr().err
    assert target.read_text() == before
    assert sorted(path.name for path in base.parent.iterdir()) == ["compose.yml", "docker-compose.pillion.yml"]
    monkeypatch.setattr(compose, "find_compose", lambda: ["true"])
    assert attach.main(["compose", "compose.yml", "cart"]) == 0
    assert target.stat().st_mode & 0o777 == 0o640


def test_ctrl_c_while_writing_leaves_the_file_as_it_was(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    target = base.parent / "docker-compose.pillion.yml"
    attach.main(["compose", "compose.yml", "shop"])
    before = target.read_text()
    monkeypatch.setattr(compose.os, "replace", interrupted)
    assert attach.main(["compose", "compose.yml", "cart"]) == 1
    assert target.read_text() == before
    assert sorted(path.name for path in base.parent.iterdir()) == ["compose.yml", "docker-compose.pillion.yml"]


def test_a_broken_override_is_refused_with_its_line(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base.parent / "docker-compose.pillion.yml").write_text("services:\n  - [")
    assert attach.main(["compose", "compose.yml", "shop"]) == 2
    assert "docker-compose.pillion.yml, line 2, column 6: this is not valid YAML" in capsys.readouterr().err


def test_detaching_takes_out_and_removes_the_file_at_the_end(
    base: Path, written: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    attach.main(["compose", "compose.yml", "shop", "cart"])
    assert detach.main(["compose", "compose.yml", "shop"]) == 0
    assert list(written()["services"]) == ["cart", "cart-sidecar"]
    assert "docker compose -f compose.yml -f docker-compose.pillion.yml up -d --remove-orphans" in capsys.readouterr().out
    assert detach.main(["compose", "compose.yml", "cart", "--dry-run"]) == 0
    assert "# nothing would be left: docker-compose.pillion.yml would be removed" in capsys.readouterr().out
    assert detach.main(["compose", "compose.yml", "shp"]) == 2
    assert "has no sidecar for shp; there are cart" in capsys.readouterr().err
    assert detach.main(["compose", "compose.yml", "cart"]) == 0
    assert "docker compose -f compose.yml up -d --remove-orphans" in capsys.readouterr().out
    assert list(base.parent.iterdir()) == [base]
    assert detach.main(["compose", "compose.yml", "cart"]) == 2


def test_the_token_flags(base: Path, written: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    token = base.parent / "token"
    assert attach.main(["compose", "compose.yml", "shop", "--token-file", "token"]) == 2
    assert "--token-file token is not a file" in capsys.readouterr().err
    token.write_text("x")
    token.chmod(0o440)
    assert attach.main(["compose", "compose.yml", "shop", "--token-file", "token"]) == 0
    assert "the sidecar runs as user 10001, who may not read it: chown 10001 token" in capsys.readouterr().err
    token.chmod(0o444)
    attach.main(["compose", "compose.yml", "shop", "--token-file", "token"])
    assert capsys.readouterr().err == ""
    assert written()["services"]["shop-sidecar"]["volumes"][1]["source"] == "./token"
    attach.main(["compose", "compose.yml", "shop", "--token-volume", "v"])
    assert written()["volumes"]["pillion-token"] == {"name": "v", "external": True}
    attach.main(["compose", "compose.yml", "shop", "--no-token"])
    assert list(written()["volumes"]) == ["shop-sidecar-spool"]


class FakeEngine:
    """An engine with one container, `shop`, and one registry."""

    def __init__(self, **lacks: bool) -> None:
        self._lacks = lacks
        self.asked: list[str] = []

    def container(self, word: str) -> Container | None:
        return Container(App("shop", ports=(80,)), "id-1", "running") if word in ("shop", "id-1") else None

    def names(self) -> list[str]:
        return ["shop", "r-1"]

    def registries(self) -> list[Registry]:
        return [HERE]

    def network_names(self) -> set[str]:
        return set()

    def has_image(self, name: str) -> bool:
        return not self._lacks.get("image")

    def has_network(self, name: str) -> bool:
        return True

    def has_volume(self, name: str) -> bool:
        return True

    def sidecar_of(self, app: str) -> None:
        self.asked.append(app)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()

    @contextmanager
    def somebody() -> Iterator[Any]:
        yield made

    for module in (attach, compose, detach):
        monkeypatch.setattr(module, "connected", somebody)
    return made


def test_with_an_engine_the_registry_is_found_and_what_is_missing_told(
    base: Path, engine: FakeEngine, written: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert attach.main(["compose", "compose.yml", "shop"]) == 0
    assert written()["networks"] == {"pillion": {"name": "net", "external": True}}
    out = capsys.readouterr().out
    assert "found the registry r-1 in the network net, its token in the volume sec" in out
    assert "the network net is not there yet: start the registry first" in out


def test_a_dry_run_shows_the_container_that_would_be_started(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert attach.main(["docker", "shop", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    shown = yaml.safe_load(out)
    assert shown["join"] == {"container": "shop", "network": "net"}
    assert shown["container"]["network_mode"] == "container:id-1"
    assert shown["container"]["mounts"][0]["source"] == shown["volume"] == "shop-sidecar-spool"
    assert "found the registry r-1" in err


def test_attaching_exits_with_0_when_ready_and_1_when_not(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for ready, code in ((True, 0), (False, 1)):
        monkeypatch.setattr(container, "attach", lambda engine, plan, say, timeout_s, ready=ready: ready)
        assert attach.main(["docker", "shop", "--timeout", "1"]) == code


def test_ctrl_c_exits_with_1(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*given: Any) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return True

    monkeypatch.setattr(container, "attach", interrupted)
    assert attach.main(["docker", "shop"]) == 1
    assert capsys.readouterr().err.endswith("pillion attach: interrupted\n")


def test_a_container_that_is_not_there_is_refused_with_the_nearest(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert attach.main(["docker", "shpo"]) == 2
    assert "there is no container 'shpo'; did you mean shop?" in capsys.readouterr().err


def test_detach_takes_a_container_by_id_by_name_or_after_it_is_gone(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["shop"], ["docker", "id-1"], ["--dry-run", "gone"]):
        assert detach.main(words) == 2  # it has no sidecar
    assert engine.asked == ["shop", "shop", "gone"]


def test_without_an_engine_a_container_cannot_be_attached_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert attach.main(["docker", "shop"]) == 1
    assert capsys.readouterr().err == "pillion attach: no container engine answers\n"
    assert detach.main(["shop"]) == 1


@pytest.mark.parametrize(
    "words",
    [[], ["compose"], ["compose", "f"], ["docker"], ["docker", "a", "b"], ["swarm", "a"], ["docker", "a", "--timeout", "0"],
     ["docker", "a", "--timeout", "soon"], ["docker", "a", "--no-token", "--token-volume", "v"]],
)  # fmt: skip
def test_wrong_words_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        attach.main(words)
    assert left.value.code == 2
    assert "usage: pillion attach" in capsys.readouterr().err


def test_detach_without_words_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        detach.main([])
    assert left.value.code == 2


def test_help_names_every_key_with_its_label(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        options.attach_parser().parse_args(["docker", "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    for word in ("--name", "pillion.dev/requires", "--token-volume", "--network", "--dry-run"):
        assert word in out


def test_the_commands_are_pillions_own(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.dispatch(["attach", "compose", "compose.yml", "shop", "--dry-run"]) == 0
    assert command.dispatch(["detach", "compose", "compose.yml", "shop"]) == 2


def test_without_the_extra_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = command.find_spec

    def find(name: str) -> Any:
        if name.startswith("ruamel"):
            raise ModuleNotFoundError(name)
        return None if name == "docker" else found(name)

    monkeypatch.setattr(command, "find_spec", find)
    assert command.dispatch(["attach", "docker", "shop"]) == 2
    assert capsys.readouterr().err == "pillion: attach lacks docker and ruamel.yaml: pip install 'pillion[attach]'\n"
