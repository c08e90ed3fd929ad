"""The files of the sidecar: what is in them, when, and what happens to them when the disk, the registry or the sidecar fails."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fake_table import FakeTable
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.errors import InvalidInput
from pillion_common.names import check_name
from pillion_sidecar import projection
from pillion_sidecar.projection import NGINX_HEAD, Projection, what_is_wrong
from pillion_sidecar.wire import Provider

GRADING_1 = Provider("GradingService", "http://10.0.0.7:6000", "g1", "west", 3, "1.2", ("a", "b"), {"x": "y"})
GRADING_2 = Provider("GradingService", "http://10.0.0.10:6000/v2")
DB = Provider("Db", "http://[fd00::1]:5432")


@pytest.fixture(autouse=True)
def _no_earlier_warnings() -> None:
    projection._log._last.clear()  # one warning a second is all there is


async def a_turn() -> None:
    """Let the loop go round until what was put off to its next turn is done."""
    for _ in range(3):
        await asyncio.sleep(0)


async def until(path: Path, text: str) -> None:
    async with asyncio.timeout(5):
        while not path.exists() or path.read_text() != text:
            await asyncio.sleep(0.005)


@contextmanager
def projecting(folder: Path, table: FakeTable, revision: int | None = None) -> Iterator[Projection]:
    made = Projection(str(folder), table, lambda: revision)
    with closing(made):
        made.changed(table.names())
        yield made


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".pillion.lock")


def renames(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the name of each file that is put in place."""
    seen: list[str] = []
    rename = os.rename

    def noting(source: str, target: str) -> None:
        seen.append(os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", noting)
    return seen


# What is in them.


async def test_what_is_known_stands_in_three_kinds_of_file(tmp_path: Path) -> None:
    with projecting(tmp_path, FakeTable(GradingService=(GRADING_1, GRADING_2), Db=(DB,), Mail=()), revision=7):
        await a_turn()
    assert (tmp_path / "providers/GradingService").read_text() == "http://10.0.0.10:6000/v2\nhttp://10.0.0.7:6000\n"
    assert (tmp_path / "providers/Db").read_text() == "http://[fd00::1]:5432\n"
    assert (tmp_path / "providers/Mail").read_text() == ""
    assert json.loads((tmp_path / "providers.json").read_text()) == {
        "Revision": 7,
        "Providers": {
            "Db": [
                {
                    "Name": "Db",
                    "URL": "http://[fd00::1]:5432",
                    "InstanceID": None,
                    "Zone": None,
                    "Version": None,
                    "Weight": 1,
                    "Tags": [],
                }
            ],
            "GradingService": [
                {
                    "Name": "GradingService",
                    "URL": "http://10.0.0.10:6000/v2",
                    "InstanceID": None,
                    "Zone": None,
                    "Version": None,
                    "Weight": 1,
                    "Tags": [],
                },
                {
                    "Name": "GradingService",
                    "URL": "http://10.0.0.7:6000",
                    "InstanceID": "g1",
                    "Zone": "west",
                    "Version": "1.2",
                    "Weight": 3,
                    "Tags": ["a", "b"],
                },
            ],
            "Mail": [],
        },
    }
    nginx = tmp_path / "nginx"
    assert (nginx / "GradingService.conf").read_text() == NGINX_HEAD + "server 10.0.0.10:6000 weight=1;\nserver 10.0.0.7:6000 weight=3;\n"
    assert (nginx / "Db.conf").read_text() == NGINX_HEAD + "server [fd00::1]:5432 weight=1;\n"
    assert (nginx / "Mail.conf").read_text() == NGINX_HEAD + "server 127.0.0.1:1 down;\n"


async def test_a_registry_without_revisions_leaves_that_key_out(tmp_path: Path) -> None:
    with projecting(tmp_path, FakeTable(Db=())):
        await a_turn()
    assert (tmp_path / "providers.json").read_text() == '{"Providers": {"Db": []}}\n'


async def test_what_is_no_url_gets_into_no_line_and_an_odd_address_not_to_nginx(tmp_path: Path) -> None:
    odd = (
        Provider("Db", "http://10.0.0.1:1\nhttp://10.6.6.6:1"),
        Provider("Db", "not a url"),
        Provider("Db", "http://[fe80::1%25eth0]:80"),
        Provider("Db", 'http://[fe80::1%"};evil{]:80'),
        Provider("Db", "http://10.0.0.2:80/a", weight=-5),
        Provider("Db", "http://10.0.0.2:80/b", weight=2),
    )
    with projecting(tmp_path, FakeTable(Db=odd)):
        await a_turn()
    assert (tmp_path / "nginx/Db.conf").read_text() == NGINX_HEAD + "server 10.0.0.2:80 weight=2;\n"
    lines = (tmp_path / "providers/Db").read_text().splitlines()
    assert "not a url" not in lines
    assert "http://10.6.6.6:1" not in lines
    assert lines[:2] == ["http://10.0.0.2:80/a", "http://10.0.0.2:80/b"]
    assert len(json.loads((tmp_path / "providers.json").read_text())["Providers"]["Db"]) == 6


@given(st.from_regex(r"[A-Za-z0-9./_\\\x00~-]{1,70}", fullmatch=True) | st.text(min_size=1, max_size=70))
def test_no_name_that_is_one_leads_out_of_its_folder(name: str) -> None:
    try:
        check_name(name, "Name")
    except InvalidInput:
        return
    for folder, file in (("providers", name), ("nginx", f"{name}.conf"), ("providers", f".{name}.new")):
        path = os.path.normpath(os.path.join("/run/pillion", folder, file))
        assert os.path.dirname(path) == f"/run/pillion/{folder}"
        assert "\0" not in path
    assert projection._NAME.fullmatch(name)  # and it is known as ours when it is to go


# When.


async def test_the_files_follow_a_change_in_the_loops_next_turn(tmp_path: Path) -> None:
    table = FakeTable(Db=())
    with projecting(tmp_path, table) as files_of:
        await asyncio.sleep(0.05)
        table.known["Db"] = (DB,)
        files_of.changed(["Db"])
        await a_turn()
        assert (tmp_path / "providers/Db").read_text() == f"{DB.url}\n"


async def test_many_changes_of_one_turn_are_written_once_and_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = FakeTable(Db=(), GradingService=(GRADING_1,))
    with projecting(tmp_path, table) as files_of:
        await asyncio.sleep(0.05)
        seen = renames(monkeypatch)
        for _ in range(10):
            table.known["Db"] = (*(table.known["Db"] or ()), DB)
            files_of.changed(["Db", "GradingService"])
        await a_turn()
        assert seen == ["Db", "Db.conf", "providers.json"]
        files_of.changed(["Db", "GradingService"])
        await asyncio.sleep(0.05)
        assert len(seen) == 3


async def test_a_storm_is_written_late_at_times_but_in_the_end(tmp_path: Path) -> None:
    table = FakeTable(Db=())
    with projecting(tmp_path, table) as files_of:
        for number in range(200):
            table.known["Db"] = (Provider("Db", f"http://10.0.0.1:{number + 1}"),)
            files_of.changed(["Db"])
            await asyncio.sleep(0)
        await until(tmp_path / "providers/Db", "http://10.0.0.1:200\n")


async def test_whoever_reads_meanwhile_reads_whole_files(tmp_path: Path) -> None:
    few, many = (DB,), tuple(Provider("Db", f"http://10.0.0.1:{port}") for port in range(1000, 2000))
    table = FakeTable(Db=few)
    seen: set[int] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            text = (tmp_path / "providers/Db").read_text()
            seen.add(text.count("\n") if text.endswith("\n") else -1)
            json.loads((tmp_path / "providers.json").read_text())

    with projecting(tmp_path, table) as files_of:
        await a_turn()
        reader = threading.Thread(target=read)
        reader.start()
        for turn in range(40):
            table.known["Db"] = few if turn % 2 else many
            files_of.changed(["Db"])
            await asyncio.sleep(0.005)
        done.set()
        await asyncio.to_thread(reader.join)
    assert seen == {1, 1000}


async def test_what_waits_is_written_before_the_end(tmp_path: Path) -> None:
    with projecting(tmp_path, FakeTable(Db=(DB,))):
        pass
    assert (tmp_path / "providers/Db").read_text() == f"{DB.url}\n"


async def test_an_app_of_another_user_can_read_them(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        with projecting(tmp_path, FakeTable(Db=(DB,))):
            await a_turn()
    finally:
        os.umask(umask)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("providers", "nginx", *files(tmp_path))}
    assert modes == {"providers": 0o755, "nginx": 0o755, "providers.json": 0o644, "providers/Db": 0o644, "nginx/Db.conf": 0o644}


# Over the sidecar's own death.


async def test_what_an_earlier_sidecar_wrote_stays_until_the_registry_is_heard(tmp_path: Path) -> None:
    with projecting(tmp_path, FakeTable(GradingService=(GRADING_1,), Db=(DB,))):
        await a_turn()
    before = json.loads((tmp_path / "providers.json").read_text())["Providers"]
    table = FakeTable(GradingService=None, Db=None, Mail=None)
    with projecting(tmp_path, table) as files_of:
        await a_turn()
        assert (tmp_path / "providers/GradingService").read_text() == f"{GRADING_1.url}\n"
        assert "Mail" not in os.listdir(tmp_path / "providers")
        assert json.loads((tmp_path / "providers.json").read_text())["Providers"] == before
        table.known["Db"] = ()
        files_of.changed(["Db"])
        await until(tmp_path / "providers/Db", "")
        assert (tmp_path / "providers/GradingService").read_text() == f"{GRADING_1.url}\n"
        told = json.loads((tmp_path / "providers.json").read_text())["Providers"]
        assert told == {"Db": [], "GradingService": before["GradingService"]}


async def test_that_there_is_nobody_is_written_though_no_provider_changed(tmp_path: Path) -> None:
    table = FakeTable(Db=None, Mail=None)
    with projecting(tmp_path, table) as files_of:
        await a_turn()
        assert not (tmp_path / "providers/Db").exists()
        table.known["Db"] = ()
        files_of.changed([])
        await until(tmp_path / "providers/Db", "")
        assert files(tmp_path) == ["nginx/Db.conf", "providers.json", "providers/Db"]


async def test_what_is_not_looked_for_any_more_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    with projecting(tmp_path, FakeTable(Old=(GRADING_1,), Gone=(), Db=(DB,))):
        await a_turn()
    for name in ("providers/.Db.new", "nginx/.Db.conf.new", ".providers.json.new"):
        (tmp_path / name).write_text("http://half")  # a crash in the middle
    foreign = ["nginx/nginx.conf", "nginx/.hidden", "providers/README", "providers/my notes", "other.json"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (tmp_path / "providers/Folder").mkdir()
    table = FakeTable(Db=None)
    with projecting(tmp_path, table) as files_of:
        await a_turn()
        assert files(tmp_path) == sorted([*foreign, "nginx/Db.conf", "providers.json", "providers/Db"])
        assert (tmp_path / "providers/Folder").is_dir()
        del table.known["Db"]
        files_of.changed(["Db"])
        await until(tmp_path / "providers.json", '{"Providers": {}}\n')
        assert files(tmp_path) == sorted([*foreign, "providers.json"])


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"Providers": 3}', '{"Providers": ["x"]}', "\xff", "[" * 100_000])
async def test_a_broken_file_of_an_earlier_life_is_replaced(tmp_path: Path, broken: str) -> None:
    (tmp_path / "providers.json").write_text(broken, encoding="latin-1")
    with projecting(tmp_path, FakeTable(Db=None)):
        await a_turn()
    assert (tmp_path / "providers.json").read_text() == '{"Providers": {}}\n'


async def test_a_pipe_in_a_files_place_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "providers").mkdir()
    os.mkfifo(tmp_path / "providers/Db")
    with projecting(tmp_path, FakeTable(Db=(DB,))):
        await a_turn()
    assert (tmp_path / "providers/Db").read_text() == f"{DB.url}\n"


