"""The webhook's options (one table; see pillion_common.config)."""

from __future__ import annotations

from dataclasses import dataclass

from pillion_common.config import Address, option, parse_address, parse_level, parse_names, parse_switch, parse_text, parse_time
from pillion_common.names import parse_url
from pillion_injector.facts import DEFAULT_IMAGE, DEFAULT_REGISTRY, Wanted

PROGRAM = "injector"
DESCRIPTION = "Adds the sidecar to pods on Kubernetes as they are made; a mutating admission webhook."


def _parse_registries(text: str) -> str:
    for part in parse_names(text):
        parse_url(part, "registry")
    return text


@dataclass(frozen=True)
class Settings:
    """Everything the webhook can be told."""

    listen: Address = option("0.0.0.0:8443", parse_address, "HOST:PORT for the API server, with TLS")
    probes: Address = option("0.0.0.0:8080", parse_address, "HOST:PORT for /livez, /readyz and /metrics, without TLS")
    certificate_dir: str = option(
        "/run/certificate",
        parse_text,
        "folder with tls.crt and tls.key, as a Secret holds them; read again when they change",
        required=True,
    )
    certificate_check: float = option("10s", parse_time, "time between two looks whether the certificate has changed")
    sidecar_image: str = option(DEFAULT_IMAGE, parse_text, "the sidecar's image", required=True)
    registry: str = option(DEFAULT_REGISTRY, _parse_registries, "registry URLs as pods reach them, comma-separated", required=True)
    token_secret: str = option("", parse_text, "Secret in the pods' namespaces with the shared token as `token`; empty: none")
    native: bool = option("no", parse_switch, "whether sidecars are native ones, which servers know from 1.29 on")
    leave_out: tuple[str, ...] = option(
        "kube-system,kube-public,kube-node-lease", parse_names, "namespaces whose pods get no sidecar, comma-separated"
    )
    namespace: str = option("", parse_text, "the webhook's own namespace, whose pods get no sidecar either")
    by_label: bool = option(
        "no", parse_switch, "whether the API server sends only pods with the label; then it is said when one has but the annotation"
    )
    events: bool = option("yes", parse_switch, "whether the API server is told, as an Event, why a pod got no sidecar")
    api: str = option("", parse_text, "URL of the API server; default: as a pod finds it")
    account_dir: str = option(
        "/var/run/secrets/kubernetes.io/serviceaccount", parse_text, "folder with the service account's token and ca.crt, for Events"
    )
    log_level: str = option("info", parse_level, "least level of its own log: debug, info, warning or error")

    def wanted(self) -> Wanted:
        """Return how sidecars are injected."""
        return Wanted(self.sidecar_image, self.registry, self.token_secret, self.native)

    def left_out(self) -> frozenset[str]:
        """Return the namespaces whose pods are never changed."""
        return frozenset({*self.leave_out, self.namespace} - {""})
