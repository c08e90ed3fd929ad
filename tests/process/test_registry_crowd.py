"""Many sidecars at once: each keeps the connection it registered on for a while."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from programs import Program, begin_words
from registry_lab import port_of, registry

CROWD = 2500


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CROWD + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} open files are allowed here; {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_thousands_of_open_connections_keep_nobody_out() -> None:
    with registry() as running, ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(running)), 5))
        assert requests.get(running.url + "/services", timeout=5).status_code == 200


@pytest.mark.usefixtures("many_files")
def test_their_number_is_bounded_by_the_instances_it_takes_in() -> None:
    with registry("--max-instances", "1000") as running, ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(running)), 5))
        answer = requests.get(running.url + "/services", timeout=5)
        assert answer.status_code == 503
        assert answer.json()["Error"] == "too_many_connections"


def limited(words: str) -> tuple[str, ...]:
    """Return what a command line begins with to run under a limit of open files."""
    return ("sh", "-c", f'ulimit {words}; exec "$@"', "sh", *begin_words())


@contextmanager
def registry_under(words: str, *options: str) -> Iterator[Program]:
    running = Program(("registry", "--listen", "127.0.0.1:0", "--store", "memory:", *options), {}, limited(words))
    try:
        assert running.addresses
        yield running
    finally:
        running.stop()


def test_a_limit_of_1024_descriptors_is_told_at_start_with_how_many_are_needed() -> None:
    with registry_under("-n 1024") as running:
        (said,) = running.events("few_descriptors")
        assert "may open 1024 files, and PILLION_MAX_INSTANCES=20000 needs 41064" in said["message"]
        assert requests.get(running.url + "/services", timeout=5).status_code == 200


def test_what_it_may_raise_it_raises_itself() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 3064:
        pytest.skip(f"only {hard} open files are allowed here; 3064 are needed")
    with registry_under("-Sn 1024", "--max-instances", "1000") as running:
        assert running.events("few_descriptors") == []
