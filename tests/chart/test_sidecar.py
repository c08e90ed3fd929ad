"""The sidecar's named template, through the example chart and through charts made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import LIBRARY, NATIVE, ORDINARY, ROOT, Refused, container, environment, one, render
from restricted import faults

POD = {"containers": [{"name": "shop", "image": "shop:1"}, {"name": "other", "image": "other:1"}]}
SIDECAR = {"name": "Shop", "port": 8080}


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


def spec(chart: Path, sidecar: Any = None, pod: Any = None, version: str = ORDINARY) -> dict[str, Any]:
    objects = render({"pillion": {**SIDECAR, **(sidecar or {})}, "pod": {**POD, **(pod or {})}}, version, chart)
    found: dict[str, Any] = one(objects, "Pod", "any")["spec"]
    return found


def test_an_old_server_gets_an_ordinary_container_that_outlives_the_app(chart: Path) -> None:
    pod = spec(chart)
    assert [each["name"] for each in pod["containers"]] == ["shop", "other", "pillion"]
    sidecar = pod["containers"][2]
    assert "restartPolicy" not in sidecar
    assert "lifecycle" not in sidecar
    assert environment(sidecar)["PILLION_OUTLIVE"] == "20s"
    assert pod["terminationGracePeriodSeconds"] == 30


def test_a_new_server_gets_a_native_sidecar_that_drains_before_the_app_ends(chart: Path) -> None:
    pod = spec(chart, version=NATIVE, pod={"initContainers": [{"name": "first", "image": "first:1"}]})
    assert [each["name"] for each in pod["initContainers"]] == ["pillion", "first"], "what starts first can ask it"
    sidecar = pod["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["lifecycle"]["preStop"]["exec"]["command"] == ["pillion", "drain"]
    assert "PILLION_OUTLIVE" not in environment(sidecar)


@pytest.mark.parametrize("version", [ORDINARY, NATIVE])
def test_the_app_waits_for_its_withdrawal_and_gets_the_address_and_the_files(chart: Path, version: str) -> None:
    app = container(spec(chart, {"drainAtLeast": 7}, version=version), "shop")
    # A kubelet before 1.26 puts a slash in front by itself.
    assert app["lifecycle"]["preStop"]["httpGet"] == {"path": "drained?least=7", "port": 7070, "scheme": "HTTP"}
    assert environment(app) == {"PILLION_URL": "http://127.0.0.1:7071"}
    assert app["volumeMounts"] == [{"name": "pillion-files", "mountPath": "/run/pillion", "readOnly": True}]
    assert container(spec(chart, version=version), "other") == POD["containers"][1]


def test_an_app_without_the_files_gets_no_mounts(chart: Path) -> None:
    app = container(spec(chart, {"files": False}), "shop")
    assert "volumeMounts" not in app, "null would be taken for a change by whoever compares"
    own = {"name": "shop", "image": "shop:1", "volumeMounts": [{"name": "mine", "mountPath": "/mine"}]}
    assert container(spec(chart, {"files": False}, {"containers": [own]}), "shop")["volumeMounts"] == own["volumeMounts"]


def test_what_the_pod_has_already_is_kept(chart: Path) -> None:
    own = {
        "name": "shop",
        "image": "shop:1",
        "env": [{"name": "A", "value": "1"}],
        "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
        "lifecycle": {"preStop": {"exec": {"command": ["true"]}}, "postStart": {"exec": {"command": ["true"]}}},
        "securityContext": {"runAsUser": 1000000000},
    }
    pod = spec(chart, pod={"containers": [own], "volumes": [{"name": "mine", "emptyDir": {}}], "terminationGracePeriodSeconds": 90})
    app = container(pod, "shop")
    assert app["lifecycle"] == own["lifecycle"]
    assert app["securityContext"] == own["securityContext"]
    assert [each["name"] for each in app["env"]] == ["A", "PILLION_URL"]
    assert [each["name"] for each in pod["volumes"]] == ["mine", "pillion-spool", "pillion-files", "pillion-token"]
    assert pod["terminationGracePeriodSeconds"] == 90


def test_a_jobs_sidecar_ends_after_the_job(chart: Path) -> None:
    old, new = spec(chart, {"job": True}), spec(chart, {"job": True}, version=NATIVE)
    assert environment(container(old, "pillion"))["PILLION_END_WITH_APP"] == "2s"
    assert "PILLION_END_WITH_APP" not in environment(container(new, "pillion")), "kubelet ends a native one by itself"
    for pod in (old, new):
        assert "lifecycle" not in container(pod, "shop")
        assert "readinessProbe" not in container(pod, "pillion")


def test_a_sidecar_without_a_token_has_no_secret(chart: Path) -> None:
    pod = spec(chart, {"token": {"secretName": ""}})
    assert [each["name"] for each in pod["volumes"]] == ["pillion-spool", "pillion-files"]
    assert "PILLION_TOKEN_FILE" not in environment(container(pod, "pillion"))


def test_options_become_the_environment_that_the_sidecar_reads(chart: Path) -> None:
    options = {"zone": "eu-1", "tags": ["a", "b"], "weight": 100, "wait": True, "outlive": "3s"}
    told = environment(container(spec(chart, {"options": options, "requires": ["Db:2", "LogService"]}), "pillion"))
    wanted = {"ZONE": "eu-1", "TAGS": "a,b", "WEIGHT": "100", "WAIT": "true", "OUTLIVE": "3s", "REQUIRES": "Db:2,LogService"}
    assert {key: told[f"PILLION_{key}"] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("sidecar", "pod", "reason"),
    [
        ({"name": ""}, {}, "is no service name"),
        ({"name": "a b"}, {}, "is no service name"),
        ({"port": 0}, {}, "write the port"),
        ({"prot": 1}, {}, '"prot" is no key'),
        ({"image": {"tga": "x"}}, {}, '"tga" is no key of image'),
        ({"options": {"local": "0.0.0.0:1"}}, {}, '"local" is no option'),
        ({"container": "none"}, {}, 'no container named "none"'),
        ({"terminationGracePeriodSeconds": 5}, {}, "must be 10 or more"),
        ({}, {"hostNetwork": True}, "host's network"),
        ({}, {"containers": [{"name": "pillion"}]}, "rename it"),
        ({}, {"containers": []}, "no containers"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_the_reason(chart: Path, sidecar: Any, pod: Any, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        spec(chart, sidecar, pod)
    assert reason in str(caught.value)


@pytest.mark.parametrize("version", [ORDINARY, NATIVE])
def test_the_example_chart_has_a_deployment_and_a_job(tmp_path: Path, version: str) -> None:
    shop = ROOT / "charts" / "examples" / "shop"
    copy = tmp_path / "shop"
    copy.mkdir()
    for name in ("Chart.yaml", "values.yaml", "templates"):
        (copy / name).symlink_to(shop / name)
    (copy / "charts").mkdir()
    (copy / "charts" / "pillion-sidecar").symlink_to(LIBRARY)
    objects = render({}, version, copy)
    kinds = {each["kind"]: each["spec"]["template"]["spec"] for each in objects}
    assert set(kinds) == {"Deployment", "Job"}
    for pod in kinds.values():
        sidecar = container(pod, "pillion")
        assert not faults({"containers": [sidecar]}), "it passes by itself, whatever the pod says"


def test_the_library_has_the_same_version_in_all_charts() -> None:
    version = yaml.safe_load((LIBRARY / "Chart.yaml").read_text())["version"]
    for path in ("charts/pillion", "charts/examples/shop"):
        [needed] = yaml.safe_load((ROOT / path / "Chart.yaml").read_text())["dependencies"]
        assert needed["version"] == version
