"""The pod that calls others all the time (caller_pod.py), as a test sees it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
import yaml
from cluster import RELEASE, ROOT, SIDECAR_IMAGE, Namespace, Object, eventually, secure

CODE = Path(__file__).with_name("caller_pod.py")
RATE = 100  # requests a second
NAME = "Caller"
SELECTOR = "app=caller"
CALL_S = 15.0


class Window:
    """What happened between two moments. `load` has what became of the requests once the window is closed."""

    def __init__(self, since: float) -> None:
        self.since = self.until = since
        self.load: dict[str, Any] = {}

    def nothing_failed(self, rate: float = RATE) -> None:
        """Hold that every request was answered, and that they were as many as there should be."""
        seconds = self.until - self.since
        assert self.load["failed"] == [], (
            f"{len(self.load['failed'])} of {self.load['asked']} failed, seconds after the start: {self.failures()}"
        )
        assert self.load["asked"] >= 0.8 * rate * seconds, f"only {self.load['asked']} requests in {seconds:.1f} s"

    def failures(self) -> list[str]:
        return [f"{at - self.since:.3f} {what}" for at, what in self.load["failed"][:20]]


class Caller:
    """One such pod.

    Args:
        url: where it answers.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()

    def ask(self, what: str, method: str = "GET", **query: Any) -> Any:
        answer = self._session.request(method, f"{self._url}/{what}", params=query, timeout=CALL_S)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def now(self) -> float:
        """Return the time where it runs."""
        return float(self.ask("now"))

    def fetch(self, url: str) -> Any:
        """Return the JSON that is at a URL in the cluster."""
        return json.loads(self.ask("fetch", url=url))

    def instances(self) -> list[dict[str, Any]]:
        """Return what the registry knows."""
        return list(self.fetch(f"http://{RELEASE}-registry:3000/services")["Services"])

    def states(self, name: str) -> list[str]:
        """Return the states of a service's instances."""
        return [one["State"] for one in self.instances() if one["ServiceName"] == name]

    def lines(self, **query: str) -> list[dict[str, Any]]:
        """Return entries of the log service."""
        words = "&".join(f"{key}={quote(text)}" for key, text in query.items())
        text = self.ask("fetch", url=f"http://{RELEASE}-log:4000/logs?{words}")
        return [json.loads(line) for line in text.splitlines()]

    def call(self, service: str, rate: float, path: str = "/", url: str = "") -> None:
        """Call a service so often from now on; with a URL that, whatever the sidecar says."""
        self.ask("load", "POST", service=service, rate=rate, path=path, url=url)

    @contextmanager
    def window(self, service: str = "GradingService") -> Iterator[Window]:
        """Look at what happens to the requests meanwhile, and for half a second after."""
        window = Window(self.now())
        yield window
        time.sleep(0.5)
        window.until = self.now()
        window.load = self.ask("load", service=service, since=window.since, until=window.until)

    def told(self, since: float, service: str, address: str, there: bool) -> float:
        """Wait until its sidecar has been told that an address is, or is no more, among the providers; return when that was."""
        return eventually(
            lambda: self._told(since, service, address, there), 30.0, f"{service} {address} {'there' if there else 'gone'}", 0.1
        )

    def _told(self, since: float, service: str, address: str, there: bool) -> float:
        for at, event in self.ask("told", since=since):
            shown = event["Providers"] if event["event"] == "snapshot" else {event.get("Name"): event.get("Providers")}
            if service in shown and there == any(f"//{address}:" in one["URL"] for one in shown[service]):
                return float(at)
        return 0.0

    def watch(self, host: str, port: int) -> None:
        """Look when a port takes nobody any more."""
        self.ask("watch", "POST", host=host, port=port)

    def refused(self, host: str) -> float:
        """Wait until it takes nobody, and return when that was."""
        return eventually(lambda: float(self.ask("watch", host=host)["refused"]), 40.0, f"{host} takes nobody any more", 0.1)


def manifest() -> list[Object]:
    """Return the pod with its sidecar, as `pillion inject` makes it, and the policy that lets it call GradingService."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "caller",
            "labels": {"app": "caller"},
            "annotations": {"pillion.dev/inject": "enabled", "pillion.dev/name": NAME, "pillion.dev/requires": "GradingService"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "caller",
                    "image": SIDECAR_IMAGE,
                    "command": ["python3", "-c", CODE.read_text()],
                    "ports": [{"containerPort": 8080}],
                    "securityContext": secure(),
                }
            ],
        },
    }
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "caller"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/component": "grading"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "caller"}}}], "ports": [{"port": 6000}]}],
        },
    }
    return [injected(pod), policy]


def injected(*objects: Object) -> Object:
    """Return objects after `pillion inject`, for a pod in the release's namespace."""
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)} if len(objects) > 1 else objects[0])
    program = [
        str(ROOT / ".venv/bin/pillion"),
        "inject",
        "--strict",
        "--image",
        SIDECAR_IMAGE,
        "--registry",
        f"http://{RELEASE}-registry:3000",
    ]
    words = [*program, "--token-secret", f"{RELEASE}-token", "-"]
    done = subprocess.run(words, input=body, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout))


@contextmanager
def running(namespace: Namespace) -> Iterator[Caller]:
    """Yield the caller in a namespace, which knows GradingService and calls it."""
    namespace.apply(*manifest())
    namespace.until_ready(SELECTOR)
    with namespace.forwarded("pod/caller", 8080) as url:
        caller = Caller(url)
        caller.call("GradingService", RATE, "/students")
        yield caller
