"""How packed bodies are unpacked, and how little of a bomb."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import pytest
import zstandard

from pillion_common.errors import InvalidInput, TooLarge, WrongType
from pillion_log.unpacking import MAX_UNPACKED_BYTES, unpack_gzip, unpack_zstd, unpacker


class Coding(NamedTuple):
    name: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[..., bytes]


CODINGS = [Coding("gzip", gzip.compress, unpack_gzip), Coding("zstd", zstandard.ZstdCompressor().compress, unpack_zstd)]
each = pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.name)


@pytest.mark.parametrize("name", [b"gzip", b"x-gzip", b" GZIP "])
def test_gzip_is_known_by_its_names(name: bytes) -> None:
    assert unpacker(name) is unpack_gzip


def test_zstd_is_known_and_what_is_not_packed_stays() -> None:
    assert unpacker(b"zstd") is unpack_zstd
    assert unpacker(b"") is None
    assert unpacker(b"identity") is None


@pytest.mark.parametrize("name", [b"br", b"deflate", b"gzip, gzip", b"\xff"])
def test_other_codings_are_refused_with_what_to_do(name: bytes) -> None:
    with pytest.raises(WrongType, match="send it with Content-Encoding: gzip or zstd, or without one"):
        unpacker(name)


@each
def test_body_comes_out_as_it_was(coding: Coding) -> None:
    for body in (b"", b"hello", b'{"Message":"m"}\n' * 100_000, os.urandom(1_000_000)):
        assert coding.unpack(coding.pack(body)) == body


@each
def test_body_of_several_members_is_one(coding: Coding) -> None:
    assert coding.unpack(coding.pack(b"one ") + coding.pack(b"") + coding.pack(b"two")) == b"one two"


@each
def test_bound_is_that_of_the_unpacked_body(coding: Coding) -> None:
    assert coding.unpack(coding.pack(b"x" * 10), 10) == b"x" * 10
    with pytest.raises(TooLarge, match="over 10 bytes when it is unpacked"):
        coding.unpack(coding.pack(b"x" * 11), 10)
    with pytest.raises(TooLarge):
        coding.unpack(coding.pack(b"x" * 6) * 2, 10)


@each
def test_bomb_costs_little_more_than_the_bound(coding: Coding) -> None:
    bomb = coding.pack(b"\0" * (1 << 28))
    assert len(bomb) < 300_000
    tracemalloc.start()
    with pytest.raises(TooLarge):
        coding.unpack(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_UNPACKED_BYTES


@each
def test_body_of_countless_empty_members_is_refused(coding: Coding) -> None:
    with pytest.raises(TooLarge):
        coding.unpack(coding.pack(b"") * 2000)


@each
def test_damage_is_refused(coding: Coding) -> None:
    whole = coding.pack(b"hello hello hello")
    for body in (b"", b"plain", whole[:-1], whole + b"rest"):
        with pytest.raises(InvalidInput) as refusal:
            coding.unpack(body)
        assert refusal.value.code == f"bad_{coding.name}"


def test_window_that_is_too_large_for_http_is_refused() -> None:
    far = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=far).compressobj()
    body = packer.compress(b"hello") + packer.flush()
    with pytest.raises(InvalidInput, match="the body is not zstd"):
        unpack_zstd(body)
