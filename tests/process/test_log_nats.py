"""The log service on NATS, as an operator sees it: several share one log, and none of them falls with its servers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import nats
import pytest
import requests
from nats_lab import DROPS_CONNECTIONS, NatsServer, nats_servers, store_uri
from programs import Program, eventually, program

pytestmark = DROPS_CONNECTIONS
WAIT_S = 20.0
TOKEN = "let-me-in-please-0123456789"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_servers(tmp_path) as [server]:
        yield server


def log_on(*servers: NatsServer, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("log", "--store", store_uri(list(servers)), "--log-max-bytes", "64M", *more)


def get(log: Program, path: str) -> requests.Response:
    return requests.get(log.url + path, timeout=WAIT_S)


def post(log: Program, path: str, body: str) -> requests.Response:
    return requests.post(log.url + path, data=body.encode(), timeout=WAIT_S)


def is_ready(log: Program) -> bool:
    return get(log, "/readyz").status_code == 200


def messages(log: Program, query: str = "") -> list[str]:
    return [json.loads(line)["Message"] for line in get(log, f"/logs?{query}").text.splitlines()]


class Tail(threading.Thread):
    """Reads a tail until it ends."""

    def __init__(self, log: Program) -> None:
        super().__init__(daemon=True)
        connection = HTTPConnection(log.url.removeprefix("http://"), timeout=WAIT_S)
        connection.request("GET", "/logs/tail")
        self._answer = connection.getresponse()
        self.text = ""
        self.start()
        eventually(lambda: ": here" in self.text)

    def run(self) -> None:
        with self._answer:
            while line := self._answer.readline():
                self.text += line.decode()


def test_two_log_services_are_one_log(server: NatsServer) -> None:
    with program(*log_on(server)) as one, program(*log_on(server)) as other:
        eventually(lambda: is_ready(one) and is_ready(other), WAIT_S)
        tail = Tail(other)
        assert post(one, "/log", "[A] - first").status_code == 200
        batch = "".join(f'{{"Service":"B","Message":"m{seq}","Source":"s","Seq":{seq}}}\n' for seq in range(3))
        assert post(one, "/logs", batch).json()["Accepted"] == 3
        eventually(lambda: "m2" in tail.text)
        assert post(other, "/logs", batch).json() == {"Accepted": 0, "Duplicates": 3, "Rejected": []}
        assert post(other, "/log", "[A] - last").status_code == 200
        eventually(lambda: messages(one) == ["first", "m0", "m1", "m2", "last"])
        cursor = get(one, "/logs?limit=2").headers["X-Pillion-Cursor"]
        assert messages(other, f"limit=2&cursor={cursor}") == ["m0", "m1"] == messages(other, f"limit=2&cursor={cursor}&service=B")[:2]
        assert get(one, "/stats").json()["Services"] == get(other, "/stats").json()["Services"]


def test_without_nats_it_lives_says_why_it_is_not_ready_and_becomes_so_by_itself(server: NatsServer) -> None:
    server.kill()
    with program(*log_on(server)) as log:
        assert get(log, "/livez").status_code == 200
        assert f"NATS ({server.address}) has not been reached for" in get(log, "/readyz").text
        refused = post(log, "/log", "[A] - early")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert (get(log, "/logs").status_code, get(log, "/logs").json()["Error"]) == (503, "store_failed")
        server.start()
        eventually(lambda: is_ready(log), WAIT_S)
        assert post(log, "/log", "[A] - in time").status_code == 200
        tail = Tail(log)
        server.kill()
        eventually(lambda: '{"Fault":"NATS (' in tail.text, WAIT_S)
        server.start()
        eventually(lambda: is_ready(log), WAIT_S)
        assert post(log, "/log", "[A] - again").status_code == 200
        eventually(lambda: '"Message":"again"' in tail.text and '{"Fault":null}' in tail.text, WAIT_S)
        assert messages(log) == ["in time", "again"]


def test_it_ends_where_only_a_new_start_helps(server: NatsServer) -> None:
    async def remove() -> None:
        client = await nats.connect(f"nats://{server.address}")
        await client.jetstream().delete_stream("pillion_logs")
        await client.close()

    with program(*log_on(server)) as log:
        eventually(lambda: is_ready(log), WAIT_S)
        asyncio.run(remove())
        assert log.process.wait(WAIT_S) == 1
        eventually(lambda: log.events("store_lost"))
        assert "the stream pillion_logs is not there any more; ending" in log.events("store_lost")[0]["message"]
    with program(*log_on(server)) as log:
        eventually(lambda: is_ready(log), WAIT_S)


def test_servers_without_so_much_room_are_told(server: NatsServer) -> None:
    with program("log", "--store", store_uri([server]), "--log-max-bytes", "1000G", "--log-max-age", "1000000d") as log:
        eventually(lambda: "ask for less by --log-max-bytes" in get(log, "/readyz").text, WAIT_S, lambda: get(log, "/readyz").text)
    with program(*log_on(server, more=("--log-max-age", "1000000d"))) as log:
        eventually(lambda: is_ready(log), WAIT_S, lambda: get(log, "/readyz").text)


def test_nats_asks_for_its_token_and_one_that_does_not_fit_is_told(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(TOKEN)
    bad.write_text("something-else-0123456789")
    with nats_servers(tmp_path / "nats", settings={"authorization": {"token": TOKEN}}) as [server]:
        with program(*log_on(server, more=("--store-token-file", str(good)))) as log:
            eventually(lambda: is_ready(log), WAIT_S)
        with program(*log_on(server, more=("--store-token-file", str(bad)))) as log:
            eventually(lambda: "in --store-token-file theirs?" in get(log, "/readyz").text, WAIT_S, lambda: get(log, "/readyz").text)
            assert TOKEN not in "".join(log.lines)
