"""Why a consumer does or does not see providers of a service: findings in plain words, the likeliest first. Pure.

First what is wrong with the service itself, if it has no provider; then what keeps the consumer from being told; then what is only odd.
Each finding has a stable code, a sentence, what to do, and what it was found by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pillion_common.clock import rfc3339
from pillion_common.models import State
from pillion_common.names import is_address, parse_url
from pillion_registry.catalog import Catalog, Instance
from pillion_registry.events import Event
from pillion_registry.notifier import Standing
from pillion_registry.provider_set import EMPTY
from pillion_registry.refusals import Refusal
from pillion_registry.similar import similar
from pillion_registry.wire import Finding, Unreached, WhyView

FINE = "fine"
MAX_SHOWN = 20  # instances named in a finding
MAX_CONSUMERS = 200  # instances of the consumer that are looked at

# For services that cannot be reached from another host.
_LOOPBACK = ("127.", "localhost", "::1")


@dataclass(frozen=True)
class Evidence:
    """What the registry knows beside the catalogue.

    Attributes:
        standing: how things stand with a dependent, by its id.
        refusals: the newest refused registration of each name in question.
        last: the newest event of the service in question.
        unreached: what the sidecars of consumers, by their ids, could not connect to.
    """

    standing: Callable[[str], Standing | None]
    refusals: Mapping[str, Refusal]
    last: Event | None
    unreached: Mapping[str, tuple[Unreached, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Case:
    consumer: str
    service: str
    consumers: list[Instance]
    providers: list[Instance]
    catalog: Catalog
    evidence: Evidence
    up: list[Instance] = field(default_factory=list)

    @property
    def suspects(self) -> list[Instance]:
        """Return the providers that do not answer and are offered all the same."""
        return [instance for instance in self.providers if instance.suspect is not None]


def explain(consumer: str, service: str, catalog: Catalog, evidence: Evidence) -> WhyView:
    """Return the findings.

    Args:
        consumer: a service's name, or the id of one instance.
        service: the name of what it should see.
    """
    one = catalog.get(consumer)
    consumers = [one] if one else catalog.named(consumer)[:MAX_CONSUMERS]
    providers = catalog.named(service)
    up = [instance for instance in providers if instance.state is State.UP]
    case = _Case(consumer, service, consumers, providers, catalog, evidence, up)
    findings = [*_about_service(case), *_about_consumer(case), *_about_both(case)]
    tried = list(_about_the_way(case))
    if all(finding.warning for finding in findings):
        findings = [*tried, _fine(case), *findings]
    else:
        findings += tried
    return WhyView(consumer, service, len(providers), len(up), tuple(findings))


# The service.


def _about_service(case: _Case) -> Iterator[Finding]:
    if not case.providers:
        yield _not_registered(case)
    elif not case.up:
        yield from _none_up(case)
    if case.suspects:
        yield _kept_by_guard(case)


def _not_registered(case: _Case) -> Finding:
    name = case.service
    refusal = case.evidence.refusals.get(name)
    if refusal is not None:
        return _refused(name, refusal)
    meant = similar(name, case.catalog.names())
    if meant is not None:
        text = f"Nobody is registered as {name}, but somebody is as {meant}."
        return Finding("similar_name", text, f"Write the name alike on both sides: {meant} here, or {name} there.", similar=meant)
    last = case.evidence.last
    if last is not None:
        why = f": {last.reason}" if last.reason else ""
        text = f"No instance of {name} is registered any more; the last one was {last.kind} at {rfc3339(last.time_s)}{why}."
        return Finding("not_registered", text, f"Start {name}; its sidecar registers it again.", since=rfc3339(last.time_s))
    text = f"No instance of {name} was ever registered here."
    return Finding("not_registered", text, f"Start {name}, and put a sidecar beside it that knows this registry (PILLION_REGISTRY).")


def _refused(name: str, refusal: Refusal) -> Finding:
    when = rfc3339(refusal.time_s)
    if refusal.of_token:
        text = f"{name} wanted to register from {refusal.peer} at {when}, but its token was refused."
        do = "Give it the registry's own token file: the same PILLION_TOKEN_FILE on both sides."
        return Finding("token_refused", text, do, since=when, last_error=refusal.message)
    text = f"{name} wanted to register from {refusal.peer} at {when}, but its registration was refused."
    return Finding("registration_refused", text, "Correct what the last error names.", since=when, last_error=refusal.message)


def _none_up(case: _Case) -> Iterator[Finding]:
    """Yield why no instance is up: what most of them have first."""
    groups: dict[str, list[Instance]] = {}
    for instance in case.providers:
        groups.setdefault(_trouble(instance), []).append(instance)
    order = ("unchecked", "starting", "check_failing", "withdrawn_after_guard", "held_for_flapping", "draining", "hidden")
    for code in sorted(groups, key=lambda code: (-len(groups[code]), order.index(code))):
        yield _NONE_UP[code](case.service, groups[code])


def _trouble(instance: Instance) -> str:
    if instance.state is State.DRAINING:
        return "hidden" if instance.hidden_until_s is not None else "draining"
    if instance.held_until_s is not None:
        return "held_for_flapping"
    if instance.state is State.STARTING:
        return "unchecked" if instance.retained else "starting"
    return "withdrawn_after_guard" if instance.outlasted_guard else "check_failing"


def _unchecked(name: str, some: list[Instance]) -> Finding:
    text = f"{_of(name, some, 'was', 'were')} up before the registry restarted and {_one(some, 'has', 'have')} not been checked since."
    them = _it(some)
    do = f"Wait a moment: whoever knew {them} keeps {them}, new ones are told once a check has passed."
    return _of_instances("unchecked", text, do, some)


def _starting(name: str, some: list[Instance]) -> Finding:
    text = f"{_of(name, some, 'started', 'started')} at {_since(some)} and no check has passed yet."
    return _of_instances("starting", text, f"Wait until {name} answers its check; if it should by now, look at the last error.", some)


def _check_failing(name: str, some: list[Instance]) -> Finding:
    text = f"{_of(name, some, 'fails its', 'fail their')} check since {_since(some)}."
    return _of_instances("check_failing", text, f"Look at what the last error names, and at {name}'s own log.", some)


def _withdrawn_after_guard(name: str, some: list[Instance]) -> Finding:
    then = f"kept {_it(some)} for its time, and then {_one(some, 'it was', 'they were')} withdrawn"
    text = f"{_of(name, some, 'fell', 'fell')} silent with many others; the guard {then}."
    return _of_instances("withdrawn_after_guard", text, f"Look at the network between the registry and {name}: nobody refused.", some)


def _held_for_flapping(name: str, some: list[Instance]) -> Finding:
    until = rfc3339(max(one.held_until_s or 0.0 for one in some))
    held = _of(name, some, "answers, and is", "answer, and are")
    text = f"{held} held down until {until}, for {_one(some, 'it', 'they')} came and went too often."
    return _of_instances("held_for_flapping", text, f"Look why {name} comes and goes: GET /events?name={name}.", some)


def _kept_by_guard(case: _Case) -> Finding:
    some = case.suspects
    until = rfc3339(max(one.suspect_until_s or 0.0 for one in some))
    silent = _of(case.service, some, "does not", "do not")
    kept = f"{_one(some, 'is', 'are')} offered all the same until {until}: calls to {_it(some)} may fail"
    text = f"{silent} answer the registry, and {kept}."
    then = _one(some, "it is withdrawn if it is still silent", "those still silent are withdrawn")
    do = f"Look at the network between the registry and {_it(some)}; after that time {then}."
    ids = tuple(one.record.instance_id for one in some[:MAX_SHOWN])
    return Finding("kept_by_guard", text, do, last_error=some[0].suspect, instances=ids)


def _draining(name: str, some: list[Instance]) -> Finding:
    text = f"{_of(name, some, 'drains', 'drain')} since {_since(some)}: somebody withdrew {_it(some)}, or the end is near."
    return _of_instances("draining", text, "Start another one, or let it back: POST /services/{id}/undrain.", some)


def _hidden(name: str, some: list[Instance]) -> Finding:
    text = f"{_of(name, some, 'was', 'were')} withdrawn by an operator's hand for a while, at {_since(some)}."
    return _of_instances("withdrawn_by_hand", text, "Wait until the time is over, or end it: POST /services/{id}/undrain.", some)


_NONE_UP: dict[str, Callable[[str, list[Instance]], Finding]] = {
    "unchecked": _unchecked,
    "starting": _starting,
    "check_failing": _check_failing,
    "withdrawn_after_guard": _withdrawn_after_guard,
    "held_for_flapping": _held_for_flapping,
    "draining": _draining,
    "hidden": _hidden,
}


# The consumer.


def _about_consumer(case: _Case) -> Iterator[Finding]:
    if not case.consumers:
        yield _no_consumer(case)
        return
    without = [one for one in case.consumers if case.service not in one.record.registration.requires]
    if without:
        require = _one(without, f"it requires {case.service}, so it is", f"they require {case.service}, so they are")
        text = f"{_of(case.consumer, without, 'did', 'did')} not say that {require} not told of it."
        yield _of_instances("not_required", text, f"Add {case.service} to PILLION_REQUIRES (classic: RequiredServices).", without)
    yield from _untold(case, [one for one in case.consumers if one not in without])
    down = [one for one in case.consumers if one.state is State.DOWN]
    if down:
        may = _one(down, "what it knows may be old, and it may be gone", "what they know may be old, and they may be gone")
        text = f"{_of(case.consumer, down, 'is', 'are')} down since {_since(down)}: {may}."
        yield _of_instances("consumer_down", text, f"Look at what the last error names, and at {case.consumer}'s own log.", down)


def _no_consumer(case: _Case) -> Finding:
    refusal = case.evidence.refusals.get(case.consumer)
    if refusal is not None:
        return _refused(case.consumer, refusal)
    meant = similar(case.consumer, case.catalog.names())
    if meant is not None:
        text = f"Nobody is registered as {case.consumer}, but somebody is as {meant}."
        return Finding("similar_name", text, f"Ask for {meant}, or write the name alike.", similar=meant)
    text = f"{case.consumer} itself is not registered, so nobody tells it anything."
    return Finding("consumer_not_registered", text, f"Start {case.consumer} with a sidecar that knows this registry (PILLION_REGISTRY).")


def _untold(case: _Case, consumers: Iterable[Instance]) -> Iterator[Finding]:
    """Yield why consumers do not know what is true: the worst first."""
    truth = {one.record.url for one in case.up}
    failing: dict[str, list[tuple[Instance, Standing]]] = {}
    for one in consumers:
        standing = case.evidence.standing(one.record.instance_id)
        if standing is None:
            continue
        known = standing.known.sets.get(case.service, EMPTY)
        if standing.failing_since_s is not None:
            code = "token_refused" if standing.status in (401, 403) else "patch_unacknowledged"
            if not standing.status and (one.misses or one.state is not State.UP):
                code = "consumer_unreachable"
            failing.setdefault(code, []).append((one, standing))
        elif known is None or set(known.entries) != truth:
            failing.setdefault("stale_table", []).append((one, standing))
    for code in ("consumer_unreachable", "token_refused", "patch_unacknowledged", "stale_table"):
        if code in failing:
            yield _UNTOLD[code](case, failing[code])


_Untold = list[tuple[Instance, Standing]]
_Some = list[Instance] | _Untold


def _unreachable(case: _Case, some: _Untold) -> Finding:
    away = _of(case.consumer, some, "cannot", "cannot")
    text = f"{away} be reached by the registry since {_failing_since(some)}: neither checks nor news arrive."
    return _of_patches("consumer_unreachable", text, "See that its sidecar runs and that the registry reaches its peer listener.", some)


def _patch_token(case: _Case, some: _Untold) -> Finding:
    refusing = _of(case.consumer, some, "refuses", "refuse")
    text = f"{refusing} the registry's news for want of the right token since {_failing_since(some)}."
    return _of_patches("token_refused", text, "Give both sides the same PILLION_TOKEN_FILE, and restart the sidecar.", some)


def _unacknowledged(case: _Case, some: _Untold) -> Finding:
    tries = max(standing.tries for _, standing in some)
    silent = _of(case.consumer, some, "has", "have")
    times = "1 try" if tries == 1 else f"{tries} tries"
    text = f"{silent} not acknowledged the newest patch since {_failing_since(some)}, in {times}."
    return _of_patches("patch_unacknowledged", text, f"Look at {case.consumer}'s sidecar, or its update URL if it is a classic one.", some)


def _stale(case: _Case, some: _Untold) -> Finding:
    text = f"{_of(case.consumer, some, 'still has', 'still have')} an older table: the newest patch is on its way, or waits for a check."
    return _of_patches("stale_table", text, "Ask again in a moment; if it stays, the consumer takes long to answer.", some)


_UNTOLD: dict[str, Callable[[_Case, _Untold], Finding]] = {
    "consumer_unreachable": _unreachable,
    "token_refused": _patch_token,
    "patch_unacknowledged": _unacknowledged,
    "stale_table": _stale,
}


# Both.


def _about_both(case: _Case) -> Iterator[Finding]:
    needs = max((one.record.registration.need(case.service) for one in case.consumers), default=1)
    if case.up and len(case.up) < needs:
        text = f"{case.consumer} needs {needs} of {case.service}, and {len(case.up)} {_one(case.up, 'is', 'are')} up."
        others = [one for one in case.providers if one.state is not State.UP]
        yield _of_instances("too_few", text, f"Start more of {case.service}, or require fewer.", others)
    tried = {one.url for some in case.evidence.unreached.values() for one in some}
    local = [one for one in case.providers if one.record.url not in tried and _is_loopback(parse_url(one.record.url, "URL").host)]
    far = [one for one in case.consumers if not _is_loopback(one.record.registrant)]
    if local and far:
        registered = _of(case.service, local, "is", "are")
        text = f"{registered} registered at a loopback address, which {case.consumer} on another host cannot reach."
        it = _it(local)
        do = f"Set PILLION_ADVERTISE beside {it} to the address under which others reach {it}."
        yield _of_instances("address_not_reachable", text, do, local, warning=True)


def _about_the_way(case: _Case) -> Iterator[Finding]:
    """Yield what the consumers' own sidecars could not connect to: a warning, for the app may go another way."""
    unreached = case.evidence.unreached
    errors = {one.url: one.error for some in unreached.values() for one in some}
    far = [one for one in case.up if one.record.url in errors]
    if not far:
        return
    near = [one for one in case.consumers if unreached.get(one.record.instance_id)]
    which = "the only instance" if len(case.up) == 1 else f"{len(far)} of the {len(case.up)} instances"
    up, tried = _one(case.up, "is", "are"), _one(near, "its sidecar", "their sidecars")
    text = f"{_of(case.consumer, near, 'cannot', 'cannot')} connect to {which} of {case.service} that {up} up: {tried} tried."
    do = f"See that {case.service} listens at that address, not on loopback alone, and that nothing between them keeps it away."
    ids = tuple(one.record.instance_id for one in far[:MAX_SHOWN])
    yield Finding("address_not_reachable", text, do, True, last_error=errors[far[0].record.url], instances=ids)


