"""The spool on a disk that fails or is full: what is refused leaves nothing half written, what was kept is not refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pillion_common.errors import StorageFull, Unavailable
from pillion_sidecar.logs.spool import Spool
from pillion_sidecar.logs.sync import SpoolSync

MAX = 1024 * 1024


def keep(spool: Spool, *messages: str) -> list[int]:
    return [spool.append({"Message": message}) for message in messages]


def messages(spool: Spool) -> list[str]:
    return [json.loads(line)["Message"] for _, line in spool.peek(100_000, 1 << 30)]


_FILL = """
import json, resource, sys
from pathlib import Path
from pillion_common.errors import PillionError
from pillion_sidecar.logs.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
kept, errors = [], []
for n in range(100):
    try:
        kept.append(spool.append({"Message": f"m{n}" + "x" * 60}))
    except PillionError as exc:
        errors.append([exc.status, exc.message])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
size = sum(path.stat().st_size for path in Path(sys.argv[1]).glob("*.ndjson"))
whole = [json.loads(line)["Seq"] for _, line in spool.peek(1000, 1 << 30)]
after = spool.append({"Message": "after"})
print(json.dumps({"kept": kept, "errors": errors, "size": [size, spool.size], "whole": whole, "after": after}))
"""


def test_what_a_full_disk_does_not_take_is_refused_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FILL, str(tmp_path / "spool")], capture_output=True, text=True, check=True, timeout=30, env=os.environ
    )
    told = json.loads(run.stdout)
    assert 10 < len(told["kept"]) < 100
    assert told["kept"] == told["whole"] == list(range(1, len(told["kept"]) + 1))
    assert len(told["errors"]) == 100 - len(told["kept"])
    assert {status for status, _ in told["errors"]} <= {503, 507}
    assert all("the log line was not kept" in message for _, message in told["errors"])
    assert told["size"][0] <= 5000
    assert told["after"] == len(told["kept"]) + 1
    with closing(Spool(tmp_path / "spool", 1 << 30)) as again:
        assert messages(again)[-1] == "after"


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable)])
def test_a_failing_disk_is_named_with_what_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Unavailable]
) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:

        def fail(descriptor: int, data: bytes) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", fail)
            with pytest.raises(kind) as refused:
                keep(spool, "a")
        assert type(refused.value) is kind
        assert refused.value.retry_after_s == 5
        assert str(tmp_path / "spool") in refused.value.message
        assert messages(spool) == []
        assert keep(spool, "b") == [1]


def test_a_mark_that_cannot_be_written_only_costs_repeats(tmp_path: Path) -> None:
    with closing(Spool(tmp_path / "spool", MAX)) as spool:
        keep(spool, "a", "b")
        (tmp_path / "spool" / "acked.new").mkdir()
        spool.ack(1)
        assert messages(spool) == ["b"]
    with closing(Spool(tmp_path / "spool", MAX)) as again:
        assert messages(again) == ["a", "b"]


def test_a_segment_is_on_the_disk_before_the_name_of_the_next_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut between would leave a name that tells of lines before it, which were never answered, as lost."""
    synced: list[tuple[int, int]] = []
    sync = os.fdatasync

    def seen(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, len(list((tmp_path / "spool").glob("*.ndjson")))))
        sync(descriptor)

    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200, durable=True)) as spool:
        monkeypatch.setattr(os, "fdatasync", seen)
        keep(spool, "a" * 300, "b" * 300, "c")
        assert [segments for _, segments in synced] == [1, 2]
        assert all(size > 300 for size, _ in synced)


async def test_a_segment_that_did_not_get_to_the_disk_is_never_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def fail_once(descriptor: int) -> None:
        if not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(Spool(tmp_path / "spool", MAX, segment_bytes=200, durable=True)) as spool:
        sync = SpoolSync(spool)
        keep(spool, "a" * 300)
        monkeypatch.setattr(os, "fdatasync", fail_once)
        for _ in range(2):
            with pytest.raises(Unavailable):
                keep(spool, "b")
        with pytest.raises(Unavailable, match="cannot be written to its disk"):
            await sync.settle()
