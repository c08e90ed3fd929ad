"""Reads a compose file: through `docker compose config` where that is there, for only compose knows what `extends`, `include`, variables
and several files come to; else directly, and then says what it cannot do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pillion_attach.compose_facts import Project, project_of
from pillion_common.errors import ConfigError, PillionError

COMPOSE_S = 60.0
MAX_BYTES = 4 << 20

# The override that compose reads by itself beside each name.
_OVERRIDES = {
    "compose.yaml": "compose.override.yaml",
    "compose.yml": "compose.override.yml",
    "docker-compose.yaml": "docker-compose.override.yaml",
    "docker-compose.yml": "docker-compose.override.yml",
}


def read_project(path: Path, compose: Sequence[str] | None) -> Project:
    """Return the facts of a compose file.

    Args:
        compose: the words of the compose command, from `find_compose`; None to read the file directly.

    Raises:
        ConfigError: it is not there, is no YAML, is no compose file, or compose does not take it.
        PillionError: compose did not answer.
    """
    files = (path, *(beside for beside in [path.parent / _OVERRIDES.get(path.name, "")] if beside.is_file()))
    raw = [parse(read_text(file), str(file)) for file in files]
    if not isinstance(raw[0].get("services"), Mapping) and "include" not in raw[0]:
        raise ConfigError([f"{path} has no `services`, so it is not a compose file"])
    if compose:
        return project_of(json.loads(run_compose(compose, files, "config", "--format", "json") or "{}"), files)
    return _read_directly(files, raw)


def find_compose() -> list[str] | None:
    """Return the words of the command `docker compose`, version 2, or None where it is not there."""
    if shutil.which("docker") is None:
        return None
    try:
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=COMPOSE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ["docker", "compose"] if done.returncode == 0 else None


def run_compose(compose: Sequence[str], files: Sequence[Path], *words: str) -> str:
    """Run compose over files, with every profile on, and return what it prints.

    Raises:
        ConfigError: it refuses the files; its own words say why.
        PillionError: it cannot be run, or does not end within a minute.
    """
    command = [*compose, *(part for file in files for part in ("-f", str(file))), "--profile", "*", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPOSE_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise PillionError(f"`docker compose config` did not end within {COMPOSE_S:g} s") from exc
    except OSError as exc:
        raise PillionError(f"`docker compose` cannot be run: {exc}") from exc
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip() and "level=warning" not in line]
        raise ConfigError([f"docker compose does not take {' with '.join(map(str, files))}: {' '.join(said[-3:]) or 'it says nothing'}"])
    return done.stdout


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        ConfigError: it is not there, cannot be read, or is over 4 MB.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError([f"{path} is larger than {MAX_BYTES >> 20} MB, so it is hardly a compose file"])
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError([f"there is no file {path}{_files_in(path.parent)}"]) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{path} cannot be read: {exc}"]) from exc


def parse(text: str, name: str) -> Any:
    """Return a YAML mapping that keeps its comments and order, and can be written again with `text_of`.

    Raises:
        ConfigError: it is no YAML, with the line, or no mapping.
    """
    try:
        data = _yaml().load(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError([f"{name}{where}: this is not valid YAML: {exc.problem or exc.context}"]) from exc
    except YAMLError as exc:
        raise ConfigError([f"{name}: this is not valid YAML: {str(exc).splitlines()[0]}"]) from exc
    if not isinstance(data, Mapping):
        raise ConfigError([f"{name} is not a mapping, so it is not a compose file"])
    return data


def text_of(data: Any) -> str:
    """Return the YAML text of what `parse` returned."""
    out = StringIO()
    _yaml().dump(data, out)
    return out.getvalue()


def dump_plain(data: Mapping[str, Any]) -> str:
    """Return plain data as YAML."""
    return text_of(json.loads(json.dumps(data))).rstrip()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # no line is folded that was not
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _read_directly(files: tuple[Path, ...], raw: list[Any]) -> Project:
    if len(files) > 1:
        raise ConfigError(
            [f"{files[1].name} lies beside {files[0].name}: only docker compose (version 2) can put them together; install it"]
        )
    faults = ["uses `include`"] if "include" in raw[0] else []
    faults += [
        f"has `extends` in the service {name}"
        for name, body in raw[0]["services"].items()
        if isinstance(body, Mapping) and "extends" in body
    ]
    if faults:
        raise ConfigError([f"{files[0]} {fault}, which only docker compose (version 2) understands; install it" for fault in faults])
    try:
        return project_of(raw[0], files, f"docker compose is not here, so {files[0].name} was read directly: variables are not filled in")
    except (AttributeError, TypeError, KeyError) as exc:
        raise ConfigError([f"{files[0]} is not a compose file that can be read without docker compose: {exc}"]) from exc


def _files_in(folder: Path) -> str:
    try:
        near = sorted(name for name in os.listdir(folder) if name.endswith((".yml", ".yaml")))
    except OSError:
        return ""
    return f"; its folder has {', '.join(near[:5])}" if near else ""
