"""Three ways to the same pod: the chart's named template, `pillion inject`, and the webhook differ only in metadata.

That filter and webhook make the same stands in tests/unit/test_injector_review.py; here is the third.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import LIBRARY, NATIVE, ORDINARY, ROOT, one, render
from restricted import faults

APP = {
    "name": "shop",
    "image": "shop:1",
    "ports": [{"containerPort": 8080}],
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
POD = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [APP]}
IMAGE = {"registry": "", "repository": "pillion/sidecar", "tag": "7", "digest": "", "pullPolicy": "IfNotPresent"}
SIDECAR = {"name": "Shop", "port": 8080, "image": IMAGE, "registry": "http://registry:3000"}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart whose one pod's spec is `.Values.pod`."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "pillion-sidecar").symlink_to(LIBRARY)
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: any, version: 0.1.0, appVersion: '9'}")
    template = '{{ include "pillion.sidecar" (dict "root" $ "sidecar" .Values.pillion "spec" (toYaml .Values.pod)) | nindent 2 }}'
    (tmp_path / "templates" / "pod.yaml").write_text(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: any}}\nspec:\n{template}\n")
    return tmp_path


def injected(pod: dict[str, Any], annotations: dict[str, str], *words: str) -> dict[str, Any]:
    """Return the spec of a pod after `pillion inject`."""
    keys = {f"pillion.dev/{key}": text for key, text in {"inject": "enabled", "name": "Shop", **annotations}.items()}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "annotations": keys}, "spec": pod}
    program = [str(ROOT / ".venv/bin/pillion"), "inject", "--strict", "--image", "pillion/sidecar:7", "--registry", "http://registry:3000"]
    done = subprocess.run([*program, *words], input=json.dumps(body), capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = yaml.safe_load(done.stdout)["spec"]
    return found


@pytest.mark.parametrize("version", [ORDINARY, NATIVE])
@pytest.mark.parametrize(
    ("values", "annotations", "more"),
    [
        ({}, {}, {}),
        ({"requires": ["LogService", "Db:2"], "check": "http:/healthz"}, {"requires": "LogService,Db:2", "check": "http:/healthz"}, {}),
        ({"options": {"zone": "eu", "version": "2", "weight": 3}}, {"zone": "eu", "version": "2", "weight": "3"}, {}),
        ({"job": True}, {}, {"restartPolicy": "Never"}),
        ({"files": False, "terminationGracePeriodSeconds": 60}, {"files": "disabled"}, {"terminationGracePeriodSeconds": 60}),
        ({}, {}, {"initContainers": [{"name": "first", "image": "first:1"}], "volumes": [{"name": "data", "emptyDir": {}}]}),
    ],
)
def test_template_and_filter_make_the_same_pod(
    chart: Path, version: str, values: dict[str, Any], annotations: dict[str, str], more: dict[str, Any]
) -> None:
    pod = {**POD, **more}
    for secret in ("", "pillion-token"):
        token = {"secretName": secret, "key": "token"}
        objects = render({"pillion": {**SIDECAR, **values, "token": token}, "pod": pod}, version, chart)
        native = ("--native",) if version == NATIVE else ()
        filtered = injected(pod, annotations, "--token-secret", secret, *native)
        assert filtered == one(objects, "Pod", "any")["spec"]


@pytest.mark.parametrize("native", [True, False])
def test_what_is_injected_passes_the_restricted_standard(native: bool) -> None:
    assert faults(injected(POD, {}, "--token-secret", "t", *(["--native"] if native else []))) == []
