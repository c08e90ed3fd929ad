"""Tornado's own tests for its HTTP server and its handlers, run over the core instead of tornado.httpserver.

What cannot apply is listed by name with its reason; everything else has to pass.
"""

from __future__ import annotations

import logging
import re
import socket
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.test import httpserver_test, web_test
from tornado.testing import AsyncHTTPTestCase, ExpectLog

from pillion_common.config import Address
from pillion_common.http.interfaces import Limits
from pillion_common.http.server import Server
from pillion_common.http.tornado_bridge import TornadoBridge

WAIT_S = 5.0

TLS = "no TLS: that is the mesh's or the proxy's work"
PROXY = "no xheaders: the peer is whoever is connected"
UNIX = "no unix sockets"
OPTION = "an option of HTTPServer's that the core does not have"
WHOLE = "bodies are handed over whole: the head is not acted upon before its body is there"
PER_REQUEST = "no limits per request: Limits are the server's"
STATUS_413 = "a body over the bound is 413, not 400: test_http_limits.py"
METHODS = "llhttp knows a closed list of methods; any other is 400, not 405"
HALF_CLOSED = "a client that closed its side may still wait for its answer: test_http_server.py"

# Whole classes, and single tests of classes that run otherwise.
NOT_FOR_US = {
    "SSLTest": TLS,
    "SSLXHeaderTest": TLS,
    "XHeaderTest": PROXY,
    "ManualProtocolTest": OPTION,
    "UnixSocketTestFile": UNIX,
    "UnixSocketTestAbstract": UNIX,
    "GzipTest": OPTION,
    "GzipMemoryTest": OPTION,
    "StreamingChunkSizeTest": OPTION,
    "LegacyInterfaceTest": "a callback instead of the documented HTTPServerConnectionDelegate",
    "DecoratedStreamingRequestFlowControlTest": WHOLE,
    "NativeStreamingRequestFlowControlTest": WHOLE,
    "ClientCloseTest": "closes Tornado's own IOStream, which is not there",
    "HTTPConnectionTest.test_newlines": "bare LF line ends are 400: test_http_smuggling.py",
    "HTTPServerRawTest.test_invalid_methods": METHODS,
    "UnimplementedNonStandardMethodsTest.test_unimplemented_other": METHODS,
    "PatchMethodTest.test_other": METHODS,
    "KeepAliveTest.test_keepalive_chunked": "Transfer-Encoding in HTTP/1.0 is 400 (RFC 9112, 6.1): test_http_smuggling.py",
    "BodyLimitsTest.test_large_body_buffered": STATUS_413,
    "BodyLimitsTest.test_large_body_buffered_chunked": STATUS_413,
    "BodyLimitsTest.test_large_body_streaming": STATUS_413,
    "BodyLimitsTest.test_large_body_streaming_chunked": STATUS_413,
    "BodyLimitsTest.test_large_body_streaming_override": PER_REQUEST,
    "BodyLimitsTest.test_large_body_streaming_chunked_override": PER_REQUEST,
    "BodyLimitsTest.test_body_size_override_reset": PER_REQUEST,
    "BodyLimitsTest.test_timeout": PER_REQUEST,
    "ConnectionCloseTest.test_connection_close": HALF_CLOSED,
    "StreamingRequestBodyTest.test_streaming_body": WHOLE,
    "StreamingRequestBodyTest.test_early_return": WHOLE,
    "StreamingRequestBodyTest.test_early_return_with_data": WHOLE,
    "StreamingRequestBodyTest.test_close_during_upload": WHOLE,
    "StaticFileAlternateDataStreamTest": "for NTFS only",
    "GetCurrentUserTest.test_get_current_user_is_lazy": "left out by Tornado itself: needs fix",
}

# What Tornado's own parser logs at INFO and ours, which says the same in its answer, does not.
PARSER_LINES = re.compile(
    "Malformed HTTP|Invalid Host|no colon|invalid chunk|Unsupported Transfer-Encoding|with both Transfer-Encoding|Content-Length"
)
# An application that breaks its own answer is logged by the core.
APPLICATION_LINES = re.compile("^Uncaught exception$")


class CoreLog(ExpectLog):
    """Expects of the core's log what Tornado's tests for its server expect of Tornado's log."""

    def __init__(self, logger: Any, regex: str, required: bool = True, **options: Any) -> None:
        if APPLICATION_LINES.search(regex):
            logger, regex = logging.getLogger("pillion.http"), "GET / failed"
        super().__init__(logger, regex, required and not PARSER_LINES.search(regex), **options)


@pytest.fixture(autouse=True)
def quiet_access_log() -> Iterator[None]:
    """As Tornado's own runner has it: its test cases fail on every line they do not expect."""
    log = logging.getLogger("tornado.access")
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def core_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver_test, "ExpectLog", CoreLog)


class CoreServer:
    """The core behind the few methods by which Tornado's test cases use their server."""

    def __init__(self, application: Any, loop: IOLoop, **options: Any) -> None:
        self._server = Server(streaming=TornadoBridge(application), limits=limits_of(**options))
        url = loop.run_sync(lambda: self._server.listen(Address("127.0.0.1", 0)), WAIT_S)
        self.port = int(url.rpartition(":")[2])

    def add_sockets(self, sockets: list[socket.socket]) -> None:
        for unused in sockets:
            unused.close()

    def stop(self) -> None:
        pass

    async def close_all_connections(self) -> None:
        await self._server.close(0.0)


def limits_of(
    idle_connection_timeout: float = 60.0, max_header_size: int = 65536, max_body_size: int = 104857600, body_timeout: float = 60.0
) -> Limits:
    """Translate the options of Tornado's HTTPServer that the core has, too."""
    return Limits(
        head_bytes=max_header_size,
        body_bytes=max_body_size,
        head_s=idle_connection_timeout,
        idle_s=idle_connection_timeout,
        body_s=body_timeout,
    )


class OverTheCore:
    """Mixed in before one of Tornado's test cases, serves its application by the core."""

    def get_http_server(self: Any) -> CoreServer:
        self._core = CoreServer(self._app, self.io_loop, **self.get_httpserver_options())
        return self._core

    def get_http_port(self: Any) -> int:
        return self._core.port


def cases_of(module: ModuleType) -> dict[str, type[unittest.TestCase]]:
    """Return the module's test cases that start a server, each served by the core and without the tests that cannot apply."""
    found = {}
    for name, case in vars(module).items():
        if not (isinstance(case, type) and issubclass(case, AsyncHTTPTestCase) and case.__module__ == module.__name__):
            continue
        tests = unittest.defaultTestLoader.getTestCaseNames(case)
        left_out = {test: None for test in tests if name in NOT_FOR_US or f"{name}.{test}" in NOT_FOR_US}
        if len(tests) > len(left_out):
            found[name] = type(name, (OverTheCore, case), left_out)
    return found


globals().update(
    {
        f"{module.__name__.rpartition('.')[2]}_{name}": case
        for module in (httpserver_test, web_test)
        for name, case in cases_of(module).items()
    }
)


def test_what_is_left_out_exists() -> None:
    names = set()
    for module in (httpserver_test, web_test):
        for name, case in vars(module).items():
            if isinstance(case, type) and issubclass(case, unittest.TestCase):
                names |= {name, *(f"{name}.{test}" for test in unittest.defaultTestLoader.getTestCaseNames(case))}
    assert set(NOT_FOR_US) - names == set()
