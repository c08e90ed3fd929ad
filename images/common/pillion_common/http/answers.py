"""Answers: from the bytes of a connection, bounded, one at a time. Does no I/O."""

from __future__ import annotations

from typing import NamedTuple

import httptools

from pillion_common.errors import PeerBroken

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
MEMO_ANSWER_BYTES = 1024
MEMO_ANSWERS = 256


class Answer(NamedTuple):
    """What the peer answered; `body` is cut at the channel's bound."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


# Thousands of peers answer heartbeats with the same bytes. Only whole answers after which the connection stays open get in here.
memo: dict[bytes, Answer] = {}


class AnswerReader:
    """Turns the bytes of one connection into answers, one at a time. Does no I/O."""

    __slots__ = ("_answer", "_body", "_bytes", "_error", "_excess", "_head_done", "_headers", "_max_body", "_parser", "keep")

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._parser = httptools.HttpResponseParser(self)
        self._excess = False
        self.keep = True  # whether the connection may be used on
        self._reset()

    def feed(self, data: bytes) -> Answer | None:
        """Take bytes of an answer; return the answer once it is whole, or as much of it as is read.

        Raises:
            PeerBroken: this is not HTTP, or over a bound.
        """
        first = self._bytes == 0
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self.keep = False
            if self._answer is None:
                raise self._error or PeerBroken(f"the answer is not valid HTTP: {exc}") from exc
        if self._answer is None:
            self._check_size()
            return None
        answer = self._answer
        self.keep = self.keep and not self._excess
        if first and self.keep and len(data) <= MEMO_ANSWER_BYTES and data.find(b"\r\n\r\n") + 4 + len(answer.body) == len(data):
            remember(data, answer)
        self._reset()
        return answer

    def end(self) -> Answer | None:
        """Take the connection's end; return the answer if its body ends by that."""
        if self._head_done and not {b"content-length", b"transfer-encoding"} & dict(self._headers).keys():
            self._complete()
        return self._answer

    def _reset(self) -> None:
        self._answer: Answer | None = None
        self._error: PeerBroken | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._bytes = 0
        self._head_done = False

    def _check_size(self) -> None:
        if not self._head_done and self._bytes > MAX_HEAD_BYTES:
            raise PeerBroken(f"the answer's head is over {MAX_HEAD_BYTES} bytes")
        if self._bytes > MAX_HEAD_BYTES + 8 * self._max_body:
            raise PeerBroken("the answer is nearly all framing")  # chunks of a byte each, or trailers without end

    def _complete(self) -> None:
        if self._answer is None:
            self._answer = Answer(self._parser.get_status_code(), tuple(self._headers), self._body)

    # From the parser.

    def on_message_begin(self) -> None:  # noqa: D102
        self._excess = self._answer is not None  # one more message than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102
        self._headers.append((name.lower(), value))
        if len(self._headers) > MAX_HEADERS:
            self._error = PeerBroken(f"the answer has over {MAX_HEADERS} headers")
            raise self._error

    def on_headers_complete(self) -> None:  # noqa: D102
        self._head_done = self._parser.get_status_code() >= 200

    def on_body(self, piece: bytes) -> None:  # noqa: D102
        self._body += piece
        if len(self._body) > self._max_body:
            # Reading on would let one peer fill our memory; the status is known, so the answer counts.
            self._body = self._body[: self._max_body]
            self._complete()
            self.keep = False

    def on_message_complete(self) -> None:  # noqa: D102
        if self._parser.get_status_code() < 200:
            self._headers = []
            return
        self.keep = self.keep and self._parser.should_keep_alive()
        self._complete()


def remember(data: bytes, answer: Answer) -> None:
    """Keep an answer for the next peer that says exactly the same."""
    if len(memo) >= MEMO_ANSWERS:
        memo.clear()
    memo[data] = answer
