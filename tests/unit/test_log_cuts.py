"""What is left of an entry that is over its bound, and what it says of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from pillion_log.cuts import MAX_ENTRY_BYTES, cut_text, fit


def test_entry_within_the_bound_stays_as_it_is() -> None:
    assert fit("m" * MAX_ENTRY_BYTES, {}) == ("m" * 65_536, {})
    assert fit("m", {"a": 1}) == ("m", {"a": 1})


def test_end_of_the_message_gives_way_to_the_fields() -> None:
    message, fields = fit("m" * 65_536, {"a": 1})  # `"a":1,` are 6 bytes
    assert message == "m" * 65_530 + "…[cut: 6 bytes]"
    assert fields == {"a": 1, "Cut": 6}


def test_fields_that_find_no_room_are_left_out_and_counted() -> None:
    large = "x" * 20_000
    message, fields = fit("m", {"a": large, "b": large, "c": 1})
    assert (message, fields) == ("m…[cut: 20007 bytes]", {"a": large, "c": 1, "Cut": 20_007})
    many: dict[str, Any] = {f"f{number:02}": 1 for number in range(66)}
    assert fit("m", many)[1].keys() == {*(f"f{number:02}" for number in range(64)), "Cut"}


def test_what_was_cut_before_is_counted_with_it() -> None:
    assert fit("m", {}, 10_485_760) == ("m…[cut: 10485760 bytes]", {"Cut": 10_485_760})
    assert fit("m", {"Cut": 5}, 10)[1] == {"Cut": 15}
    assert fit("m", {"Cut": "much"}, 10)[1] == {"Cut": 10}


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [
        (b"abc", 3, b"abc"),
        (b"abc", 2, b"ab"),
        ("aü".encode(), 2, b"a"),
        ("a€b".encode(), 3, b"a"),
        ("a€b".encode(), 4, "a€".encode()),
        ("a😀".encode(), 4, b"a"),
        (b"a" + b"\x80" * 9, 5, b"a" + b"\x80" * 4),
    ],
)
def test_text_is_cut_between_two_characters(text: bytes, room: int, expected: bytes) -> None:
    assert cut_text(text, room) == expected
