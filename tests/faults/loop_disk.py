"""A disk in a file, whose power can be cut: ext4 on a loop device, with so long a commit interval that it writes only what it is told to.

What the copy of the file holds is what the disk had been given at that moment. What was only in the memory of the file system is gone, as
it is when a machine loses its power. Nothing of the mounted file system is flushed for it: neither unmounted, nor synced, nor frozen.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MKFS = ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0")
COMMIT_S = 600
TIMEOUT_S = 60


class LoopDisk:
    """A mounted disk.

    Args:
        image: the file; made if it is not there.
        mount: where; made.
        size: bytes of a new one.
    """

    def __init__(self, image: Path, mount: Path, size: int = 64 << 20) -> None:
        self.image = image
        self.mount = mount
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(size)
            _run(*MKFS, str(image))
        mount.mkdir(exist_ok=True)
        _run("mount", "-t", "ext4", "-o", f"loop,commit={COMMIT_S}", str(image), str(mount))

    def writes(self) -> int:
        """Return how many writes the disk has been given."""
        device = re.sub(r".*/", "", _run("findmnt", "-n", "-o", "SOURCE", str(self.mount)).strip())
        return int(Path(f"/sys/block/{device}/stat").read_text().split()[4])

    def copy(self, to: Path) -> bool:
        """Copy what the disk has been given. Who writes to it must be stopped.

        Returns:
            Whether the disk was given nothing meanwhile: else the copy may be a state that the disk never had.
        """
        before = self.writes()
        _run("cp", "--sparse=always", str(self.image), str(to))
        return self.writes() == before

    def unmount(self) -> None:
        """Unmount it."""
        _run("umount", str(self.mount))


@contextmanager
def mounted(image: Path, mount: Path) -> Iterator[LoopDisk]:
    """Mount a disk until the block ends; then nobody may use it any more."""
    disk = LoopDisk(image, mount)
    try:
        yield disk
    finally:
        disk.unmount()


def cannot_mount(scratch: Path) -> str:
    """Return why no disk can be mounted here; empty if one can."""
    if os.geteuid():
        return "only root may mount a disk"
    try:
        with mounted(scratch / "try.img", scratch / "try"):
            return ""
    except (OSError, subprocess.SubprocessError) as exc:
        return f"no disk can be mounted here: {exc}"
    finally:
        (scratch / "try.img").unlink(missing_ok=True)


def _run(*words: str) -> str:
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}  # not every shell looks there
    try:
        return subprocess.run(words, capture_output=True, check=True, text=True, timeout=TIMEOUT_S, env=env).stdout
    except subprocess.CalledProcessError as exc:
        raise OSError(f"{' '.join(words[:2])}: {exc.stderr.strip()}") from exc
