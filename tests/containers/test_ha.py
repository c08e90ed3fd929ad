"""compose/ha.yml: three NATS servers, three registries, two log services. Any may go: what was taken in is there, what comes is taken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import requests
from programs import eventually
from project import free_port
from stack import CALL_S, LOOK_UP, ROOT, SEND_LINES, Stack

FILE = ROOT / "compose" / "ha.yml"
PORTS = ("PILLION_REGISTRY_PORT", "PILLION_LOG_PORT", "PILLION_PORTAL_PORT", "PILLION_GRADING_PORT")
OTHER_PORTS = ("PILLION_REGISTRY_B_PORT", "PILLION_REGISTRY_C_PORT", "PILLION_LOG_B_PORT")
UP_S = 180  # a start period and a minute
COMPOSE_S = 300.0
FOUND_S = 40.0
LOOKING_S = 6
# NATS 2.10.27, started first on a busy machine, may leave one of its servers out of its own group (docs/compose.md).
NOT_COUNTED = "no suitable peers for placement"
SERVERS = ("nats-1", "nats-2", "nats-3")
REGISTRIES = ("registry-a", "registry-b", "registry-c")
ALL_UP = [("GradingService", "up"), ("LogService", "up"), ("LogService", "up"), ("Portald", "up")]


class Ha(Stack):
    """The project, with its other registries and its second log service."""

    def __init__(self, project: str) -> None:
        ports, others = ({name: free_port() for name in names} for names in (PORTS, OTHER_PORTS))
        super().__init__(project, ports)
        second, third, log = (f"http://127.0.0.1:{port}" for port in others.values())
        self.registries = dict(zip(REGISTRIES, (self.registry_url, second, third), strict=True))
        self.logs = {"log-a": self.log_url, "log-b": log}
        self._env = {name: str(port) for name, port in (ports | others).items()} | {"PILLION_HEALTH_INTERVAL": "2s"}

    def compose(self, *words: str) -> str:
        """Run `docker compose` on it; a failure shows what it said."""
        command = ["docker", "compose", "--project-name", self.project, "--file", str(FILE), *words]
        done = subprocess.run(command, env=os.environ | self._env, capture_output=True, text=True, timeout=COMPOSE_S, check=False)
        assert done.returncode == 0, f"docker compose {' '.join(words)}: {done.stderr[-500:]}\n{self.all_last_words()}"
        return done.stdout

    def all_last_words(self) -> str:
        """Return what all that is not well said last, how its health checks ended, and whom the NATS servers count among them."""
        said = [f"{server}: {self.jetstream(server, '')}" for server in SERVERS if self.health(server) == "healthy"]
        for one in self.containers():
            if one.attrs["State"].get("Health", {}).get("Status") != "healthy":
                checks = [check["Output"] for check in one.attrs["State"].get("Health", {}).get("Log", [])]
                said.append(f"{one.name}: {one.status} {checks}\n{one.logs(tail=20).decode(errors='replace')}")
        return "\n".join(said)

    def jetstream(self, server: str, query: str) -> dict[str, Any]:
        """Return what a NATS server says of JetStream."""
        command = ["busybox", "wget", "-q", "-O-", f"http://127.0.0.1:8222/jsz?{query}"]
        code, output = self.container(server).exec_run(command)
        assert code == 0, output.decode()
        return dict(json.loads(output))

    def leader(self, stream: str) -> str:
        """Return the NATS server that leads a stream."""
        accounts = self.jetstream("nats-1", "accounts=1&streams=1")["account_details"]
        streams = [one for account in accounts for one in account["stream_detail"]]
        return next(str(one["cluster"]["leader"]) for one in streams if one["name"] == stream)

    def listed(self, registry: str) -> list[tuple[str, str, str, str]]:
        """Return what one of the registries lists: name, id, URL and state of each instance, in order."""
        listed = requests.get(f"{self.registries[registry]}/services", timeout=CALL_S).json()["Services"]
        return sorted((one["ServiceName"], one["InstanceID"], one["ServiceURL"], one["State"]) for one in listed)

    def all_list(self, registries: Sequence[str] = REGISTRIES) -> bool:
        """Return whether these registries list the same, with everybody up."""
        lists = [self.listed(registry) for registry in registries]
        return [(name, state) for name, _, _, state in lists[0]] == ALL_UP and lists.count(lists[0]) == len(lists)

    def lists(self) -> str:
        """Return what each registry that answers lists, for whoever reads why a test failed."""
        return "\n".join(f"{registry}: {self.listed(registry)}" for registry in REGISTRIES if self.health(registry) == "healthy")

    def kill(self, service: str) -> None:
        self.container(service).kill()

    def start(self, service: str) -> None:
        self.container(service).start()

    def restart_grading(self, registry: str) -> str:
        """Kill GradingService, of which a registry has to hear, and Portald then; start it; return where its sidecar has registered it."""
        self.kill("grading")
        eventually(lambda: "up" not in [one[3] for one in self.listed(registry) if one[0] == "GradingService"], FOUND_S)
        eventually(lambda: not self.portal_knows(), FOUND_S, self.portal_knows)
        since = int(time.time())
        self.start("grading")
        eventually(self.portal_knows, FOUND_S, lambda: self.last_words("grading-sidecar"))
        said = self.container("grading-sidecar").logs(since=since).decode()
        return str(re.findall(r"registered GradingService at \S+ with the registry ([\w-]+):3000", said)[-1])

    def look_up_while(self, happens: Callable[[], object]) -> None:
        """Look GradingService up in Portald's container, two hundred times a second, while something happens: each is answered."""
        looking = self.start_in_portal(LOOK_UP.replace("SECONDS", str(LOOKING_S)))
        happens()
        asked, failed = (json.loads(looking.output())[key] for key in ("asked", "failed"))
        assert (failed, asked > 100) == (0, True)

    def found(self, service: str, mark: str) -> list[str]:
        """Return the messages with a mark, as one of the log services tells."""
        text = requests.get(f"{self.logs[service]}/logs", params={"q": mark, "service": "Portald"}, timeout=CALL_S).text
        return [json.loads(line)["Message"] for line in text.splitlines()]

    def send(self, mark: str, count: int) -> list[str]:
        """Send lines through Portald's sidecar; returns them."""
        script = SEND_LINES.replace("COUNT", str(count)).replace("SECONDS", "0.5").replace("MARK", mark)
        assert json.loads(self.in_portal(script)) == {"taken": count}
        return [f"{mark} line {number}" for number in range(count)]


