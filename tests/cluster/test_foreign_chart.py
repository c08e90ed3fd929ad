"""A chart of somebody else's gets the sidecar in three ways; the pods, as the API server has them, differ only in metadata."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from caller import Caller
from cluster import LIBRARY, REGISTRY, RELEASE, ROOT, SIDECAR_IMAGE, Namespace, Object, eventually, helm
from workloads import TOKEN, copy_token

FOREIGN = ROOT / "tests" / "foreign-k8s" / "nginx"
PLAIN = '{{- include "nginx.podSpec" . | nindent 6 }}'
ONE_LINE = '{{- include "pillion.sidecar" (dict "root" $ "sidecar" .Values.pillion "spec" (include "nginx.podSpec" .)) | nindent 6 }}'
SELECTOR = "app.kubernetes.io/name=nginx"


def image_words() -> list[str]:
    name, _, tag = os.environ["PILLION_NGINX_IMAGE"].rpartition(":")
    return ["--set", f"image.repository={name},image.tag={tag}"]


def by_template(namespace: Namespace, folder: Path) -> None:
    """The chart with one line changed, and the library beside it."""
    chart = folder / "nginx"
    shutil.copytree(FOREIGN, chart)
    (chart / "charts").mkdir()
    shutil.copytree(LIBRARY, chart / "charts" / "pillion-sidecar")
    file = chart / "templates" / "deployment.yaml"
    assert file.read_text().count(PLAIN) == 1
    file.write_text(file.read_text().replace(PLAIN, ONE_LINE))
    repository, _, tag = SIDECAR_IMAGE.rpartition(":")
    sidecar = {
        "name": "Web",
        "port": 8080,
        "requires": ["GradingService"],
        "check": "http:/healthz",
        "registry": REGISTRY,
        "image": {"repository": repository, "tag": tag},
        "token": {"secretName": TOKEN},
    }
    values = folder / "values.json"
    values.write_text(json.dumps({"pillion": sidecar}))
    helm("install", "web", str(chart), *image_words(), "--values", str(values), "--namespace", namespace.name)


def annotations() -> list[str]:
    told = {"inject": "enabled", "name": "Web", "requires": "GradingService", "check": "http:/healthz"}
    return [word for key, text in told.items() for word in ("--set-string", rf"podAnnotations.pillion\.dev/{key}={text}")]


def by_filter(namespace: Namespace) -> None:
    """What `helm template` writes, through `pillion inject`."""
    text = helm("template", "web", str(FOREIGN), *image_words(), *annotations(), "--namespace", namespace.name)
    words = ["--strict", "--image", SIDECAR_IMAGE, "--registry", REGISTRY, "--token-secret", TOKEN, "-"]
    program = [str(ROOT / ".venv/bin/pillion"), "inject", *words]
    done = subprocess.run(program, input=text, capture_output=True, text=True, timeout=30, check=True)
    namespace.kubectl("apply", "--filename", "-", body=done.stdout)


def by_webhook(namespace: Namespace) -> None:
    """The chart as it is, by its own values for labels and annotations of pods."""
    label = ["--set-string", r"podLabels.pillion\.dev/inject=enabled"]
    helm("install", "web", str(FOREIGN), *image_words(), *annotations(), *label, "--namespace", namespace.name)


def spec_of(pod: Object) -> Object:
    """Return a pod's spec without the node that it happens to be on."""
    return {key: value for key, value in pod["spec"].items() if key != "nodeName"}


def test_three_ways_make_the_same_pod(release: Namespace, caller: Caller, tmp_path: Path) -> None:
    ways = {way: Namespace(f"{RELEASE}-{way}") for way in ("template", "filter", "webhook")}
    for namespace in ways.values():
        namespace.create()
        copy_token(release, namespace)
    with ThreadPoolExecutor(3) as pool:
        made = [pool.submit(by_template, ways["template"], tmp_path)]
        made += [pool.submit(by_filter, ways["filter"]), pool.submit(by_webhook, ways["webhook"])]
        for one in made:
            one.result()
    pods = {way: namespace.until_ready(SELECTOR)[0] for way, namespace in ways.items()}
    assert [one["name"] for one in pods["webhook"]["spec"]["containers"]] == ["nginx", "pillion"]
    assert spec_of(pods["filter"]) == spec_of(pods["template"])
    assert spec_of(pods["webhook"]) == spec_of(pods["template"])
    eventually(lambda: caller.states("Web") == ["up"] * 3, 20.0, "all three registered and up")
