"""The stream that a log is kept in. What several log services write to it is one history: each message says after which one it was made."""

from __future__ import annotations

import asyncio

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from pillion_common.errors import StorageFull
from pillion_common.nats_link import NatsLink
from pillion_common.nats_stream import EXPECTED, MESSAGE_ID, Message, Stream
from pillion_log.store.nats_wire import Packet

DUPLICATES_S = 120.0
MAX_AGE_S = 250 * 365 * 86400.0  # about what the servers can count in nanoseconds
AT_ONCE = 32  # messages that are asked for together
HEADER_BYTES = 8 * 1024  # more than all headers of a message take


class LogStream(Stream):
    """One log's stream.

    Args:
        max_bytes: how much it may hold; the oldest messages give way.
        max_age_s: how long.
    """

    def __init__(self, link: NatsLink, max_bytes: int, max_age_s: float) -> None:
        self.prefix = f"{link.place.prefix}.logs"
        config = StreamConfig(
            name=f"{link.place.prefix}_logs",
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
        super().__init__(link, config, "the log")

    @property
    def max_message_bytes(self) -> int:
        """What a message's payload may have."""
        return self._link.client.max_payload - HEADER_BYTES

    async def made(self) -> StreamInfo:
        """Make the stream, or bring its bounds up to date."""
        try:
            return await super().made()
        except StorageFull as exc:
            exc.message += ", or ask for less by --log-max-bytes"
            raise

    async def publish(self, packet: Packet, after: int, name: str, timeout_s: float) -> int:
        """Have a message kept right after another one; returns its number.

        Args:
            after: the number of the last message.
            name: of this message: sent again, it is not kept again.

        Raises:
            Overtaken: another one is there. Unavailable: it is not kept, or nobody knows.
        """
        headers = {**packet.headers, MESSAGE_ID: name, EXPECTED: str(after)}
        return await self.send(packet.subject, packet.payload, headers, timeout_s)

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
