"""What registries ask each other, over the wire and back."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from pillion_common.models import ProviderEntry, decode, encode
from pillion_registry.dependent import Knowledge
from pillion_registry.notifier import Standing
from pillion_registry.provider_set import ProviderSet
from pillion_registry.questions import WITHDRAWN, Question, Withdrawn, read_question, read_standings, tell_standings

URL = "http://10.0.0.7:6000"


def standing(known: dict[str, ProviderSet | None]) -> Standing:
    return Standing(Knowledge(MappingProxyType(known), 5), 1.5, 2.5, 3, 500, "it was answered 500", 4.5)


def test_a_question_comes_as_it_was_asked() -> None:
    asked = Question(WITHDRAWN, "Db", URL, 912, 5.0, ("a", "b"))
    assert read_question(encode(asked)) == asked
    assert decode(encode(Withdrawn(3, ("x",))), Withdrawn) == Withdrawn(3, ("x",))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"Kind":5}'])
def test_what_is_no_question_is_none(data: bytes) -> None:
    assert read_question(data) is None


def test_how_things_stand_comes_back_as_far_as_it_matters() -> None:
    sets = {"Db": ProviderSet({URL: ProviderEntry("Db", URL, "db-1", zone="west")}), "Log": None, "Mail": ProviderSet({})}
    found = read_standings(tell_standings([("shop-1", standing(sets))]))
    told = found["shop-1"]
    assert told[1:] == standing(sets)[1:]
    assert set(told.known.sets) == {"Db", "Log", "Mail"}
    assert told.known.sets["Log"] is None
    assert set((told.known.sets["Db"] or ProviderSet({})).entries) == {URL}
    assert (told.known.sets["Mail"] or ProviderSet({})).entries == {}


@pytest.mark.parametrize("data", [b"", b"no", b"\xff\xfe", b'{"Found":5}', b'{"Found":{"a":{}}}'])
def test_an_answer_that_cannot_be_read_says_nothing(data: bytes) -> None:
    assert read_standings(data) == {}
