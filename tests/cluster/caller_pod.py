"""Runs in a pod beside a sidecar: asks it for a provider and calls that, at a steady rate, without a second try; notes all that fails.

The tests ask it, through `kubectl port-forward`:

    GET  /now                         the time here
    POST /load?service=S&rate=N&path=P   N requests a second from now on; 0 ends it; with url=U to that, without asking the sidecar
    GET  /load?service=S&since=T&until=T  {"asked","failed":[[time, what],...],"lookups_failed"}, once all begun before `until` are over
    GET  /told?since=T                [[time, event],...] of the sidecar's /events
    POST /watch?host=H&port=P         connects there every 2 ms until nobody takes it; GET /watch: {"last","refused"} in time
    GET  /fetch?url=U                 what is there
"""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from bisect import bisect_left
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

SIDECAR = ("127.0.0.1", 7071)
CALL_S = 3.0
WORKERS = 32
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
KEPT = 200_000
WATCH_S = 60.0


class Load:
    """Requests to one service."""

    def __init__(self, service, rate, path, url):
        self.service, self.path, self.url = service, path, url
        self._pause_s = 1 / rate
        self._turn = threading.Lock()
        self._next_at = time.time()
        self._running = {}
        self._over = deque(maxlen=KEPT)
        self._ended = False
        for number in range(WORKERS):
            threading.Thread(target=self._work, args=(number,), daemon=True).start()

    def end(self):
        self._ended = True

    def outcome(self, since, until):
        end = time.time() + 2 * CALL_S
        while any(began < until for began in list(self._running.values())) and time.time() < end:
            time.sleep(0.01)
        over = sorted(self._over)
        over = over[bisect_left(over, (since,)) : bisect_left(over, (until,))]
        failed = [[began, what] for began, what in over if what]
        return {"asked": len(over), "failed": failed, "lookups_failed": sum(what.startswith("look-up") for _, what in failed)}

    def _work(self, number):
        sidecar = Line(SIDECAR)
        while not self._ended:
            with self._turn:
                at = self._next_at
                self._next_at = max(at + self._pause_s, time.time() - 1)
            time.sleep(max(0.0, at - time.time()))
            began = self._running[number] = time.time()
            what = self._one(sidecar)
            self._over.append((began, what))
            del self._running[number]
        sidecar.close()

    def _one(self, sidecar):
        if self.url:
            return self._call(self.url)
        try:
            status, body = sidecar.get(f"/providers/{self.service}?format=text")
        except OSError as exc:
            return f"look-up {exc!r}"
        return self._call(body.decode().strip()) if status == 200 else f"look-up {status} {body[:200]}"

    def _call(self, where):
        url = urlsplit(where)
        line = Line((url.hostname, url.port))
        try:
            status, _ = line.get(self.path)
            return "" if status == 200 else f"{url.netloc} {status}"
        except OSError as exc:
            return f"{url.netloc} {exc!r}"
        finally:
            line.close()


class Line:
    """A connection to one server: http.client's cost would be more than that of all it calls."""

    def __init__(self, address):
        self._address = address
        self._socket = None

    def get(self, path):
        """Return status and body; whatever goes wrong is an OSError."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, CALL_S)
            self._socket.sendall(b"GET %s HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (path.encode(), self._address[0].encode(), self._address[1]))
            return self._answer()
        except (OSError, ValueError) as exc:
            self.close()
            raise exc if isinstance(exc, OSError) else OSError(repr(exc)) from exc

    def _answer(self):
        head, rest = self._until(b"", b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head.lower():
            body, _ = self._until(rest, b"\r\n0\r\n\r\n")
            return status, body
        wanted = int(LENGTH.search(head).group(1))
        while len(rest) < wanted:
            rest += self._more()
        return status, rest

    def _until(self, data, mark):
        while mark not in data:
            data += self._more()
        return data.split(mark, 1)

    def _more(self):
        data = self._socket.recv(65536)
        if not data:
            raise OSError("closed before the end of the answer")
        return data

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Watch:
    """Finds out when a port takes nobody any more."""

    def __init__(self, host, port):
        self.last = self.refused = 0.0
        self._address = (host, int(port))
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        end = time.time() + WATCH_S
        while time.time() < end and not self.refused:
            at = time.time()
            try:
                socket.create_connection(self._address, 1.0).close()
                self.last = at
            except OSError:
                self.refused = time.time()
            time.sleep(0.002)


class State:
    loads = {}
    watches = {}
    told = deque(maxlen=10_000)


def listen():
    """Note each event of the sidecar's stream with the time when it came."""
    while True:
        try:
            connection = http.client.HTTPConnection(*SIDECAR, timeout=60)
            connection.request("GET", "/events")
            answer = connection.getresponse()
            name = ""
            while line := answer.readline():
                text = line.decode().strip()
                if text.startswith("event: "):
                    name = text[7:]
                elif text.startswith("data: "):
                    State.told.append([time.time(), {"event": name, **json.loads(text[6:])}])
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.2)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def _serve(self):
        parts = urlsplit(self.path)
        try:
            answer = getattr(self, f"{self.command.lower()}_{parts.path.strip('/')}")(**dict(parse_qsl(parts.query)))
            status, body = 200, json.dumps(answer).encode()
        except Exception as exc:
            status, body = 500, repr(exc).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def get_now(self):
        return time.time()

    def post_load(self, service, rate, path="/", url=""):
        if old := State.loads.get(service):
            old.end()
        if float(rate):
            State.loads[service] = Load(service, float(rate), path, url)
        return time.time()

    def get_load(self, service, since, until):
        return State.loads[service].outcome(float(since), float(until))

    def get_told(self, since):
        return [one for one in list(State.told) if one[0] >= float(since)]

    def post_watch(self, host, port):
        State.watches[host] = Watch(host, port)

    def get_watch(self, host):
        return {"last": State.watches[host].last, "refused": State.watches[host].refused}

    def get_fetch(self, url):
        with urllib.request.urlopen(url, timeout=CALL_S) as answer:
            return answer.read().decode()

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    threading.Thread(target=listen, daemon=True).start()
    Server(("", 8080), Handler).serve_forever()
