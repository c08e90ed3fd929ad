"""From a host name to an open connection, so that neither a name nor an address that hangs delays the others.

Resolver: getaddrinfo blocks, and may for many seconds; it runs in threads of its own, made when there is work and gone when there is none.
They are daemons: a look-up that hangs does not hold up the end of the process. Names that failed or were slow last time get at most half of
them. Dialer: bounds how many connections are being opened at once; those who gave no answer last time get at most half of these.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pillion_common.errors import OwnLimit, PeerClosed, PeerError, PeerRefused, PeerTimedOut, PeerUnreachable
from pillion_common.http.reading import read_less_at_once
from pillion_common.logs import EventLog
from pillion_common.names import Url, is_address

if TYPE_CHECKING:
    import ssl

SLOW_S = 1.0
MAX_THREADS = 64
MAX_SUSPECT_THREADS = 32
MAX_SUSPECTS = 10_000  # names remembered as slow or failing; beyond, all are forgiven

MAX_DIALS = 256
ADDRESS_S = 1.0  # for one of several addresses, before the next is tried; the last one has all the time that is left
OWN_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)

AddressRule = Callable[[str], bool]
OnFound = Callable[[list[str] | PeerError], None]
P = TypeVar("P", bound=asyncio.BaseProtocol)
OnDialled = Callable[[P | PeerError], None]

_log = EventLog("dialer")


class Question:
    """One asker's wait for the look-up of a name."""

    __slots__ = ("_look_up", "_resolver", "loop", "on_found")

    def __init__(self, resolver: Resolver, look_up: _LookUp, on_found: OnFound) -> None:
        self._resolver = resolver
        self._look_up = look_up
        self.loop = asyncio.get_running_loop()
        self.on_found: OnFound | None = on_found

    @property
    def begun(self) -> float | None:
        """Return when a thread got to it (monotonic seconds); None while it waits for one."""
        return self._look_up.begun

    def cancel(self) -> None:
        """Ask no more."""
        self.on_found = None
        self._resolver.leave(self, self._look_up)

    def answer(self, found: list[str] | PeerError) -> None:
        """Tell the asker, unless it has cancelled."""
        on_found, self.on_found = self.on_found, None
        if on_found is not None:
            on_found(found)


class _LookUp:
    """One look-up, shared by all who ask for the name while it lasts."""

    __slots__ = ("askers", "begun", "host", "suspect")

    def __init__(self, host: str, suspect: bool) -> None:
        self.host = host
        self.suspect = suspect
        self.begun: float | None = None
        self.askers: list[Question] = []


