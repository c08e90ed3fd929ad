"""Who does what among the registries that share a catalogue: each instance is one live registry's, by rendezvous hashing. Pure.

A registry is live for as long as its lease was heard of within 2 s. One that has not heard its *own* lease for 1.5 s counts itself out
before the others do. Which registry has an instance depends on nothing but the names of the live ones: when one dies, its instances are
spread over the others, and nobody else's move.
"""

from __future__ import annotations

import math
from hashlib import blake2b

RENEW_S = 0.5
FENCE_S = 1.5
LEASE_S = 2.0


class Sharing:
    """Knows the live members, and whose an instance is.

    Args:
        me: this member's name.
    """

    def __init__(self, me: str) -> None:
        self.me = me
        self.live: tuple[str, ...] = ()
        self.owned: set[str] = set()  # the instances that are looked after here
        self._heard: dict[str, float] = {}
        self._sent_at = -math.inf  # when the lease of our own that was heard last was sent
        self._salts: tuple[tuple[str, bytes], ...] = ()

    def heard(self, member: str, now: float) -> None:
        """Note that a member's lease was heard."""
        self._heard[member] = now

    def heard_own(self, sent_at: float, now: float) -> None:
        """Note that our own lease came back to us, and when it was sent.

        After a silence the others were as silent as we were: they get the time of a lease to be heard again. Else each of us would take
        all for its own until it is.
        """
        was_fenced = self.fenced(now)
        self._sent_at = max(self._sent_at, sent_at)
        if was_fenced and not self.fenced(now):
            self._heard = dict.fromkeys(self._heard, now)

    def left(self, member: str) -> None:
        """Note that a member took its leave."""
        self._heard.pop(member, None)

    def fenced(self, now: float) -> bool:
        """Return whether the others may take us for dead already: then nobody may be told anything."""
        return now - self._sent_at > FENCE_S

    def lapsed(self, now: float) -> bool:
        """Return whether the others have had the time to take over what is ours."""
        return now - self._sent_at > LEASE_S

    def look(self, now: float) -> bool:
        """Find out who is live; returns whether that has changed. While we hear nothing, nothing changes."""
        if self.fenced(now):
            return False
        self._heard = {member: at for member, at in self._heard.items() if now - at <= LEASE_S}
        live = tuple(sorted({*self._heard, self.me}))
        if live == self.live:
            return False
        self.live = live
        self._salts = tuple((member, blake2b(member.encode(), digest_size=32).digest()) for member in live)
        return True

    def owner(self, instance_id: str) -> str:
        """Return the live member that has an instance; empty while there is none."""
        if len(self._salts) < 2:
            return self._salts[0][0] if self._salts else ""
        key = instance_id.encode()
        return max((blake2b(key, digest_size=8, key=salt).digest(), member) for member, salt in self._salts)[1]

    def mine(self, instance_id: str) -> bool:
        """Return whether an instance is ours."""
        return self.owner(instance_id) == self.me
