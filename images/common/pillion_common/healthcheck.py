"""`pillion healthcheck URL`: what the images' HEALTHCHECK runs every few seconds, so it imports almost nothing."""

from __future__ import annotations

import socket
import sys
import time

TIMEOUT_S = 2.0


def main(argv: list[str]) -> int:
    """Exit 0 if the http URL answers 200 within 2 s, 1 with the reason if not, 2 for wrong words."""
    if len(argv) != 1 or not argv[0].startswith("http://"):
        print("usage: pillion healthcheck http://HOST:PORT/PATH", file=sys.stderr)
        return 2
    authority, _, path = argv[0].removeprefix("http://").partition("/")
    try:
        answer = _ask(authority, f"/{path}")
    except (OSError, ValueError) as exc:
        print(f"{argv[0]}: {exc}")
        return 1
    status, _, body = answer.partition(b"\r\n\r\n")
    if status.startswith(b"HTTP/1.1 200 "):
        return 0
    line = status.partition(b"\r\n")[0].decode("latin-1")
    print(body.decode("utf-8", "replace").strip() or f"{argv[0]}: {line or 'answered nothing'}")
    return 1


def _ask(authority: str, path: str) -> bytes:
    """Return the answer's first 4 KB, as far as they come within the time."""
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host, port = authority, "80"
    deadline = time.monotonic() + TIMEOUT_S
    answer = b""
    with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
        while len(answer) < 4096:
            peer.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = peer.recv(4096)
            if not piece:
                break
            answer += piece
    return answer
