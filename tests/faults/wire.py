"""A network path of the suite's own, on which packets get lost: this machine, a router in a namespace, and a guest in another.

Rules stand in the router, so that neither end knows of a loss, as with a real one. All is gone with the two namespaces.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable

_numbers = itertools.count()


def cannot_wire() -> str:
    """Return why there can be no such path here; empty when there can."""
    if missing := [command for command in ("ip", "iptables") if shutil.which(command) is None]:
        return f"{' and '.join(missing)} is not installed (Debian: apt-get install iproute2 iptables)"
    if os.geteuid():
        return "it needs root, for network namespaces"
    try:
        with Wire():
            return ""
    except OSError as exc:
        return str(exc)


class Wire:
    """`with Wire() as wire:` run a command that begins with `wire.words` as the guest; `host` is this side's address, `guest` its own."""

    def __init__(self) -> None:
        number = f"{os.getpid()}-{next(_numbers)}"
        self._router, self._end = f"pillion-router-{number}", f"pillion-guest-{number}"
        self.words = ("ip", "netns", "exec", self._end)
        self._in_router = ("ip", "netns", "exec", self._router)
        block = f"10.{100 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.host, near, far, self.guest = (f"{block}.{last}" for last in (1, 2, 5, 6))
        self._near, self._far, self._net = near, far, f"{block}.4/30"
        self._link = f"pg{os.getpid()}"

    def __enter__(self) -> Wire:
        try:
            self._lay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self._end, self._router):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        subprocess.run(["ip", "link", "delete", f"{self._link}a"], capture_output=True)

    def lose(self, share: float, ports: Iterable[int]) -> None:
        """Lose this share of the packets to and from TCP ports of the host, in both directions; 1 is a cut."""
        chance = () if share >= 1 else ("-m", "statistic", "--mode", "random", "--probability", f"{share:g}")
        listed = ",".join(map(str, ports))
        _run(*self._in_router, "iptables", "-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--ports", listed, *chance, "-j", "DROP")

    def heal(self) -> None:
        """Lose nothing any more."""
        _run(*self._in_router, "iptables", "-F", "FORWARD")

    def _lay(self) -> None:
        ours, theirs, inner, outer = (f"{self._link}{letter}" for letter in "abcd")
        for name in (self._router, self._end):
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self._router)
        _run(*self._in_router, "ip", "link", "add", inner, "type", "veth", "peer", "name", outer, "netns", self._end)
        for words, link, address in (((), ours, self.host), (self._in_router, theirs, self._near)):
            _run(*words, "ip", "address", "add", f"{address}/30", "dev", link)
            _run(*words, "ip", "link", "set", link, "up")
        for words, link, address in ((self._in_router, inner, self._far), (self.words, outer, self.guest)):
            _run(*words, "ip", "address", "add", f"{address}/30", "dev", link)
            _run(*words, "ip", "link", "set", link, "up")
        _run(*self.words, "ip", "link", "set", "lo", "up")
        _run("ip", "route", "add", self._net, "via", self._near)
        _run(*self.words, "ip", "route", "add", "default", "via", self._far)
        _run(*self._in_router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
