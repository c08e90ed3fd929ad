"""How many descriptors the registry may have open, and whether they are enough for the instances it is told to take in."""

from __future__ import annotations

import resource

OWN = 64  # files of the store and the journal, the listener, pipes, what a library opens


def needed(instances: int, others: int) -> int:
    """Return how many descriptors that many instances need: each has a connection of ours, and for a while one of its own; others come."""
    return 2 * instances + others + OWN


def allow(wanted: int) -> int:
    """Raise this process's own limit as far as it is wanted and may be; return the limit there is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
        except (OSError, ValueError):
            pass  # the kernel allows fewer than it says: then it stays as it is
    return wanted if soft == resource.RLIM_INFINITY else soft


def shortage(limit: int, instances: int, others: int) -> str | None:
    """Return what to tell the operator if the limit is too low for these instances; None if it is not."""
    wanted = needed(instances, others)
    if limit >= wanted:
        return None
    enough_for = max(0, (limit - OWN - min(others, limit // 4)) // 2)
    return (
        f"this process may open {limit} files, and PILLION_MAX_INSTANCES={instances} needs {wanted}: there are enough for about "
        f"{enough_for} instances; raise the limit (ulimit -n {wanted}; LimitNOFILE={wanted} in a unit; ulimits: nofile in Compose), "
        "or set a lower PILLION_MAX_INSTANCES"
    )
