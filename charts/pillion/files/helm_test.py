"""What `helm test` runs: registers an instance, looks it up, is told a patch, writes and finds a log line, drains and leaves."""

import json
import os
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REGISTRY, LOG, HOST = os.environ["REGISTRY"], os.environ["LOG"], os.environ["POD_IP"]
PORT, WITHIN_S = 8080, 30
NAME = "HelmTest"
with open(os.environ["TOKEN_FILE"], encoding="ascii") as file:
    TOKEN = file.read().strip()
told = {}


class Instance(BaseHTTPRequestHandler):
    """Answers heartbeats, and keeps which providers it was told of."""

    def do_GET(self):
        self._answer()

    def do_POST(self):
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for entry in patch.get("Added") or []:
            told[entry["Name"]] = entry["URL"]
        self._answer()

    def _answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass


def ask(method, url, body=b""):
    headers = {"Authorization": "Bearer " + TOKEN}
    request = urllib.request.Request(url, body or None, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def state():
    return [one["State"] for one in json.loads(ask("GET", REGISTRY + "/services/" + NAME))["Services"] if one["ServiceURL"] == MINE]


def until(what, look):
    ends = time.monotonic() + WITHIN_S
    while not look():
        if time.monotonic() > ends:
            raise SystemExit("FAILED: not within %d s: %s" % (WITHIN_S, what))
        time.sleep(0.1)
    print("ok   " + what, flush=True)


MINE = "http://%s:%d" % (f"[{HOST}]" if ":" in HOST else HOST, PORT)
threading.Thread(target=ThreadingHTTPServer(("", PORT), Instance).serve_forever, daemon=True).start()
wanted = ["LogService"] + (["GradingService", "Portald"] if os.environ["DEMO"] else [])
registration = {
    "ServiceName": NAME,
    "ServiceURL": MINE,
    "RequiredServices": wanted,
    "ServiceUpdateURL": MINE + "/services",
    "HeartbeatURL": MINE + "/heartbeat",
}
answer = json.loads(ask("POST", REGISTRY + "/services", json.dumps(registration).encode()))
print("ok   registers", flush=True)
until("is found once its heartbeat was answered", lambda: state() == ["up"])
until("is told of " + ", ".join(wanted), lambda: all(name in told for name in wanted))
mark = uuid.uuid4().hex
ask("POST", told["LogService"] + "/log", ("[%s] - %s" % (NAME, mark)).encode())
until("finds its log line again", lambda: mark in ask("GET", LOG + "/logs?q=" + mark))
ask("POST", REGISTRY + "/services/" + answer["InstanceID"] + "/drain")
until("drains", lambda: state() == ["draining"])
ask("DELETE", REGISTRY + "/services", MINE.encode())
until("leaves", lambda: state() == [])
