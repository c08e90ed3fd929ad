"""The agent's instances as a table for people: for `--once --dry-run` and `GET /status?format=text`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pillion_sidecar.agent.instance import Instance, engine_fault
from pillion_sidecar.agent.plan import Spec

PLANNED = ("CONTAINER", "SERVICE", "URL", "CHECK", "REQUIRES", "REMARK")
RUNNING = ("CONTAINER", "SERVICE", "URL", "STATE", "REASON")


def planned(specs: Iterable[Spec], left_out: Mapping[str, str]) -> str:
    """Return what would be registered, and what would not, with the reason."""
    rows = [
        (
            spec.container.name,
            spec.settings.name,
            spec.url,
            spec.settings.check.kind,
            ",".join(spec.settings.requires),
            engine_fault(spec.container),
        )
        for spec in specs
    ]
    return _columns(PLANNED, sorted(rows)) + _left_out(left_out)


def running(instances: Iterable[Instance], left_out: Mapping[str, str]) -> str:
    """Return how the instances stand."""
    rows = []
    for instance in instances:
        spec = instance.spec
        rows.append((spec.container.name, spec.settings.name, spec.url, instance.state, instance.registrar.fault or instance.reason))
    return _columns(RUNNING, sorted(rows)) + _left_out(left_out)


def _columns(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    return "".join("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in (head, *rows))


def _left_out(left_out: Mapping[str, str]) -> str:
    return "".join(f"{'' if index else chr(10)}{name}: {why}\n" for index, (name, why) in enumerate(sorted(left_out.items())))
