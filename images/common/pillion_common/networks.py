"""Networks of IP addresses: who lies in which, and which addresses a program may call for somebody. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from pillion_common.config import Network
from pillion_common.names import address_of

# Judging an address takes longer than all else in a registration; the addresses that are called are few, and called again and again.
_REMEMBERED = 1024
_REMEMBERED_CHARS = 64

PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
LOOPBACK = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
EVERYWHERE = tuple(ipaddress.ip_network(text) for text in ("0.0.0.0/0", "::/0"))


def within(host: str, networks: tuple[Network, ...]) -> bool:
    """Return whether an IP address lies in one of the networks."""
    address = address_of(host)
    return address is not None and any(address in network for network in networks)


class TargetRule:
    """Which addresses the registry may call for a registrant: the registrant's own, and those in the allowed networks. Link-local never."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._judge_remembered = lru_cache(_REMEMBERED)(self._judge)

    def allows(self, host: str, registrant: str) -> bool:
        """Return whether this IP address may be called for that registrant (its IP address)."""
        judge = self._judge_remembered if len(host) <= _REMEMBERED_CHARS else self._judge
        verdict = judge(host)
        return address_of(host) == address_of(registrant) if verdict is None else verdict

    def _judge(self, host: str) -> bool | None:
        """Return whether everybody may have this address called; None where the registrant alone may."""
        address = address_of(host)
        if address is None or address.is_link_local or address.is_multicast or address.is_unspecified:
            return False
        return within(host, self._networks) or None
