"""Workloads in a namespace of their own, whose pods get sidecars by the webhook."""

from __future__ import annotations

from typing import Any

from cluster import RELEASE, SIDECAR_IMAGE, Namespace, Object, secure

APPS = f"{RELEASE}-apps"
TOKEN = f"{RELEASE}-token"
WITHIN_S = 60.0

# Takes a second for each request, until SIGTERM, and then drops all: what a preStop hook is for.
SERVE = """
import http.server, os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0 if 'now' in self.path else 1)
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(('', 8080), Handler).serve_forever()
"""
# A job that others can find for three seconds.
COUNT = "import socket, time; one = socket.create_server(('', 8080)); time.sleep(3); print('counted')"


def app(code: str = SERVE, ports: tuple[int, ...] = (8080,), **more: Any) -> Object:
    """Return an app's container."""
    return {
        "name": "app",
        "image": SIDECAR_IMAGE,
        "command": ["python3", "-c", code],
        "ports": [{"containerPort": port} for port in ports],
        "securityContext": secure(),
        **more,
    }


def template(name: str, container: Object, asks: bool = True, **spec: Any) -> Object:
    """Return a pod template; one that asks has the label, which old servers go by, and the annotation."""
    label = {"pillion.dev/inject": "enabled"} if asks else {}
    metadata = {"labels": {"app": name, **label}, "annotations": {**label, "pillion.dev/check": "tcp"} if asks else {}}
    return {"metadata": metadata, "spec": {"automountServiceAccountToken": False, "containers": [container], **spec}}


def deployment(name: str, pod: Object, replicas: int = 1, annotations: dict[str, str] | None = None) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod},
    }


def stateful_set(name: str, pod: Object, replicas: int) -> Object:
    spec = {"replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": name}}}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": {**spec, "template": pod}}


def service(name: str) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": 8080, "targetPort": 8080, "protocol": "TCP"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


class Workloads:
    """Deployment `hooked` (service Hooked), StatefulSet `hookless` (Hookless: its own preStop hook waits for nothing), Job `count`."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def start(self, release: Namespace) -> None:
        self.namespace.create()
        copy_token(release, self.namespace)
        own_hook = {"lifecycle": {"preStop": {"httpGet": {"path": "now", "port": 8080}}}}
        job = {"backoffLimit": 0, "template": template("count", app(COUNT), restartPolicy="Never")}
        self.namespace.apply(
            deployment("hooked", template("hooked", app()), 2),
            stateful_set("hookless", template("hookless", app(**own_hook)), 2),
            service("hooked"),
            service("hookless"),
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "count"}, "spec": job},
        )


def copy_token(release: Namespace, into: Namespace) -> None:
    """Copy the token's Secret, as docs/inject.md says."""
    [secret] = [one for one in release.get("secrets") if one["metadata"]["name"] == TOKEN]
    into.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TOKEN}, "data": secret["data"]})