class Resolver:
    """Looks names up; keeps no answer beyond its look-up. One serves all loops of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _LookUp] = {}
        self._waiting: tuple[deque[_LookUp], deque[_LookUp]] = deque(), deque()  # good names; suspects
        self._threads = 0
        self._suspect_threads = 0
        self._suspects: set[str] = set()
        self._closed = False

    def ask(self, host: str, on_found: OnFound) -> Question | None:
        """Find the addresses of a host.

        Args:
            host: a name, or an IP address, which is its own answer.
            on_found: called once, from the running loop, with the addresses (each once, in the system's order) or the error:
                PeerUnreachable if the name does not resolve, OwnLimit if no thread could be made, PeerClosed after close(). For an IP
                address it is called before this returns.

        Returns:
            What to cancel; None if it was answered at once.
        """
        if is_address(host):
            on_found([host])
            return None
        with self._lock:
            look_up = self._under_way.get(host) or _LookUp(host, host in self._suspects)
            question = Question(self, look_up, on_found)
            look_up.askers.append(question)
            start = not self._closed and look_up.begun is None and self._has_room(look_up)
            self._threads += start
            if not self._closed and host not in self._under_way:
                self._under_way[host] = look_up
                self._waiting[look_up.suspect].append(look_up)
        if self._closed:
            self._finish(look_up, PeerClosed("the resolver was closed"))
        elif start:
            self._start_thread()
        return question

    def leave(self, question: Question, look_up: _LookUp) -> None:
        """Forget an asker. A look-up that nobody asks for any more is dropped when a thread comes to it."""
        with self._lock:
            if question in look_up.askers:
                look_up.askers.remove(question)

    def close(self) -> None:
        """Answer all askers with PeerClosed; look-ups that hang are left to themselves."""
        with self._lock:
            self._closed = True
            look_ups = list(self._under_way.values())
            for waiting in self._waiting:
                waiting.clear()
        for look_up in look_ups:
            self._finish(look_up, PeerClosed("the resolver was closed"))

    def _has_room(self, look_up: _LookUp) -> bool:
        return self._threads < MAX_THREADS and not (look_up.suspect and self._suspect_threads >= MAX_SUSPECT_THREADS)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="resolver", daemon=True).start()
        except RuntimeError as exc:
            with self._lock:
                self._threads -= 1
                look_ups = [] if self._threads else [look_up for waiting in self._waiting for look_up in waiting]
                for waiting in self._waiting if look_ups else ():
                    waiting.clear()
            for look_up in look_ups:
                self._finish(look_up, OwnLimit(f"no thread could be started to look up {look_up.host}: {exc}"))

    def _work(self) -> None:
        while (look_up := self._take()) is not None:
            found = _look_up(look_up.host)
            self._judge(look_up, isinstance(found, PeerError))
            self._finish(look_up, found)

    def _take(self) -> _LookUp | None:
        """Return the next look-up for this thread; None ends it."""
        with self._lock:
            good, suspects = self._waiting
            while good or (suspects and self._suspect_threads < MAX_SUSPECT_THREADS):
                look_up = (good or suspects).popleft()
                if look_up.askers:
                    self._suspect_threads += look_up.suspect
                    look_up.begun = time.monotonic()
                    return look_up
                del self._under_way[look_up.host]
            self._threads -= 1
            return None

    def _judge(self, look_up: _LookUp, failed: bool) -> None:
        with self._lock:
            self._suspect_threads -= look_up.suspect
            if not failed and time.monotonic() - (look_up.begun or 0.0) <= SLOW_S:
                self._suspects.discard(look_up.host)
                return
            if len(self._suspects) >= MAX_SUSPECTS:
                self._suspects.clear()
            self._suspects.add(look_up.host)

    def _finish(self, look_up: _LookUp, found: list[str] | PeerError) -> None:
        with self._lock:
            if self._under_way.get(look_up.host) is look_up:
                del self._under_way[look_up.host]
            askers, look_up.askers = look_up.askers, []
        for question in askers:
            # Each gets an error of its own: raised in several places, one would gather all their traces.
            answer = type(found)(found.message) if isinstance(found, PeerError) else found
            try:
                question.loop.call_soon_threadsafe(question.answer, answer)
            except RuntimeError:
                pass  # its loop has ended meanwhile


def _look_up(host: str) -> list[str] | PeerError:
    try:
        infos = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)  # a text would load the codec for IDNA
    except (OSError, UnicodeError) as exc:
        return PeerUnreachable(f"{host} does not resolve: {exc}")
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Dial(Generic[P]):
    """One connection that is being opened, or waits for that."""

    def __init__(
        self, dialer: Dialer, url: Url, allow: AddressRule | None, make: Callable[[], P], on_done: OnDialled[P], suspect: bool
    ) -> None:
        self._dialer = dialer
        self.url = url
        self.allow = allow
        self.make = make
        self.on_done: OnDialled[P] | None = on_done
        self.suspect = suspect
        self.addresses: list[str] = []
        self.task: asyncio.Task[None] | None = None
        self._question: Question | None = None
        self._asked_at = time.monotonic()
        self._found_at: float | None = None
        self._begun_at: float | None = None

    def waited_s(self) -> float:
        """Return how long it waited for a thread to resolve its name and for its turn to connect: time that was no peer's."""
        now = time.monotonic()
        waited_s = 0.0
        if self._question is not None:
            waited_s = max(0.0, (self._question.begun or now) - self._asked_at)
        if self._found_at is not None:
            waited_s += (self._begun_at or now) - self._found_at
        return waited_s

    def resolve(self, resolver: Resolver) -> None:
        """Find the addresses, then wait for the turn."""
        self._question = resolver.ask(self.url.host, self._found)

    def begin(self) -> asyncio.Task[None]:
        """Connect."""
        self._begun_at = time.monotonic()
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self.url.authority}")
        return self.task

    def cancel(self) -> None:
        """Give it up; on_done is not called any more."""
        self.on_done = None
        if self._question is not None:
            self._question.cancel()
        if self.task is not None:
            self.task.cancel()
        else:
            self._dialer.leave(self)

    def finish(self, outcome: P | PeerError) -> None:
        """Tell who asked for it, unless cancelled."""
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done(outcome)

    def _found(self, found: list[str] | PeerError) -> None:
        self._found_at = time.monotonic()
        if isinstance(found, PeerError):
            self.finish(found)
        else:
            self.addresses = found
            self._dialer.enter(self)

    async def _run(self) -> None:
        try:
            outcome: P | PeerError = await self._connect()
        except PeerError as exc:
            outcome = exc
        self.finish(outcome)

    async def _connect(self) -> P:
        host = self.url.host
        allowed = [address for address in self.addresses if self.allow is None or self.allow(address)]
        if self.addresses and not allowed:
            found = ", ".join(self.addresses)
            raise PeerUnreachable(f"{host} ({found}) is not an address this program may call; see PILLION_TARGETS")
        error: PeerError = PeerUnreachable(f"{host} has no address")
        for number, address in enumerate(allowed, start=1):
            try:
                if number == len(allowed):
                    return await self._open(address)
                async with asyncio.timeout(ADDRESS_S):
                    return await self._open(address)
            except OSError as exc:
                said = _translate(exc, self.url)
            if isinstance(said, OwnLimit):
                raise said
            # A refusal at one address is no evidence of death while another one is silent.
            error = error if isinstance(error, PeerTimedOut) else said
        raise error

    async def _open(self, address: str) -> P:
        # Both uvloop and asyncio set TCP_NODELAY, and neither looks a literal address up.
        secure = self.url.scheme == "https"
        transport, protocol = await asyncio.get_running_loop().create_connection(
            self.make, address, self.url.port, ssl=_tls_context() if secure else None, server_hostname=self.url.host if secure else None
        )
        read_less_at_once(transport)
        return protocol


