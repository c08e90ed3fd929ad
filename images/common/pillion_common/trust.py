"""Who may do what: the bearer token, and who needs none. Pure but for `Token.load`, which reads one file."""

from __future__ import annotations

from _operator import _compare_digest as compare_digest  # hmac's own; hmac itself brings hashlib
from typing import TYPE_CHECKING

from pillion_common.errors import ConfigError, Forbidden, Unauthorized

if TYPE_CHECKING:
    from pillion_common.config import Network

MIN_TOKEN_CHARS = 16


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
        return cls(read_secret(path, "PILLION_TOKEN_FILE"))

    def fits(self, authorization: bytes) -> bool:
        """Return whether this Authorization header carries the token; takes the same time for every wrong one."""
        return compare_digest(authorization, self._expected)


def read_secret(path: str, option: str) -> str:
    """Read a token from its file.

    Args:
        option: which names the file, for the message.

    Raises:
        ConfigError: the file cannot be read, or holds less than 16 printable characters.
    """
    try:
        with open(path, encoding="ascii") as file:
            secret = file.read().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{option} {path}: cannot be read: {exc}; `pillion token {path}` makes one"]) from exc
    if len(secret) < MIN_TOKEN_CHARS or not secret.isprintable() or " " in secret:
        raise ConfigError([f"{option} {path}: holds no token of {MIN_TOKEN_CHARS} characters or more; `pillion token` makes one"])
    return secret


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
    if not (exempt and _is_within(peer, exempt)):
        raise Unauthorized(
            "a token is needed: send `Authorization: Bearer …` with the content of PILLION_TOKEN_FILE, "
            "or list this client's network in PILLION_CLASSIC_NETWORKS"
        )


def _is_within(peer: str, networks: tuple[Network, ...]) -> bool:
    from pillion_common.networks import within  # no sidecar has such networks

    return within(peer, networks)
