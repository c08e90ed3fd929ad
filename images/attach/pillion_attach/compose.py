"""`pillion attach compose` and `pillion detach compose`: write the override file, whole or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from pillion_attach import override
from pillion_attach.compose_facts import Project
from pillion_attach.compose_file import find_compose, parse, read_project, read_text, run_compose, text_of
from pillion_attach.compose_plan import Attachment, Declared, plan
from pillion_attach.engine import connected
from pillion_attach.facts import Registry, Wishes
from pillion_attach.options import say, say_aside
from pillion_common.errors import ConfigError, PillionError
from pillion_common.key_values import nearest

OUTPUT = "docker-compose.pillion.yml"


def attach(file: Path, services: Sequence[str], wishes: Wishes, output: Path | None, dry_run: bool) -> int:
    """Write sidecars for services into the override file.

    Raises:
        ConfigError: with every refusal.
        PillionError: the file cannot be written, or compose does not answer.
    """
    compose = find_compose()
    project = read_project(file, compose)
    target = _output(project, output)
    document = parse(read_text(target), str(target)) if target.exists() else None
    before = override.declared(document) if document is not None else Declared()
    found, networks = _look_around()
    attachments = plan(project, services, wishes, found, before)
    command = _up(project, target, attachments)
    if document is None:
        document = override.empty(file.name, command)
    for attachment in attachments:
        override.add(document, attachment)
    tell = say_aside if dry_run else say
    if dry_run:
        say_aside(f"nothing was written; this would be in {target}:")
        say(text_of(document).rstrip())
    else:
        _write(target, text_of(document), project, compose)
        say(f"wrote {target}; {file} is as it was")
    for line in _report(attachments, before, networks, project):
        tell(line)
    tell(f"now type:\n  {command}")
    return 0


def detach(file: Path, services: Sequence[str], output: Path | None, dry_run: bool) -> int:
    """Take the sidecars of services out of the override file, and remove the file when nothing is left in it.

    Raises:
        ConfigError: there is no such file, or one of the services has no sidecar in it.
        PillionError: the file cannot be written.
    """
    project = Project((file,))
    target = _output(project, output)
    document = parse(read_text(target), str(target))
    there = override.apps(document)
    faults = [f"{target} has no sidecar for {name}{nearest(name, there)}" for name in services if name not in there]
    if faults:
        raise ConfigError(faults)
    for name in dict.fromkeys(services):
        override.remove(document, name)
    tell = say_aside if dry_run else say
    files = [file] if not document else [file, target]
    if dry_run:
        say(text_of(document).rstrip() if document else f"# nothing would be left: {target} would be removed")
    elif document:
        _write(target, text_of(document), project, None)
        say(f"took {', '.join(services)} out of {target}")
    else:
        target.unlink()
        say(f"removed {target}: nothing was left in it")
    tell(f"now type:\n  {_compose(files)} up -d --remove-orphans")
    spools = " ".join(f"{name}-sidecar-spool" for name in dict.fromkeys(services))
    tell(f"the volumes with their last log lines stay until you remove them (docker volume rm); their names end in {spools}")
    return 0


def _look_around() -> tuple[list[Registry], set[str] | None]:
    """Return the registries that run here and the names of the networks; none and None where no engine answers: a file needs none."""
    try:
        with connected() as engine:
            return engine.registries(), engine.network_names()
    except PillionError:
        return [], None


def _output(project: Project, output: Path | None) -> Path:
    target = output or project.folder / OUTPUT
    if any(target.absolute() == file.absolute() for file in project.files):
        raise ConfigError([f"--output {target} is the compose file itself, which is never changed: name another"])
    return target


def _write(target: Path, text: str, project: Project, compose: Sequence[str] | None) -> None:
    """Put the text in the file's place in one step, after compose has taken it together with the others."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.yml")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
        if target.exists():
            shutil.copymode(target, draft)
        if compose:
            run_compose(compose, [*project.files, draft], "config", "--quiet")
        os.replace(draft, target)
    except OSError as exc:
        raise PillionError(f"{target} cannot be written: {exc}") from exc
    finally:
        draft.unlink(missing_ok=True)


def _report(attachments: Sequence[Attachment], before: Declared, networks: set[str] | None, project: Project) -> list[str]:
    """Return what was done, in plain words."""
    lines = [project.note] if project.note else []
    for one in attachments:
        verb = "brought up to date" if one.app in before.attached else "added"
        keys = ", ".join(f"{option} {text}" for option, text in one.settled.items())
        lines.append(f"{verb}: {one.sidecar} beside {one.app} ({keys})")
        names = [entry["name"] for entry in one.networks.values()]
        if one.app_networks:
            where = " ".join(names) or " ".join(one.app_networks)
            lines.append(f"  {one.app} joins the network {where}, where the registry is; its container is made anew once")
        missing = [name for name in names if networks is not None and name not in networks]
        lines += [f"  the network {name} is not there yet: start the registry first (scripts/up)" for name in missing]
        lines += [f"  {note}" for note in one.notes]
    return list(dict.fromkeys(lines))


def _up(project: Project, target: Path, attachments: Sequence[Attachment]) -> str:
    profiles = dict.fromkeys(name for one in attachments for name in one.body.get("profiles", ()))
    words = "".join(f" --profile {shlex.quote(name)}" for name in profiles)
    return f"{_compose([*project.files, target])}{words} up -d"


def _compose(files: Sequence[Path]) -> str:
    return " ".join(["docker compose", *(f"-f {shlex.quote(str(file))}" for file in files)])
