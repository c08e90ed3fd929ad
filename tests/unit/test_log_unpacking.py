"""How packed bodies are unpacked, and how little of a bomb."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from pillion_common.errors import InvalidInput, TooLarge, WrongType
from pillion_log.unpacking import MAX_UNPACKED_BYTES, unpack_gzip, unpacker


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b" GZIP "])
def test_gzip_is_known_by_its_names(coding: bytes) -> None:
    unpack = unpacker(coding)
    assert unpack is not None
    assert unpack(gzip.compress(b"hello")) == b"hello"


def test_body_that_is_not_packed_stays() -> None:
    assert unpacker(b"") is None
    assert unpacker(b"identity") is None


@pytest.mark.parametrize("coding", [b"br", b"deflate", b"gzip, gzip", b"\xff"])
def test_other_codings_are_refused_with_what_to_do(coding: bytes) -> None:
    with pytest.raises(WrongType, match="send it with Content-Encoding: gzip, or without one"):
        unpacker(coding)


def test_body_of_several_members_is_one() -> None:
    assert unpack_gzip(gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")) == b"one two"


def test_bound_is_that_of_the_unpacked_body() -> None:
    assert unpack_gzip(gzip.compress(b"x" * 10), 10) == b"x" * 10
    with pytest.raises(TooLarge, match="over 10 bytes when it is unpacked"):
        unpack_gzip(gzip.compress(b"x" * 11), 10)
    with pytest.raises(TooLarge):
        unpack_gzip(gzip.compress(b"x" * 6) * 2, 10)


def test_bomb_costs_no_more_than_the_bound() -> None:
    bomb = gzip.compress(b"\0" * (1 << 28), 9)
    assert len(bomb) < 300_000
    tracemalloc.start()
    with pytest.raises(TooLarge):
        unpack_gzip(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_UNPACKED_BYTES


def test_body_of_countless_empty_members_is_refused() -> None:
    with pytest.raises(TooLarge):
        unpack_gzip(gzip.compress(b"") * 2000)


@pytest.mark.parametrize("body", [b"", b"plain", gzip.compress(b"hello")[:-1], gzip.compress(b"hello") + b"rest"])
def test_damage_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refusal:
        unpack_gzip(body)
    assert refusal.value.code == "bad_gzip"
