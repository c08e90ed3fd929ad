"""The watch for a lost network namespace, with interfaces and an engine's files of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path

import pytest

from pillion_sidecar import namespace
from pillion_sidecar.namespace import EngineFiles, NamespaceWatch

LOOPBACK = "127.0.0.1 localhost\n::1 localhost app\n127.0.1.1 app\n"


class Files(EngineFiles):
    """The engine's, in a folder that is no mount."""

    def __init__(self, folder: Path, *, shared: bool) -> None:
        super().__init__(folder)
        self._from_outside = shared

    def shared(self) -> bool:
        return self._from_outside


class Container:
    """The app's: its network `interfaces` as the sidecar sees them, and what the engine writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.interfaces = ["lo", "eth0"]
        self._clock = itertools.count(1)
        (folder / "hostname").write_text("app\n")
        self.start()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        moment = next(self._clock) * 10**9
        os.utime(self.folder / name, ns=(moment, moment))

    def start(self) -> None:
        """Do what Docker 20.10 does at a container's start: the resolver file once more when the namespace stands."""
        self.write("resolv.conf", "nameserver 192.0.2.1\n")
        self.write("hosts", f"{LOOPBACK}172.18.0.3 app\n")
        self.write("resolv.conf", "nameserver 127.0.0.11\n")

    def stop(self) -> None:
        """And at its end."""
        self.interfaces = ["lo"]
        self.write("hosts", LOOPBACK)

    def watch(self, *, shared: bool = True) -> NamespaceWatch:
        return NamespaceWatch(lambda: list(self.interfaces), Files(self.folder, shared=shared))


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.setattr(namespace, "TICK_S", 0.01)
    monkeypatch.setattr(namespace, "LOST_TICK_S", 0.002)
    monkeypatch.setattr(namespace, "SETTLE_S", 0.04)
    return Container(tmp_path)


class Running:
    """A watch at work."""

    def __init__(self, watch: NamespaceWatch) -> None:
        self.watch = watch
        self._task = asyncio.create_task(watch.until_replaced())

    async def ends(self, within_s: float = 0.15) -> bool:
        done, _ = await asyncio.wait((self._task,), timeout=within_s)
        return bool(done)

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))


async def test_a_replaced_namespace_ends_the_watch(container: Container) -> None:
    running = Running(container.watch())
    assert not await running.ends()
    container.stop()
    assert not await running.ends(), "the app's container has gone, but is not back: an early end would lose the sidecar"
    assert running.watch.lost
    container.start()
    assert await running.ends(5)
    assert running.watch.lost


async def test_an_app_back_between_two_looks_ends_the_watch_too(container: Container) -> None:
    running = Running(container.watch())
    await asyncio.sleep(0.02)
    container.stop()
    container.start()
    assert await running.ends(5)


async def test_files_written_anew_under_a_living_network_mean_nothing(container: Container) -> None:
    running = Running(container.watch())
    container.start()
    assert not await running.ends()
    assert not running.watch.lost
    container.interfaces = ["lo"]  # with the hosts file as it was: so it is on the engine's default network
    assert not await running.ends(), "what was written before the loss is not the app's return"
    await running.cancel()


async def test_a_network_that_comes_back_is_not_lost(container: Container) -> None:
    running = Running(container.watch())
    container.stop()
    assert not await running.ends()
    container.interfaces = ["lo", "eth0"]
    container.start()
    assert not await running.ends()
    assert not running.watch.lost
    await running.cancel()


async def test_an_app_that_has_gone_again_is_waited_for(container: Container) -> None:
    running = Running(container.watch())
    container.stop()
    container.start()
    container.stop()
    assert not await running.ends(), "an end now would lose the sidecar"
    container.start()
    assert await running.ends(5)


async def test_an_app_that_crashes_at_each_start_has_to_stay_ever_longer(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "SETTLE_S", 0.2)
    running = Running(container.watch())
    container.stop()
    for _ in range(2):
        container.start()
        assert not await running.ends(0.05)
        container.stop()
        assert not await running.ends(0.02)
    container.start()
    assert not await running.ends(0.5), "0.2 s, doubled twice"
    assert await running.ends(5)


async def test_each_write_starts_the_wait_anew(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "SETTLE_S", 0.2)
    running = Running(container.watch())
    container.stop()
    for _ in range(5):
        container.start()
        assert not await running.ends(0.08)
    assert await running.ends(5)


async def test_a_removed_container_is_said_once_and_not_waited_for_in_silence(
    container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(container.watch())
    assert not await running.ends(0.05)
    container.stop()
    file = (container.folder / "resolv.conf").open()
    with file:
        (container.folder / "resolv.conf").unlink()
        (container.folder / "resolv.conf").symlink_to(f"/proc/self/fd/{file.fileno()}")  # a file without a name, as a mount keeps one
        assert not await running.ends()
    assert [record.message for record in caplog.records if "removed" in record.message] == [
        "the app's container was removed, so this sidecar cannot follow it; make a new one beside the new container: "
        "docker compose up --detach, without a service's name or with the sidecar's"
    ]
    await running.cancel()


async def test_a_sidecar_that_started_while_its_app_went_finds_out(container: Container) -> None:
    container.stop()
    running = Running(container.watch())
    assert not await running.ends()
    container.start()
    assert await running.ends(5)


async def test_a_sidecar_that_started_after_its_app_was_back_finds_out(container: Container) -> None:
    container.stop()
    container.start()
    assert await Running(container.watch()).ends(5)


@pytest.mark.parametrize("listed", [True, False])
async def test_where_there_was_no_network_none_can_be_lost(container: Container, *, listed: bool) -> None:
    container.interfaces = ["lo"]
    if not listed:
        container.write("hosts", LOOPBACK)
    running = Running(container.watch(shared=not listed))
    container.write("resolv.conf", "nameserver 127.0.0.11\n")
    assert not await running.ends()
    assert not running.watch.lost
    await running.cancel()


async def test_an_engine_that_lists_nobody_is_followed_by_its_resolver_file_alone(container: Container) -> None:
    container.write("hosts", LOOPBACK)
    running = Running(container.watch())
    assert not await running.ends(0.05)
    container.interfaces = ["lo"]
    assert not await running.ends()
    container.write("resolv.conf", "nameserver 127.0.0.11\n")
    assert await running.ends(5)


async def test_missing_files_are_no_fault(container: Container) -> None:
    for name in ("resolv.conf", "hosts", "hostname"):
        (container.folder / name).unlink()
    running = Running(container.watch())
    assert not await running.ends(0.05)
    container.interfaces = ["lo"]
    assert not await running.ends()
    container.write("resolv.conf", "nameserver 127.0.0.11\n")
    assert await running.ends(5)


async def test_interfaces_that_cannot_be_asked_for_say_nothing(container: Container) -> None:
    asked = 0

    def interfaces() -> list[str]:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise OSError(24, "Too many open files")
        return ["lo", "eth0"]

    watch = NamespaceWatch(interfaces, Files(container.folder, shared=True))
    running = Running(watch)
    assert not await running.ends(0.1)
    assert asked > 2
    assert not watch.lost
    await running.cancel()


def test_the_real_interfaces_are_looked_at_by_default() -> None:
    assert not NamespaceWatch().lost
