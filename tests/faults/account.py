"""Counts what arrived against what was sent, line by line, in bounded memory: a byte for each line, a block of the store at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from processes import Client, Died

from pillion_log.store import open_store
from pillion_log.store.files import FileOptions

Read = Callable[[Callable[[bytes], None]], None]

UNSENT, UNKNOWN, ACKNOWLEDGED, SEEN = 0, 1, 2, 4


class Totals(NamedTuple):
    """What is there, and what is not."""

    kept: int = 0
    missing: int = 0  # acknowledged by a sidecar, not there, and no gap entry tells
    doubled: int = 0
    strange: int = 0  # there, but never sent
    dropped: int = 0  # acknowledged by a sidecar and not there
    told: int = 0  # how many entries are missing by all gap entries
    gap_entries: int = 0
    unknown: int = 0  # sent to a sidecar that was killed before it answered: may be there or not


class _Source:
    """The entries of one source: their numbers have no holes but those that gap entries tell of."""

    def __init__(self) -> None:
        self.lines = self.told = self.highest = 0


class Account:
    """The lines of one sender, by number."""

    def __init__(self, service: str, quota: int) -> None:
        self.service = service
        self._state = bytearray(quota + 1)
        self.acknowledged = 0
        self.doubled = self.strange = 0

    def sent(self, first: int, count: int, outcome: int) -> None:
        """Note what became of lines that were sent."""
        end = first + count
        if end > len(self._state):
            self._state.extend(bytes(end - len(self._state)))
        self._state[first:end] = bytes([outcome]) * count
        if outcome == ACKNOWLEDGED:
            self.acknowledged += count

    def see(self, number: int) -> None:
        """Note a line that is in the log."""
        if number >= len(self._state) or self._state[number] == UNSENT:
            self.strange += 1
        elif self._state[number] & SEEN:
            self.doubled += 1
        else:
            self._state[number] |= SEEN

    def count(self, state: int) -> int:
        """Return how many lines are in a state."""
        return self._state.count(state)


def settle(accounts: list[Account], read: Read) -> tuple[Totals, list[str]]:
    """Compare the accounts with a log.

    Args:
        read: calls what it is given with each line of the log, oldest first.

    Returns:
        The totals, and what does not fit.
    """
    by_service = {account.service: account for account in accounts}
    sources: dict[str, _Source] = {}
    owners: dict[str, str] = {}
    faults: list[str] = []
    gap_entries = 0

    def see(line: bytes) -> None:
        nonlocal gap_entries
        entry = json.loads(line)
        source = sources.setdefault(entry["Source"], _Source())
        if "Gap" in entry:
            gap_entries += 1
            source.told += entry["Gap"]
        elif (account := by_service.get(entry["Service"])) is not None:
            owners[entry["Source"]] = entry["Service"]
            account.see(int(entry["Message"].split()[0]))
            source.lines += 1
        if "Seq" in entry:
            if entry["Seq"] <= source.highest and len(faults) < 20:
                faults.append(f"{entry['Service']}: Seq {entry['Seq']} comes after {source.highest}")
            source.highest = max(source.highest, entry["Seq"])

    read(see)
    told = dict.fromkeys(by_service, 0)
    for name, source in sources.items():
        if source.lines + source.told != source.highest:
            faults.append(f"{owners.get(name, name)}: {source.lines} lines + {source.told} told of, but the last Seq is {source.highest}")
        if name in owners:
            told[owners[name]] += source.told
    return _total(accounts, told, gap_entries, faults), faults


def _total(accounts: list[Account], told: dict[str, int], gap_entries: int, faults: list[str]) -> Totals:
    kept = missing = dropped = unknown = 0
    for account in accounts:
        gone, unsure = account.count(ACKNOWLEDGED), account.count(UNKNOWN)
        kept += account.count(ACKNOWLEDGED | SEEN) + account.count(UNKNOWN | SEEN)
        dropped += gone
        unknown += unsure
        missing += max(0, gone - told[account.service])
        # A line that was sent to a sidecar that died may have come into its spool, and have been dropped there.
        if not gone <= told[account.service] <= gone + unsure:
            faults.append(f"{account.service}: {gone} lines dropped (and {unsure} of unknown fate), {told[account.service]} told of")
    doubled, strange = sum(account.doubled for account in accounts), sum(account.strange for account in accounts)
    return Totals(kept, missing, doubled, strange, dropped, sum(told.values()), gap_entries, unknown)


def of_files(folder: Path) -> Read:
    """Return what reads a store that nobody has open."""
    return lambda see: asyncio.run(_read(folder, see))


def of_service(client: Client) -> Read:
    """Return what reads a log by queries."""

    def read(see: Callable[[bytes], None]) -> None:
        cursor = ""
        while True:
            query = f"&cursor={cursor}" if cursor else "&from=oldest"
            status, body = client.ask("GET", f"/logs?page=1&limit=10000{query}")
            *lines, last = body.splitlines()
            told = json.loads(last)
            if status != 200 or ("Error" in told and told["Error"] != "not_done"):
                raise Died(f"the log cannot be read: {status} {last.decode()}")
            for line in lines:
                see(line)
            if told["Done"] and not lines:
                return
            cursor = told["Cursor"]

    return read


async def _read(folder: Path, see: Callable[[bytes], None]) -> None:
    store = open_store(f"files:{folder}", FileOptions(packs=False))
    await store.load()
    try:
        with store.blocks(newest_first=False) as blocks:
            for block in blocks:
                for line in block.read().splitlines():
                    if not line.startswith(b'{"Check":'):
                        see(line)
    finally:
        await store.close()
