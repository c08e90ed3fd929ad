"""Thousands of instances in one process, behind one port: they answer heartbeats and take patches, at a few microseconds each.

Instance 17 has the heartbeat URL http://127.0.0.1:PORT/h/17 and the update URL http://127.0.0.1:PORT/u/17; a patch to /x/17 is never
answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import select
import socket
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from load import Caller

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
MAX_KNOWN = 64
MAX_HEADS = 8
MAX_EVENTS = 512
MAX_READ = 64 * 1024
BACKLOG = 4096

_TARGET = re.compile(rb"(GET|POST) (?:http://[^/ ]+)?/([hux])/(\d+) HTTP/1\.[01]\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Change(NamedTuple):
    """What a patch says: URLs added and removed."""

    added: frozenset[str]
    removed: frozenset[str]


class Expected:
    """A change that many are to learn of.

    Args:
        who: the instances that count.
    """

    def __init__(self, added: str | None, removed: str | None, who: Iterable[int]) -> None:
        self._added = added
        self._removed = removed
        self._waiting = set(who)
        self._met = asyncio.Event()
        self.first_at = self.last_at = 0.0

    def tell(self, index: int, change: Change, now: float) -> None:
        if index in self._waiting and (self._added in change.added or self._removed in change.removed):
            self._waiting.discard(index)
            self.first_at = self.first_at or now
            if not self._waiting:
                self.last_at = now
                self._met.set()

    async def wait(self, timeout_s: float) -> float:
        """Return when (perf_counter) the last one had read it.

        Raises:
            RuntimeError: some did not learn of it in time.
        """
        try:
            await asyncio.wait_for(self._met.wait(), timeout_s)
        except TimeoutError:
            raise RuntimeError(f"{len(self._waiting)} dependents did not learn of it within {timeout_s:g} s") from None
        return self.last_at


class Crowd:
    """Plays the instances. `beats`, `patches` and `removals` count what came, `read` and `sent` the bytes of it; `gaps` are
    the times between two beats while `timing`.

    Args:
        tables: whether to keep what each instance knows, for `knowing`.
    """

    def __init__(self, tables: bool = False) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.beats = 0
        self.patches = 0
        self.read = self.sent = 0
        self.removals: Counter[str] = Counter()
        self._tables: defaultdict[str, set[int]] | None = defaultdict(set) if tables else None
        self.timing = False
        self.gaps = array("d")
        self.last: dict[int, float] = {}
        self._expected: list[Expected] = []
        self._known: dict[bytes, Change] = {}
        self._lines: dict[int, _Line] = {}

    async def __aenter__(self) -> Crowd:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    def start(self, host: str = "127.0.0.1") -> None:
        """Listen on a free port."""
        self.host = host
        # A plain epoll takes half of what uvloop's transports take for each patch; the loop only watches the epoll itself.
        self._listener = socket.create_server((host, 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._drain)

    def fall_silent(self) -> None:
        """Answer nothing, as one that hangs: the kernel takes connections and bytes still."""
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())

    def answer_again(self) -> None:
        """Answer what came meanwhile, and what comes."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._drain)

    def stop(self) -> None:
        """Die as a killed process does: no listener any more, and all connections closed. Safe to call twice."""
        if self._epoll.closed:
            return
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._listener.close()
        for line in self._lines.values():
            line.socket.close()
        self._lines.clear()

    def url(self, index: int) -> str:
        """Return the ServiceURL of an instance."""
        return f"http://{self.host}:{self.port}/s/{index}"

    def registration(self, index: int, name: str, requires: Iterable[str] = (), update: str = "u", **more: Any) -> bytes:
        """Return what an instance would POST."""
        base = f"http://{self.host}:{self.port}"
        said: dict[str, Any] = {"ServiceName": name, "ServiceURL": self.url(index), "HeartbeatURL": f"{base}/h/{index}", "Protocol": 2}
        if requires:
            said |= {"RequiredServices": list(requires), "ServiceUpdateURL": f"{base}/{update}/{index}"}
        return json.dumps(said | more).encode()

    def expect(self, who: Iterable[int], added: str | None = None, removed: str | None = None) -> Expected:
        """Watch for the patch that tells these instances of a URL; `forget` ends it."""
        expected = Expected(added, removed, who)
        self._expected.append(expected)
        return expected

    def knowing(self, url: str) -> set[int]:
        """Return the instances that know a provider."""
        assert self._tables is not None
        return self._tables[url]

    def clear_tables(self) -> None:
        """Forget what each instance knows, and who told it to forget a provider."""
        assert self._tables is not None
        self._tables.clear()
        self.removals.clear()

    def forget(self, expected: Expected) -> None:
        self._expected.remove(expected)

    def beat(self, index: int) -> None:
        self.beats += 1
        now = time.perf_counter()
        if self.timing and (before := self.last.get(index)):
            self.gaps.append(now - before)
        self.last[index] = now

    def patch(self, index: int, body: bytes) -> None:
        now = time.perf_counter()
        self.patches += 1
        change = self._known.get(body)
        if change is None:
            change = self._read(body)
        for url in change.removed:
            self.removals[url] += 1
        if self._tables is not None:
            for url in change.added:
                self._tables[url].add(index)
            for url in change.removed:
                self._tables[url].discard(index)
        for expected in self._expected:
            expected.tell(index, change, now)

    def _read(self, body: bytes) -> Change:
        """Decode a patch; the same bytes come many times over."""
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        patch = json.loads(body)
        added, removed = (frozenset(entry["URL"] for entry in patch.get(kind) or ()) for kind in ("Added", "Removed"))
        change = self._known[body] = Change(added, removed)
        return change

    def _drain(self) -> None:
        """Read all that is there, then answer it."""
        answers: list[_Line] = []
        for number, _ in self._epoll.poll(0, MAX_EVENTS):
            line = self._lines.get(number)
            if line is None:
                self._accept()
                continue
            try:
                data = line.socket.recv(MAX_READ)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                self.read += len(data)
                answers += [line] * line.take(data)
            else:
                del self._lines[number]
                line.socket.close()
        self.sent += len(OK) * len(answers)
        for line in answers:
            with contextlib.suppress(OSError):  # it is gone, or does not read: its next event says so
                line.socket.send(OK)

    def _accept(self) -> None:
        try:
            while True:
                line = _Line(self, self._listener.accept()[0])
                line.socket.setblocking(False)
                self._lines[line.socket.fileno()] = line
                self._epoll.register(line.socket, select.EPOLLIN)
        except BlockingIOError:
            pass


