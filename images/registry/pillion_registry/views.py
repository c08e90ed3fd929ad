"""An instance as it is shown to people and programs. Pure."""

from __future__ import annotations

import msgspec

from pillion_common.clock import rfc3339
from pillion_common.models import InstanceView, State
from pillion_registry.catalog import Instance, Record
from pillion_registry.events import PRESENT, Change, Event
from pillion_registry.wire import EventView


def view(instance: Instance) -> InstanceView:
    """Return how an instance is shown."""
    shown = _show(instance.record, instance.state, instance.since_s, instance.reason)
    if instance.suspect is None and instance.held_until_s is None:
        return shown
    suspect_until, held_until = (rfc3339(time_s) if time_s else None for time_s in (instance.suspect_until_s, instance.held_until_s))
    return msgspec.structs.replace(shown, suspect=instance.suspect, suspect_until=suspect_until, held_until=held_until)


def present(instance: Instance, revision: int) -> Event:
    """Return an instance as a snapshot has it. What was up before a restart is offered still to those who know it."""
    record = instance.record
    state = State.UP if instance.retained else instance.state
    return Event(0, instance.since_s, revision, PRESENT, record.name, record.instance_id, record.url, state, None, instance.reason)


def view_of_change(change: Change) -> InstanceView:
    """Return how an instance was to be seen right after a change; if it has gone, as it was before."""
    event, record = change
    return _show(record, State(event.state or event.before or State.DOWN), event.time_s, event.reason)


def view_of_event(event: Event) -> EventView:
    """Return how an event is shown. What concerns the registry itself has no service."""
    return EventView(
        id=event.number,
        time=rfc3339(event.time_s),
        revision=event.revision,
        event=event.kind,
        service=event.service or None,
        instance_id=event.instance_id or None,
        service_url=event.url or None,
        state=event.state,
        before=event.before,
        reason=event.reason,
        by=event.by,
    )


def _show(record: Record, state: State, since_s: float, reason: str | None) -> InstanceView:
    given = record.registration
    return InstanceView(
        instance_id=record.instance_id,
        service_name=given.service_name,
        service_url=given.service_url,
        state=state,
        since=rfc3339(since_s),
        registered=rfc3339(record.registered_s),
        reason=reason,
        required_services=given.requires,
        needs=given.needs,
        version=given.version,
        zone=given.zone,
        weight=given.weight or 1,
        tags=given.tags,
        metadata=given.metadata,
        protocol=given.protocol or 1,
    )
