"""The running compose stack as a test sees it: its URLs, its containers, and what one can do to them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import docker
import requests
from docker.models.containers import Container
from programs import eventually

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("registry", "log", "grading", "portal", "log-sidecar", "grading-sidecar", "portal-sidecar")
CALL_S = 5.0
HEALTHY_S = 60.0

# Runs in Portald's container, where the sidecar is on loopback: looks up for some seconds and prints how many look-ups failed.
LOOK_UP = """
const until = Date.now() + SECONDS * 1000; let asked = 0, failed = 0;
(async () => { while (Date.now() < until) { asked++;
  try { const r = await fetch('http://127.0.0.1:7071/providers/GradingService'); if (r.status !== 200) failed++; await r.text(); }
  catch { failed++; } await new Promise(r => setTimeout(r, 5)); }
  console.log(JSON.stringify({asked, failed})); })();
"""

# Sends COUNT numbered lines through the sidecar, spread over SECONDS, and prints how many were taken.
SEND_LINES = """
(async () => { let taken = 0;
  for (let n = 0; n < COUNT; n++) {
    const r = await fetch('http://127.0.0.1:7071/log', {method: 'POST', body: `MARK line ${n}`}); if (r.status === 200) taken++;
    await new Promise(r => setTimeout(r, 1000 * SECONDS / COUNT)); }
  console.log(JSON.stringify({taken})); })();
"""

# Runs in the registry's container, where the token is.
FORGET_OTHERS = """
import json, urllib.request as r
token = open('/run/secrets/pillion/token').read().strip()
for one in json.load(r.urlopen('http://127.0.0.1:3000/services'))['Services']:
    if one['ServiceName'] not in ('LogService', 'GradingService', 'Portald'):
        headers = {'Authorization': 'Bearer ' + token, 'Content-Type': 'text/plain'}
        r.urlopen(r.Request('http://127.0.0.1:3000/services', one['ServiceURL'].encode(), headers, method='DELETE'))
"""


class Running:
    """A command in a container that runs while a test goes on. A thread waits for it: the engine's client cannot close a stream."""

    def __init__(self, container: Container, words: list[str]) -> None:
        pool = ThreadPoolExecutor(1)
        self._done = pool.submit(container.exec_run, words)
        pool.shutdown(wait=False)

    def output(self) -> bytes:
        """Wait for its end, and return what it printed."""
        code, output = self._done.result()
        assert code == 0, output.decode()
        return bytes(output)


class Stack:
    """One compose project."""

    def __init__(self, project: str, ports: dict[str, int]) -> None:
        self.project = project
        self.registry_url, self.log_url, self.portal_url, self.grading_url = (f"http://127.0.0.1:{port}" for port in ports.values())
        self._engine = docker.from_env()

    def container(self, service: str, project: str = "") -> Container:
        labels = [f"com.docker.compose.project={project or self.project}", f"com.docker.compose.service={service}"]
        return self._engine.containers.list(all=True, filters={"label": labels})[0]

    def containers(self, project: str = "") -> list[Container]:
        return list(self._engine.containers.list(all=True, filters={"label": f"com.docker.compose.project={project or self.project}"}))

    def has_image(self, name: str) -> bool:
        return bool(self._engine.images.list(name))

    def kill_as_the_kernel_would(self, container: Container) -> None:
        """Kill a container's first process from outside: unlike `docker kill`, that leaves its restart policy in force."""
        code = f"import os; os.kill({container.attrs['State']['Pid']}, 9)"
        options = {"entrypoint": "python3", "user": "0", "pid_mode": "host", "network_mode": "none", "remove": True}
        self._engine.containers.run("pillion/sidecar:dev", ["-c", code], **options)

    def start_all(self) -> None:
        """Start what is stopped, and wait until all is healthy."""
        for service in SERVICES:
            self.container(service).start()
            eventually(partial(self._healthy, service), HEALTHY_S, partial(self.last_words, service))
        eventually(lambda: set(self.states().values()) == {"up"} and len(self.states()) >= 3, HEALTHY_S, lambda: str(self.states()))

    def _healthy(self, service: str) -> bool:
        return self.health(service) == "healthy"

    def health(self, service: str) -> str:
        return str(self.container(service).attrs["State"].get("Health", {}).get("Status", "none"))

    def last_words(self, service: str) -> str:
        return f"{service}: {self.health(service)}\n{self.container(service).logs(tail=20).decode()}"

    def states(self) -> dict[str, str]:
        """Return the registry's instances: name -> state."""
        listed = requests.get(f"{self.registry_url}/services", timeout=CALL_S).json()["Services"]
        return {instance["ServiceName"]: instance["State"] for instance in listed}

    def forget_others(self) -> None:
        """Remove the instances that are not of this stack from the registry, as somebody who knows the token."""
        code, output = self.container("registry").exec_run(["python3", "-c", FORGET_OTHERS])
        assert code == 0, output.decode()

    def portal_knows(self) -> str:
        """Return the provider of GradingService that Portald's sidecar gives, or nothing."""
        code = "fetch('http://127.0.0.1:7071/providers/GradingService').then(async r => console.log(r.status, (await r.text()).trim()))"
        answer = self.in_portal(code)
        return answer if answer.startswith("200") else ""

    def in_portal(self, javascript: str) -> str:
        code, output = self.container("portal").exec_run(["node", "-e", javascript])
        assert code == 0, output.decode()
        return str(output.decode().strip())

    def start_in_portal(self, javascript: str) -> Running:
        """Start a script in Portald's container."""
        return Running(self.container("portal"), ["node", "-e", javascript])

    def lines(self, **query: str) -> list[dict[str, Any]]:
        """Return entries of the log service."""
        text = requests.get(f"{self.log_url}/logs", params=query, timeout=CALL_S).text
        return [json.loads(line) for line in text.splitlines()]