class _Line:
    """One connection of a registry's."""

    def __init__(self, crowd: Crowd, connection: socket.socket) -> None:
        self.socket = connection
        self._crowd = crowd
        self._beat = b""
        self._index = 0
        self._left = b""
        self._heads: dict[bytes, tuple[bytes, int, int]] = {}

    def take(self, data: bytes) -> int:
        """Take what was read in; return how many answers are due."""
        if data == self._beat and not self._left:  # a heartbeat is the very same bytes each time
            self._crowd.beat(self._index)
            return 1
        data = self._left + data if self._left else data
        answers = 0
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            head = data[:end]
            kind, index, length = self._heads.get(head) or self._parse(head)
            whole = end + length
            if len(data) < whole:
                break
            if kind == b"h":
                self._beat, self._index = head, index
                self._crowd.beat(index)
            elif kind == b"u":
                self._crowd.patch(index, data[end:whole])
            answers += kind != b"x"
            data = data[whole:]
        self._left = data
        return answers

    def _parse(self, head: bytes) -> tuple[bytes, int, int]:
        """Return kind, instance and length of the body; most heads of a connection come again and again."""
        parts = _TARGET.match(head)
        if parts is None:
            raise RuntimeError(f"no instance here has this URL: {head[:120]!r}")
        length = _LENGTH.search(head)
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        parsed = self._heads[head] = parts[2], int(parts[3]), int(length[1]) if length else 0
        return parsed


async def register(registry: str, bodies: Iterable[bytes], connections: int = 32) -> None:
    """Register many over some persistent connections.

    Raises:
        RuntimeError: an answer was not 200.
    """
    waiting = iter(bodies)

    async def work() -> None:
        caller = await Caller.connect(registry)
        try:
            for body in waiting:
                status, said = await caller.call("POST", f"{registry}/services", body)
                if status != 200:
                    raise RuntimeError(f"a registration was answered {status}: {said[:300]!r}")
        finally:
            caller.close()

    await asyncio.gather(*(work() for _ in range(connections)))


async def settle(crowd: Crowd, count: int, timeout_s: float = 60.0) -> None:
    """Wait until `count` instances have been asked for a heartbeat."""
    for _ in itertools.takewhile(lambda _: len(crowd.last) < count, range(int(timeout_s / 0.05))):
        await asyncio.sleep(0.05)
    if len(crowd.last) < count:
        raise RuntimeError(f"only {len(crowd.last)} of {count} instances were checked within {timeout_s:g} s")
