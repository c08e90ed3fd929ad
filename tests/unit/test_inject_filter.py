"""`pillion inject` and `pillion uninject` as filters: which objects are changed, and that the rest of a file stays as it is."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pillion_injector.filter import inject, uninject

FILES = Path(__file__).resolve().parents[1] / "foreign-k8s"
POD = """apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations: {pillion.dev/inject: enabled}
spec:
  containers: [{name: app, ports: [{containerPort: 80}]}]
"""
PLAIN = POD.replace("annotations: {pillion.dev/inject: enabled}", "labels: {}")

Filter = Callable[..., tuple[str, str, int]]


class Stdin:
    def __init__(self, text: str) -> None:
        self.buffer = io.BytesIO(text.encode())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Filter:
    """Run a filter over a text: what it wrote, what it said, its exit code."""

    def go(program: Callable[[list[str]], int], text: str, *words: str) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "stdin", Stdin(text))
        code = program(list(words))
        out, err = capsysbinary.readouterr()
        return out.decode(), err.decode(), code

    return go


def read(name: str) -> str:
    return (FILES / f"{name}.yaml").read_text()


def objects(text: str) -> list[Any]:
    """Return what kubectl would read, Lists taken apart."""
    found: list[Any] = []
    for document in yaml.safe_load_all(text):
        if document is not None:
            found += document["items"] if document["kind"] == "List" else [document]
    return found


def with_sidecar(text: str) -> list[str]:
    return [str(one["metadata"]["name"]) for one in objects(text) if "name': 'pillion'" in str(one)]


@pytest.mark.parametrize("name", ["deployment", "jobs"])
def test_what_was_put_in_is_taken_out_to_the_last_byte(name: str, run: Filter) -> None:
    injected, said, code = run(inject, read(name), "--token-secret", "t")
    assert (said, code) == ("", 0)
    assert injected != read(name)
    assert run(uninject, injected) == (read(name), "", 0)


@pytest.mark.parametrize("name", ["deployment", "anchors", "jobs", "refused"])
def test_filtering_twice_changes_nothing_more(name: str, run: Filter) -> None:
    once, _, _ = run(inject, read(name), "-")
    assert run(inject, once, "-")[0] == once


def test_aliases_and_merge_keys_are_unfolded_where_they_must_differ_and_mean_the_same_afterwards(run: Filter) -> None:
    injected, said, _ = run(inject, read("anchors"))
    assert said == ""
    assert with_sidecar(injected) == ["first", "second", "third"]
    first, second, third, other = objects(injected)
    names = [
        next(row["value"] for row in one["spec"]["template"]["spec"]["containers"][-1]["env"] if row["name"] == "PILLION_NAME")
        for one in (first, second, third)
    ]
    assert names == ["First", "Second", "Third"]
    app, helper, _ = second["spec"]["template"]["spec"]["containers"]
    assert [row["name"] for row in app["env"]] == [row["name"] for row in helper["env"]] == ["SHARED", "PILLION_URL"]
    assert other["data"] == {"mode": "0644"}
    assert objects(run(uninject, injected)[0]) == objects(read("anchors"))


def test_every_comment_and_every_document_that_is_none_of_ours_stays(run: Filter) -> None:
    out, _, _ = run(inject, read("deployment"))
    assert out.startswith(read("deployment").partition("---")[0])
    for comment in ("# The shop", "# its name", "# asked for", "# the app", "# web", "# kept"):
        assert comment in out
    assert out.endswith("---\n")


def test_a_cron_job_and_a_job_get_a_sidecar_that_ends_with_them(run: Filter) -> None:
    out, _, _ = run(inject, read("jobs"))
    job, cron = objects(out)
    for template in (job["spec"]["template"], cron["spec"]["jobTemplate"]["spec"]["template"]):
        assert {"name": "PILLION_END_WITH_APP", "value": "2s"} in template["spec"]["containers"][-1]["env"]
    assert "exec report --all > /out/report" in out


def test_refusals_are_told_with_their_document_and_the_rest_passes(run: Filter) -> None:
    out, said, code = run(inject, read("refused"))
    assert (out, code) == (read("refused"), 0)
    lines = said.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("pillion inject: document 1, DaemonSet node-agent: not injected: it uses the node's network")
    assert lines[1] == (
        "pillion inject: document 2, Deployment misplaced: pillion.dev/inject is on the Deployment itself, where it does nothing: "
        "put it under spec.template.metadata.annotations. Nothing was injected"
    )
    assert lines[2].startswith(
        "pillion inject: document 3, Pod portless: not injected: none of its containers declares a TCP containerPort"
    )
    assert run(inject, read("refused"), "--strict")[2] == 1


def test_a_misplaced_annotation_alone_is_no_failure_even_when_strict(run: Filter) -> None:
    alone = read("refused").split("---\n")[1]
    out, said, code = run(inject, alone, "--strict")
    assert (out, code) == (alone, 0)
    assert "document 1, Deployment misplaced" in said


def test_without_the_annotation_only_all_injects_but_never_into_the_disabled(run: Filter) -> None:
    assert run(inject, PLAIN) == (PLAIN, "", 0)
    assert with_sidecar(run(inject, PLAIN, "--all")[0]) == ["shop"]
    assert with_sidecar(run(inject, read("refused"), "--all")[0]) == ["misplaced"]


def test_the_options_reach_the_sidecar(run: Filter) -> None:
    words = ("--image", "mine/sidecar:2", "--registry", "http://a:1,http://b:2", "--token-secret", "tok", "--native")
    (one,) = objects(run(inject, POD, *words)[0])
    (sidecar,) = one["spec"]["initContainers"]
    assert sidecar["image"] == "mine/sidecar:2"
    assert {"name": "PILLION_REGISTRY", "value": "http://a:1,http://b:2"} in sidecar["env"]
    assert one["spec"]["volumes"][-1]["secret"]["secretName"] == "tok"


def test_texts_that_would_be_read_as_something_else_are_quoted(run: Filter) -> None:
    (one,) = objects(run(inject, POD.replace("enabled", 'enabled, pillion.dev/version: "1.0", pillion.dev/zone: "no"'))[0])
    env = {row["name"]: row.get("value") for row in one["spec"]["containers"][-1]["env"]}
    assert (env["PILLION_VERSION"], env["PILLION_ZONE"], env["PILLION_PORT"]) == ("1.0", "no", "80")


def test_line_ends_and_a_missing_last_one_stay(run: Filter) -> None:
    windows = (POD + "---\n" + PLAIN).replace("\n", "\r\n")
    out, _, _ = run(inject, windows)
    assert "\n" not in out.replace("\r\n", "")
    assert out.endswith(PLAIN.replace("\n", "\r\n"))
    assert run(inject, PLAIN.rstrip())[0] == PLAIN.rstrip()
    assert run(inject, "") == ("", "", 0)


def test_the_indentation_of_lists_is_that_of_the_file(run: Filter) -> None:
    for indent in ("  ", "    "):
        block = POD.replace(
            "[{name: app, ports: [{containerPort: 80}]}]", f"\n{indent}- name: app\n{indent}  ports: [{{containerPort: 80}}]"
        )
        assert f"\n{indent}- name: pillion\n" in run(inject, block)[0]


def test_what_is_no_yaml_is_refused_whole_with_its_line(run: Filter) -> None:
    out, said, code = run(inject, POD + "---\nkind: {{ .Values.kind }}\nb: [\n")
    assert (out, code) == ("", 2)
    assert "line 11, column" in said
    assert "filter what `helm template` makes of it" in said


def test_a_file_of_aliases_of_aliases_is_refused(run: Filter) -> None:
    rows = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    out, said, code = run(inject, f"a0: &a0 [x, y]\n{rows}")
    assert (out, code) == ("", 2)
    assert "entries, aliases filled in" in said


def test_kinds_of_others_are_left_alone(run: Filter) -> None:
    other = POD.replace("apiVersion: v1", "apiVersion: batch.example.com/v1")
    assert run(inject, other) == (other, "", 0)
    assert run(inject, "- just\n- a list\n") == ("- just\n- a list\n", "", 0)


def test_an_annotation_that_is_neither_is_refused(run: Filter) -> None:
    _, said, code = run(inject, POD.replace("enabled", "'true'"), "--strict")
    assert "pillion.dev/inject 'true' is neither enabled nor disabled" in said
    assert code == 1


def test_a_file_can_be_named_and_one_that_is_not_there_is_told(run: Filter, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    assert with_sidecar(run(inject, "", str(path))[0]) == ["shop"]
    assert run(inject, "", str(tmp_path / "none"))[2] == 2


def test_a_registry_that_is_no_url_is_refused(run: Filter) -> None:
    with pytest.raises(SystemExit) as ended:
        run(inject, POD, "--registry", "registry")
    assert ended.value.code == 2
