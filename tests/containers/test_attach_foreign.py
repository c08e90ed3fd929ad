"""`pillion attach compose` on compose files of others, each then read by the real `docker compose config`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pillion_attach import attach, detach

FOREIGN = Path(__file__).resolve().parents[1] / "foreign"
REGISTRY = ("--network", "some_net", "--token-volume", "some_secrets")
OVERRIDE = "docker-compose.pillion.yml"
# name of the file, services to attach, what to say, what their sidecars must be told
CASES = [
    ("anchors.yml", ["api"], [], {"api": {"PILLION_NAME": "Api", "PILLION_PORT": "8080"}}),
    (
        "merge_keys.yml",
        ["ledger", "ledger_ui"],
        [],
        {"ledger": {"PILLION_PORT": "5432", "PILLION_ZONE": "cellar"}, "ledger_ui": {"PILLION_NAME": "LedgerUi", "PILLION_PORT": "8000"}},
    ),
    ("odd_order.yml", ["radio", "player"], [], {"radio": {"PILLION_PORT": "8282"}, "player": {"PILLION_PORT": "8181"}}),
    (
        "profiles.yml",
        ["wiki", "inspector"],
        [],
        {"wiki": {"PILLION_PORT": "4567"}, "inspector": {"PILLION_NAME": "Inspector", "PILLION_PORT": "9229"}},
    ),
    (
        "extends/compose.yml",
        ["storefront"],
        [],
        {
            "storefront": {
                "PILLION_NAME": "Storefront",
                "PILLION_PORT": "3000",
                "PILLION_REQUIRES": "Payments,Stock:2",
                "PILLION_VERSION": "7.1",
            }
        },
    ),
    ("host.yml", ["view"], ["--name", "View"], {"view": {"PILLION_NAME": "View", "PILLION_PORT": "8090"}}),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOREIGN, tmp_path / "foreign"))


def read_by_compose(*files: Path) -> dict[str, Any]:
    words = ["docker", "compose", *(part for file in files for part in ("-f", str(file))), "--profile", "*", "config", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(("name", "services", "said", "told"), CASES, ids=[case[0] for case in CASES])
def test_a_foreign_file_is_attached_to_and_detached_from(
    folder: Path, name: str, services: list[str], said: list[str], told: dict[str, dict[str, str]]
) -> None:
    base = folder / name
    text, before = base.read_text(), read_by_compose(base)
    assert attach.main(["compose", str(base), *services, *said, *REGISTRY]) == 0
    assert base.read_text() == text

    after = read_by_compose(base, base.parent / OVERRIDE)
    for service in services:
        sidecar = after["services"].pop(f"{service}-sidecar")
        assert sidecar["network_mode"] == f"service:{service}"
        assert told[service].items() <= sidecar["environment"].items()
        assert sidecar["read_only"] is True
        assert sidecar["user"] == "10001:10001"
        assert sidecar.get("profiles") == before["services"][service].get("profiles")
        joined = after["services"][service]["networks"].pop("pillion")
        assert joined in (None, {})
    assert after["networks"].pop("pillion") == {"name": "some_net", "ipam": {}, "external": True}
    assert _plain(after["services"]) == _plain(before["services"]), "the apps have changed otherwise"
    assert _plain(after["networks"]) == _plain(before["networks"])

    assert detach.main(["compose", str(base), *services]) == 0
    assert not (base.parent / OVERRIDE).exists()


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("traffic", "traffic uses the host's network"),
        ("agent", "attach to view instead"),
        ("batch", "batch has no network"),
        ("workers", "workers runs in 3 copies"),
        ("wokers", "did you mean workers?"),
    ],
)
def test_what_cannot_have_a_sidecar_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], service: str, reason: str) -> None:
    base = folder / "host.yml"
    assert attach.main(["compose", str(base), service, *REGISTRY]) == 2
    assert reason in capsys.readouterr().err
    assert not (folder / OVERRIDE).exists()


def test_what_compose_does_not_take_is_told_in_its_own_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "extends" / "base.yml").unlink()
    assert attach.main(["compose", str(folder / "extends" / "compose.yml"), "storefront", *REGISTRY]) == 2
    assert "base.yml" in capsys.readouterr().err


def test_the_override_that_compose_reads_by_itself_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = folder / "compose.yml"
    base.write_text("services: {shop: {image: example/shop}}\n")
    (folder / "compose.override.yml").write_text("services: {shop: {expose: [8080]}}\n")
    assert attach.main(["compose", str(base), "shop", *REGISTRY]) == 0
    assert f"docker compose -f {base} -f {folder}/compose.override.yml -f {folder}/{OVERRIDE} up -d" in capsys.readouterr().out


def _plain(section: dict[str, Any]) -> dict[str, Any]:
    """Compose writes the same network as null or as an empty mapping."""
    return json.loads(json.dumps(section).replace("null", "{}"))  # type: ignore[no-any-return]
