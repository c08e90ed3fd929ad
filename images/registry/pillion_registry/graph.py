"""Who requires whom: what is missing, what goes in a circle, and who is hurt if a service stops. Pure.

A requirement that needs nobody (Needs 0) is optional: it is shown, but nothing is missing without it and nobody is hurt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pillion_common.models import State
from pillion_registry.catalog import Instance
from pillion_registry.similar import similar
from pillion_registry.wire import GraphView, Missing, Requirement, ServiceNode

MAX_IMPACT = 300  # services up to which everybody's impact is told; beyond, only of the one asked for


class _Service(NamedTuple):
    instances: int
    up: int
    requires: dict[str, int]


def graph(instances: Iterable[Instance], revision: int, name: str | None = None) -> GraphView:
    """Return the graph of all services, those that are only required among them.

    Args:
        instances: all of them.
        name: show this service alone, with who is hurt if it stops. Cycles and what is missing are of all.
    """
    services = _services(instances)
    up = {one: service.up for one, service in services.items()}
    hurt_by = _reverse(services, optional=False)
    required_by = _reverse(services, optional=True)
    everything = sorted({*services, *required_by})
    shown = [one for one in everything if name in (None, one)]
    nodes = []
    for one in shown:
        service = services.get(one, _Service(0, 0, {}))
        requires = tuple(Requirement(other, need, up.get(other, 0), up.get(other, 0) >= need) for other, need in service.requires.items())
        impact = tuple(_reach(one, hurt_by)) if name is not None or len(everything) <= MAX_IMPACT else None
        nodes.append(ServiceNode(one, service.instances, service.up, requires, tuple(sorted(required_by.get(one, ()))), impact))
    return GraphView(revision, tuple(nodes), tuple(_missing(services, hurt_by)), tuple(_cycles(services)))


def _services(instances: Iterable[Instance]) -> dict[str, _Service]:
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    requires: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for instance in instances:
        counts[instance.name][0] += 1
        counts[instance.name][1] += instance.state is State.UP
        given = instance.record.registration
        for other in given.requires:
            needed = requires[instance.name]
            needed[other] = max(needed.get(other, 0), given.need(other))
    return {name: _Service(all_of_it, up, requires[name]) for name, (all_of_it, up) in counts.items()}


def _reverse(services: Mapping[str, _Service], optional: bool) -> dict[str, set[str]]:
    back: defaultdict[str, set[str]] = defaultdict(set)
    for name, service in services.items():
        for other, need in service.requires.items():
            if need or optional:
                back[other].add(name)
    return back


def _reach(name: str, ways: Mapping[str, set[str]], within: set[str] | None = None) -> list[str]:
    """Return what can be reached, directly or through others, in the order of names; not the service itself."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for other in ways.get(todo.pop(), ()):
            if other not in found and (within is None or other in within):
                found.add(other)
                todo.append(other)
    return sorted(found - {name})


def _missing(services: Mapping[str, _Service], hurt_by: Mapping[str, set[str]]) -> Iterable[Missing]:
    for name in sorted(hurt_by):
        up = services[name].up if name in services else 0
        need = max(services[one].requires[name] for one in hurt_by[name])
        if up < need:
            short = sorted(one for one in hurt_by[name] if services[one].requires[name] > up)
            meant = None if name in services else similar(name, services)
            yield Missing(name, need, up, name in services, tuple(short), meant)


def _cycles(services: Mapping[str, _Service]) -> Iterable[tuple[str, ...]]:
    """Yield the groups of services that wait for each other: of which each can be reached from each. Optional ones are left out."""
    forth = {name: {other for other, need in one.requires.items() if need and other in services} for name, one in services.items()}
    back = {name: {one for one in others if one in forth} for name, others in _reverse(services, optional=False).items() if name in forth}
    left = _in_circles(forth, back)
    for name in sorted(left):
        if name in left:
            group = {name, *_reach(name, forth, left)} & {name, *_reach(name, back, left)}
            left -= group
            if len(group) > 1 or name in forth[name]:
                yield tuple(sorted(group))


def _in_circles(forth: Mapping[str, set[str]], back: Mapping[str, set[str]]) -> set[str]:
    """Return those that are in a circle or between two: others are taken away, ends first, which leaves most systems with nothing."""
    left = set(forth)
    for to, fro in ((forth, back), (back, forth)):
        count = {name: len(to.get(name, set()) & left) for name in left}
        ends = [name for name, ways in count.items() if not ways]
        while ends:
            name = ends.pop()
            left.discard(name)
            for other in fro.get(name, ()):
                if other in left:
                    count[other] -= 1
                    if not count[other]:
                        ends.append(other)
    return left
