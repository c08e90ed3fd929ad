"""The one table of what the registry answers: paths, methods, parameters, bodies, statuses. Tornado's routes and /openapi.json come of it.

`Method("get", "List instances", answers={200: InstanceList})`; statuses that every method may answer are added by documents.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pillion_common import models
from pillion_registry import wire
from pillion_registry.handlers import figures, pages, past, reports, streams, writes
from pillion_registry.handlers.base import RegistryHandler

JSON, TEXT, EVENTS, HTML = "application/json", "text/plain", "text/event-stream", "text/html"

Schema = dict[str, Any]
_STATE: Schema = {"type": "string", "enum": [state.value for state in models.State]}
_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_TEXT: Schema = {"type": "string"}


class Parameter(NamedTuple):
    """One of a query or of the head."""

    name: str
    schema: Schema
    what: str
    required: bool = False
    within: str = "query"
    many: bool = False


class Method(NamedTuple):
    """What one method of a path takes and answers.

    Attributes:
        answers: a model, or the media type of what is no JSON, or both (as a tuple), by status.
        body: a model, or a media type.
    """

    name: str
    summary: str
    answers: dict[int, Any]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_optional: bool = False
    changes: bool = False


class Path(NamedTuple):
    """A path, as OpenAPI writes it, its handler, and its methods.

    Attributes:
        handler: None for what is answered elsewhere: the document of this table, and what every program answers.
    """

    path: str
    handler: type[RegistryHandler] | None
    methods: tuple[Method, ...]


_BLOCKING = (
    Parameter("revision", _WHOLE, "answer as soon as the catalogue is newer than this revision"),
    Parameter("wait", {"type": "number", "minimum": 0}, "at most so many seconds, 60 at most; then answer with the same revision"),
    Parameter("If-None-Match", _TEXT, "the ETag of an earlier answer: 304 if nothing has changed", within="header"),
)
_NAME = Parameter("name", _TEXT, "only this service")
_FILTERS = (
    Parameter("state", _STATE, "only instances in this state"),
    Parameter("tag", _TEXT, "only instances with this tag"),
    Parameter("zone", _TEXT, "only instances in this zone"),
)
_LAST = Parameter("Last-Event-ID", _TEXT, "go on after this event", within="header")
_BY = Parameter("X-Pillion-By", _TEXT, "who does it, for the journal", within="header")
_FAULT = models.Fault

PATHS: tuple[Path, ...] = (
    Path(
        "/services",
        writes.ServicesHandler,
        (
            Method(
                "get", "List instances", {200: models.InstanceList, 304: None, 400: _FAULT, 503: _FAULT}, (_NAME, *_FILTERS, *_BLOCKING)
            ),
            Method(
                "post",
                "Register an instance; answered once it is stored",
                {200: models.Registered, 400: _FAULT, 409: _FAULT, 503: _FAULT, 507: _FAULT},
                body=models.Registration,
                changes=True,
            ),
            Method(
                "delete",
                "Remove every registration at the URL in the body",
                {200: wire.Removed, 400: _FAULT, 404: _FAULT, 503: _FAULT, 507: _FAULT},
                body=TEXT,
                changes=True,
            ),
        ),
    ),
    Path(
        "/services/{name}",
        past.ServiceHandler,
        (
            Method(
                "get",
                "List the instances of one service, now or at a moment",
                {200: (models.InstanceList, wire.PastList), 304: None, 400: _FAULT, 404: _FAULT, 410: _FAULT, 503: _FAULT},
                (Parameter("at", _TEXT, "a moment of the past: RFC 3339, or seconds since 1970"), *_FILTERS, *_BLOCKING),
            ),
        ),
    ),
    *(
        Path(
            f"/services/{{id}}/{what}",
            handler,
            (
                Method(
                    "post",
                    summary,
                    {200: answer, 400: _FAULT, 404: _FAULT, 503: _FAULT, 507: _FAULT, **more},
                    (_BY,),
                    body,
                    optional,
                    changes=True,
                ),
            ),
        )
        for what, handler, summary, answer, body, optional, more in (
            ("state", writes.StateHandler, "Report up or down for oneself", models.InstanceView, models.StateReport, False, {}),
            ("drain", writes.DrainHandler, "Withdraw an instance that works on", models.Drained, models.DrainRequest, True, {}),
            ("undrain", writes.UndrainHandler, "Let it come back", models.InstanceView, wire.OperatorRequest, True, {}),
            ("hide", writes.HideHandler, "Withdraw it for some seconds", models.InstanceView, wire.HideRequest, False, {409: _FAULT}),
            (
                *("forget", writes.ForgetHandler, "Remove one instance", models.InstanceView, wire.OperatorRequest, True),
                {},
            ),
        )
    ),
    Path(
        "/watch",
        streams.WatchHandler,
        (
            Method(
                "get",
                "Stream a snapshot, then each change; ids are revisions",
                {200: EVENTS, 400: _FAULT, 503: _FAULT},
                (Parameter("name", {"type": "array", "items": _TEXT, "maxItems": 100}, "only these services", many=True), _LAST),
            ),
        ),
    ),
    Path(
        "/events",
        past.EventsHandler,
        (
            Method(
                "get",
                "Tell what happened: as a list, or as a stream to those who accept one",
                {200: (wire.EventList, EVENTS), 400: _FAULT, 503: _FAULT},
                (
                    Parameter("since", _TEXT, "after the event with this number, or from this time on; else the newest"),
                    _NAME,
                    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "most events; 100 if not given"),
                    _LAST,
                ),
            ),
        ),
    ),
    Path("/graph", reports.GraphHandler, (Method("get", "Tell who requires whom", {200: wire.GraphView, 400: _FAULT}, (_NAME,)),)),
    Path(
        "/why",
        reports.WhyHandler,
        (
            Method(
                "get",
                "Tell why a consumer does or does not see a service",
                {200: wire.WhyView, 400: _FAULT, 503: _FAULT},
                (
                    Parameter("consumer", {"type": "string", "minLength": 1}, "a service's name, or an instance's id", required=True),
                    Parameter("service", {"type": "string", "minLength": 1}, "the name of what it should see", required=True),
                ),
            ),
        ),
    ),
    Path("/metrics", figures.MetricsHandler, (Method("get", "Tell the registry's figures for Prometheus", {200: TEXT}),)),
    Path("/openapi.json", None, (Method("get", "Tell what this registry answers", {200: JSON}),)),
    Path("/", pages.PageHandler, (Method("get", "Show the dashboard", {200: HTML}),)),
    Path("/livez", None, (Method("get", "Tell that the process is alive", {200: JSON}),)),
    Path("/readyz", None, (Method("get", "Tell whether it is ready, check by check", {200: JSON, 503: JSON}),)),
    Path("/healthz", None, (Method("get", "The same as /readyz", {200: JSON, 503: JSON}),)),
    Path("/version", None, (Method("get", "Tell which Pillion this is", {200: JSON}),)),
)
