"""A pod that sees all processes of its node: kills containers as the kernel would, and says how much memory they have resident."""

from __future__ import annotations

import json

from cluster import SIDECAR_IMAGE, Namespace, Object, container

# Prints the processes of a container, by id: {id: [[pid, resident KB, pid within the container], ...]}. Works with every runtime.
LOOK = """
import json, os, sys, time
found = {one: [] for one in sys.argv[2:]}
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        group = open('/proc/%s/cgroup' % pid).read()
        status = dict(line.split(':', 1) for line in open('/proc/%s/status' % pid))
    except (OSError, ValueError):
        continue
    for one in found:
        if one in group:
            found[one].append([int(pid), int(status.get('VmRSS', '0').split()[0]), int(status['NSpid'].split()[-1])])
if sys.argv[1] == 'kill':
    [first] = [pid for [(pid, _, inner)] in found.values() if inner == 1]
    at = time.time()
    os.kill(first, 9)
    print(at)
else:
    print(json.dumps({one: sum(kb for _, kb, _ in rows) for one, rows in found.items()}))
"""


class Host:
    """The pod."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def start(self) -> None:
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "host", "labels": {"app": "host"}},
            "spec": {
                "hostPID": True,
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "host",
                        "image": SIDECAR_IMAGE,
                        "command": ["python3", "-c", "import signal; signal.signal(15, lambda *_: exit()); signal.pause()"],
                        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
                    }
                ],
            },
        }
        self._namespace.apply(pod)

    def kill(self, pod: Object, name: str) -> float:
        """kill -9 of a container's first process; returns the time just before."""
        return float(self._run("kill", _id(container(pod, name))))

    def resident_mb(self, pods: list[Object]) -> dict[str, float]:
        """Return pod/container -> resident memory."""
        ids = {f"{pod['metadata']['name']}/{one['name']}": _id(one) for pod in pods for one in pod["status"]["containerStatuses"]}
        found = json.loads(self._run("rss", *ids.values()))
        return {name: found[key] / 1024 for name, key in ids.items()}

    def _run(self, *words: str) -> str:
        return self._namespace.kubectl("exec", "host", "--", "python3", "-c", LOOK, *words)


def _id(status: Object) -> str:
    return str(status["containerID"].rpartition("/")[2])
