"""compose/ha.yml: three NATS servers, two log services. Any one may go; what was taken in is there, and what comes is taken."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
import requests
from programs import eventually
from project import free_port
from stack import CALL_S, ROOT, SEND_LINES, Stack

FILE = ROOT / "compose" / "ha.yml"
PORTS = ("PILLION_REGISTRY_PORT", "PILLION_LOG_PORT", "PILLION_PORTAL_PORT", "PILLION_GRADING_PORT")
UP_S = 120
COMPOSE_S = 300.0
FOUND_S = 40.0
SERVERS = ("nats-1", "nats-2", "nats-3")


class Ha(Stack):
    """The project, with its second log service."""

    def __init__(self, project: str) -> None:
        ports = {name: free_port() for name in PORTS}
        super().__init__(project, ports)
        other = free_port()
        self.logs = {"log-a": self.log_url, "log-b": f"http://127.0.0.1:{other}"}
        self._env = {name: str(port) for name, port in ports.items()} | {"PILLION_LOG_B_PORT": str(other), "PILLION_HEALTH_INTERVAL": "1s"}

    def compose(self, *words: str) -> str:
        """Run `docker compose` on it; a failure shows what it said."""
        command = ["docker", "compose", "--project-name", self.project, "--file", str(FILE), *words]
        done = subprocess.run(command, env=os.environ | self._env, capture_output=True, text=True, timeout=COMPOSE_S, check=False)
        assert done.returncode == 0, f"docker compose {' '.join(words)}: {done.stderr[-500:]}\n{self.all_last_words()}"
        return done.stdout

    def all_last_words(self) -> str:
        """Return what the servers and log services said last, and how their health checks ended."""
        said = []
        for one in self.containers():
            if one.labels["com.docker.compose.service"].startswith(("nats-", "log-")):
                checks = [check["Output"] for check in one.attrs["State"].get("Health", {}).get("Log", [])]
                said.append(f"{one.name}: {one.status} {checks}\n{one.logs(tail=20).decode(errors='replace')}")
        return "\n".join(said)

    def leader(self) -> str:
        """Return the NATS server that leads the log's stream."""
        command = ["busybox", "wget", "-q", "-O-", "http://127.0.0.1:8222/jsz?accounts=1&streams=1"]
        code, output = self.container("nats-1").exec_run(command)
        assert code == 0, output.decode()
        streams = [stream for account in json.loads(output)["account_details"] for stream in account["stream_detail"]]
        return next(str(stream["cluster"]["leader"]) for stream in streams if stream["name"] == "pillion_logs")

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
    try:
        ha.compose("up", "--build", "--detach", "--wait", "--wait-timeout", str(UP_S))
        yield ha
    finally:
        ha.compose("down", "--volumes", "--timeout", "3")


def test_lines_outlive_the_server_that_leads_and_the_log_service_that_took_them(ha: Ha) -> None:
    eventually(lambda: ha.states() == {"LogService": "up", "GradingService": "up", "Portald": "up"}, FOUND_S, lambda: str(ha.states()))
    before = ha.send("before", 20)
    eventually(lambda: ha.found("log-b", "before") == before, FOUND_S)
    leader = ha.leader()
    ha.compose("kill", leader)
    meanwhile = ha.send("meanwhile", 200)
    for service in ha.logs:
        eventually(lambda: ha.found(service, "meanwhile") == meanwhile, FOUND_S, lambda: ha.last_words(service))  # noqa: B023
    assert ha.found("log-a", "before") == before
    ha.compose("start", leader)
    ha.compose("kill", "log-a")
    after = ha.send("after", 20)
    eventually(lambda: ha.found("log-b", "after") == after, FOUND_S, lambda: ha.last_words("log-b"))
    assert ha.found("log-b", "before") + ha.found("log-b", "meanwhile") == before + meanwhile
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
