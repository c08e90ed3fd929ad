"""What /openapi.json says is true: schemathesis asks the real registry whatever the document allows, and what it does not.

PILLION_FUZZ_CASES is how many cases each operation gets at most: 15, for a run of half a minute. scripts/test --fuzz takes 600.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from classic import Classic
from programs import Program
from registry_lab import registry, wait_for
from sse import Stream

CASES = os.environ.get("PILLION_FUZZ_CASES", "15")
SEED = os.environ.get("PILLION_FUZZ_SEED", "1")
# A read that waits would wait in earnest; a stream does not end (it has its own test here).
SETTINGS = '[parameters]\n"query.wait" = 0.01\n'
# What is not valid may be passed over (a filter that nobody fits), and what is valid by its shape may still not fit what is known.
LEFT_OUT = "negative_data_rejection,positive_data_acceptance"


def fuzz(running: Program, folder: Path, document: str, cases: str, *words: str) -> subprocess.CompletedProcess[str]:
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", settings, "run", document, "--url", running.url]
    command += ["--exclude-path", "/watch", "--phases", "examples,coverage,fuzzing", "-n", cases, "--exclude-checks", LEFT_OUT]
    command += ["--seed", SEED, "--request-timeout", "10", "--no-shrink", "--warnings", "off", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=folder)


def document_of(running: Program) -> dict[str, Any]:
    document: dict[str, Any] = requests.get(running.url + "/openapi.json", timeout=5).json()
    return document


def test_the_registry_does_what_its_document_says_whatever_it_is_sent(tmp_path: Path) -> None:
    with registry("--targets", "127.0.0.0/8") as running, Classic() as one, Classic() as two:
        one.register(running.url, "GradingService", InstanceID="a")
        two.register(running.url, "Portald", ["GradingService"], InstanceID="b")
        wait_for(running, one.url, "up")
        done = fuzz(running, tmp_path, running.url + "/openapi.json", CASES)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
        assert "18 selected / 19 total" in done.stdout
        count = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert count is not None
        assert int(count[1]) == int(count[2]) > 500
        print(f"schemathesis: {count[1]} cases")
        assert not running.events("request_failed")


def test_a_document_that_leaves_a_status_out_is_found_out(tmp_path: Path) -> None:
    with registry() as running:
        document = document_of(running)
        del document["paths"]["/services/{name}"]["get"]["responses"]["404"]
        changed = tmp_path / "openapi.json"
        changed.write_text(json.dumps(document))
        done = fuzz(running, tmp_path, str(changed), "2", "--include-path", "/services/{name}")
        assert done.returncode == 1
        assert "Undocumented status code" in done.stdout


def test_a_document_that_gets_a_shape_wrong_is_found_out(tmp_path: Path) -> None:
    with registry() as running:
        document = document_of(running)
        document["components"]["schemas"]["GraphView"]["properties"]["Revision"]["type"] = "string"
        changed = tmp_path / "openapi.json"
        changed.write_text(json.dumps(document))
        done = fuzz(running, tmp_path, str(changed), "2", "--include-path", "/graph")
        assert done.returncode == 1
        assert "Response violates schema" in done.stdout


def test_the_stream_is_as_the_document_says() -> None:
    with registry() as running, Stream(running.url + "/watch") as stream:
        kinds = document_of(running)["paths"]["/watch"]["get"]["responses"]["200"]["content"]
        assert list(kinds) == [stream.answer.headers["Content-Type"]]
        refused = requests.get(running.url + "/watch", params={"name": [str(n) for n in range(101)]}, timeout=5)
        assert refused.status_code == 400
        assert set(refused.json()) <= set(document_of(running)["components"]["schemas"]["Fault"]["properties"])


def test_every_path_of_the_protocol_is_in_the_document() -> None:
    with registry() as running:
        paths = document_of(running)["paths"]
    assert set(paths) == {
        *("/services", "/services/{name}", "/watch", "/events", "/graph", "/why", "/metrics", "/openapi.json", "/"),
        *(f"/services/{{id}}/{what}" for what in ("state", "drain", "undrain", "hide", "forget")),
        *("/livez", "/readyz", "/healthz", "/version"),
    }
    assert set(paths["/services"]) == {"get", "post", "delete"}


def test_the_figures_are_as_prometheus_reads_them() -> None:
    with registry() as running, Classic() as peer:
        peer.register(running.url, "Db")
        wait_for(running, peer.url, "up")
        answer = requests.get(running.url + "/metrics", timeout=5)
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = answer.text.splitlines()
        values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
        assert values['pillion_registry_instances{state="up"}'] == 1
        assert values['pillion_registry_instances{state="down"}'] == 0
        assert values["pillion_registry_services"] == 1
        assert values['pillion_registry_checks_total{verdict="passed"}'] >= 1
        assert values["pillion_registry_writes_total"] >= 2
        assert values["pillion_registry_writes_failed_total"] == 0
        for name in {line.split("{")[0] for line in values}:
            assert [line.split()[1] for line in lines if line.startswith("# ") and line.split()[2] == name] == ["HELP", "TYPE"]
