"""A network namespace of the bench's own, joined to this one by a pair of virtual interfaces, from which packets can be made to vanish."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

_numbers = itertools.count()


def why_not() -> str | None:
    """Return why there can be no such namespace here; None when there can."""
    if missing := [command for command in ("ip", "iptables") if shutil.which(command) is None]:
        return f"{' and '.join(missing)} is not installed"
    if os.geteuid():
        return "it needs root"
    name = f"pillion-bench-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespace can be made: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class Namespace:
    """`with Namespace() as namespace:` run commands that begin with `namespace.words`; `drop()` makes all packets to and from them vanish.

    `host` is this side's address, `guest` the other's.
    """

    def __init__(self) -> None:
        self.name = f"pillion-bench-{os.getpid()}-{next(_numbers)}"
        self.words = ("ip", "netns", "exec", self.name)
        block = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.host, self.guest = f"{block}.1", f"{block}.2"
        self._ours, self._theirs = f"pb{os.getpid()}a", f"pb{os.getpid()}b"

    def __enter__(self) -> Namespace:
        try:
            _run("ip", "netns", "add", self.name)
            _run("ip", "link", "add", self._ours, "type", "veth", "peer", "name", self._theirs)
            _run("ip", "link", "set", self._theirs, "netns", self.name)
            _run("ip", "address", "add", f"{self.host}/24", "dev", self._ours)
            _run("ip", "link", "set", self._ours, "up")
            _run(*self.words, "ip", "address", "add", f"{self.guest}/24", "dev", self._theirs)
            _run(*self.words, "ip", "link", "set", self._theirs, "up")
            _run(*self.words, "ip", "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "link", "delete", self._ours], capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True)

    def drop(self) -> None:
        """Drop everything that comes to the namespace or leaves it; what is loopback's goes on."""
        for chain, option in (("INPUT", "-i"), ("OUTPUT", "-o")):
            _run(*self.words, "iptables", "-I", chain, option, self._theirs, "-j", "DROP")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
