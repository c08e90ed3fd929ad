"""The table's copy on disk: what comes back, and what is done about a file or a disk that is no good."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.table.table_file import COALESCE_S, FILE, TableFile
from pillion_sidecar.wire import Patch, Provider

A = Provider("Db", "http://a:1", "a", "z1", 5, "2.0", ("x", "y"), {"k": "v"})
B = Provider("Db", "http://b:1")


def table(*entries: Provider) -> ProviderTable:
    made = ProviderTable({"Db": 1, "Mail": 0})
    if entries:
        made.apply(Patch(added=entries))
    return made


def test_what_was_known_comes_back_whole(tmp_path: Path) -> None:
    TableFile(str(tmp_path), table(A, B)).save()
    after = table()
    file = TableFile(str(tmp_path), after)
    assert file.restore() == ["Db"]
    assert after.all("Db") == (A, B)
    assert file.saved_at > 1_700_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


def test_without_a_file_there_is_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = TableFile(str(tmp_path), table())
    assert (file.restore(), file.saved_at, caplog.text) == ([], 0.0, "")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"Providers":[]}', '{"Providers":[1],"SavedAt":1}', '{"Providers":[{"Name":"Db"}],"SavedAt":1}', "[" * 100_000,
     '{"Providers":[{"Name":"Db","URL":7}],"SavedAt":1}', '{"Providers":null,"SavedAt":1}', '{"Providers":[],"SavedAt":"x"}'],
)  # fmt: skip
def test_a_file_that_is_no_good_counts_as_none(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(text)
    assert TableFile(str(tmp_path), table()).restore() == []
    assert "the registry will tell anew" in caplog.text


async def test_changes_that_come_together_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = table(A)
    file = TableFile(str(tmp_path), known)
    file.changed()
    file.changed()
    assert not (tmp_path / FILE).exists()
    known.apply(Patch(added=(B,)))
    await asyncio.sleep(COALESCE_S + 0.1)
    assert len(json.loads((tmp_path / FILE).read_text())["Providers"]) == 2


async def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    file = TableFile(str(tmp_path), table(A))
    file.close()
    assert not (tmp_path / FILE).exists(), "nothing has changed"
    file.changed()
    file.close()
    assert (tmp_path / FILE).exists()


async def test_a_disk_that_does_not_take_it_is_told_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = TableFile(str(tmp_path / "nowhere"), table(A))
    file.save()
    assert "was not written" in caplog.text
