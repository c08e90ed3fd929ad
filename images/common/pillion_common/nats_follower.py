"""Follows a stream from a message on, in order and without a hole, over any outage: by a consumer that is made anew whenever it fails.

The consumer lives in the memory of one server and remembers nothing that is not known here. A few messages at a time are asked for, so what
is under way is bounded. The servers beat while there is nothing new; where they do not, the consumer is given up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pillion_common.errors import Unavailable
from pillion_common.logs import EventLog
from pillion_common.nats_link import NatsLink
from pillion_common.nats_stream import API, NO_STREAM, Message, StreamGone, refusal

BATCH = 32
BATCH_BYTES = 16 << 20  # more than any message has
BEAT_S = 0.5
SILENT_S = 1.6  # without a message or a beat
EXPIRES_S = 30
FORGOTTEN_S = 30  # after that a consumer that nobody asks is removed by its server
RETRY_S = 0.25
MAKE_S = 0.75  # for a consumer: one asked for while there was no leader is never made, and must be asked for again
GONE_S = 3.0  # a server that has just started may not know the stream yet

_NANO = 1_000_000_000

_log = EventLog("store")


class Follower:
    """Calls `take` with each message, once, in the loop's thread.

    Args:
        stream: its name.
        next_after: returns the message that follows one, by its number, without a consumer; None if there is none.
        take: must not raise.
    """

    def __init__(
        self,
        link: NatsLink,
        stream: str,
        next_after: Callable[[int], Awaitable[Message | None]],
        take: Callable[[Message], None],
    ) -> None:
        self._link = link
        self._stream = stream
        self._next_after = next_after
        self._take = take
        self._seen = 0
        self._stopped = False
        self.heard_at = time.monotonic()  # of the stream, be it that there is nothing new

    def stop(self) -> None:
        """Have `run` end. Cancelling it is not enough: a cancellation is lost where nats-py's wait ends at the same moment."""
        self._stopped = True

    async def run(self, after: int) -> None:
        """Follow from the message after this one on, until it is stopped.

        Raises:
            StreamGone: it is not there any more.
        """
        self._seen = after
        gone_at: float | None = None
        while not self._stopped:
            try:
                await self._follow()
                gone_at = None
            except StreamGone:
                gone_at = gone_at or time.monotonic()
                if time.monotonic() - gone_at > GONE_S:
                    raise
            except Unavailable as exc:
                if self._link.stands and not self._stopped:
                    _log.warn_seldom("following_failed", f"following the stream {self._stream} failed: {exc.message}; trying again")
            except (nats.errors.Error, OSError) as exc:
                if not self._stopped:
                    _log.warn_seldom("following_failed", f"following the stream {self._stream} failed: {exc}; trying again")
            with suppress(Unavailable):
                while not self._stopped and await self.advance():
                    pass
            await asyncio.sleep(RETRY_S)

    async def advance(self) -> bool:
        """Read the next message by its number, if there is one; returns whether there was.

        It needs no consumer: those cannot be made while the cluster has no leader, even though the stream has one.

        Raises:
            Unavailable: nobody answers.
        """
        after = self._seen
        message = await self._next_after(after)
        self.heard_at = time.monotonic()
        if message is None or self._seen != after:
            return self._seen != after
        self._seen = message.seq
        self._take(message)
        return True

    async def _follow(self) -> None:
        """Follow by one consumer until it fails."""
        client = self._link.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        consumer = ""
        try:
            consumer = await self._make()
            await self._pull(subscription, inbox, consumer)
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
                if consumer:
                    await client.publish(f"{API}.CONSUMER.DELETE.{self._stream}.{consumer}")

    async def _make(self) -> str:
        """Make a consumer and return its name."""
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._seen + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": FORGOTTEN_S * _NANO,
        }
        asked = json.dumps({"stream_name": self._stream, "config": config}).encode()
        try:
            answer = await self._link.client.request(f"{API}.CONSUMER.CREATE.{self._stream}", asked, timeout=MAKE_S)
            told = json.loads(answer.data)
        except (nats.errors.Error, OSError, ValueError) as exc:
            raise refusal(exc) from exc
        if (error := told.get("error")) is not None:
            if error.get("err_code") == NO_STREAM:
                raise StreamGone(f"the stream {self._stream} is not there any more")
            raise Unavailable(f"NATS lets nobody follow the stream {self._stream}: {error.get('description')}")
        return str(told["name"])

    async def _pull(self, subscription: Subscription, inbox: str, consumer: str) -> None:
        """Take messages until something is not as it should be."""
        asked = json.dumps(
            {"batch": BATCH, "max_bytes": BATCH_BYTES, "expires": EXPIRES_S * _NANO, "idle_heartbeat": int(BEAT_S * _NANO)}
        ).encode()
        delivered = left = 0
        while not self._stopped:
            if not left:
                await self._link.client.publish(f"{API}.CONSUMER.MSG.NEXT.{self._stream}.{consumer}", asked, reply=inbox)
                left = BATCH
            try:
                message = await subscription.next_msg(SILENT_S)
            except nats.errors.TimeoutError:
                return
            self.heard_at = time.monotonic()
            if (status := _status(message)) is None:
                stream_seq, consumer_seq = _numbers(message.reply)
                if consumer_seq != delivered + 1:
                    return
                delivered, left = consumer_seq, left - 1
                if stream_seq > self._seen:
                    self._seen = stream_seq
                    self._take(Message(stream_seq, message.subject, message.headers or {}, message.data))
            elif status in ("408", "409"):  # what was asked for has expired, or is as large as it may be; or there is no consumer to answer
                left = 0
            elif status != "100":
                return


def _status(message: Msg) -> str | None:
    """Return what the server says of the asking itself; None for a message of the stream."""
    if message.reply.startswith("$JS.ACK."):
        return None
    return (message.headers or {}).get("Status", "")


def _numbers(reply: str) -> tuple[int, int]:
    """Return a message's numbers in the stream and in the consumer.

    They are in `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.1.<17>.<4>.<time>.<0>`.
    """
    tokens = reply.split(".")
    first = 5 if len(tokens) < 11 else 7
    return int(tokens[first]), int(tokens[first + 1])
