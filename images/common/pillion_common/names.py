"""What a valid service name and a valid URL are. Pure; every program checks with these, so that no garbage passes from one to another."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from pillion_common.errors import InvalidInput

MAX_URL_CHARS = 2048

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Url(NamedTuple):
    """A checked http(s) URL, in parts."""

    scheme: str
    host: str
    port: int
    target: str  # path and query as they go into the request line

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return what one connection can serve: scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Return host:port as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _DEFAULT_PORTS[self.scheme] == self.port else f"{host}:{self.port}"


def check_name(value: str, field: str) -> str:
    """Return the name if it is valid.

    Args:
        value: a service name or an instance id.
        field: the JSON key it came from, for the error.

    Raises:
        InvalidInput: it is not `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
    """
    if not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{field} {_shown(value)} is no name: take up to 63 letters, digits, dots, hyphens, underscores; start with a letter or digit",
            code="invalid_name",
            field=field,
        )
    return value


def parse_url(value: str, field: str) -> Url:
    """Take an absolute http or https URL apart.

    Args:
        value: the URL; at most 2,048 printable ASCII characters, no user name, no fragment.
        field: the key it came from, for the error.

    Raises:
        InvalidInput: it is not such a URL; the message says why.
    """

    def refuse(why: str) -> InvalidInput:
        return InvalidInput(f"{field} {_shown(value)} {why}; write it like http://10.0.0.7:6000/path", code="invalid_url", field=field)

    if not value:
        raise refuse("is empty")
    if len(value) > MAX_URL_CHARS:
        raise refuse(f"is longer than {MAX_URL_CHARS} characters")
    if not _PRINTABLE.fullmatch(value):
        raise refuse("has spaces, control characters or non-ASCII characters")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise refuse(f"cannot be read ({exc})") from exc
    if parts.scheme not in _DEFAULT_PORTS:
        raise refuse("is not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise refuse("carries a user name")
    if parts.fragment:
        raise refuse("carries a fragment")
    host = parts.hostname or ""
    if not is_host(host):
        raise refuse("has no valid host")
    if port == 0:
        raise refuse("has port 0")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], target)


def is_host(host: str) -> bool:
    """Return whether this is a host name or an IP address (IPv6 without brackets)."""
    return bool(_HOST.fullmatch(host)) or address_of(host) is not None


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address the host literally is, else None. An IPv4 address mapped into IPv6 becomes the IPv4 one."""
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def derive_id(name: str, url: str) -> str:
    """Return the instance id of a registration that has none: the same for the same name and URL, over restarts as well."""
    return f"{name[:46]}-{hashlib.sha256(f'{name} {url}'.encode()).hexdigest()[:16]}"


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:77] + "...")
