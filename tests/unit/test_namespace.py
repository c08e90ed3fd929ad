"""The watch for a lost network namespace, with interfaces and a resolver file of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pillion_sidecar import namespace
from pillion_sidecar.namespace import NamespaceWatch


class Container:
    """Its network `interfaces`, and the resolver file that the engine writes."""

    def __init__(self, folder: Path) -> None:
        self.interfaces = ["lo", "eth0"]
        self.file = folder / "resolv.conf"
        self._writes = 0
        self.write_anew()

    def write_anew(self) -> None:
        self._writes += 1
        self.file.write_text("nameserver 127.0.0.11\n")
        os.utime(self.file, ns=(self._writes * 10**9, self._writes * 10**9))

    def watch(self) -> NamespaceWatch:
        return NamespaceWatch(lambda: list(self.interfaces), self.file)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    monkeypatch.setattr(namespace, "TICK_S", 0.01)
    monkeypatch.setattr(namespace, "SETTLE_S", 0.02)
    return Container(tmp_path)


async def ends(watch: asyncio.Task[None]) -> bool:
    done, _ = await asyncio.wait((watch,), timeout=0.15)
    return bool(done)


async def cancel(watch: asyncio.Task[None]) -> None:
    watch.cancel()
    await asyncio.wait((watch,))


async def test_a_replaced_namespace_ends_the_watch(container: Container) -> None:
    seen = container.watch()
    watch = asyncio.create_task(seen.until_replaced())
    assert not await ends(watch)
    container.interfaces = ["lo"]
    assert not await ends(watch), "the app's container has gone, but is not back: an early end would lose the sidecar"
    assert seen.lost
    container.write_anew()
    assert await ends(watch)
    assert seen.lost


async def test_a_file_written_anew_under_a_living_network_means_nothing(container: Container) -> None:
    seen = container.watch()
    watch = asyncio.create_task(seen.until_replaced())
    container.write_anew()
    assert not await ends(watch)
    assert not seen.lost
    await cancel(watch)


async def test_a_network_that_comes_back_is_not_lost(container: Container) -> None:
    seen = container.watch()
    watch = asyncio.create_task(seen.until_replaced())
    container.interfaces = ["lo"]
    assert not await ends(watch)
    container.interfaces = ["lo", "eth0"]
    container.write_anew()
    assert not await ends(watch)
    assert not seen.lost
    await cancel(watch)


async def test_where_there_was_no_network_none_can_be_lost(container: Container) -> None:
    container.interfaces = ["lo"]
    seen = container.watch()
    watch = asyncio.create_task(seen.until_replaced())
    container.write_anew()
    assert not await ends(watch)
    assert not seen.lost
    await cancel(watch)


async def test_a_missing_resolver_file_is_no_fault(container: Container) -> None:
    container.file.unlink()
    seen = container.watch()
    watch = asyncio.create_task(seen.until_replaced())
    container.interfaces = ["lo"]
    assert not await ends(watch)
    container.write_anew()
    assert await ends(watch)


def test_the_real_interfaces_are_looked_at_by_default() -> None:
    assert not NamespaceWatch().lost
