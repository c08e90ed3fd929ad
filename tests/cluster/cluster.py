"""kubectl and helm as the tests of this folder use them: one namespace of the release, and others beside it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pillion"
LIBRARY = CHART / "charts" / "pillion-sidecar"
RELEASE = os.environ.get("PILLION_RELEASE", "pillion-test")
TAG = os.environ.get("PILLION_IMAGE_TAG", "dev")
SIDECAR_IMAGE = f"pillion/sidecar:{TAG}"
REGISTRY = f"http://{RELEASE}-registry.{RELEASE}.svc:3000"
RUN_LABEL = {"pillion.test/run": RELEASE}
CALL_S = 60.0
GONE_S = 180.0  # a kubelet that is busy lists a pod long after its containers have ended
READY_S = 90.0

Object = dict[str, Any]
T = TypeVar("T")


def run(words: list[str], body: str = "", within_s: float = CALL_S) -> str:
    """Return what a command prints; a failure shows what it said."""
    done = subprocess.run(words, input=body, capture_output=True, text=True, timeout=within_s, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def helm(*words: str, within_s: float = 180.0) -> str:
    """Run helm in the release's namespace."""
    return run([os.environ["PILLION_HELM"], "--namespace", RELEASE, *words], within_s=within_s)


def image_values() -> list[str]:
    """Return helm's words for the images of this run."""
    parts = ("registry", "log", "sidecar", "injector", "demo.grading", "demo.portal")
    return [word for part in parts for word in ("--set-string", f"{part}.image.tag={TAG}")]


def eventually(look: Callable[[], T], within_s: float, what: str, pause_s: float = 0.2) -> T:
    """Return the first value that counts as true."""
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {within_s:g} s: {what}"
        time.sleep(pause_s)
    return found


class Namespace:
    """One namespace of this run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create(self, labels: dict[str, str] | None = None) -> None:
        """Make it; the script removes it at the end by its label."""
        metadata = {"name": self.name, "labels": {**RUN_LABEL, **(labels or {})}}
        run(["kubectl", "apply", "--filename", "-"], json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))

    def kubectl(self, *words: str, body: str = "", within_s: float = CALL_S) -> str:
        return run(["kubectl", "--namespace", self.name, *words], body, within_s)

    def apply(self, *objects: Object) -> None:
        """Make objects, or bring them up to date."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename", "-", body=json.dumps(body))

    def get(self, *words: str) -> list[Object]:
        """Return objects, e.g. of `pods --selector app=x`."""
        found: list[Object] = json.loads(self.kubectl("get", *words, "--output", "json"))["items"]
        return found

    def pods(self, selector: str) -> list[Object]:
        """Return the pods that are not about to end."""
        return [pod for pod in self.get("pods", "--selector", selector) if "deletionTimestamp" not in pod["metadata"]]

    def pod(self, selector: str) -> Object:
        """Return the one pod."""
        [pod] = self.pods(selector)
        return pod

    def until_ready(self, selector: str, count: int = 1, within_s: float = READY_S) -> list[Object]:
        """Wait for so many ready pods, and return them."""
        return eventually(lambda: self._ready(selector, count), within_s, f"{count} pods of {selector} ready in {self.name}", 0.5)

    def _ready(self, selector: str, count: int) -> list[Object]:
        ready = [pod for pod in self.pods(selector) if is_ready(pod)]
        return ready if len(ready) >= count else []

    def everything(self) -> set[str]:
        """Return the names of all objects here, but for Events."""
        kinds = self.kubectl("api-resources", "--verbs", "list", "--namespaced", "--output", "name").split()
        wanted = [kind for kind in kinds if not kind.startswith("events")]
        return set(self.kubectl("get", ",".join(wanted), "--output", "name", "--ignore-not-found").split())

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """Yield a URL on this machine that leads to a pod or Service."""
        words = ["kubectl", "--namespace", self.name, "port-forward", "--address", "127.0.0.1", target, f":{port}"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 5000
            assert line.startswith("Forwarding from "), line
            yield f"http://{line.split()[2]}"
        finally:
            process.terminate()
            process.wait(10)
            process.stdout.close()


def is_ready(pod: Object) -> bool:
    """Return whether all its containers are ready."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def container(pod: Object, name: str) -> Object:
    """Return the status of one container of a pod."""
    [found] = [one for one in pod["status"]["containerStatuses"] if one["name"] == name]
    return dict(found)


def restarts(pod: Object) -> int:
    """Return how often its containers were started again."""
    return sum(one["restartCount"] for one in pod["status"]["containerStatuses"])


def component(name: str) -> str:
    """Return the selector of a component of the release."""
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={name}"


def secure() -> Object:
    """Return the security context of a test's own container, in the form of the `restricted` standard."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
