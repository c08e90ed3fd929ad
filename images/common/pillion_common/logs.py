"""Each program's own log on stderr: JSON lines, or plain text on a terminal.

A line has a stable `event` for programs and a `message` for people:
`{"time":"...","level":"info","program":"registry","event":"instance_down","message":"...","instance":"...","reason":"..."}`.
Secrets are never given to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from contextlib import nullcontext
from typing import Any, TextIO

from pillion_common.clock import rfc3339

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

_BLANK = dict(vars(logging.makeLogRecord({})))  # what other formatters than ours look for

GATHER_S = 0.01
LEVELS = ("debug", "info", "warning", "error")


class _Record(logging.LogRecord):
    """A record of what a line shows and nothing else, at half the price: it does not look who called, in which thread."""

    def __init__(self, name: str, level: int, event: str, message: str, fields: dict[str, Any]) -> None:
        self.__dict__ = {
            **_BLANK,
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "created": time.time(),
            "msg": message,
            "event": event,
            "fields": fields,
        }


class EventLog:
    """A named log. Each method takes an event (stable, snake_case), a sentence, and fields."""

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(f"pillion.{name}")
        self._last: dict[str, float] = {}

    def debug(self, event: str, message: str, **fields: Any) -> None:
        """Log what only matters while searching a fault."""
        self._emit(logging.DEBUG, event, message, fields)

    def info(self, event: str, message: str, **fields: Any) -> None:
        """Log a transition."""
        self._emit(logging.INFO, event, message, fields)

    def warning(self, event: str, message: str, **fields: Any) -> None:
        """Log what an operator should look at."""
        self._emit(logging.WARNING, event, message, fields)

    def error(self, event: str, message: str, **fields: Any) -> None:
        """Log a fault."""
        self._emit(logging.ERROR, event, message, fields)

    def fault(self, event: str, message: str, exc: BaseException) -> None:
        """Log an exception nobody expected, with its trace."""
        self._log.error(message, exc_info=exc, extra={"event": event, "fields": {}})

    def warn_seldom(self, event: str, message: str, **fields: Any) -> None:
        """Warn at most once a second for each event; for faults that come in storms (full disk, failing accept)."""
        now = time.monotonic()
        if now - self._last.get(event, -1.0) >= 1.0:
            self._last[event] = now
            self.warning(event, message, **fields)

    def _emit(self, level: int, event: str, message: str, fields: dict[str, Any]) -> None:
        if self._log.isEnabledFor(level):
            self._log.handle(_Record(self._log.name, level, event, message, fields))


class _JsonFormatter(logging.Formatter):
    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "program": self._program,
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        # One text after the other: json has a short way for each, and none for a dict.
        return "{" + ", ".join([f'"{key}": {_encode(value)}' for key, value in line.items()]) + "}"


class _Gatherer(logging.StreamHandler[TextIO]):
    """Writes a line at once, but the lines of a storm together, GATHER_S later: thousands of services may come up within a second."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._written_at = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record) + "\n")
        if record.levelno < logging.ERROR and time.monotonic() - self._written_at < GATHER_S:
            try:
                if len(self._lines) == 1:
                    asyncio.get_running_loop().call_later(GATHER_S, self.flush)
                return
            except RuntimeError:
                pass  # another thread than the loop's: nobody would flush
        self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        with self.lock or nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                self._written_at = time.monotonic()
                try:
                    self.stream.write("".join(lines))
                    self.stream.flush()
                except (OSError, ValueError):
                    pass  # nobody reads our log: that must not stop the program


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f"  {key}={value}" for key, value in getattr(record, "fields", {}).items())
        text = f"{clock} {record.levelname.lower():7} {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(program: str, level: str = "info") -> None:
    """Send this process's log to stderr. Called before anything is opened: see _fill_standard_files.

    Args:
        program: stands in every JSON line.
        level: one of LEVELS.
    """
    _fill_standard_files()
    _leave_out_what_no_line_shows()
    handler = _Gatherer(sys.stderr) if sys.stderr else logging.NullHandler()
    handler.setFormatter(_TextFormatter() if sys.stderr and sys.stderr.isatty() else _JsonFormatter(program))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("pillion").setLevel(level.upper())


def _leave_out_what_no_line_shows() -> None:
    """Do without the caller's frame, thread and process in each record: half of its cost (Logging HOWTO, Optimization)."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if hasattr(logging, "logAsyncioTasks"):  # Python 3.12
        logging.logAsyncioTasks = False


def _fill_standard_files() -> None:
    """Put the null device where stdin, stdout or stderr is closed: a socket in its place would make libuv abort when it is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
