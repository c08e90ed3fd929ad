"""What a valid service name and a valid URL are. Pure; every program checks with these, so that no garbage passes from one to another."""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pillion_common.errors import InvalidInput

if TYPE_CHECKING:  # a sidecar needs neither; each is imported where it is used
    import ipaddress

MAX_URL_CHARS = 2048

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAPPED = bytes(10) + b"\xff\xff"

# What most URLs look like: no query, no brackets, no empty port. `_plain_url` and `_any_url` agree on these.
_PLAIN_URL = re.compile(r"(https?)://([A-Za-z0-9_][A-Za-z0-9._-]{0,252})(?::([0-9]{1,5}))?(/[!\"$->@-~]*)?")

# One registration is looked at several times while it is taken in, and never again: so a few hundred are enough to remember, and only short
# ones, so that all caches here together stay under 2 MB.
_REMEMBERED = 1024
_REMEMBERED_CHARS = 256


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
    if not (_is_name if len(value) <= _REMEMBERED_CHARS else _is_name.__wrapped__)(value):
        raise InvalidInput(
            f"{field} {_shown(value)} is no name: take up to 63 letters, digits, dots, hyphens, underscores; start with a letter or digit",
            code="invalid_name",
            field=field,
        )
    return value


@lru_cache(_REMEMBERED)
def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None


def parse_url(value: str, field: str) -> Url:
    """Take an absolute http or https URL apart.

    Args:
        value: the URL; at most 2,048 printable ASCII characters, no user name, no fragment.
        field: the key it came from, for the error.

    Raises:
        InvalidInput: it is not such a URL; the message says why.
    """
    return (_plain_url(value) if len(value) <= _REMEMBERED_CHARS else None) or _any_url(value, field)


@lru_cache(_REMEMBERED)
def _plain_url(value: str) -> Url | None:
    """Take a valid, common URL apart; None when it takes the longer way to say what it is."""
    match = _PLAIN_URL.fullmatch(value)
    if match is None:
        return None
    scheme, host, digits, target = match.groups()
    port = int(digits) if digits else _DEFAULT_PORTS[scheme]
    return Url._make((scheme, host.lower(), port, target or "/")) if 0 < port < 65536 else None


def _any_url(value: str, field: str) -> Url:
    def refuse(why: str) -> InvalidInput:
        return InvalidInput(f"{field} {_shown(value)} {why}; write it like http://10.0.0.7:6000/path", code="invalid_url", field=field)

    if not value:
        raise refuse("is empty")
    if len(value) > MAX_URL_CHARS:
        raise refuse(f"is longer than {MAX_URL_CHARS} characters")
    if not _PRINTABLE.fullmatch(value):
        raise refuse("has spaces, control characters or non-ASCII characters")
    from urllib.parse import urlsplit  # most URLs are plain

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
    return bool(_HOST.fullmatch(host)) or is_address(host)


def is_address(host: str) -> bool:
    """Return whether the host is literally an IP address: what `address_of` knows as one, asked without importing ipaddress."""
    family, text = (socket.AF_INET6, host.split("%", 1)[0]) if ":" in host else (socket.AF_INET, host)
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def packed_address(host: str) -> bytes | None:
    """Return the IP address the host literally is as 4 or 16 bytes, else None. An IPv4 address mapped into IPv6 becomes the IPv4 one.

    None as well for an address with a scope (fe80::1%eth0): without its scope it is none.
    """
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except (OSError, ValueError):
        return None
    return packed[len(_MAPPED) :] if packed.startswith(_MAPPED) and len(packed) == 16 else packed


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address the host literally is, else None. An IPv4 address mapped into IPv6 becomes the IPv4 one."""
    return (_address_of if len(host) <= _REMEMBERED_CHARS else _address_of.__wrapped__)(host)


@lru_cache(_REMEMBERED)
def _address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    import ipaddress

    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def derive_id(name: str, url: str) -> str:
    """Return the instance id of a registration that has none: the same for the same name and URL, over restarts as well."""
    return (_derive_id if len(name) + len(url) <= _REMEMBERED_CHARS else _derive_id.__wrapped__)(name, url)


@lru_cache(_REMEMBERED)
def _derive_id(name: str, url: str) -> str:
    import hashlib

    return f"{name[:46]}-{hashlib.sha256(f'{name} {url}'.encode()).hexdigest()[:16]}"


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else value[:77] + "...")
