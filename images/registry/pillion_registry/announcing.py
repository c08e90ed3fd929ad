"""Records what became of instances, and tells those whom it concerns: the journal, the registry's own log, the dependents."""

from __future__ import annotations

from collections.abc import Iterable

from pillion_common.logs import EventLog
from pillion_common.models import State
from pillion_registry import events
from pillion_registry.catalog import Transition
from pillion_registry.events import Events
from pillion_registry.notifier import Notifier

_log = EventLog("registry")


def announce(
    transitions: Iterable[Transition], journal: Events, notifier: Notifier, kind: str | None = None, by: str | None = None
) -> None:
    """Record transitions, and tell of them.

    Args:
        kind: the event's, where the state after it does not say it all.
        by: who asked for it.
    """
    names = []
    for transition in transitions:
        record = transition.instance.record
        name, url = record.name, record.url
        names.append(name)
        what = transition.after.value if transition.after else "gone"
        # What goes because something else came.
        replaced = transition.after is None and kind in (events.REGISTERED, events.RENEWED)
        journal.record(transition, events.REPLACED if replaced else kind or what, by)
        if transition.after is State.DOWN:
            notifier.release(record.instance_id)
        if transition.before is not transition.after:
            reason = f": {transition.reason}" if transition.reason else ""
            _log.info(f"instance_{what}", f"{name} at {url} is {what}{reason}", service=name, instance=record.instance_id, url=url)
        else:
            again = f"{name} at {url} registered again"
            _log.debug("instance_registered_again", again, service=name, instance=record.instance_id, url=url)
    notifier.changed(names)
