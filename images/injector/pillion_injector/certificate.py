"""The webhook's certificate: a mounted Secret that may change while the program runs. New connections get the newest that fits its key."""

from __future__ import annotations

import asyncio
import os
import ssl

from pillion_common.errors import ConfigError
from pillion_common.logs import EventLog

_log = EventLog("certificate")

FILES = ("tls.crt", "tls.key")


class Certificate:
    """A certificate and its key, read again when the files change.

    Args:
        folder: holds tls.crt and tls.key.

    Raises:
        ConfigError: they cannot be used.
    """

    def __init__(self, folder: str) -> None:
        self._paths = [os.path.join(folder, name) for name in FILES]
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.fault = ""
        self.reloads = 0
        self._seen = self._look()
        try:
            self.context.load_cert_chain(*self._paths)
        except (OSError, ValueError) as exc:
            raise ConfigError([f"PILLION_CERTIFICATE_DIR {folder}: {self._explain(exc)}"]) from exc

    async def watch(self, every_s: float) -> None:
        """Look again and again; ends only when it is cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.refresh()

    def refresh(self) -> None:
        """Take the files if they have changed; what cannot be used leaves the old certificate in its place, and is tried again."""
        seen = self._look()
        if seen == self._seen:
            return
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._paths)  # half a pair would spoil the one in use
            self.context.load_cert_chain(*self._paths)
        except (OSError, ValueError) as exc:
            if not self.fault:
                _log.warning("certificate_unusable", f"the new certificate is not used: {self._explain(exc)}")
            self.fault = self._explain(exc)
            return
        self._seen, self.fault = seen, ""
        self.reloads += 1
        _log.info("certificate_reloaded", "the certificate has changed; new connections get the new one")

    def _look(self) -> tuple[object, ...]:
        """Return what tells whether the files have changed: a Secret's files are links that are turned to new ones."""
        found: list[object] = []
        for path in self._paths:
            try:
                facts = os.stat(path)
                found.append((facts.st_ino, facts.st_mtime_ns, facts.st_size))
            except OSError:
                found.append(None)
        return tuple(found)

    def _explain(self, exc: Exception) -> str:
        return f"{' and '.join(self._paths)} are no certificate with its key: {exc}"
