"""The override file that `pillion attach compose` writes: adds sidecars to it and takes them out, and leaves all else as the user has it.

Works on what `compose_file.parse` returned, which keeps comments and order. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ruamel.yaml.comments import CommentedMap

from pillion_attach.compose_facts import as_mapping
from pillion_attach.compose_plan import Attachment, Declared, sidecar_name
from pillion_common import keys

OWN_ENV = ("PILLION_TOKEN_FILE",)  # said or not said by each run
_HEAD = "Sidecars for {file}, written by `pillion attach compose`. What you change or add here stays, but for lists. Use it by:"


def empty(file: str, command: str) -> CommentedMap:
    """Return a new override file.

    Args:
        file: the name of the file it goes with.
        command: how to start both.
    """
    document = CommentedMap()
    document.yaml_set_start_comment(f"{_HEAD.format(file=file)}\n  {command}\n")
    return document


def declared(document: Mapping[str, Any]) -> Declared:
    """Return what earlier runs have written."""
    attached = {app: keys.from_environ(as_mapping(body.get("environment"))) for app, (_, body) in _sidecars(document).items()}
    return Declared(_names(document.get("networks")), _names(document.get("volumes")), attached)


def add(document: CommentedMap, attachment: Attachment) -> None:
    """Add a sidecar, or bring one up to date that is there."""
    services = _section(document, "services")
    there = services.get(attachment.sidecar)
    if isinstance(there, Mapping):
        for name in ("environment", "labels"):
            _spell_as_mapping(there, name)
        for name in OWN_ENV:
            (there.get("environment") or {}).pop(name, None)
    _leave_networks(document, attachment.app, keep=attachment.app_networks)
    if attachment.app_networks:
        app = _section(services, attachment.app)
        _spell_as_mapping(app, "networks")
        _set(_section(app, "networks"), attachment.app_networks)
    _set(services, {attachment.sidecar: attachment.body})
    for section in ("networks", "volumes"):
        if getattr(attachment, section):
            _set(_section(document, section), getattr(attachment, section))
    _prune(document)


def remove(document: CommentedMap, app: str) -> bool:
    """Take an app's sidecar out.

    Returns:
        Whether it was there.
    """
    found = _sidecars(document).get(app)
    if found is None:
        return False
    del document["services"][found[0]]
    _leave_networks(document, app)
    _prune(document)
    return True


def apps(document: Mapping[str, Any]) -> list[str]:
    """Return the services that have a sidecar in this file."""
    return list(_sidecars(document))


def _sidecars(document: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return app -> (its sidecar's service, that one's body)."""
    found = {}
    for name, body in (document.get("services") or {}).items():
        if isinstance(body, Mapping):
            app = as_mapping(body.get("labels")).get(keys.ATTACHED_TO, "")
            mode = str(body.get("network_mode") or "").removeprefix("service:")
            if app or name == sidecar_name(mode):
                found[app or mode] = (name, body)
    return found


def _leave_networks(document: CommentedMap, app: str, keep: Collection[str] = ()) -> None:
    """Take from the app's entry the networks that this file declares, but for some, and the entry itself if nothing else is in it."""
    services = document.get("services") or {}
    body = services.get(app)
    if not isinstance(body, CommentedMap) or not body.get("networks"):
        return
    _spell_as_mapping(body, "networks")
    networks = body["networks"]
    ours = [key for key in networks if key in (document.get("networks") or {}) and key not in keep]
    for key in ours:
        del networks[key]
    if ours and set(networks) <= {"default"} and not networks.get("default"):
        del body["networks"]
        if not body:
            del services[app]


def _prune(document: CommentedMap) -> None:
    """Remove what nothing in this file uses any more, of the kind that this module declares."""
    services = document.get("services") or {}
    bodies = [body for body in services.values() if isinstance(body, Mapping)]
    used = {
        "networks": {str(key) for body in bodies for key in body.get("networks") or ()},
        "volumes": {
            str(entry).partition(":")[0] for body in bodies for entry in body.get("volumes") or () if not isinstance(entry, Mapping)
        },
    }
    for section, names in used.items():
        for key in [key for key in document.get(section) or {} if key not in names and _is_ours(key)]:
            del document[section][key]
    for section in ("services", "networks", "volumes"):
        if section in document and not document[section]:
            del document[section]


def _is_ours(key: str) -> bool:
    return key.startswith("pillion") or key.endswith("-sidecar-spool")


def _section(parent: CommentedMap, key: str) -> Any:
    if not isinstance(parent.get(key), Mapping):
        parent[key] = CommentedMap()
    return parent[key]


def _set(into: Any, new: Mapping[str, Any]) -> None:
    """Set values deep inside; what is equal already is left as it is written."""
    for key, value in new.items():
        if isinstance(value, Mapping):
            there = into.get(key)
            if not isinstance(there, Mapping):
                into[key] = there = CommentedMap()
            _set(there, value)
        elif into.get(key) != value:
            into[key] = value


def _spell_as_mapping(body: Any, key: str) -> None:
    """Turn `[A=1]` or `[network]` into a mapping, so that single values can be set."""
    if isinstance(body.get(key), list):
        items = [str(item).partition("=") for item in body[key]]
        body[key] = CommentedMap((name, value if mark else None) for name, mark, value in items)


def _names(section: Any) -> dict[str, str]:
    return {str(key): str((value or {}).get("name") or "") for key, value in (section or {}).items()}
