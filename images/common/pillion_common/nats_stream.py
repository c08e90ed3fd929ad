"""A JetStream stream: made as it has to be, written to under conditions, read by number.

Writers are optimistic: a message says after which one it was made, in the whole stream or of its subject, and is taken in only there. So
whoever writes knew what is before it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import nats.errors
from nats.js.api import StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_link import ASK_S, RETRY_AFTER_S, NatsLink, translate

API = "$JS.API"
MESSAGE_ID = "Nats-Msg-Id"
EXPECTED, EXPECTED_OF_SUBJECT = "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence"
LOOK_S = 1.0  # for an answer to a question that may be asked again
LEAD_S = 0.5  # for one that is asked twice a second
NOT_LAST = {10071, 10164}  # JetStream's numbers for: the expected last sequence is not the last one
NO_MESSAGE = 10037
NO_STREAM = 10059

_log = EventLog("nats")


class Overtaken(Exception):
    """Another message was taken in first."""


class Doubtful(Overtaken):
    """The servers know its name and do not say where it is: it was refused before, or is under way.

    A cluster of nats-server 2.10 notes the name of a message that it refuses for its condition: sent again, it is answered as a repeat.
    """


class NoAnswer(Unavailable):
    """Nothing came in time."""


class StreamGone(Exception):
    """The stream is not there any more, or is another one."""


class State(NamedTuple):
    """What a stream holds: numbers of messages, the last one also where it was removed."""

    first: int
    last: int
    size: int


class Message(NamedTuple):
    """A message of the stream."""

    seq: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes


class Stream:
    """One stream.

    Args:
        config: as it has to be; its bounds are brought up to date where they differ.
        what: it holds, for messages, like "the log".
    """

    def __init__(self, link: NatsLink, config: StreamConfig, what: str) -> None:
        self._link = link
        self._config = config
        self._what = what
        self.name = config.name or ""

    @property
    def reachable(self) -> bool:
        """Whether a server is connected."""
        return self._link.stands

    async def ensure(self) -> State:
        """Make the stream, or bring its bounds up to date.

        Raises:
            StorageFull: no server has room for it. Unavailable: it cannot be done now.
        """
        return held(await self.made())

    async def made(self) -> StreamInfo:
        """Do what `ensure` does; returns all that NATS tells of the stream."""
        manager = self._link.jetstream()
        try:
            try:
                info = await manager.stream_info(self.name)
            except NotFoundError:
                info = await manager.add_stream(self._config)
                _log.info("stream_made", f"made the stream {self.name} with {self._config.num_replicas} replicas")
            if _bounds(info.config) != _bounds(self._config):
                info = await manager.update_stream(self._config)
                _log.info("stream_changed", f"brought the bounds of the stream {self.name} up to date")
        except (nats.errors.Error, OSError) as exc:
            raise refusal(exc) from exc
        return info

    async def state(self) -> State:
        """Return what it holds, as its leader knows it.

        Raises:
            StreamGone: it is not there. Unavailable: nobody answers.
        """
        try:
            info = await self._link.jetstream().stream_info(self.name)
        except NotFoundError as exc:
            raise StreamGone(f"the stream {self.name} is not there any more") from exc
        except (nats.errors.Error, OSError) as exc:
            raise refusal(exc) from exc
        return held(info)

    async def lead(self) -> tuple[str, State]:
        """Return which server leads it, an empty text where there is but one, and what it holds, as that server knows it.

        Raises:
            StreamGone: it is not there. Unavailable: nobody answers.
        """
        told = await self.ask_api(f"STREAM.INFO.{self.name}", {}, LEAD_S)
        if (error := told.get("error")) is not None:
            if error.get("err_code") == NO_STREAM:
                raise StreamGone(f"the stream {self.name} is not there any more")
            raise Unavailable(f"NATS does not tell of {self._what}: {error.get('description')}")
        state = told["state"]
        return (told.get("cluster") or {}).get("leader", ""), State(state["first_seq"], state["last_seq"], state["bytes"])

    async def newest(self) -> int | None:
        """Return the number of the newest message that some replica has; 0 if its newest was removed, None where no replica is there.

        Raises:
            Unavailable: nobody answers.
        """
        try:
            answer = await self._link.client.request(f"{API}.DIRECT.GET.{self.name}", b'{"last_by_subj":">"}', timeout=LEAD_S)
        except nats.errors.NoRespondersError:
            return None
        except (nats.errors.Error, OSError) as exc:
            raise refusal(exc) from exc
        return int((answer.headers or {}).get("Nats-Sequence", 0))

    async def send(self, subject: str, payload: bytes, headers: dict[str, str], timeout_s: float) -> int:
        """Have a message kept; returns its number.

        Args:
            headers: MESSAGE_ID names the message: sent again, it is not kept again. EXPECTED and EXPECTED_OF_SUBJECT are conditions.

        Raises:
            Overtaken: a condition does not hold. Doubtful: so it was when this message was sent before, or it is under way.
            StorageFull: no room. Unavailable: it is not kept, or nobody knows.
        """
        try:
            answer = await self._link.client.request(subject, payload, timeout=timeout_s, headers=headers)
            told = json.loads(answer.data)
            if "error" in told:
                error = told["error"]
                if error.get("err_code") in NOT_LAST:
                    raise Overtaken
                raise APIError(**{key: error.get(key) for key in ("code", "description", "err_code")})
        except (nats.errors.Error, OSError, ValueError) as exc:
            raise refusal(exc) from exc
        if int(told["seq"]) < 1:
            raise Doubtful
        return int(told["seq"])

    async def message(self, seq: int) -> Message | None:
        """Return a message, from any replica that has it; None where none has it any more.

        Raises:
            Unavailable: nobody answers.
        """
        try:
            answer = await self._link.client.request(f"{API}.DIRECT.GET.{self.name}", b'{"seq":%d}' % seq, timeout=LEAD_S)
        except (nats.errors.NoRespondersError, nats.errors.TimeoutError):  # a server that hangs is asked in its turn, for a minute and more
            return await self._ask({"seq": seq})
        except (nats.errors.Error, OSError) as exc:
            raise refusal(exc) from exc
        if answer.headers and "Status" in answer.headers:  # not there, or not yet: the leader knows
            return await self._ask({"seq": seq})
        headers = answer.headers or {}
        return Message(seq, headers.get("Nats-Subject", ""), headers, answer.data)

    async def last_of(self, subject: str) -> Message | None:
        """Return the last message with a subject, as the leader knows it.

        Raises:
            Unavailable: nobody answers.
        """
        return await self._ask({"last_by_subj": subject})

    async def _ask(self, what: dict[str, Any]) -> Message | None:
        """Ask the leader, and again where no answer comes: what was asked while there was none is lost."""
        ends = time.monotonic() + ASK_S
        while True:
            try:
                told = await self.ask_api(f"STREAM.MSG.GET.{self.name}", what, LOOK_S)
                break
            except NoAnswer:
                if time.monotonic() >= ends:
                    raise
        if (error := told.get("error")) is not None:
            if error.get("err_code") == NO_MESSAGE:
                return None
            raise Unavailable(f"NATS did not give a message of {self._what}: {error.get('description')}")
        found = told["message"]
        headers = _headers(base64.b64decode(found.get("hdrs", "")))
        return Message(int(found["seq"]), found["subject"], headers, base64.b64decode(found.get("data", "")))

    async def ask_api(self, path: str, what: dict[str, Any], timeout_s: float = ASK_S) -> dict[str, Any]:
        """Ask JetStream's API, and return its answer as it is.

        Raises:
            Unavailable: nobody answers.
        """
        try:
            answer = await self._link.client.request(f"{API}.{path}", json.dumps(what).encode(), timeout=timeout_s)
            told = json.loads(answer.data)
        except (nats.errors.Error, OSError, ValueError) as exc:
            raise refusal(exc) from exc
        return dict(told)


def held(info: StreamInfo) -> State:
    """Return what a stream holds."""
    return State(info.state.first_seq, info.state.last_seq, info.state.bytes)


def refusal(exc: BaseException) -> Unavailable:
    """Return one of nats-py's errors as one of ours."""
    if isinstance(exc, TimeoutError | nats.errors.TimeoutError):
        return NoAnswer("NATS does not answer", retry_after_s=RETRY_AFTER_S)
    told = translate(exc)
    return told if isinstance(told, Unavailable) else Unavailable(told.message)


def _bounds(config: StreamConfig) -> tuple[object, ...]:
    return config.max_bytes, config.max_age, config.num_replicas, config.discard, config.republish


def _headers(block: bytes) -> dict[str, str]:
    """Return the headers of a block that begins with the line `NATS/1.0`."""
    lines = block.decode("latin-1").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)
