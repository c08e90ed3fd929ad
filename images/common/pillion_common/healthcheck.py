"""`pillion healthcheck URL`: what the images' HEALTHCHECK runs every few seconds, so it imports almost nothing."""

from __future__ import annotations

import socket
import sys

TIMEOUT_S = 2.0


def main(argv: list[str]) -> int:
    """Exit 0 if the http URL answers 200 within 2 s, 1 with the reason if not, 2 for wrong words."""
    if len(argv) != 1 or not argv[0].startswith("http://"):
        print("usage: pillion healthcheck http://HOST:PORT/PATH", file=sys.stderr)
        return 2
    authority, _, path = argv[0].removeprefix("http://").partition("/")
    host, _, port = authority.partition(":")
    try:
        with socket.create_connection((host, int(port or 80)), TIMEOUT_S) as peer:
            peer.sendall(f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while len(answer) < 4096 and (piece := peer.recv(4096)):
                answer += piece
    except (OSError, ValueError) as exc:
        print(f"{argv[0]}: {exc}")
        return 1
    if answer.startswith(b"HTTP/1.1 200 "):
        return 0
    print(answer.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip() or f"{argv[0]} answered nothing")
    return 1
