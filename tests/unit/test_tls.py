"""OpenSSL is kept out of a sidecar until the first https URL, and works from then on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CERTIFICATE = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost")

LATE_TLS = """
import sys
from pillion_common import tls
tls.keep_out()
import asyncio
from pillion_common.http.client import Channel
from pillion_common.names import parse_url

async def main():
    assert asyncio.base_events.ssl is None and "_ssl" not in sys.modules
    certificate, key = sys.argv[1:]
    served = tls.load().SSLContext(tls.load().PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    async def answer(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
        await writer.drain()
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
    trusting = tls.client_context
    tls.client_context = lambda: _trust(trusting(), certificate)
    url = parse_url("https://localhost:%d/" % server.sockets[0].getsockname()[1], "URL")
    channel = Channel(url)
    print((await channel.request("GET", "/", timeout_s=5)).body.decode())
    channel.close()
    server.close()

def _trust(context, certificate):
    context.load_verify_locations(certificate)
    return context

asyncio.run(main())
"""


def run(code: str, *words: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # a measured process imports more
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words], env=plain, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_sidecar_loads_neither_openssl_nor_what_else_costs_each_app_memory() -> None:
    code = """
from pillion_common import tls
tls.keep_out()
import pillion_sidecar.__main__, sys
costly = {"_ssl", "dnslib", "hashlib", "msgspec", "ipaddress", "pathlib", "urllib.parse", "argparse", "email", "datetime"}
print(costly & sys.modules.keys())
"""
    assert run(code) == "set()"


def test_what_a_running_sidecar_seldom_needs_is_put_off_until_it_is_asked_for() -> None:
    code = """
from pillion_common import late, tls
tls.keep_out()
late.put_off(*late.SELDOM)
import asyncio, os, signal, socket, sys
import pillion_sidecar.__main__
from pillion_common import lifecycle
from pillion_common.http.resolver import Resolver
from pillion_common.names import parse_url
from pillion_sidecar.registry.registration import route_source

class Program:
    exit_code = 0
    def __init__(self, life):
        self.life = life
    async def stop(self):
        assert self.life.stop.is_set()
    async def start(self):
        await ask()
        os.kill(os.getpid(), signal.SIGTERM)
        return []

async def ask():
    found = asyncio.get_running_loop().create_future()
    Resolver().ask("localhost", found.set_result)
    assert await found and await route_source(parse_url("http://127.0.0.1:3000", "registry")) == "127.0.0.1"

assert lifecycle.run("test", Program) == 0
print({"ast", "dis", "token", "unicodedata", "encodings.idna", "concurrent.futures.thread"} & sys.modules.keys())
import inspect, tokenize
assert inspect.signature(lambda a, b=1: 0).parameters.keys() == {"a", "b"} and inspect.isfunction(ask)
print(inspect.get_annotations.__module__, type(inspect).__name__, tokenize.NAME, "dis" in sys.modules)
"""
    assert run(code).splitlines() == ["set()", "inspect module 1 True"]


def test_what_was_imported_before_is_not_put_off() -> None:
    code = "import inspect, sys; from pillion_common import late; late.put_off('inspect'); print(sys.modules['inspect'] is inspect)"
    assert run(code) == "True"


def test_tls_works_in_a_process_that_kept_it_out_until_then(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [*CERTIFICATE, "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    assert run(LATE_TLS, str(certificate), str(key)) == "hi"


def test_what_was_imported_before_stays() -> None:
    code = "import ssl, sys; from pillion_common import tls; tls.keep_out(); print(sys.modules['ssl'] is ssl, tls.load() is ssl)"
    assert run(code) == "True True"


@pytest.mark.parametrize("module", ["asyncio.base_events", "asyncio.selector_events"])
def test_asyncio_still_keeps_ssl_under_the_name_we_put_it_under(module: str) -> None:
    assert run(f"import ssl, {module}; print({module}.ssl is ssl)") == "True"
