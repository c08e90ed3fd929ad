"""Keeps the providers in files, for apps that would rather read one than ask: below PILLION_PROJECT_DIR are

    providers/GradingService    one URL a line, sorted; empty while there is none
    providers.json              {"Revision": 7, "Providers": {"GradingService": [{"Name", "URL", "InstanceID", "Zone", ...}]}}
    nginx/GradingService.conf   server 10.0.0.7:6000 weight=1;   for `upstream grading { include /run/pillion/nginx/GradingService.conf; }`

Each is replaced at once and whole. They outlive the sidecar: what an earlier one wrote of a service stays until the registry was heard
about it. No file says that nobody knows yet; an empty one, that there is no provider.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable

from pillion_common.errors import InvalidInput
from pillion_common.logs import EventLog
from pillion_common.names import Url, parse_url
from pillion_sidecar.table.known import Known
from pillion_sidecar.wire import Provider

RETRY_S = 5.0
# After a write it rests three times as long, so that a storm of changes costs a quarter of a core; but not longer than this.
REST_TIMES = 3
MAX_REST_S = 0.01
MAX_EARLIER_BYTES = 8 << 20

NGINX_HEAD = "# Made by Pillion's sidecar, replaced at every change. Use it as: upstream NAME { include THIS_FILE; }\n"
NGINX_NONE = "server 127.0.0.1:1 down;\n"  # nginx refuses an upstream without a server; with this one it answers 502 at once
# What Pillion's files begin with. Nothing else is ever removed, whichever folder it was told to use.
OURS = (b"http://", b"https://", NGINX_HEAD[:30].encode())

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LEFT_OVER = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9._-]{0,67}\.new")

_log = EventLog("projection")


class Projection:
    """Writes the files of one sidecar. `changed` says what to look at; the files follow in the loop's next turn.

    Args:
        folder: exists already; no other sidecar's.
        table: what to write.
        revision: the registry's revision the table is at; None if it has none.
    """

    def __init__(self, folder: str, table: Known, revision: Callable[[], int | None] = lambda: None) -> None:
        self._folder = folder
        self._table = table
        self._revision = revision
        self._loop = asyncio.get_running_loop()
        self._dirty: set[str] = set()
        self._unheard: set[str] = set()  # looked at again each time: that there is nobody may be news of which no change tells
        self._swept: tuple[str, ...] | None = None
        self._earlier: dict[str, object] | None = None
        self._lock: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rest_until = 0.0
        self._failing: int | None = None  # the errno of what keeps it from writing

    def changed(self, names: Iterable[str]) -> None:
        """Note that the table heard of these services, or of none it did not know; called at the start as well, with all of them."""
        self._dirty.update(names)
        if self._timer is not None and self._failing is not None:
            self._timer.cancel()  # it waits for a retry
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._rest_until, self._write)

    def close(self) -> None:
        """Write what is not written yet; the files stay."""
        if self._timer is not None:
            self._timer.cancel()
            self._write()
        if self._timer is not None:
            self._timer.cancel()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self) -> None:
        begun = self._loop.time()
        self._timer = None
        try:
            self._write_all()
        except OSError as exc:
            self._tell(exc)
            self._timer = self._loop.call_later(RETRY_S, self._write)
        else:
            self._dirty.clear()
            self._tell(None)
        now = self._loop.time()
        self._rest_until = now + min(REST_TIMES * (now - begun), MAX_REST_S)

    def _write_all(self) -> None:
        names = self._table.names()
        if self._lock is None:
            self._lock = _lock(os.path.join(self._folder, ".pillion.lock"))
        for folder in ("providers", "nginx"):
            _make_folder(os.path.join(self._folder, folder))
        if self._earlier is None:
            self._earlier = _read_earlier(os.path.join(self._folder, "providers.json"))
        for name in [name for name in names if name in self._dirty or name in self._unheard]:
            found = self._table.find(name)
            if found is None:
                self._unheard.add(name)
            else:
                self._unheard.discard(name)
                entries = _with_urls(found)
                self._replace("providers", name, "".join(f"{entry.url}\n" for entry, _ in entries))
                self._replace("nginx", f"{name}.conf", _nginx(entries))
        if names != self._swept:
            self._sweep(names)
            self._swept = names
        self._replace("", "providers.json", json.dumps(self._document(names), ensure_ascii=False) + "\n")

    def _document(self, names: tuple[str, ...]) -> dict[str, object]:
        assert self._earlier is not None
        providers: dict[str, object] = {}
        for name in sorted(names):
            found = self._table.find(name)
            if found is not None:
                providers[name] = [_shown(entry) for entry in sorted(found, key=_by_url)]
                self._earlier.pop(name, None)
            elif name in self._earlier:
                providers[name] = self._earlier[name]
        revision = self._revision()
        return {"Providers": providers} if revision is None else {"Revision": revision, "Providers": providers}

    def _replace(self, folder: str, name: str, text: str) -> None:
        """Put a text in a file's place, unless it is there already."""
        path = os.path.join(self._folder, folder, name)
        content = text.encode("utf-8", "replace")
        if _read(path, len(content) + 1) == content:
            return
        fresh = os.path.join(self._folder, folder, f".{name}.new")
        _unlink(fresh)
        try:
            _write_new(fresh, content)
            os.rename(fresh, path)
        except OSError:
            _unlink(fresh)
            raise

    def _sweep(self, names: tuple[str, ...]) -> None:
        """Remove what was written of services that are not looked for any more, and what was left of a write that a crash cut short."""
        _unlink(os.path.join(self._folder, ".providers.json.new"))
        for folder, ending in (("providers", ""), ("nginx", ".conf")):
            with os.scandir(os.path.join(self._folder, folder)) as entries:
                files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
            for file in files:
                name = file.name.removesuffix(ending)
                stale = file.name.endswith(ending) and _NAME.fullmatch(name) is not None and name not in names
                if _LEFT_OVER.fullmatch(file.name) or (stale and _is_ours(file.path)):
                    _unlink(file.path)

    def _tell(self, fault: OSError | None) -> None:
        """Log when writing begins to fail, and when it goes on again."""
        if fault is not None and fault.errno != self._failing:
            _log.warn_seldom("projection_failed", f"the files in {self._folder} are not up to date: {_explain(fault)}", folder=self._folder)
        elif fault is None and self._failing is not None:
            _log.info("projection_resumed", f"the files in {self._folder} are up to date again", folder=self._folder)
        self._failing = fault.errno if fault is not None else None


