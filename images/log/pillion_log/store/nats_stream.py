"""The stream that a log is kept in: made as it has to be, written to by one rule, read by number.

The rule is optimistic: a message says after which one it was made (`Nats-Expected-Last-Sequence`), and JetStream takes it only there. So
whoever writes knew all that is before it, and what several log services write is one history.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import nats.errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_link import ASK_S, RETRY_AFTER_S, NatsLink, translate
from pillion_log.store.nats_wire import Packet

API = "$JS.API"
MESSAGE_ID, EXPECTED = "Nats-Msg-Id", "Nats-Expected-Last-Sequence"
NOT_LAST = {10071, 10164}  # JetStream's numbers for: the expected last sequence is not the last one
NO_MESSAGE = 10037
DUPLICATES_S = 120.0
MAX_AGE_S = 250 * 365 * 86400.0  # about what the servers can count in nanoseconds
AT_ONCE = 32  # messages that are asked for together
HEADER_BYTES = 8 * 1024  # more than all headers of a message take

_log = EventLog("store")


class Overtaken(Exception):
    """Another message was taken in first."""


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
    headers: Mapping[str, str]
    payload: bytes


class LogStream:
    """One stream.

    Args:
        max_bytes: how much it may hold; the oldest messages give way.
        max_age_s: how long.
    """

    def __init__(self, link: NatsLink, max_bytes: int, max_age_s: float) -> None:
        self._link = link
        self.prefix = f"{link.place.prefix}.logs"
        self.name = f"{link.place.prefix}_logs"
        self._config = StreamConfig(
            name=self.name,
            description="Pillion's log",
            subjects=[f"{self.prefix}.>"],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            max_bytes=max_bytes,
            max_age=min(max_age_s, MAX_AGE_S),
            storage=StorageType.FILE,
            num_replicas=link.place.replicas,
            duplicate_window=min(DUPLICATES_S, max_age_s),
            allow_direct=True,
        )

    @property
    def reachable(self) -> bool:
        """Whether a server is connected."""
        return self._link.stands

    @property
    def max_message_bytes(self) -> int:
        """What a message's payload may have."""
        return self._link.client.max_payload - HEADER_BYTES

    async def ensure(self) -> State:
        """Make the stream, or bring its bounds up to date.

        Raises:
            Unavailable: it cannot be done now.
        """
        manager = self._link.jetstream()
        try:
            try:
                info = await manager.stream_info(self.name)
            except NotFoundError:
                info = await manager.add_stream(self._config)
                _log.info("stream_made", f"made the stream {self.name} with {self._config.num_replicas} replicas")
            wanted = (self._config.max_bytes, self._config.max_age, self._config.num_replicas, self._config.discard)
            if (info.config.max_bytes, info.config.max_age, info.config.num_replicas, info.config.discard) != wanted:
                info = await manager.update_stream(self._config)
                _log.info("stream_changed", f"brought the bounds of the stream {self.name} up to date")
        except (nats.errors.Error, OSError) as exc:
            failure = refusal(exc)
            if isinstance(failure, StorageFull):
                failure.message += ", or ask for less by --log-max-bytes"
            raise failure from exc
        return State(info.state.first_seq, info.state.last_seq, info.state.bytes)

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
        return State(info.state.first_seq, info.state.last_seq, info.state.bytes)

    async def publish(self, packet: Packet, after: int, name: str, timeout_s: float) -> int:
        """Have a message kept right after another one; returns its number.

        Args:
            after: the number of the last message.
            name: of this message: sent again, it is not kept again.

        Raises:
            Overtaken: another one is there. Unavailable: it is not kept, or nobody knows.
        """
        headers = {**packet.headers, MESSAGE_ID: name, EXPECTED: str(after)}
        try:
            answer = await self._link.client.request(packet.subject, packet.payload, timeout=timeout_s, headers=headers)
            told = json.loads(answer.data)
            if "error" in told:
                error = told["error"]
                if error.get("err_code") in NOT_LAST:
                    raise Overtaken
                raise APIError(**{key: error.get(key) for key in ("code", "description", "err_code")})
        except (nats.errors.Error, OSError, ValueError) as exc:
            raise refusal(exc) from exc
        return int(told["seq"])

    async def message(self, seq: int) -> Message | None:
        """Return a message, from any replica that has it; None where none has it any more.

        Raises:
            Unavailable: nobody answers.
        """
        try:
            answer = await self._link.client.request(f"{API}.DIRECT.GET.{self.name}", b'{"seq":%d}' % seq, timeout=ASK_S)
        except nats.errors.NoRespondersError:
            return await self._ask({"seq": seq})
        except (nats.errors.Error, OSError) as exc:
            raise refusal(exc) from exc
        if answer.headers and "Status" in answer.headers:  # not there, or not yet: the leader knows
            return await self._ask({"seq": seq})
        return Message(seq, answer.headers or {}, answer.data)

    async def messages(self, first: int, last: int) -> list[Message]:
        """Return those messages of a range that are there.

        Raises:
            Unavailable: nobody answers.
        """
        free = asyncio.Semaphore(AT_ONCE)

        async def one(seq: int) -> Message | None:
            async with free:
                return await self.message(seq)

        tasks = [asyncio.ensure_future(one(seq)) for seq in range(first, last + 1)]
        try:
            return [found for found in await asyncio.gather(*tasks) if found is not None]
        finally:
            for task in tasks:
                task.cancel()

    async def last_of(self, subject: str) -> Message | None:
        """Return the last message with a subject.

        Raises:
            Unavailable: nobody answers.
        """
        return await self._ask({"last_by_subj": subject})

    async def _ask(self, what: dict[str, Any]) -> Message | None:
        """Ask the leader."""
        try:
            answer = await self._link.client.request(f"{API}.STREAM.MSG.GET.{self.name}", json.dumps(what).encode(), timeout=ASK_S)
            told = json.loads(answer.data)
        except (nats.errors.Error, OSError, ValueError) as exc:
            raise refusal(exc) from exc
        if (error := told.get("error")) is not None:
            if error.get("err_code") == NO_MESSAGE:
                return None
            raise Unavailable(f"NATS did not give a message of the log: {error.get('description')}")
        found = told["message"]
        return Message(int(found["seq"]), _headers(base64.b64decode(found.get("hdrs", ""))), base64.b64decode(found.get("data", "")))


def refusal(exc: BaseException) -> Unavailable:
    """Return one of nats-py's errors as one of ours."""
    if isinstance(exc, TimeoutError | nats.errors.TimeoutError):
        return Unavailable("NATS does not answer", retry_after_s=RETRY_AFTER_S)
    told = translate(exc)
    return told if isinstance(told, Unavailable) else Unavailable(told.message)


def _headers(block: bytes) -> dict[str, str]:
    """Return the headers of a block that begins with the line `NATS/1.0`."""
    lines = block.decode("latin-1").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)
