"""The webhook as a program: over TLS, with a certificate that changes, and an API server that is played."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from programs import Program, eventually, program

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates; it is not here")


def certificate(folder: Path, name: str) -> None:
    """Put a fresh certificate in a folder, as a mounted Secret changes: the link is turned."""
    new = folder / name
    new.mkdir(parents=True)
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(new / "tls.key"), "-out", str(new / "tls.crt")]
    subprocess.run(words, check=True, capture_output=True)
    turn(folder, name)


def turn(folder: Path, name: str) -> None:
    draft = folder / ".draft"
    draft.symlink_to(name)
    os.replace(draft, folder / "now")


class FakeApi:
    """Takes Events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.events.append((self.path, self.headers["Authorization"], body))
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certificate(tmp_path / "certificate", "one")
    (tmp_path / "token").write_text("secret-of-the-account\n")
    return tmp_path


@pytest.fixture
def injector(folder: Path, api: FakeApi) -> Iterator[Program]:
    words = ["--listen", "127.0.0.1:0", "--probes", "127.0.0.1:0", "--certificate-dir", str(folder / "certificate" / "now")]
    words += ["--certificate-check", "100ms", "--api", api.url, "--account-dir", str(folder), "--namespace", "pillion"]
    with program("injector", *words) as running:
        yield running


def review(body: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    asked = {"uid": "r-1", "kind": kind, "namespace": namespace, "operation": "CREATE", "object": body}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}


def pod(asks: bool = True, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "shop", "annotations": {"pillion.dev/inject": "enabled"} if asks else {}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 80}]}], **spec}}


def ask(injector: Program, folder: Path, body: dict[str, Any], path: str = "/mutate", **more: Any) -> dict[str, Any]:
    answer = requests.post(f"{injector.url}{path}", json=review(body, **more), verify=str(folder / "certificate/now/tls.crt"), timeout=5)
    assert answer.status_code == 200
    return dict(answer.json()["response"])


def test_pods_are_patched_over_tls_and_the_probes_tell(injector: Program, folder: Path) -> None:
    response = ask(injector, folder, pod())
    patch = json.loads(base64.b64decode(response["patch"]))
    assert any(operation["path"] == "/spec/containers/-" and operation["value"]["name"] == "pillion" for operation in patch)
    assert "patch" not in ask(injector, folder, pod(asks=False))
    assert "patch" in ask(injector, folder, pod(asks=False), path="/mutate/namespace")
    assert "patch" not in ask(injector, folder, pod(), namespace="pillion")
    plain = injector.addresses[1]
    for path in ("/livez", "/readyz", "/version"):
        assert requests.get(f"{plain}{path}", timeout=5).status_code == 200
    metrics = requests.get(f"{plain}/metrics", timeout=5).text
    assert 'pillion_injector_reviews_total{outcome="injected"} 2' in metrics
    assert 'pillion_injector_reviews_total{outcome="left_out"} 1' in metrics
    assert requests.post(f"{plain}/mutate", json={}, timeout=5).status_code == 404
    assert injector.stop() == 0


def test_a_refused_pod_is_let_pass_with_a_log_line_and_an_event(injector: Program, folder: Path, api: FakeApi) -> None:
    for _ in range(2):
        response = ask(injector, folder, pod(hostNetwork=True))
        assert response["allowed"] is True
        assert "hostNetwork" in response["warnings"][0]
    (path, authorization, event) = eventually(lambda: api.events)[0]
    assert (path, authorization) == ("/api/v1/namespaces/shop/events", "Bearer secret-of-the-account")
    assert event["involvedObject"] == {"kind": "Pod", "apiVersion": "v1", "name": "shop", "namespace": "shop"}
    assert event["message"].startswith("it uses the node's network")
    assert injector.events("not_injected")[0]["message"].startswith("Pod shop/shop: it uses the node's network")
    eventually(lambda: "pillion_injector_events_posted_total 1" in requests.get(f"{injector.addresses[1]}/metrics", timeout=5).text)
    assert len(api.events) == 1


def test_an_api_server_that_is_away_costs_only_the_event(folder: Path) -> None:
    words = ["--listen", "127.0.0.1:0", "--probes", "127.0.0.1:0", "--certificate-dir", str(folder / "certificate" / "now")]
    with program("injector", *words, "--api", "http://127.0.0.1:1", "--account-dir", str(folder)) as injector:
        assert ask(injector, folder, pod(hostNetwork=True))["allowed"] is True
        eventually(lambda: injector.events("event_failed"))
        assert "patch" in ask(injector, folder, pod())


def test_a_changed_certificate_is_taken_without_a_restart_and_a_bad_one_is_not(injector: Program, folder: Path) -> None:
    ask(injector, folder, pod())
    old = (folder / "certificate/one/tls.crt").read_text()
    bad = folder / "certificate" / "bad"
    shutil.copytree(folder / "certificate" / "one", bad)
    (bad / "tls.key").write_text("no key")
    turn(folder / "certificate", "bad")
    eventually(lambda: injector.events("certificate_unusable"))
    ask(injector, folder, pod())  # the link's certificate is the first one's still
    certificate(folder / "certificate", "two")
    assert (folder / "certificate/now/tls.crt").read_text() != old
    eventually(lambda: injector.events("certificate_reloaded"))
    ask(injector, folder, pod())
    assert "pillion_injector_certificate_reloads_total 1" in requests.get(f"{injector.addresses[1]}/metrics", timeout=5).text


@pytest.mark.parametrize(("body", "status"), [(b"{}", 400), (b"x" * (5 << 20), 400)])
def test_what_is_no_review_or_too_large_is_refused(injector: Program, folder: Path, body: bytes, status: int) -> None:
    trusted = str(folder / "certificate/now/tls.crt")
    try:
        answer = requests.post(f"{injector.url}/mutate", data=body, verify=trusted, timeout=5)
    except requests.ConnectionError:
        assert len(body) > 1 << 20  # it hung up on a body that it does not read
    else:
        assert answer.status_code == status
    ask(injector, folder, pod())


def test_an_object_of_a_shape_nobody_foresaw_is_let_pass(injector: Program, folder: Path) -> None:
    odd = pod()
    odd["metadata"]["ownerReferences"] = ["x"]
    response = ask(injector, folder, odd)
    assert (response["allowed"], "patch" in response) == (True, False)
    assert 'outcome="failed"} 1' in requests.get(f"{injector.addresses[1]}/metrics", timeout=5).text


def test_without_a_certificate_it_refuses_to_start(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pillion_common", "injector", "--certificate-dir", str(tmp_path), "--events", "no"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "are no certificate with its key" in done.stderr