class Dialer:
    """Opens connections for one loop, at most `most` at once; the rest wait, first come, first served.

    Args:
        resolver: finds the addresses; None is the one all share.
        most: connections being opened at once, of which half may be suspects.
    """

    def __init__(self, resolver: Resolver | None = None, most: int = MAX_DIALS) -> None:
        self._resolver = resolver
        self._room = (most, max(1, most // 2))  # for all; for suspects
        self._waiting: tuple[OrderedDict[Dial[Any], None], OrderedDict[Dial[Any], None]] = OrderedDict(), OrderedDict()
        self._under_way: set[Dial[Any]] = set()
        self._suspects = 0

    def dial(
        self, url: Url, allow: AddressRule | None, make: Callable[[], P], on_done: Callable[[P | PeerError], None], *, suspect: bool = False
    ) -> Dial[P]:
        """Resolve a URL's host and connect to its first address that takes the connection.

        Args:
            url: where to; https makes it a TLS connection.
            allow: says of an IP address whether it may be called; None allows all.
            make: makes the protocol for each try.
            on_done: called at most once, from the loop, never before this returns, with the connected protocol or the error: PeerRefused,
                PeerClosed, PeerTimedOut, PeerUnreachable, OwnLimit. There is no time-out here: whoever asked cancels.
            suspect: it did not answer the last time.
        """
        dial = Dial(self, url, allow, make, on_done, suspect)
        dial.resolve(self._resolver or default_resolver())
        return dial

    def enter(self, dial: Dial[Any]) -> None:
        """Connect now if there is room, else in turn."""
        self._waiting[dial.suspect][dial] = None
        self._begin_next()

    def leave(self, dial: Dial[Any]) -> None:
        """Forget one that waits."""
        self._waiting[dial.suspect].pop(dial, None)

    def _begin_next(self) -> None:
        good, suspects = self._waiting
        while len(self._under_way) < self._room[0]:
            if good:
                dial, _ = good.popitem(last=False)
            elif suspects and self._suspects < self._room[1]:
                dial, _ = suspects.popitem(last=False)
            else:
                return
            self._under_way.add(dial)
            self._suspects += dial.suspect
            dial.begin().add_done_callback(partial(self._ended, dial))

    def _ended(self, dial: Dial[Any], task: asyncio.Task[None]) -> None:
        self._under_way.discard(dial)
        self._suspects -= dial.suspect
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.fault("dial_failed", f"connecting to {dial.url.authority} failed with {type(exc).__name__}: {exc}", exc)
            dial.finish(PeerUnreachable(f"{dial.url.authority} cannot be reached: {exc}"))
        self._begin_next()


@lru_cache(1)
def default_resolver() -> Resolver:
    """Return the resolver that all dialers of this process share."""
    return Resolver()


@lru_cache(1)
def _tls_context() -> ssl.SSLContext:
    from pillion_common import tls  # costs 7 MB; only those who call https pay

    return tls.client_context()


def _translate(exc: OSError, url: Url) -> PeerError:
    if isinstance(exc, ConnectionRefusedError):
        return PeerRefused(f"{url.authority} refused the connection")
    if isinstance(exc, ConnectionError):
        return PeerClosed(f"{url.authority} closed the connection: {exc}")
    if exc.errno in OWN_ERRORS:
        return OwnLimit(f"no connection to {url.authority} could be opened here: {exc.strerror}; raise the limit of open files")
    if isinstance(exc, TimeoutError):
        return PeerTimedOut(f"{url.authority} did not take the connection in time")
    return PeerUnreachable(f"{url.authority} cannot be reached: {exc}")
