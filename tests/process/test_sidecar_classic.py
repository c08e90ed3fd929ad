"""The sidecar with a classic registry, which has POST and DELETE /services, patches and heartbeats, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import eventually
from sidecar_bench import app, free_port, sidecar
from stub_registry import StubRegistry, stub_registry

SECRET = "s3cret-s3cret-s3cret"


@pytest.fixture
def registry() -> Iterator[StubRegistry]:
    with stub_registry() as stub:
        yield stub


def test_it_registers_looks_up_is_told_of_removals_and_goes(registry: StubRegistry, tmp_path: Path) -> None:
    with app() as grading_app, sidecar("GradingService", grading_app.port, registry.url, tmp_path / "g") as grading:
        eventually(grading.ready)
        with sidecar("Portald", free_port(), registry.url, tmp_path / "p", "--check", "none", "--requires", "GradingService") as portal:
            eventually(lambda: portal.found("GradingService") == [grading_app.url])
            assert portal.get("/providers/GradingService", Accept="text/plain").text == f"{grading_app.url}\n"
            assert portal.get("/providers/GradingService").json()["Stale"] is False
            assert [patch for url, patch in registry.patches if url.startswith(portal.peer)] == [
                {"Added": [{"Name": "GradingService", "URL": grading_app.url}], "Removed": None}
            ]
            assert grading.program.stop() == 0
            eventually(lambda: portal.found("GradingService") == [], 2.0)
            assert registry.patches[-1][1] == {"Added": None, "Removed": [{"Name": "GradingService", "URL": grading_app.url}]}
            assert registry.names() == ["Portald"]
        assert registry.names() == []
    assert registry.refused == [], "nothing but POST and DELETE /services"


def test_a_provider_that_comes_later_is_added(registry: StubRegistry, tmp_path: Path) -> None:
    with sidecar("Portald", free_port(), registry.url, tmp_path / "p", "--check", "none", "--requires", "GradingService") as portal:
        eventually(lambda: registry.names() == ["Portald"])
        assert portal.get("/providers/GradingService").status_code == 404
        with app() as grading_app, sidecar("GradingService", grading_app.port, registry.url, tmp_path / "g"):
            eventually(lambda: portal.found("GradingService") == [grading_app.url])


def test_the_heartbeat_of_a_dead_app_makes_a_classic_registry_remove_it(registry: StubRegistry, tmp_path: Path) -> None:
    with app() as grading_app, sidecar("GradingService", grading_app.port, registry.url, tmp_path / "g") as grading:
        eventually(grading.ready)
        grading_app.kill()
        eventually(lambda: registry.names() == [], 3.0)
    assert registry.refused == []


def test_what_it_says_of_itself_is_what_a_classic_registry_reads(tmp_path: Path) -> None:
    with stub_registry(heartbeats=False) as registry, sidecar("Lonely", 6000, registry.url, tmp_path, "--log-to", "") as lonely:
        [told] = eventually(lambda: registry.registrations)
        assert told["ServiceName"] == "Lonely"
        assert told["ServiceURL"] == "http://127.0.0.1:6000"
        assert told["HeartbeatURL"] == f"{lonely.peer}/heartbeat"
        assert told["ServiceUpdateURL"] == f"{lonely.peer}/services"
        assert not told.get("RequiredServices")


def test_a_token_does_no_harm_with_a_classic_registry_but_its_patches_are_refused(registry: StubRegistry, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    more = ("--check", "none", "--requires", "GradingService", "--token-file", str(token))
    with sidecar("Portald", free_port(), registry.url, tmp_path / "p", *more) as portal:
        eventually(portal.ready)
        assert registry.authorizations == [f"Bearer {SECRET}"]
        registry.register(
            {"ServiceName": "GradingService", "ServiceURL": "http://127.0.0.1:6000", "HeartbeatURL": f"{portal.peer}/heartbeat"}
        )
        assert registry.patches == []
        assert portal.get("/providers/GradingService").status_code == 404