def _fine(case: _Case) -> Finding:
    told = [standing.told_s for one in case.consumers if (standing := case.evidence.standing(one.record.instance_id)) and standing.told_s]
    which = "the only provider" if len(case.up) == 1 else f"all {len(case.up)} providers"
    text = f"{case.consumer} has acknowledged {which} of {case.service}."
    since = rfc3339(max(told)) if told else None
    return Finding(FINE, text, "If it does not use them, look at the consumer: GET /providers at its sidecar.", since=since)


def _is_loopback(host: str) -> bool:
    return host.startswith(_LOOPBACK) and (is_address(host) or host == "localhost")


# Words.


def _of(name: str, some: _Some, one: str, many: str) -> str:
    """Return how many of a service, and the verb: `1 instance of Db is`, `3 instances of Db are`."""
    return f"1 instance of {name} {one}" if len(some) == 1 else f"{len(some)} instances of {name} {many}"


def _one(some: _Some, one: str, many: str) -> str:
    return one if len(some) == 1 else many


def _it(some: _Some) -> str:
    return _one(some, "it", "them")


def _since(some: list[Instance]) -> str:
    return rfc3339(min(one.since_s for one in some))


def _failing_since(some: _Untold) -> str:
    return rfc3339(min(standing.failing_since_s or 0.0 for _, standing in some))


def _of_instances(code: str, text: str, do: str, some: list[Instance], warning: bool = False) -> Finding:
    ids = tuple(one.record.instance_id for one in some[:MAX_SHOWN])
    error = next((one.reason for one in some if one.reason), None)
    return Finding(code, text, do, warning, _since(some) if some else None, error, ids)


def _of_patches(code: str, text: str, do: str, some: _Untold) -> Finding:
    ids = tuple(one.record.instance_id for one, _ in some[:MAX_SHOWN])
    starts = [start for _, one in some if (start := one.failing_since_s or one.sending_since_s)]
    error = next((standing.fault for _, standing in some if standing.failing_since_s is not None and standing.fault), None)
    return Finding(code, text, do, since=rfc3339(min(starts)) if starts else None, last_error=error, instances=ids)