# When it cannot write.


async def test_a_full_disk_is_told_once_and_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(projection, "RETRY_S", 0.02)
    caplog.set_level("INFO", "pillion")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with projecting(tmp_path, FakeTable(Db=(DB,) * 3, GradingService=())):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # a write is cut short, then refused
        try:
            await asyncio.sleep(0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [name for name in files(tmp_path) if name.endswith(".new")] == []
        await until(tmp_path / "providers/Db", f"{DB.url}\n" * 3)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith(f"the files in {tmp_path} are not up to date: No space left on device")
    assert told[0].endswith("make room there, or let this user write (an app needs to read only)")
    assert told[1] == f"the files in {tmp_path} are up to date again"


async def test_the_next_change_is_tried_at_once_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(30, "Read-only file system", target)

    table = FakeTable(Db=(DB,), GradingService=(GRADING_1,))
    with projecting(tmp_path, table) as files_of:
        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", refuse)
            await a_turn()
        assert "Read-only file system" in caplog.text
        files_of.changed(["GradingService"])
        await until(tmp_path / "providers/GradingService", f"{GRADING_1.url}\n")
        assert (tmp_path / "providers/Db").read_text() == f"{DB.url}\n"


async def test_two_sidecars_do_not_write_to_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(projection, "RETRY_S", 0.02)
    first = Projection(str(tmp_path), FakeTable(Db=()))
    first.changed(["Db"])
    await a_turn()
    with projecting(tmp_path, FakeTable(GradingService=(GRADING_1,))):
        await asyncio.sleep(0.05)
        assert files(tmp_path) == ["nginx/Db.conf", "providers.json", "providers/Db"]
        assert "another sidecar writes there; give each its own folder (PILLION_PROJECT_DIR)" in caplog.text
        first.close()
        await until(tmp_path / "providers/GradingService", f"{GRADING_1.url}\n")
        assert not (tmp_path / "providers/Db").exists()


async def test_a_folder_that_vanished_does_not_end_the_sidecar(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    made = Projection(str(folder), FakeTable(Db=()))
    folder.rmdir()
    with closing(made):
        made.changed(["Db"])
        await a_turn()
    assert "No such file or directory" in caplog.text


def test_which_folders_can_be_used(tmp_path: Path) -> None:
    assert what_is_wrong(str(tmp_path)) == ""
    assert what_is_wrong(str(tmp_path / "none")) == "there is no such folder"
    (tmp_path / "file").write_text("")
    assert what_is_wrong(str(tmp_path / "file")) == "there is no such folder"
    assert what_is_wrong("/proc/self/fd/.." if os.getuid() else "/proc/sys") == "this user may not write there"
