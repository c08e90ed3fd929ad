"""The keys of an app: one table, three spellings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pillion_common import config, keys
from pillion_sidecar.settings import Settings


def test_each_key_is_an_option_of_the_sidecar_with_the_environment_variable_of_that_option() -> None:
    options = {field.name for field in dataclasses.fields(Settings)}
    for key in keys.KEYS:
        assert key.option in options
        assert key.env == config.env_name(key.option)
        assert key.label == f"pillion.dev/{key.option}"


def test_the_keys_are_those_of_the_documentation() -> None:
    assert [key.option for key in keys.KEYS] == ["name", "port", "requires", "check", "zone", "version", "weight", "tags"]
    page = (Path(__file__).resolve().parents[2] / "docs" / "attach.md").read_text(encoding="utf-8")
    for key in keys.KEYS:
        assert f"| `{key.label}` | `{key.env}` | `--{key.option}` | {key.what} |" in page


def test_labels_are_read_without_blanks_and_without_what_says_nothing() -> None:
    labels = {"pillion.dev/name": " Shop ", "pillion.dev/port": "80", "pillion.dev/zone": " ", "com.example": "x"}
    assert keys.from_labels(labels) == {"name": "Shop", "port": "80"}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"PILLION_NAME": "Own", "OTEL_SERVICE_NAME": "Otel"}, "Own"),
        ({"PILLION_NAME": "", "OTEL_SERVICE_NAME": "Otel"}, "Otel"),
        ({"PILLION_NAME": "Own"}, "Own"),
    ],
)
def test_the_name_in_an_environment_may_be_opentelemetrys(environ: dict[str, str], name: str) -> None:
    assert keys.from_environ({**environ, "PILLION_PORT": "80", "HOME": "/"}) == {"name": name, "port": "80"}


def test_a_label_that_looks_like_a_key_and_is_none_is_noticed() -> None:
    labels = {"pillion.dev/prot": "80", "pillion.dev/port": "80", "pillion.dev/attached-to": "shop", "pillion.dev/inject": "enabled"}
    assert keys.unknown_labels(labels) == ["pillion.dev/prot"]
