"""No value becomes anything but the text that it is: a hostile value makes what a harmless one makes, with that text in its place.

Helm is started once for many sets of values: a chart that needs this one many times, each time by another alias.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import CHART, Refused, render
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

AT_ONCE = 30
ROUNDS = 11  # 330 renders
SLOTS = 19
HARSH = [
    "a: b", "- a", "{{ fail `x` }}", "{{ .Values }}", '"', "'", "\\",
    "# a", "---", "...", "&a", "*a", "!!python/name:os.system", "|", ">", "%A", "@",
    "`", "null", "true", "0x1", "1e3", "\n", "\r\n", "\n---\nkind: Secret\n", '"\nmalice: "1', "'}\n  malice: {", "$(PATH)", "\t",
    " a ", "}", "]", ",",
]  # fmt: skip
# Helm refuses other control characters by itself; beyond 0xFFFD JSON and YAML escape differently.
characters = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff", max_codepoint=0xFFFD)
hostile = st.one_of(st.sampled_from(HARSH), st.lists(st.sampled_from(HARSH), max_size=4).map("".join), st.text(characters, max_size=20))
sets = st.lists(st.lists(hostile.map(lambda text: "x" + text), min_size=SLOTS, max_size=SLOTS), min_size=AT_ONCE, max_size=AT_ONCE)


def values_of(texts: list[str]) -> dict[str, Any]:
    """Return values with a text in each place where one may be free."""
    text = iter(texts)
    return {
        "commonLabels": {"free": next(text)},
        "demo": {
            "enabled": True,
            "grading": {"podAnnotations": {"free": next(text)}, "extraEnv": [{"name": "FREE", "value": next(text)}]},
            "portal": {
                "podLabels": {"free": next(text)},
                "service": {"annotations": {"free": next(text)}},
                "ingress": {"enabled": True, "hosts": ["a.example.com"], "className": next(text), "tls": [{"secretName": next(text)}]},
                "nodeSelector": {"free": next(text)},
            },
        },
        "registry": {
            "config": {"log_level": next(text), "targets": [next(text)]},
            "priorityClassName": next(text),
            "persistence": {"storageClass": next(text), "annotations": {"free": next(text)}},
            "serviceAccount": {"annotations": {"free": next(text)}},
        },
        "log": {"extraEnv": [{"name": "FREE", "value": next(text)}], "tolerations": [{"key": next(text)}]},
        "sidecar": {"options": {"zone": next(text)}, "resources": {"limits": {"memory": next(text)}}},
        "podMonitor": {"enabled": True, "labels": {"free-too": next(text)}},
    }


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart that has this chart AT_ONCE times."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "charts").mkdir()
    (folder / "charts" / "pillion").symlink_to(CHART)
    needs = [{"name": "pillion", "version": "0.1.0", "alias": f"p{number}"} for number in range(AT_ONCE)]
    (folder / "Chart.yaml").write_text(json.dumps({"apiVersion": "v2", "name": "many", "version": "0.1.0", "dependencies": needs}))
    return folder


def rendered(many: Path, all_texts: list[list[str]]) -> list[dict[str, Any]]:
    """Return, of each set of texts, what its objects are: (kind, name) -> object, without what is made of random or of a hash."""
    found: list[dict[str, Any]] = [{} for _ in all_texts]
    values = {f"p{number}": {"fullnameOverride": f"p{number}", **values_of(texts)} for number, texts in enumerate(all_texts)}
    for each in copy.deepcopy(render(values, chart=many)):
        name = each["metadata"]["name"]
        number = int(name[1:].partition("-")[0])
        if each["kind"] == "Secret":
            each["data"] = None
        if each["kind"] == "ConfigMap":
            each["data"] = {key: yaml.safe_load(text) for key, text in each["data"].items()}
        if each["kind"] == "StatefulSet":
            each["spec"]["template"]["metadata"]["annotations"].pop("checksum/config")
        found[number][f"{each['kind']} {name}"] = each
    return found


def replaced(node: Any, texts: dict[str, str]) -> Any:
    """Return a tree with other texts where the given ones are, whole."""
    if isinstance(node, dict):
        return {key: replaced(value, texts) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, texts) for value in node]
    return texts.get(node, node) if isinstance(node, str) else node


def found_in(node: Any) -> set[str]:
    """Return all texts of a tree."""
    if isinstance(node, dict | list):
        return set().union(*map(found_in, node.values() if isinstance(node, dict) else node))
    return {node} if isinstance(node, str) else set()


@pytest.fixture(scope="module")
def harmless(many: Path) -> list[dict[str, Any]]:
    """What stands where, by names of the places."""
    found = rendered(many, [[f"slot{number}" for number in range(SLOTS)]] * AT_ONCE)
    assert {f"slot{number}" for number in range(SLOTS)} <= found_in(found[0]), "each place shows"
    return found


@pytest.mark.parametrize("odd", ["\u0085", "\u2028", "\u2029", "\ufeff"], ids=ascii)
def test_a_line_break_that_only_yaml_knows_is_refused(odd: str) -> None:
    with pytest.raises(Refused) as caught:
        render({"commonLabels": {"free": f"x{odd}y"}})
    assert "leave it out" in str(caught.value)


def test_a_hostile_value_stays_a_text(many: Path, harmless: list[dict[str, Any]]) -> None:
    renders = 0

    # No shrinking: a failure names the texts, and each try is 30 renders.
    @settings(
        max_examples=ROUNDS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(sets)
    def check(all_texts: list[list[str]]) -> None:
        nonlocal renders
        renders += len(all_texts)
        for number, (texts, got) in enumerate(zip(all_texts, rendered(many, all_texts), strict=True)):
            wanted = replaced(harmless[number], {f"slot{slot}": text for slot, text in enumerate(texts)})
            assert got == wanted, texts

    check()
    assert renders >= 300
