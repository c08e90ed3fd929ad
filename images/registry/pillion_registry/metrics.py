"""The registry's own figures, as Prometheus reads them (text format 0.0.4)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pillion_common.models import State
from pillion_registry.guard import WHOLE
from pillion_registry.registry import Registry

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """One metric and its values by labels. No label value needs an escape."""

    name: str
    kind: str
    help: str
    values: dict[str, float]


def exposition(registry: Registry) -> bytes:
    """Return all figures."""
    lines = []
    for metric in _metrics(registry):
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        lines += [f"{metric.name}{labels} {value:.17g}" for labels, value in metric.values.items()]
    return ("\n".join(lines) + "\n").encode()


def _metrics(registry: Registry) -> Iterator[Metric]:
    yield from _of_the_catalogue(registry)
    yield from _of_work(registry)
    yield from _of_doubt(registry)
    yield from _of_sharing(registry)
    yield from _of_readers(registry)


def _of_the_catalogue(registry: Registry) -> Iterator[Metric]:
    states = Counter(instance.state for instance in registry.catalog)
    by_state = {f'{{state="{state.value}"}}': float(states[state]) for state in State}
    yield Metric("pillion_registry_instances", "gauge", "Instances by state.", by_state)
    names = {instance.name for instance in registry.catalog}
    yield Metric("pillion_registry_services", "gauge", "Names with at least one instance.", {"": len(names)})
    yield Metric("pillion_registry_revision", "gauge", "Revision of the catalogue.", {"": registry.catalog.revision})


def _of_work(registry: Registry) -> Iterator[Metric]:
    prober, notifier, lag = registry.prober, registry.notifier, registry.lag
    checks = {f'{{verdict="{verdict.value}"}}': float(count) for verdict, count in prober.checks.items()}
    yield Metric("pillion_registry_checks_total", "counter", "Heartbeats asked, by what came of them.", checks)
    yield Metric("pillion_registry_patches_sent_total", "counter", "Patches sent to dependents.", {"": notifier.sent})
    yield Metric("pillion_registry_patches_acknowledged_total", "counter", "Patches that were answered 200.", {"": notifier.acknowledged})
    yield Metric("pillion_registry_patches_failed_total", "counter", "Patches that were not, and are tried again.", {"": notifier.failed})
    yield Metric("pillion_registry_dependents_failing", "gauge", "Dependents whose patches fail now.", {"": notifier.failing()})
    yield Metric("pillion_registry_writes_total", "counter", "Writes to the store.", {"": registry.keeping.writes})
    yield Metric("pillion_registry_writes_failed_total", "counter", "Writes that failed.", {"": registry.keeping.failed})
    yield Metric("pillion_registry_lag_seconds", "gauge", "How late the registry's own loop was at its last tick.", {"": lag.late_s})
    yield Metric("pillion_registry_lag_max_seconds", "gauge", "How late it was at most since its start.", {"": lag.latest_s})


def _of_doubt(registry: Registry) -> Iterator[Metric]:
    now = time.monotonic()
    health = registry.health
    suspect = sum(instance.suspect is not None for instance in registry.catalog)
    yield Metric("pillion_registry_suspects", "gauge", "Instances that do not answer and are offered all the same.", {"": suspect})
    on = health.guard.on
    services = float(sum(name != WHOLE for name in on))
    scopes = {'{scope="service"}': services, '{scope="all"}': len(on) - services}
    yield Metric("pillion_registry_guards", "gauge", "Guards that are on: of single services, and of all together.", scopes)
    yield Metric("pillion_registry_guards_total", "counter", "How often a guard went on.", {"": health.guard.turned_on})
    limit = health.patience.limit(now)
    yield Metric("pillion_registry_misses_needed", "gauge", "Time-outs in a row that make an instance down now.", {"": limit})
    yield Metric("pillion_registry_held", "gauge", "Instances held down for flapping.", {"": health.flaps.held(now)})
    yield Metric("pillion_registry_holds_total", "counter", "How often one was held down for flapping.", {"": health.flaps.holds})


def _of_sharing(registry: Registry) -> Iterator[Metric]:
    if (sharing := registry.sharing) is not None:
        yield Metric("pillion_registry_members", "gauge", "Live registries that share the catalogue.", {"": len(sharing.live)})
        yield Metric("pillion_registry_owned", "gauge", "Instances that this registry looks after.", {"": len(sharing.owned)})


def _of_readers(registry: Registry) -> Iterator[Metric]:
    yield Metric("pillion_registry_registrations_refused_total", "counter", "Registrations refused.", {"": registry.refusals.count})
    yield Metric("pillion_registry_events_total", "counter", "Number of the newest event in the journal.", {"": registry.events.number})
    yield Metric("pillion_registry_events_lost_total", "counter", "Events the journal could not keep.", {"": registry.history.dropped})
    yield Metric("pillion_registry_streams", "gauge", "Open streams of /watch and /events.", {"": len(registry.streams)})
    yield Metric("pillion_registry_waiting_reads", "gauge", "Blocking reads that wait for a change.", {"": registry.reads.waiting})
