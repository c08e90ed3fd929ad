"""Reading compose files without compose: what they say, in either spelling, and what only compose can tell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pillion_attach import compose_file
from pillion_attach.compose_facts import Project, Service, project_of, registry_in
from pillion_attach.compose_file import find_compose, parse, read_project, run_compose
from pillion_attach.facts import Registry, Token
from pillion_common.errors import ConfigError, PillionError

FOREIGN = Path(__file__).resolve().parents[1] / "foreign"


def service(**raw: Any) -> Service:
    return project_of({"services": {"shop": raw}}, (Path("/srv/My-App/compose.yml"),)).services["shop"]


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_project(path, None)
    return "\n".join(error.value.faults)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_file(text: str, name: str = "compose.yml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_file


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        (["8080:80"], (80,)),
        (["127.0.0.1:8080:80/tcp", 90, "3000"], (80, 90, 3000)),
        (["53:53/udp"], ()),
        (["8000-8002:9000-9002"], (9000, 9001, 9002)),
        ([{"target": 80, "published": "8080", "protocol": "tcp"}, {"target": 53, "protocol": "udp"}, {"target": 81}], (80, 81)),
        (["${OUT:-8080}:80"], (80,)),
        (["8080:${IN}"], ()),
    ],
)
def test_published_ports_in_every_spelling(ports: list[Any], found: tuple[int, ...]) -> None:
    assert service(ports=ports).app.ports == found


def test_exposed_and_published_ports_are_told_once() -> None:
    assert service(ports=["8080:80"], expose=["80", "81/tcp", "82/udp", 83, "90-91"]).app.ports == (80, 81, 83, 90, 91)


def test_a_vast_range_of_ports_is_bounded() -> None:
    assert len(service(expose=["1-65535"]).app.ports) == 1001


def test_labels_and_environment_as_lists_or_mappings_with_dollars_unescaped() -> None:
    as_list = service(labels=["pillion.dev/port=80", "flag"], environment=["A=1=2", "B", "C=$$x"]).app
    as_mapping = service(labels={"pillion.dev/port": 80, "flag": None}, environment={"A": "1=2", "B": None, "C": "$$x"}).app
    assert as_list.labels == as_mapping.labels == {"pillion.dev/port": "80"}
    assert as_list.environ == as_mapping.environ == {"A": "1=2", "C": "$x"}
    assert service(environment={"DEBUG": True}).app.environ == {"DEBUG": "true"}


def test_networks_as_lists_or_mappings_or_none_at_all() -> None:
    assert service().app.networks == ("default",)
    assert service(networks=["a", "b"]).app.networks == ("a", "b")
    assert service(networks={"a": None, "b": {"aliases": ["shop.local"]}}).hosts == ("shop", "shop.local")
    assert service(network_mode="host").app.networks == ()


def test_copies_profiles_and_mode() -> None:
    assert service().copies == 1
    assert service(deploy={"replicas": 3}).copies == 3
    assert service(scale=2).copies == 2
    assert service(deploy={"replicas": "${N}"}).copies == 1
    assert service(deploy={"mode": "global"}).everywhere
    assert service(profiles=["debug"]).profiles == ("debug",)


def test_networks_have_the_engines_names() -> None:
    files = (Path("/srv/My App/compose.yml"),)
    data = {"networks": {"a": None, "b": {"name": "bee"}, "c": {"external": True}}, "services": {}}
    assert project_of(data, files).networks == {"default": "myapp_default", "a": "myapp_a", "b": "bee", "c": "c"}
    assert project_of({"name": "given"}, files).networks == {"default": "given_default"}


@pytest.mark.parametrize(
    ("body", "token"),
    [
        ({}, Token("none")),
        (
            {"volumes": ["secrets:/s:ro"], "environment": {"PILLION_TOKEN_FILE": "/s/deep/token"}},
            Token("volume", "secrets", "deep/token", True),
        ),
        ({"volumes": ["./sec:/s"], "environment": ["PILLION_TOKEN_FILE=/s/token"]}, Token("file", "./sec/token")),
        (
            {"volumes": [{"type": "bind", "source": "/h/t", "target": "/s/token"}], "environment": ["PILLION_TOKEN_FILE=/s/token"]},
            Token("file", "/h/t"),
        ),
        ({"volumes": ["/anonymous"], "environment": ["PILLION_TOKEN_FILE=/s/token"]}, None),
    ],
)
def test_a_registry_of_the_same_file_is_found_with_its_token(body: dict[str, Any], token: Token | None) -> None:
    data = {"services": {"reg": {"image": "pillion/registry:dev", "container_name": "registry", **body}}, "volumes": {"secrets": None}}
    found = registry_in(project_of(data, (Path("c.yml"),)), ["registry"])
    assert found == Registry("reg", ("reg", "registry"), ("default",), token)


def test_a_service_that_is_only_called_registry_is_none() -> None:
    assert registry_in(project_of({"services": {"registry": {"image": "registry:2"}}}, (Path("c.yml"),)), ["registry"]) is None


def test_anchors_and_merge_keys_are_understood_without_compose() -> None:
    api = read_project(FOREIGN / "anchors.yml", None)
    assert api.services["jobs"].app.environ["DATABASE_URL"] == "postgres://db/shop"
    assert "docker compose is not here" in api.note
    ledger = read_project(FOREIGN / "merge_keys.yml", None).services
    assert ledger["ledger"].app.labels == {"pillion.dev/zone": "cellar"}
    assert ledger["ledger"].hosts == ("ledger", "ledger.internal")
    assert ledger["ledger_ui"].app.labels == {"pillion.dev/port": "8000"}
    assert ledger["ledger_ui"].app.ports == (8000, 8001)


def test_odd_order_and_spellings_are_understood_without_compose() -> None:
    project = read_project(FOREIGN / "odd_order.yml", None)
    assert project.services["player"].app.ports == (8181,)
    assert project.services["player"].app.environ == {"QUALITY": "high", "LANG": "C.UTF-8"}
    assert project.services["radio"].app.ports == (8282,)
    assert project.networks == {"default": "ours"}
    assert project.volumes == {"cache", "media"}


def test_what_only_compose_understands_is_refused_without_it(write: Callable[..., Path]) -> None:
    assert "has `extends` in the service storefront, which only docker compose (version 2) understands" in refused(
        FOREIGN / "extends" / "compose.yml"
    )
    assert "uses `include`" in refused(write("include: [a.yml]\nservices: {}\n"))
    write("services: {}\n", "compose.override.yml")
    assert "compose.override.yml lies beside compose.yml: only docker compose" in refused(write("services: {shop: {image: x}}\n"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services:\n  shop: {image: x\n  db:\n", "compose.yml, line 3, column 5: this is not valid YAML"),
        ("services:\n\tshop: x\n", "line 2, column 1: this is not valid YAML"),
        ("services: {a: 1, a: 2}\n", "line 1, column 18: this is not valid YAML"),
        ("services: \x01\n", "this is not valid YAML"),
        ("- a\n", "is not a mapping"),
        ("", "is not a mapping"),
        ("version: '3'\n", "has no `services`"),
        ("services: [shop]\n", "has no `services`"),
        ("services: {shop: text}\n", "is not a compose file that can be read without docker compose"),
    ],
)
def test_what_is_no_compose_file_is_refused_with_the_line(write: Callable[..., Path], text: str, reason: str) -> None:
    assert reason in refused(write(text))


def test_a_file_that_cannot_be_read_is_refused(write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("services: {}\n", "other.yml")
    assert refused(tmp_path / "compose.yml") == f"there is no file {tmp_path}/compose.yml; its folder has other.yml"
    assert "cannot be read" in refused(tmp_path)
    path = write("services: {}\n")
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read" in refused(path)
    monkeypatch.setattr(compose_file, "MAX_BYTES", 1)
    assert "is larger than" in refused(path)
    assert refused(tmp_path / "nowhere" / "c.yml").endswith("c.yml")


def test_a_folder_without_compose_files_is_just_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "c.yml") == f"there is no file {tmp_path}/c.yml"


def test_comments_quotes_and_order_outlive_a_round_trip() -> None:
    text = "# head\nb: 'x'  # why\na:\n  - \"1\"\n  # between\n  - 2\n"
    assert compose_file.text_of(parse(text, "x")) == text


def fake_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = tmp_path / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('sh') or '/bin/sh').parent}")


def test_compose_is_asked_for_facts_with_every_profile_and_its_own_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    path, beside = write("services: {a: {}}\n"), write("services: {a: {}}\n", "compose.override.yml")
    fake_docker(tmp_path, monkeypatch, 'echo "$@" >"$0.words"; echo \'{"name": "p", "services": {"shop": {"expose": ["80"]}}}\'')
    assert find_compose() == ["docker", "compose"]
    project = read_project(path, ["docker", "compose"])
    assert project.services["shop"].app.ports == (80,)
    assert project.files == (path, beside)
    assert (tmp_path / "docker.words").read_text() == f"compose -f {path} -f {beside} --profile * config --format json\n"


def test_what_compose_says_against_a_file_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]) -> None:
    path = write("services: {a: {}}\n")
    fake_docker(tmp_path, monkeypatch, 'echo "time=1 level=warning msg=x" >&2; echo "services.a Additional property foo" >&2; exit 15')
    with pytest.raises(ConfigError) as error:
        run_compose(["docker", "compose"], (path,), "config")
    assert error.value.faults == [f"docker compose does not take {path}: services.a Additional property foo"]


def test_without_a_compose_that_works_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "exit 1")
    assert find_compose() is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert find_compose() is None
    with pytest.raises(PillionError, match="cannot be run"):
        run_compose(["docker", "compose"], (Path("c.yml"),), "config")


def test_a_compose_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: Any, **words: Any) -> Any:
        raise subprocess.TimeoutExpired("docker", 60)

    fake_docker(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setattr(subprocess, "run", hang)
    assert find_compose() is None
    with pytest.raises(PillionError, match="did not end within 60 s"):
        run_compose(["docker", "compose"], (Path("c.yml"),), "config")


def test_relative_paths_start_at_the_first_files_folder() -> None:
    assert Project((Path("a/c.yml"), Path("a/o.yml"))).folder == Path("a")