def what_is_wrong(folder: str) -> str:
    """Return why no files can be kept in a folder; empty if they can."""
    if not os.path.isdir(folder):
        return "there is no such folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "this user may not write there"


def _with_urls(entries: Iterable[Provider]) -> list[tuple[Provider, Url]]:
    """Return the providers whose URL is one, sorted; a line of a file can be nothing else."""
    found = []
    for entry in sorted(entries, key=_by_url):
        try:
            found.append((entry, parse_url(entry.url, "URL")))
        except InvalidInput as exc:
            _log.warn_seldom("projection_left_out", f"a provider of {entry.name} is left out: {exc.message}")
    return found


def _nginx(entries: list[tuple[Provider, Url]]) -> str:
    """Return the body of an upstream block. An address with a scope is nothing that nginx takes."""
    servers = {f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}": entry for entry, url in entries}
    lines = [f"server {server} weight={max(1, entry.weight or 1)};\n" for server, entry in servers.items() if "%" not in server]
    return NGINX_HEAD + ("".join(lines) or NGINX_NONE)


def _shown(entry: Provider) -> dict[str, object]:
    return {
        "Name": entry.name,
        "URL": entry.url,
        "InstanceID": entry.instance_id,
        "Zone": entry.zone,
        "Version": entry.version,
        "Weight": entry.weight or 1,
        "Tags": entry.tags or (),
    }


def _by_url(entry: Provider) -> str:
    return entry.url


def _explain(exc: OSError) -> str:
    if isinstance(exc, BlockingIOError):
        return "another sidecar writes there; give each its own folder (PILLION_PROJECT_DIR)"
    what = f"{exc.strerror or exc}: {exc.filename}" if exc.filename else exc.strerror or str(exc)
    return f"{what}; make room there, or let this user write (an app needs to read only)"


def _read_earlier(path: str) -> dict[str, object]:
    """Return what an earlier sidecar wrote, by service; nothing if that cannot be read."""
    try:
        return dict(json.loads(_read(path, MAX_EARLIER_BYTES) or b"")["Providers"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}


def _lock(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path)
        os.chmod(path, 0o755)  # whatever the umask
    except FileExistsError:
        pass


def _is_ours(path: str) -> bool:
    start = _read(path, 100)
    return start is not None and (not start or start.startswith(OURS))


def _read(path: str, most_bytes: int) -> bytes | None:
    """Return how a file begins; None if it is not there or cannot be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:  # a pipe would block
            return file.read(most_bytes)
    except OSError:
        return None


def _write_new(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask
        if content and file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
