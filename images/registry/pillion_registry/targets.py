"""Where an instance may have itself called: a registry that calls whatever it is told to would be everybody's hand inside the network."""

from __future__ import annotations

from pillion_common.errors import InvalidInput
from pillion_common.models import Registration
from pillion_common.names import address_of, parse_url
from pillion_common.networks import TargetRule


def check_targets(registration: Registration, registrant: str, rule: TargetRule) -> None:
    """Check the addresses of a registration's URLs; those of names are checked when they are resolved.

    Args:
        registrant: the IP address it came from.

    Raises:
        InvalidInput: one is not allowed.
    """
    for field, url in (("HeartbeatURL", registration.heartbeat_url), ("ServiceUpdateURL", registration.service_update_url)):
        host = parse_url(url, field).host if url else ""
        if address_of(host) is not None and not rule.allows(host, registrant):
            raise InvalidInput(
                f"{field} {host} is neither the registrant's own address ({registrant}) nor in a network of PILLION_TARGETS",
                code="target_not_allowed",
                field=field,
            )
