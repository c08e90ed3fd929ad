"""The shapes that only the registry and those who look at it exchange. Times are RFC 3339 UTC."""

from __future__ import annotations

import msgspec

from pillion_common.models import InstanceView, Model


class Removed(Model, frozen=True, omit_defaults=False):
    """The answer to DELETE /services: how many registrations there were."""

    removed: int


class ChangeView(Model, frozen=True, omit_defaults=False):
    """The data of a `change` event of GET /watch. If the instance has gone, it is shown as it was last."""

    revision: int
    epoch: str
    change: str
    gone: bool
    instance: InstanceView


class EventView(Model, frozen=True, omit_defaults=False):
    """One entry of the journal. `state` is the one after it; null when the instance is gone."""

    id: int
    time: str
    revision: int
    event: str
    service: str | None
    instance_id: str | None
    service_url: str | None
    state: str | None
    before: str | None
    reason: str | None
    by: str | None


class EventList(Model, frozen=True, omit_defaults=False):
    """The answer to GET /events, oldest first. `next` is the `since` to go on with; nothing is known from before `known_from`."""

    known_from: str
    next: int
    events: tuple[EventView, ...]


class PastInstance(Model, frozen=True, omit_defaults=False):
    """An instance as it was."""

    instance_id: str
    service_url: str
    state: str
    since: str
    reason: str | None


class PastList(Model, frozen=True, omit_defaults=False):
    """The answer to GET /services/{name}?at=TIME: `providers` are the URLs that were offered then."""

    name: str
    at: str
    known_from: str
    providers: tuple[str, ...]
    instances: tuple[PastInstance, ...]


class OperatorRequest(Model, frozen=True):
    """The body of POST /services/{id}/undrain and /forget; it may be empty."""

    reason: str | None = None
    by: str | None = None


class HideRequest(Model, frozen=True):
    """The body of POST /services/{id}/hide."""

    seconds: float
    reason: str | None = None
    by: str | None = None


class Requirement(Model, frozen=True, omit_defaults=False):
    """What a service requires: `needs` of them (0: it can do without), `up` are there."""

    name: str
    needs: int
    up: int
    met: bool


class ServiceNode(Model, frozen=True, omit_defaults=False):
    """A service in the graph. `impact` is who is hurt if it stops, directly or through others; null if it was not computed."""

    name: str
    instances: int
    up: int
    requires: tuple[Requirement, ...]
    required_by: tuple[str, ...]
    impact: tuple[str, ...] | None


class Missing(Model, frozen=True, omit_defaults=False):
    """A service of which there is not enough; `similar` is a registered name that may be meant."""

    name: str
    needs: int
    up: int
    registered: bool
    required_by: tuple[str, ...]
    similar: str | None


class GraphView(Model, frozen=True, omit_defaults=False):
    """The answer to GET /graph. Each cycle is a group of services that wait for each other."""

    revision: int
    services: tuple[ServiceNode, ...]
    missing: tuple[Missing, ...]
    cycles: tuple[tuple[str, ...], ...]


class Finding(Model, frozen=True, omit_defaults=False):
    """One reason why a consumer does or does not see a service. A `warning` may or may not be the cause."""

    code: str
    text: str
    do: str
    warning: bool = False
    since: str | None = None
    last_error: str | None = None
    instances: tuple[str, ...] = ()
    similar: str | None = None


class WhyView(Model, frozen=True, omit_defaults=False):
    """The answer to GET /why: the likeliest finding first. `registered` and `up` count the service's instances."""

    consumer: str
    service: str
    registered: int
    up: int
    findings: tuple[Finding, ...]


class ReachRequest(Model, frozen=True):
    """What a consumer's sidecar is asked with POST /reach: which of these providers' URLs, of those it knows, take no connection."""

    service: str
    urls: tuple[str, ...] = msgspec.field(name="URLs")


class Unreached(Model, frozen=True):
    """A provider's URL at which a consumer's sidecar could not connect, and why."""

    url: str
    error: str


class ReachAnswer(Model, frozen=True):
    """The answer of a sidecar to POST /reach."""

    unreached: tuple[Unreached, ...] = ()
