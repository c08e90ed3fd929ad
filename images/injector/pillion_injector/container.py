"""The sidecar's container and volumes in a pod, and what its app gets: just what the chart's template `pillion.sidecar` makes. Pure.

Whatever is changed here is to be changed in charts/pillion-sidecar too, and the other way round.
"""

from __future__ import annotations

from typing import Any

from pillion_common.keys import KEYS
from pillion_injector.app import App
from pillion_injector.facts import Wanted

SIDECAR = "pillion"
SPOOL, TOKEN, FILES = "pillion-spool", "pillion-token", "pillion-files"
VOLUMES = (SPOOL, TOKEN, FILES)
STATE_DIR = "/var/lib/pillion"
TOKEN_DIR = "/run/secrets/pillion"
TOKEN_KEY = "token"
FILES_DIR = "/run/pillion"
LOCAL_URL = "http://127.0.0.1:7071"
USER = 10001
READABLE = 0o444  # only the sidecar mounts the token, and it may have another group than the pod's volumes

END_S = 10  # of a pod's time to stop: until all dependents know (5 s), for requests under way (1 s), and for the sidecar's own end
DRAIN_S, GRACE_S = 5, 1  # the sidecar's own defaults
LEAST_S = 3  # an app that stops goes on serving at least so long: what kube-proxy and an ingress need to learn of it
END_WITH_APP = "2s"
OTHERS = sorted({key.option for key in KEYS} - {"name", "port", "requires", "check"})


def sidecar(app: App, wanted: Wanted) -> dict[str, Any]:
    """Return the sidecar's container."""
    container: dict[str, Any] = {
        "name": SIDECAR,
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(app, wanted),
        "ports": [{"name": "pillion", "containerPort": 7070, "protocol": "TCP"}],
        "startupProbe": _probe("/livez", period_s=1, timeout_s=2, failures=60),
        "livenessProbe": _probe("/livez", period_s=10, timeout_s=5, failures=3),
    }
    if wanted.native:
        container["restartPolicy"] = "Always"
    if not app.ends:
        container["readinessProbe"] = _probe("/readyz", period_s=2, timeout_s=2, failures=2)
        if wanted.native:
            # It gets its SIGTERM only when the app has ended; hooks are run before, at the same time as the app's.
            container["lifecycle"] = {"preStop": {"exec": {"command": ["pillion", "drain"]}}}
    mounts: list[dict[str, Any]] = [{"name": SPOOL, "mountPath": STATE_DIR}, {"name": FILES, "mountPath": FILES_DIR}]
    if wanted.token_secret:
        mounts.append({"name": TOKEN, "mountPath": TOKEN_DIR, "readOnly": True})
    return container | {
        "resources": {"requests": {"cpu": "5m", "memory": "24Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }


def volumes(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the volumes of the sidecar."""
    found: list[dict[str, Any]] = [
        {"name": SPOOL, "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": FILES, "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
    ]
    if wanted.token_secret:
        items = [{"key": TOKEN_KEY, "path": TOKEN_KEY}]
        found.append({"name": TOKEN, "secret": {"secretName": wanted.token_secret, "defaultMode": READABLE, "items": items}})
    return found


def stop_hook(app: App) -> dict[str, Any] | None:
    """Return the app's preStop hook: all containers of a pod get their SIGTERM at once, so it has to wait until the app is withdrawn."""
    if app.ends:
        return None
    # Without a slash in front: a kubelet before 1.26 puts one there by itself, a newer one where there is none.
    return {"httpGet": {"path": f"drained?least={LEAST_S}", "port": 7070, "scheme": "HTTP"}}


def _environment(app: App, wanted: Wanted) -> list[dict[str, Any]]:
    settled = app.settled
    told = {
        "PILLION_NAME": settled["name"],
        "PILLION_PORT": settled["port"],
        "PILLION_REGISTRY": wanted.registry,
        "PILLION_CHECK": settled.get("check", "tcp"),
        "PILLION_REQUIRES": settled.get("requires", ""),
        "PILLION_TOKEN_FILE": f"{TOKEN_DIR}/{TOKEN_KEY}" if wanted.token_secret else "",
        "PILLION_SPOOL_SIZE": "64M",
    }
    if not wanted.native:
        stay = {"PILLION_END_WITH_APP": END_WITH_APP} if app.ends else {"PILLION_OUTLIVE": f"{max(0, app.grace_s - END_S)}s"}
        told |= stay
    if app.grace_s < END_S:
        told["PILLION_DRAIN_TIMEOUT"] = f"{min(DRAIN_S, max(1, (app.grace_s - GRACE_S) // 2))}s"
    told |= {f"PILLION_{option.upper()}": settled.get(option, "") for option in OTHERS}
    of_pod = {"PILLION_ADVERTISE": "status.podIP", "PILLION_POD": "metadata.name"}
    fields = [{"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}} for name, path in of_pod.items()]
    # Kubernetes reads $(NAME) in a value as another variable's; $$ is a dollar.
    return [*fields, *({"name": name, "value": text.replace("$", "$$")} for name, text in told.items() if text)]


def _probe(path: str, period_s: int, timeout_s: int, failures: int) -> dict[str, Any]:
    """Return a probe by the peers' listener: the app's own is on 127.0.0.1, where the kubelet cannot ask."""
    asked = {"path": path, "port": "pillion"}
    return {"httpGet": asked, "periodSeconds": period_s, "timeoutSeconds": timeout_s, "failureThreshold": failures}
