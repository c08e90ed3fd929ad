"""Many sidecars at once: each keeps the connection it registered on for a while."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
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
