"""A JetStream key-value bucket (`nats kv` shows it): one message for each key, replaced by compare and set, followed as it changes.

A key is an instance's id. What was deleted leaves a marker, so that followers see it, until somebody purges it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import DiscardPolicy, RePublish, RetentionPolicy, StorageType, StreamConfig

from pillion_common.errors import StorageFull, Unavailable
from pillion_common.nats_link import RETRY_AFTER_S, NatsLink
from pillion_common.nats_stream import EXPECTED_OF_SUBJECT, MESSAGE_ID, Doubtful, Message, Overtaken, Stream

DUPLICATES_S = 120.0
OPERATION = "KV-Operation"
SEQUENCE, SUBJECT = "Nats-Sequence", "Nats-Subject"  # of what is published again
SEND_S = 1.0  # for one try; a try is made again under the same name, so that it counts once
RETRY_S = 0.2
MAX_DOUBTS = 3  # tries of what may be under way; then it was refused
AT_ONCE = 64  # messages that are read together
IDENTITY = "=identity"  # no instance has such an id


class Entry(NamedTuple):
    """What a key has; `deleted` where it is a marker. `seq` is the bucket's revision."""

    seq: int
    key: str
    value: bytes
    deleted: bool


class Bucket:
    """One bucket.

    Args:
        name: after the place's prefix.
        what: it holds, for messages.
        max_age_s: after which an entry goes by itself; 0: never.
        followed: whether anybody listens to it.
    """

    def __init__(self, link: NatsLink, name: str, what: str, max_bytes: int, max_age_s: float = 0.0, followed: bool = True) -> None:
        bucket = f"{link.place.prefix}_{name}"
        self._before = f"$KV.{bucket}."
        self._told = f"{bucket}.kept.>"  # where NATS publishes again what it has kept
        self._link = link
        config = StreamConfig(
            name=f"KV_{bucket}",
            description=f"Pillion: {what}",
            subjects=[f"{self._before}>"],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_msgs_per_subject=1,
            max_bytes=max_bytes,
            max_age=max_age_s,
            storage=StorageType.FILE,
            num_replicas=link.place.replicas,
            duplicate_window=min(DUPLICATES_S, max_age_s or DUPLICATES_S),
            allow_rollup_hdrs=True,
            deny_delete=True,
            allow_direct=True,
            republish=RePublish(src=f"{self._before}>", dest=self._told) if followed else None,
        )
        self.stream = Stream(link, config, what)

    async def put(self, key: str, value: bytes, expected: int, give_up_s: float, deletes: bool = False) -> int:
        """Set a key if its last revision is the expected one (0: it has none); returns the new revision.

        Args:
            deletes: leave a marker; the value says why.
            give_up_s: for how long a try without an answer is made again.

        Raises:
            Overtaken: its last revision is another one. StorageFull: no room. Unavailable: it is not kept, or nobody knows.
        """
        headers = {MESSAGE_ID: secrets.token_hex(8), EXPECTED_OF_SUBJECT: str(expected)}
        if deletes:
            headers[OPERATION] = "DEL"
        ends = time.monotonic() + give_up_s
        doubts = tries = 0
        while True:
            try:
                tries += 1
                return await self._send(key, value, headers)
            except Doubtful:
                if (doubts := doubts + 1) > MAX_DOUBTS:
                    raise
            except Overtaken:  # by an earlier try whose answer was lost? nats-server from 2.12 on does not say so
                if tries == 1 or (found := await self.stream.last_of(self._subject(key))) is None or not _is_named(found, headers):
                    raise
                return found.seq
            except StorageFull:
                raise
            except Unavailable:
                if time.monotonic() + RETRY_S > ends:
                    raise
            await asyncio.sleep(RETRY_S)

    async def set(self, key: str, value: bytes) -> int:
        """Set a key whatever it has; one try.

        Raises:
            StorageFull, Unavailable.
        """
        return await self._send(key, value, {})

    async def tell(self, key: str, value: bytes) -> None:
        """Set a key whatever it has, and wait for no answer.

        Raises:
            nats.errors.Error, OSError: it could not even be sent.
        """
        await self._link.client.publish(self._subject(key), value)

    async def get(self, key: str) -> Entry | None:
        """Return what a key has, as the stream's leader knows it.

        Raises:
            Unavailable: nobody answers.
        """
        found = await self.stream.last_of(self._subject(key))
        return self._entry(found) if found is not None else None

    async def last(self) -> int:
        """Return the revision of the newest message that is there, as the stream's leader knows it; 0 if there is none.

        Raises:
            Unavailable: nobody answers.
        """
        found = await self.stream.last_of(f"{self._before}>")
        return found.seq if found is not None else 0

    async def keys(self) -> list[str]:
        """Return all keys, markers included; not the bucket's own.

        Raises:
            Unavailable: nobody answers.
        """
        keys: list[str] = []
        while True:
            asked = {"subjects_filter": f"{self._before}>", "offset": len(keys)}
            told = await self.stream.ask_api(f"STREAM.INFO.{self.stream.name}", asked)
            if (error := told.get("error")) is not None:
                raise Unavailable(f"NATS does not list {self.stream.name}: {error.get('description')}")
            subjects = told["state"].get("subjects") or {}
            keys += [_plain(subject.removeprefix(self._before)) for subject in subjects]
            if not subjects or len(keys) >= told.get("total", 0):
                return [key for key in keys if key != IDENTITY]

    async def identity(self, make: bool = True) -> str:
        """Return what tells this bucket from one that is made anew under its name: a word that whoever came first has put there.

        (When NATS says that a stream was made, its servers need not agree on.)

        Args:
            make: put one there if there is none; else that is told as an empty text.

        Raises:
            StorageFull, Unavailable.
        """
        while True:
            entry = await self.get(IDENTITY)
            if entry is not None or not make:
                return entry.value.decode("ascii", "replace") if entry is not None else ""
            with suppress(Overtaken):
                await self.put(IDENTITY, secrets.token_hex(8).encode(), 0, 0.0)

    async def purge(self, key: str, upto: int) -> None:
        """Remove what a key has, if its revision is not higher than `upto`.

        Raises:
            Unavailable: nobody answers.
        """
        await self.stream.ask_api(f"STREAM.PURGE.{self.stream.name}", {"filter": self._subject(key), "seq": upto + 1})

    async def listen(self, hear: Callable[[Entry], None]) -> Subscription:
        """Have each message told as soon as NATS has kept it, in the order of the revisions; some get lost, some come twice.

        Args:
            hear: must not raise.
        """

        async def told(message: Msg) -> None:
            headers = message.headers or {}
            if SEQUENCE in headers and SUBJECT in headers:  # else it is none of the bucket's
                hear(self._entry(Message(int(headers[SEQUENCE]), headers[SUBJECT], headers, message.data)))

        return await self._link.client.subscribe(self._told, cb=told)

    async def newest(self) -> int | None:
        """Return the newest revision that some server has; 0 if what had it was removed, None where no server has the bucket.

        Raises:
            Unavailable: nobody answers.
        """
        return await self.stream.newest()

    async def numbered(self, seq: int) -> Entry | None:
        """Return the message of a revision; None if the bucket's leader does not have it.

        Raises:
            Unavailable: nobody answers.
        """
        found = await self.stream.message(seq)
        return self._entry(found) if found is not None else None

    async def entries(self) -> list[Entry]:
        """Return what all keys have, markers included, each as the stream's leader knows it when it is asked.

        Raises:
            Unavailable: nobody answers.
        """
        free = asyncio.Semaphore(AT_ONCE)

        async def one(key: str) -> Entry | None:
            async with free:
                return await self.get(key)

        return [entry for entry in await asyncio.gather(*map(one, await self.keys())) if entry is not None]

    async def _send(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        if not self.stream.reachable:  # nats-py would keep it, and send it long after whoever asked was told that it failed
            raise Unavailable("NATS is not reached", retry_after_s=RETRY_AFTER_S)
        return await self.stream.send(self._subject(key), value, headers, SEND_S)

    def _subject(self, key: str) -> str:
        return self._before + key.replace(".", "=2E")

    def _entry(self, message: Message) -> Entry:
        deleted = message.headers.get(OPERATION) in ("DEL", "PURGE")
        return Entry(message.seq, _plain(message.subject.removeprefix(self._before)), message.payload, deleted)


def _is_named(message: Message, headers: dict[str, str]) -> bool:
    return message.headers.get(MESSAGE_ID) == headers[MESSAGE_ID]


def _plain(token: str) -> str:
    return token.replace("=2E", ".")
