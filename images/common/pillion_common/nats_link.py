"""One connection to a NATS cluster with JetStream, for the stores that live there. Loaded only where a store's URI says so.

nats-py does the work: reconnecting, JetStream and its acknowledgements. Here is what both stores want of it in the same way: what a URI
means, a connection that outlives any outage, whether it stands and since when not, and its errors as ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from pillion_common.errors import ConfigError, PillionError, StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_common.trust import read_secret

_log = EventLog("nats")

PORT = 4222
CONNECT_S = 2
ASK_S = 5.0  # for an answer of JetStream
RECONNECT_S = 0.25  # between two attempts; nats-py spreads them over the servers
PING_S = 1  # a server that does not answer two of these in a row is left
PENDING_BYTES = 8 * 1024 * 1024  # of requests that wait for a connection
RETRY_AFTER_S = 2
MAX_REPLICAS = 5  # JetStream's own bound
# JetStream's numbers for: insufficient resources, memory or storage exceeded, most bytes or messages reached.
NO_ROOM = {10023, 10028, 10047, 10077, 10122}


class NatsPlace(NamedTuple):
    """Where a store's data are.

    Attributes:
        servers: URLs.
        replicas: of each stream, 1 to 5.
        prefix: of the names of streams and buckets, so that several installations can share a cluster.
    """

    servers: tuple[str, ...]
    replicas: int
    prefix: str


def parse_place(uri: str) -> NatsPlace:
    """Return what a URI says: `nats://HOST[:PORT][,HOST[:PORT]…][?replicas=N][&prefix=NAME]`.

    Raises:
        ConfigError: it is not such a URI; the message says what is wrong with it.
    """
    split = urlsplit(uri)
    hosts = [host for host in split.netloc.split(",") if host]
    if split.scheme != "nats" or not hosts or split.path.strip("/") or split.fragment:
        raise ConfigError([f"--store {uri!r} is not a NATS address; use nats://HOST:PORT,HOST:PORT,HOST:PORT"])
    if any("@" in host for host in hosts):
        raise ConfigError(["--store: a NATS address holds no password or token; put the token in a file and name it by --store-token-file"])
    options = dict(parse_qsl(split.query, keep_blank_values=True))
    unknown = sorted(options.keys() - {"replicas", "prefix"})
    if unknown:
        raise ConfigError([f"--store: {unknown[0]!r} is not an option of a NATS address; there are replicas= and prefix="])
    prefix = options.get("prefix", "pillion")
    if not prefix.replace("-", "").replace("_", "").isalnum() or not prefix.isascii() or len(prefix) > 32:
        raise ConfigError([f"--store: prefix={prefix!r} is not a name of up to 32 letters, digits, - and _"])
    default = "3" if len(hosts) >= 3 else "1"
    replicas = options.get("replicas", default)
    if not (replicas.isdecimal() and 1 <= int(replicas) <= MAX_REPLICAS):
        raise ConfigError([f"--store: replicas={replicas!r} is not a number from 1 to {MAX_REPLICAS}"])
    return NatsPlace(tuple(_server(host, uri) for host in hosts), int(replicas), prefix)


def _server(host: str, uri: str) -> str:
    try:
        split = urlsplit(f"nats://{host}")
        name, port = split.hostname, split.port or PORT
    except ValueError:
        name, port = None, 0
    if not name:
        raise ConfigError([f"--store {uri!r}: {host!r} is not HOST:PORT"])
    return f"nats://[{name}]:{port}" if ":" in name else f"nats://{name}:{port}"


class NatsLink:
    """A connection that is made again for as long as it is wanted.

    Args:
        name: what the servers' own lists show.
        token_file: holds the token that the servers ask for; empty where they ask for none.
        on_change: called with whether it stands, each time that changes.
    """

    def __init__(self, place: NatsPlace, name: str, token_file: str = "", on_change: Callable[[bool], None] = lambda _: None) -> None:
        self.place = place
        self._name = name
        self._token = read_secret(token_file, "--store-token-file") if token_file else None
        self._on_change = on_change
        self._client = Client()
        self._down_since: float | None = time.monotonic()
        self._last_error = "not yet connected"
        self._closing = False
        self._closed = asyncio.Event()

    @property
    def client(self) -> Client:
        """Return nats-py's client, for what goes without JetStream."""
        return self._client

    def jetstream(self, **options: object) -> JetStreamContext:
        """Return a JetStream context; every question waits `ASK_S` at the most."""
        return self._client.jetstream(timeout=ASK_S, **options)

    @property
    def stands(self) -> bool:
        """Return whether a server is connected."""
        return self._down_since is None

    def down_s(self) -> float:
        """Return for how long no server has been connected; 0 while one is."""
        return 0.0 if self._down_since is None else time.monotonic() - self._down_since

    def server_version(self) -> tuple[int, int, int]:
        """Return the version of the server that is connected; zeros while none is."""
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    def fault(self) -> str | None:
        """Return why the store cannot be reached and since when; None if it can."""
        if self._down_since is None:
            return None
        servers = ", ".join(url.removeprefix("nats://") for url in self.place.servers)
        return f"NATS ({servers}) has not been reached for {self.down_s():.0f} s: {self._last_error}"

    async def open(self) -> None:
        """Connect, however long it takes: a store whose servers start after it waits for them."""
        await self._client.connect(
            list(self.place.servers),
            name=self._name,
            token=self._token,
            connect_timeout=CONNECT_S,
            reconnect_time_wait=RECONNECT_S,  # type: ignore[arg-type]  # goes to asyncio.sleep
            max_reconnect_attempts=-1,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            pending_size=PENDING_BYTES,
            error_cb=self._on_error,
            disconnected_cb=self._on_down,
            reconnected_cb=self._on_up,
            closed_cb=self._on_closed,
        )
        self._set(up=True)

    async def lost_for_good(self) -> None:
        """Return when the servers have refused this client and nats-py has given up: nothing but a new start helps then."""
        await self._closed.wait()

    async def close(self) -> None:
        """Let go. Safe to call twice."""
        self._closing = True
        if not self._client.is_closed:
            await self._client.close()

    async def _on_error(self, exc: Exception) -> None:
        self._last_error = _say(exc)
        if not self.stands:
            _log.warn_seldom("nats_unreachable", f"{self.fault()}; trying again")

    async def _on_closed(self) -> None:
        if not self._closing:
            self._set(up=False)
            self._closed.set()

    async def _on_down(self) -> None:
        if not self._closing:
            self._set(up=False)

    async def _on_up(self) -> None:
        self._set(up=True)

    def _set(self, *, up: bool) -> None:
        if up == self.stands:
            return
        self._down_since = None if up else time.monotonic()
        if up:
            _log.info("nats_connected", f"connected to {self._client.connected_url.netloc if self._client.connected_url else 'NATS'}")
        else:
            _log.warning("nats_lost", "the connection to NATS was lost; what is known goes on, writes wait for it")
        self._on_change(up)


def translate(exc: BaseException) -> PillionError:
    """Return one of nats-py's errors as one of ours."""
    if isinstance(exc, PillionError):
        return exc
    if isinstance(exc, nats.js.errors.APIError) and exc.err_code in NO_ROOM:
        return StorageFull(f"NATS has no room: {exc.description}; give its stream or its disk more", retry_after_s=RETRY_AFTER_S)
    return Unavailable(f"NATS did not keep it: {_say(exc)}", retry_after_s=RETRY_AFTER_S)


def _say(exc: BaseException) -> str:
    if isinstance(exc, nats.js.errors.APIError):
        return exc.description or f"code {exc.err_code or exc.code}"
    if isinstance(exc, nats.errors.NoRespondersError | nats.js.errors.NoStreamResponseError):
        return "no server of it answers for this stream now"
    if isinstance(exc, TimeoutError):
        return f"no answer within {ASK_S:g} s"
    said = str(exc).removeprefix("nats: ") or type(exc).__name__
    return f"{said} (is the token in --store-token-file theirs?)" if "authorization" in said.lower() else said
