"""Dialling back: what a sidecar may be made to dial, and what it says of it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pillion_common.errors import Forbidden, InvalidInput, Unauthorized, Unavailable
from pillion_common.http.message import Request
from pillion_common.trust import Token
from pillion_sidecar.local import reach
from pillion_sidecar.local.reach import Reach
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import Patch, Provider

SECRET = "s3cret-s3cret-s3cret"


class Offered:
    """Three providers: one listens, nobody is at the other, the third is full and answers nothing."""

    def __init__(self, stack: ExitStack) -> None:
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(2)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            self.nobody = _url(gone)
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        self.listens, self.full = _url(self.listener), _url(full)
        self.table = ProviderTable({"GradingService": 1, "Db": 1})
        self.offer(self.listens, self.nobody, self.full)

    def offer(self, *urls: str) -> None:
        self.table.apply(Patch(added=tuple(Provider("GradingService", url) for url in urls)))


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Offered]:
    monkeypatch.setattr(reach, "DIAL_S", 0.2)
    with ExitStack() as stack:
        yield Offered(stack)


def asked(service: Any, urls: Any, secret: str = SECRET) -> Request:
    headers = [(b"authorization", f"Bearer {secret}".encode())] if secret else []
    request = Request("POST", b"/reach", headers, "127.0.0.1", "1.1", True)
    request.body = json.dumps({"Service": service, "URLs": urls}).encode()
    return request


async def unreached(table: ProviderTable, service: str, *urls: str) -> dict[str, str]:
    answer = await Reach(table, Token(SECRET)).answer(asked(service, urls))
    assert answer.status == 200
    return {one["URL"]: one["Error"] for one in json.loads(answer.body)["Unreached"]}


async def test_what_takes_no_connection_is_told_with_the_reason(offered: Offered) -> None:
    found = await unreached(offered.table, "GradingService", offered.listens, offered.nobody, offered.full)
    assert found == {
        offered.nobody: f"{offered.nobody[7:]} refused the connection",
        offered.full: f"{offered.full[7:]} did not take the connection within 0.2 s",
    }


async def test_a_connection_is_let_go_at_once_and_nothing_is_sent(offered: Offered) -> None:
    assert await unreached(offered.table, "GradingService", offered.listens) == {}
    connection, _ = offered.listener.accept()
    with connection:
        connection.settimeout(2)
        assert connection.recv(1) == b""


async def test_only_what_the_table_offers_for_the_service_is_dialled(offered: Offered) -> None:
    with socket.create_server(("127.0.0.1", 0)) as secret:
        secret.setblocking(False)
        for service in ("GradingService", "Db", "Nobody"):
            assert await unreached(offered.table, service, _url(secret), offered.listens.replace("http", "https")) == {}
        with pytest.raises(BlockingIOError):
            secret.accept()


async def test_https_is_dialled_without_tls(offered: Offered) -> None:
    offered.offer(offered.listens.replace("http:", "https:"))
    assert await unreached(offered.table, "GradingService", offered.listens.replace("http:", "https:")) == {}
    offered.listener.accept()[0].close()


async def test_a_name_that_does_not_resolve_is_told(offered: Offered) -> None:
    offered.offer("http://nobody.invalid:80")
    found = await unreached(offered.table, "GradingService", "http://nobody.invalid:80")
    assert not found or "nobody.invalid" in found["http://nobody.invalid:80"]  # nothing, where the resolver takes its time


@pytest.mark.parametrize(("mine", "given", "error"), [(None, SECRET, Forbidden), (SECRET, "wrong", Forbidden), (SECRET, "", Unauthorized)])
async def test_who_has_no_token_has_nothing_dialled(offered: Offered, mine: str | None, given: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await Reach(offered.table, Token(mine) if mine else None).answer(asked("GradingService", [offered.listens], given))


@pytest.mark.parametrize("urls", [None, "http://a:1", [1], ["http://a:1"] * 21])
async def test_what_makes_no_sense_is_refused(offered: Offered, urls: Any) -> None:
    with pytest.raises(InvalidInput):
        await Reach(offered.table, Token(SECRET)).answer(asked("GradingService", urls))
    with pytest.raises(InvalidInput):
        await Reach(offered.table, Token(SECRET)).answer(asked(7, []))


async def test_one_asker_at_a_time_and_the_next_after_one_that_was_cut_off(offered: Offered) -> None:
    dialling = Reach(offered.table, Token(SECRET))
    first = asyncio.create_task(dialling.answer(asked("GradingService", [offered.full])))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await dialling.answer(asked("GradingService", [offered.listens]))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await dialling.answer(asked("GradingService", [offered.listens]))).status == 200


def test_a_sidecar_does_not_load_it_before_it_is_asked(tmp_path: Path) -> None:
    code = "import pillion_sidecar.__main__, pillion_sidecar.sidecar, sys; print('pillion_sidecar.local.reach' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "False"
