"""Tells the registry whether this host reaches what its app is offered: `POST /reach` on the peer listener, for `GET /why` there.

    {"Service": "GradingService", "URLs": ["http://10.0.0.7:6000"]} -> {"Unreached": [{"URL": "http://10.0.0.7:6000", "Error": "…"}]}

It is no port scanner: only what the table offers for the service is dialled, by TCP alone, and only where a token is set and given, for
without one anybody could put anything into the table. Loaded when first asked.
"""

from __future__ import annotations

import asyncio

from pillion_common.errors import Forbidden, InvalidInput, OwnLimit, PeerError, Unavailable
from pillion_common.http.message import Request, Response
from pillion_common.http.resolver import Dialer
from pillion_common.names import Url, parse_url
from pillion_common.trust import Token, check_token
from pillion_sidecar.table.providers import ProviderTable
from pillion_sidecar.wire import decode_reach, to_json

MAX_URLS = 20
DIAL_S = 1.0  # for each, all at the same time


class Reach:
    """Dials providers, for one asker at a time.

    Args:
        token: None refuses everybody.
    """

    def __init__(self, table: ProviderTable, token: Token | None) -> None:
        self._table = table
        self._token = token
        self._dialer = Dialer(most=MAX_URLS)
        self._busy = False

    async def answer(self, request: Request) -> Response:
        """Answer which of the URLs that the table offers take no connection, and why; others are passed over.

        Raises:
            Forbidden, Unauthorized: no token is set here; a wrong one or none was given. InvalidInput. Unavailable: somebody else asks.
        """
        if self._token is None:
            raise Forbidden("without a token nothing is dialled here for others; set PILLION_TOKEN_FILE", code="token_not_set")
        check_token(self._token, request.header(b"authorization"), request.peer)
        service, urls = decode_reach(request.body)
        if len(urls) > MAX_URLS:
            raise InvalidInput(f"URLs has {len(urls)} entries; at most {MAX_URLS} are dialled", code="too_many", field="URLs")
        if self._busy:
            raise Unavailable("providers are being dialled for somebody else; ask again in a moment", code="busy", retry_after_s=1)
        offered = [one.url for one in self._table.all(service) if one.url in urls]
        self._busy = True
        try:
            errors = await asyncio.gather(*map(self._dial, offered))
        finally:
            self._busy = False
        unreached = [{"URL": url, "Error": error} for url, error in zip(offered, errors, strict=True) if error]
        return Response(200, to_json({"Unreached": unreached}))

    async def _dial(self, address: str) -> str:
        """Return why a URL's port takes no connection; nothing if it does, or if it could not even be tried."""
        try:
            url = parse_url(address, "URL")
        except InvalidInput as exc:
            return exc.message
        outcomes: list[_Knock | PeerError] = []
        tried = asyncio.Event()

        def dialled(outcome: _Knock | PeerError) -> None:
            outcomes.append(outcome)
            tried.set()

        plain = Url("http", url.host, url.port, url.target)  # whether it speaks TLS is not asked
        dial = self._dialer.dial(plain, None, _Knock, dialled)
        try:
            async with asyncio.timeout(DIAL_S):
                await tried.wait()
        except TimeoutError:
            return f"{url.authority} did not take the connection within {DIAL_S:g} s" if dial.waited_s() < DIAL_S / 2 else ""
        finally:
            if not outcomes:
                dial.cancel()
        outcome = outcomes[0]
        return outcome.message if isinstance(outcome, PeerError) and not isinstance(outcome, OwnLimit) else ""


class _Knock(asyncio.Protocol):
    """Lets a connection go as soon as it stands."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
