"""Who may do what: the bearer token, the networks of classic clients, and the addresses a program may call.

Pure but for `Token.load`, which reads one file.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from pathlib import Path

from pillion_common.config import Network
from pillion_common.errors import ConfigError, Forbidden, Unauthorized
from pillion_common.names import address_of

MIN_TOKEN_CHARS = 16

PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
LOOPBACK = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
EVERYWHERE = tuple(ipaddress.ip_network(text) for text in ("0.0.0.0/0", "::/0"))


class Token:
    """The shared secret. Never printed."""

    def __init__(self, secret: str) -> None:
        self._expected = b"Bearer " + secret.encode()
        self.header = f"Authorization: Bearer {secret}"

    @classmethod
    def load(cls, path: str) -> Token | None:
        """Read a token file; None when no path is given.

        Raises:
            ConfigError: the file cannot be read, or holds less than 16 printable characters.
        """
        if not path:
            return None
        try:
            secret = Path(path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError([f"PILLION_TOKEN_FILE {path}: cannot be read: {exc}; `pillion token {path}` makes one"]) from exc
        if len(secret) < MIN_TOKEN_CHARS or not secret.isprintable() or " " in secret:
            raise ConfigError(
                [f"PILLION_TOKEN_FILE {path}: holds no token of {MIN_TOKEN_CHARS} characters or more; `pillion token` makes one"]
            )
        return cls(secret)

    def fits(self, authorization: bytes) -> bool:
        """Return whether this Authorization header carries the token; takes the same time for every wrong one."""
        return hmac.compare_digest(authorization, self._expected)


def make_token_file(path: Path) -> bool:
    """Make a random token file unless there is one.

    Returns:
        Whether a new one was made. Two makers at once: one wins, and the file is never seen half written.

    Raises:
        OSError: the folder cannot be written.
    """
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def check_token(token: Token | None, authorization: bytes, peer: str, exempt: tuple[Network, ...] = ()) -> None:
    """Let a request pass that carries the token, or that comes without one from an exempt network.

    Args:
        token: None lets all pass: no token is configured.
        authorization: the header's value, or b"".
        peer: the caller's IP address.
        exempt: networks whose clients need no token (classic clients).

    Raises:
        Unauthorized: no token. Forbidden: a wrong one.
    """
    if token is None or token.fits(authorization):
        return
    if authorization:
        raise Forbidden("the token does not fit; give both sides the same PILLION_TOKEN_FILE", code="token_wrong")
    if not within(peer, exempt):
        raise Unauthorized(
            "a token is needed: send `Authorization: Bearer …` with the content of PILLION_TOKEN_FILE, "
            "or list this client's network in PILLION_CLASSIC_NETWORKS"
        )


def within(host: str, networks: tuple[Network, ...]) -> bool:
    """Return whether an IP address lies in one of the networks."""
    address = address_of(host)
    return address is not None and any(address in network for network in networks)


class TargetRule:
    """Which addresses the registry may call for a registrant: the registrant's own, and those in the allowed networks. Link-local never."""

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks

    def allows(self, host: str, registrant: str) -> bool:
        """Return whether this IP address may be called for that registrant (its IP address)."""
        address = address_of(host)
        if address is None or address.is_link_local or address.is_multicast or address.is_unspecified:
            return False
        return address == address_of(registrant) or within(host, self._networks)