@pytest.fixture(scope="module")
def ha() -> Iterator[Ha]:
    ha = Ha(f"pillion-ha-{os.getpid()}")
    up = ("up", "--build", "--detach", "--wait", "--wait-timeout", str(UP_S))
    try:
        try:
            ha.compose(*up)
        except AssertionError as exc:
            if NOT_COUNTED not in str(exc):
                raise
            print(f"NATS began without one of its servers; once more, from nothing: {exc}", file=sys.stderr)
            ha.compose("down", "--volumes", "--timeout", "3")
            ha.compose(*up)
        yield ha
    finally:
        ha.compose("down", "--volumes", "--timeout", "3")


def test_lines_outlive_the_server_that_leads_and_the_log_service_that_took_them(ha: Ha) -> None:
    eventually(ha.all_list, FOUND_S, ha.lists)
    before = ha.send("before", 20)
    eventually(lambda: ha.found("log-b", "before") == before, FOUND_S)
    leader = ha.leader("pillion_logs")
    ha.kill(leader)
    meanwhile = ha.send("meanwhile", 200)
    for service in ha.logs:
        eventually(lambda: ha.found(service, "meanwhile") == meanwhile, FOUND_S, lambda: ha.last_words(service))  # noqa: B023
    assert ha.found("log-a", "before") == before
    ha.start(leader)
    ha.kill("log-a")
    after = ha.send("after", 20)
    eventually(lambda: ha.found("log-b", "after") == after, FOUND_S, lambda: ha.last_words("log-b"))
    assert ha.found("log-b", "before") + ha.found("log-b", "meanwhile") == before + meanwhile
    ha.start("log-a")
    eventually(lambda: ha.health(leader) == "healthy", FOUND_S, lambda: ha.last_words(leader))


def test_apps_are_found_withdrawn_and_taken_in_without_the_registry_that_all_registered_with(ha: Ha) -> None:
    eventually(ha.all_list, FOUND_S, ha.lists)
    first, *others = REGISTRIES
    ha.look_up_while(lambda: ha.kill(first))
    assert ha.restart_grading(others[0]) in others
    eventually(lambda: ha.all_list(others), FOUND_S, ha.lists)
    ha.start(first)
    eventually(lambda: ha.health(first) == "healthy", FOUND_S, lambda: ha.last_words(first))
    eventually(ha.all_list, FOUND_S, ha.lists)


def test_apps_are_found_withdrawn_and_taken_in_without_the_server_that_leads_the_catalogue(ha: Ha) -> None:
    eventually(ha.all_list, FOUND_S, ha.lists)
    leader = ha.leader("KV_pillion_services")
    ha.look_up_while(lambda: ha.kill(leader))
    ha.restart_grading(REGISTRIES[0])
    eventually(ha.all_list, FOUND_S, ha.lists)
    ha.start(leader)
    eventually(lambda: ha.health(leader) == "healthy", FOUND_S, lambda: ha.last_words(leader))


def test_nobody_reaches_nats_without_the_token_or_from_where_the_apps_are(ha: Ha) -> None:
    assert ha.in_portal("require('dns').lookup('nats-1', e => console.log(e ? e.code : 'found'))") in ("ENOTFOUND", "EAI_AGAIN")
    talk = (
        "import socket; s = socket.create_connection(('nats-1', 4222), 5); s.sendall(b'CONNECT {}\\r\\nPING\\r\\n'); "
        "print(b''.join(iter(lambda: s.recv(9999), b'')))"
    )
    code, output = ha.container("log-b").exec_run(["python3", "-c", talk])
    assert code == 0, output.decode()
    assert b"Authorization Violation" in output


def test_each_server_is_hardened_and_syncs_each_message(ha: Ha) -> None:
    for server in SERVERS:
        attrs = ha.container(server).attrs
        host = attrs["HostConfig"]
        assert (attrs["Config"]["User"], host["ReadonlyRootfs"], host["CapDrop"]) == ("10001:10001", True, ["ALL"])
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert host["PortBindings"] in (None, {})
        code, output = ha.container(server).exec_run(["cat", "/etc/nats/nats.conf"])
        assert code == 0
        assert b"sync_interval: always" in output
