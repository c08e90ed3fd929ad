"""The webhook's HTTP face: `/mutate` for pods that ask, `/mutate/namespace` for pods whose namespace asks, `/metrics`, and the probes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pillion_common.errors import InvalidInput
from pillion_common.http.tornado_handlers import Application, BaseHandler
from pillion_common.lifecycle import Readiness
from pillion_common.logs import EventLog
from pillion_injector.certificate import Certificate
from pillion_injector.events import Events
from pillion_injector.review import ALREADY, INJECTED, OUTCOMES, Decision, Policy, answer, decide, read

_log = EventLog("injector")

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Reviews:
    """Answers reviews, counts them, and has it told when a pod got no sidecar."""

    def __init__(self, policy: Policy, events: Events | None, certificate: Certificate) -> None:
        self._policy = policy
        self._events = events
        self._certificate = certificate
        self._counts: Counter[str] = Counter()

    def review(self, body: bytes, by_namespace: bool) -> bytes:
        """Return the answer to a review.

        Raises:
            InvalidInput: it is none.
        """
        try:
            request = read(body)
        except InvalidInput:
            self._counts["invalid"] += 1
            raise
        decision = self._decide(request, by_namespace)
        self._counts[decision.outcome] += 1
        self._tell(decision)
        return answer(request["uid"], decision)

    def metrics(self) -> str:
        """Return the counters in Prometheus' text format."""
        lines = ["# HELP pillion_injector_reviews_total objects looked at, by what became of them"]
        lines.append("# TYPE pillion_injector_reviews_total counter")
        lines += [f'pillion_injector_reviews_total{{outcome="{name}"}} {self._counts[name]}' for name in (*OUTCOMES, "failed", "invalid")]
        rows = [("certificate_reloads_total", "times the certificate was changed", self._certificate.reloads)]
        if self._events:
            rows += [
                ("events_posted_total", "Events the API server has taken", self._events.posted),
                ("events_failed_total", "Events the API server has not taken", self._events.failed),
                ("events_dropped_total", "Events given up because too many waited", self._events.dropped),
            ]
        for name, text, value in rows:
            lines += [
                f"# HELP pillion_injector_{name} {text}",
                f"# TYPE pillion_injector_{name} counter",
                f"pillion_injector_{name} {value}",
            ]
        return "\n".join(lines) + "\n"

    def _decide(self, request: dict[str, Any], by_namespace: bool) -> Decision:
        """Decide; an object of a shape that nobody foresaw must not keep a pod from starting."""
        try:
            return decide(request, self._policy, by_namespace)
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            _log.fault("review_failed", "an object could not be looked at; it was let pass as it is", exc)
            return Decision("failed", "an object")

    def _tell(self, decision: Decision) -> None:
        if decision.reason:
            _log.warning("not_injected", f"{decision.what}: {decision.reason}", outcome=decision.outcome)
            if self._events and decision.about:
                self._events.tell(decision.about, decision.reason)
        elif decision.outcome in (INJECTED, ALREADY):
            _log.info(decision.outcome, f"{decision.what}: {'got a sidecar' if decision.outcome == INJECTED else 'has a sidecar already'}")
        else:
            _log.debug(decision.outcome, f"{decision.what}: was not to get a sidecar")


class MutateHandler(BaseHandler):
    """Takes an AdmissionReview."""

    def initialize(self, reviews: Reviews, by_namespace: bool) -> None:
        """Take what `make_application` gives."""
        self._reviews = reviews
        self._by_namespace = by_namespace

    def post(self) -> None:
        """Answer it."""
        self.write_json(self._reviews.review(self.request.body, self._by_namespace))


class MetricsHandler(BaseHandler):
    """Tells the counters."""

    def initialize(self, reviews: Reviews) -> None:
        """Take what `make_application` gives."""
        self._reviews = reviews

    def get(self) -> None:
        """Tell them."""
        self.set_header("Content-Type", METRICS_TYPE)
        self.write(self._reviews.metrics())


def make_application(reviews: Reviews, readiness: Readiness, probes_only: bool = False) -> Application:
    """Return the webhook's application, or the one of its probes alone."""
    routes: list[Any] = [(r"/metrics", MetricsHandler, {"reviews": reviews})]
    if not probes_only:
        routes += [
            (r"/mutate", MutateHandler, {"reviews": reviews, "by_namespace": False}),
            (r"/mutate/namespace", MutateHandler, {"reviews": reviews, "by_namespace": True}),
        ]
    return Application(routes, readiness)
