"""`GET /openapi.json`, made of the table of routes (OpenAPI 3.1)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec

from pillion_common import __version__, models
from pillion_common.models import Fault, Model
from pillion_registry.handlers.base import RegistryHandler
from pillion_registry.handlers.routes import PATHS, Method, Parameter
from pillion_registry.registry import MAX_DRAIN_S, MAX_HIDE_S

_REFERENCE = "#/components/schemas/{name}"
# What the server itself may answer to anybody, whatever the path.
_EVERYWHERE = {405: "the path has no such method", 413: "the body is too large", 431: "the head is too large"}
_TOKEN = {401: "no token where one is needed", 403: "a token that does not fit"}
_WORDS = {200: "done", 304: "nothing has changed", 400: "what was sent is not valid", 404: "not known", 409: "does not fit what is known"}
_WORDS |= {410: "longer ago than the journal knows", 503: "not now; try again later", 507: "the disk is full"}


_NAME = {"pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"}
_URL = {"format": "uri", "maxLength": 2048, "examples": ["http://127.0.0.1:6000"]}
# What check_registration and the use cases say beyond the types.
_BOUNDS: dict[str, dict[str, dict[str, Any]]] = {
    "Registration": {
        "ServiceName": _NAME | {"examples": ["GradingService"]},
        "ServiceURL": _URL,
        "HeartbeatURL": _URL | {"description": "required: an instance that nobody can check is never offered"},
        "ServiceUpdateURL": _URL | {"description": "required with RequiredServices"},
        "InstanceID": _NAME,
        "RequiredServices": {"items": {"type": "string", **_NAME}, "maxItems": models.MAX_REQUIRED},
        "Tags": {"maxItems": models.MAX_TAGS},
        "Metadata": {"maxProperties": models.MAX_METADATA},
        "Weight": {"minimum": 1, "maximum": 1000},
        "Protocol": {"minimum": 1, "maximum": 1000},
        "Incarnation": {"minimum": 0, "maximum": 2**62},
        "Needs": {"description": "how many of each required service are needed; 1 if not said, 0: it can do without"},
    },
    "DrainRequest": {"Timeout": {"minimum": 0, "maximum": MAX_DRAIN_S}},
    "HideRequest": {"Seconds": {"exclusiveMinimum": 0, "maximum": MAX_HIDE_S}},
}


class OpenApiHandler(RegistryHandler):
    """`GET /openapi.json`."""

    def get(self) -> None:
        """Answer with the document."""
        self.write_json(document())


@lru_cache(1)
def document() -> bytes:
    """Return the document as JSON."""
    shapes: set[type[Model]] = {Fault}
    paths = {one.path: {method.name: _operation(one.path, method, shapes) for method in one.methods} for one in PATHS}
    _, schemas = msgspec.json.schema_components(sorted(shapes, key=lambda model: model.__name__), ref_template=_REFERENCE)
    for name, bounds in _BOUNDS.items():
        for key, bound in bounds.items():
            _narrow(schemas[name]["properties"][key], bound)
    about = {
        "title": "Pillion registry",
        "version": __version__,
        "description": "Who is there, who is ready, who needs whom, and why somebody is not seen. Times are RFC 3339 UTC.",
    }
    security = {"token": {"type": "http", "scheme": "bearer"}}
    told = {"openapi": "3.1.0", "info": about, "paths": paths, "components": {"schemas": schemas, "securitySchemes": security}}
    return json.dumps(told, indent=1).encode() + b"\n"


def _narrow(schema: dict[str, Any], bound: dict[str, Any]) -> None:
    """Add to a key's schema what its type does not say; where null is possible too, to the other."""
    (next(one for one in schema["anyOf"] if one.get("type") != "null") if "anyOf" in schema else schema).update(bound)


def _operation(path: str, method: Method, shapes: set[type[Model]]) -> dict[str, Any]:
    parameters = [_parameter(one) for one in method.parameters]
    for name in ("name", "id"):
        if f"{{{name}}}" in path:
            schema = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
            parameters.insert(0, {"name": name, "in": "path", "required": True, "schema": schema})
    statuses = {status: _answer(status, answer, shapes) for status, answer in method.answers.items()}
    for status, words in {**_EVERYWHERE, **(_TOKEN if method.changes else {})}.items():
        statuses.setdefault(status, {"description": words, "content": _content(Fault, shapes)})
    told: dict[str, Any] = {"summary": method.summary, "operationId": _operation_id(path, method)}
    if parameters:
        told["parameters"] = parameters
    if method.body is not None:
        told["requestBody"] = {"required": not method.body_optional, "content": _content(method.body, shapes)}
    if method.changes:
        told["security"] = [{"token": []}, {}]  # networks can be exempt
    told["responses"] = {str(status): statuses[status] for status in sorted(statuses)}
    return told


def _operation_id(path: str, method: Method) -> str:
    words = [word.strip("{}") for word in path.replace(".", "/").split("/") if word]
    return "_".join([method.name, *words]) if words else f"{method.name}_dashboard"


def _parameter(one: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "in": one.within, "required": one.required, "description": one.what, "schema": one.schema}
    return told | ({"style": "form", "explode": True} if one.many else {})


def _answer(status: int, answer: Any, shapes: set[type[Model]]) -> dict[str, Any]:
    told: dict[str, Any] = {"description": _WORDS[status]}
    return told if answer is None else told | {"content": _content(answer, shapes)}


def _content(what: Any, shapes: set[type[Model]]) -> dict[str, Any]:
    """Return the content of media types and models: several models are one or the other."""
    some = what if isinstance(what, tuple) else (what,)
    found = [one for one in some if not isinstance(one, str)]
    shapes.update(found)
    references = [{"$ref": _REFERENCE.format(name=one.__name__)} for one in found]
    kinds = [one for one in some if isinstance(one, str)]
    content: dict[str, Any] = {kind: {"schema": {} if kind == "application/json" else {"type": "string"}} for kind in kinds}
    if references:
        content["application/json"] = {"schema": references[0] if len(references) == 1 else {"anyOf": references}}
    return content
