"""What a sidecar can be told, and how it says what is wrong with it."""

from __future__ import annotations

import pytest

from pillion_common import config
from pillion_common.errors import ConfigError
from pillion_common.names import Url
from pillion_sidecar.settings import Check, Settings, with_fallbacks

A_WHOLE_URL = pytest.param("http://127.0.0.1:6000/ok")
NEEDED = {"PILLION_NAME": "Portald", "PILLION_PORT": "5000"}


def load(*words: str, **environ: str) -> Settings:
    return config.load(Settings, "sidecar", words, with_fallbacks(environ))


def faults(*words: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(*words, **environ)
    return refused.value.faults


def test_name_and_port_are_enough() -> None:
    settings = load(**NEEDED)
    assert (settings.name, settings.port, settings.host) == ("Portald", 5000, "127.0.0.1")
    assert settings.registry == (Url("http", "registry", 3000, "/"),)
    assert settings.requires == {}
    assert settings.check == Check("tcp")
    assert str(settings.listen) == "0.0.0.0:7070"
    assert str(settings.local) == "127.0.0.1:7071"
    assert settings.state_dir == "/var/lib/pillion"
    assert settings.spool_size == 64 * 1024 * 1024
    assert settings.all_required == ("LogService",)


def test_flags_go_before_the_environment() -> None:
    settings = load("--name", "A", "--port", "1", "--registry", "http://a:1,http://b:2", **NEEDED)
    assert (settings.name, settings.port) == ("A", 1)
    assert [url.authority for url in settings.registry] == ["a:1", "b:2"]


def test_requirements_with_counts() -> None:
    settings = load("--requires", "LogService, Db:2,Mail", **NEEDED)
    assert settings.requires == {"LogService": 1, "Db": 2, "Mail": 1}
    assert settings.all_required == ("LogService", "Db", "Mail")


def test_the_log_service_does_not_require_itself() -> None:
    assert load("--name", "LogService", "--port", "4000").all_required == ()


def test_no_log_service_is_required_where_no_lines_go() -> None:
    assert load("--log-to", "", "--requires", "Db", **NEEDED).all_required == ("Db",)


def test_the_name_may_come_from_opentelemetry() -> None:
    assert load(OTEL_SERVICE_NAME="Otel", PILLION_PORT="1").name == "Otel"
    assert load(OTEL_SERVICE_NAME="Otel", PILLION_NAME="Own", PILLION_PORT="1").name == "Own"


def test_an_empty_name_gives_way_to_opentelemetrys() -> None:
    # Compose passes `PILLION_NAME: ${NAME:-}` on as an empty text.
    assert load(OTEL_SERVICE_NAME="Otel", PILLION_NAME="", PILLION_PORT="1").name == "Otel"


@pytest.mark.parametrize(
    ("text", "check"),
    [("tcp", Check("tcp")), ("none", Check("none")), ("http:/", Check("http", "/")), ("http:/ok?deep=1", Check("http", "/ok?deep=1"))],
)
def test_the_kinds_of_check(text: str, check: Check) -> None:
    assert load("--check", text, **NEEDED).check == check


@pytest.mark.parametrize("text", ["", "ping", "http:", "http:ok", "https:/ok", "http:/a b", "http:/a#b", "exec:", "exec:a 'b", A_WHOLE_URL])
def test_what_is_no_check(text: str) -> None:
    [fault] = faults("--check", text, **NEEDED)
    assert fault.startswith("--check: ")


def test_what_is_required_more_than_once_or_not_really_is_told_to_the_registry() -> None:
    settings = load("--requires", "Db:2,Cache?,Mail", **NEEDED)
    assert settings.requires == {"Db": 2, "Cache": 0, "Mail": 1}
    assert settings.needs(("Found",)) == {"Db": 2, "Cache": 0, "LogService": 0, "Found": 0}
    assert load("--requires", "LogService,Mail", **NEEDED).needs() == {}


@pytest.mark.parametrize("text", ["Db:0", "Db:x", "Db:1001", ".Db", "Db:-1", "a/b", "Db:1:2", "?", "Db??", "Db:2?"])
def test_what_is_no_requirement(text: str) -> None:
    [fault] = faults("--requires", text, **NEEDED)
    assert fault.startswith("--requires: ")


@pytest.mark.parametrize("text", ["", "registry:3000", "ftp://registry", "http://registry:3000/services", "http://user@registry"])
def test_what_is_no_registry(text: str) -> None:
    [fault] = faults("--registry", text, **NEEDED)
    assert fault.startswith("--registry: ")


def test_files_are_kept_where_there_is_a_folder_for_them_and_dns_is_off() -> None:
    settings = load(**NEEDED)
    assert (settings.project_dir, settings.dns, settings.dns_zone) == ("/run/pillion", None, "pillion")
    assert load("--project-dir", "", **NEEDED).project_dir == ""


@pytest.mark.parametrize(("text", "shown"), [("127.0.0.1:5300", "127.0.0.1:5300"), ("[::1]:0", "[::1]:0"), ("0.0.0.0:53", "0.0.0.0:53")])
def test_dns_is_told_an_address(text: str, shown: str) -> None:
    assert str(load(PILLION_DNS=text, **NEEDED).dns) == shown


@pytest.mark.parametrize("text", ["5300", "127.0.0.1", "127.0.0.1:70000"])
def test_what_is_no_address(text: str) -> None:
    assert faults(PILLION_DNS=text, **NEEDED) == [f"PILLION_DNS: {text!r} is not HOST:PORT, for example 0.0.0.0:3000"]


def test_a_resolver_is_not_named_by_a_name() -> None:
    [fault] = faults(PILLION_DNS="localhost:5300", **NEEDED)
    assert fault == "PILLION_DNS: 'localhost:5300' is not IP:PORT; a resolver is named by its address, for example 127.0.0.1:5300"


@pytest.mark.parametrize(("text", "zone"), [("pillion.", "pillion"), ("Svc.Example.Test", "svc.example.test"), ("a-1", "a-1")])
def test_the_domain_of_dns(text: str, zone: str) -> None:
    assert load("--dns-zone", text, **NEEDED).dns_zone == zone


@pytest.mark.parametrize("text", ["", ".", "a..b", ".a", "a b", "-a", "a-", "a_b", "ä", "x" * 64, "x." * 30 + "x"])
def test_what_is_no_domain(text: str) -> None:
    [fault] = faults(PILLION_DNS_ZONE=text, **NEEDED)
    assert fault.endswith("is not a domain of up to 60 characters, for example pillion")


def test_all_faults_are_told_together() -> None:
    told = faults(
        "--check",
        "ping",
        "--spool-size",
        "much",
        "--advertise",
        "a b",
        PILLION_PORT="70000",
        PILLION_LISTEN="7070",
        PILLION_REQUIRES="Db:0",
    )
    assert [fault.partition(":")[0] for fault in told] == [
        "--name or PILLION_NAME",
        "PILLION_PORT",
        "PILLION_REQUIRES",
        "--check",
        "PILLION_LISTEN",
        "--advertise",
        "--spool-size",
    ]
    assert told[0] == "--name or PILLION_NAME: is needed: the app's service name (OTEL_SERVICE_NAME serves as well)"
    assert told[1] == "PILLION_PORT: '70000' is not a whole number from 1 to 65535"
    assert told[2] == "PILLION_REQUIRES: 'Db:0' has 'Db:0'; write Name, Name:COUNT or Name?"
    assert told[3] == "--check: 'ping' is not a check; use tcp, none, http:/path or exec:COMMAND"
