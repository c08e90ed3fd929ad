"""The configuration table: which source wins, which faults are told, what --help lists."""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pillion_common import config
from pillion_common.config import Address, load, option
from pillion_common.errors import ConfigError
from pillion_registry.settings import Settings


@dataclass(frozen=True)
class Table:
    listen: Address = option("127.0.0.1:3000", config.parse_address, "HOST:PORT to listen on")
    heartbeat_interval: float = option("3s", config.parse_duration, "time between two checks, 100 % exact")
    names: tuple[str, ...] = option("", config.parse_names, "names, comma-separated")
    registry: str = option("", config.parse_text, "the registry's URL", required=True)
    log_level: str = option("info", config.parse_level, "least level")


def read(*argv: str, **environ: str) -> Table:
    return load(Table, "demo", argv, {"PILLION_REGISTRY": "http://r"} | environ)


def faults(table: type[Any], *argv: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(table, "demo", argv, environ)
    return caught.value.faults


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pillion.yml"


def test_defaults_are_written_as_a_user_would() -> None:
    assert read() == Table(Address("127.0.0.1", 3000), 3.0, (), "http://r", "info")


def test_flag_over_environment_over_file_over_default(file: Path) -> None:
    file.write_text("listen: 10.0.0.1:1\nheartbeat_interval: 1s\nlog_level: debug\n")
    table = read("--config", str(file), "--listen", "10.0.0.3:3", PILLION_LISTEN="10.0.0.2:2", PILLION_HEARTBEAT_INTERVAL="2s")
    assert table.listen == Address("10.0.0.3", 3)
    assert table.heartbeat_interval == 2.0
    assert table.log_level == "debug"
    assert table.names == ()


def test_the_file_may_be_named_in_the_environment(file: Path) -> None:
    file.write_text("names: [A, B]\nheartbeat_interval: 5\n")
    table = read(PILLION_CONFIG=str(file))
    assert table.names == ("A", "B")
    assert table.heartbeat_interval == 5.0


def test_an_empty_file_is_no_fault(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert read("--config", str(file)).log_level == "info"


def test_all_faults_are_told_at_once_each_with_its_source(file: Path) -> None:
    file.write_text("log_level: loud\nheartbeat_intervall: 3s\n")
    found = faults(Table, "--config", str(file), "--listen", "nowhere", PILLION_HEARTBEAT_INTERVAL="soon")
    assert len(found) == 5
    text = "\n".join(found)
    assert "'heartbeat_intervall' is not an option; did you mean 'heartbeat_interval'?" in text
    assert "--listen: 'nowhere' is not HOST:PORT, for example 0.0.0.0:3000" in text
    assert "PILLION_HEARTBEAT_INTERVAL: 'soon' is not a duration; write 500ms, 3s, 2m, 1h or 7d" in text
    assert "log_level in the configuration file: 'loud' is not one of debug, info, warning, error" in text
    assert "--registry or PILLION_REGISTRY: is needed: the registry's URL" in text


def test_a_key_that_resembles_nothing_is_told_without_a_guess(file: Path) -> None:
    file.write_text("zzz: 1\nregistry: http://r\n")
    assert faults(Table, "--config", str(file)) == [f"--config {file}: 'zzz' is not an option"]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_a_fault(file: Path, text: str) -> None:
    file.write_text(text)
    assert any("is not a mapping of options" in fault for fault in faults(Table, "--config", str(file), "--registry", "r"))


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe", b"? [a]\n: b\n"])
def test_a_file_that_is_no_yaml_is_a_fault(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert any("cannot be read" in fault for fault in faults(Table, "--config", str(file), "--registry", "r"))


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert any("cannot be read" in fault for fault in faults(Table, "--config", str(tmp_path / "none.yml"), "--registry", "r"))


def test_variables_of_others_are_not_looked_at() -> None:
    assert read(PILLION_NAME="app", PATH="/bin").registry == "http://r"


def test_blanks_around_a_value_do_not_count() -> None:
    assert read(PILLION_LISTEN=" 0.0.0.0:1 ").listen == Address("0.0.0.0", 1)


def test_an_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--colour", "blue")
    assert caught.value.code == 2
    assert "--colour" in capsys.readouterr().err


def test_a_flag_cannot_be_shortened() -> None:
    with pytest.raises(SystemExit):
        read("--list", "127.0.0.1:1")


@pytest.mark.parametrize("table", [Table, Settings])
def test_help_lists_every_option_with_variable_and_default(table: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(table, "demo", ["--help"], {})
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(table):
        assert config.flag_name(field.name) in text
        assert config.env_name(field.name) in text
        assert field.metadata["default"] in text


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("3", 3.0), ("3s", 3.0), ("2m", 120.0), ("1h", 3600.0), ("7d", 604800.0), ("0.2", 0.2)]
)
def test_durations(text: str, seconds: float) -> None:
    assert config.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 s", "1e3", "nan", "inf", "1s1s", ".5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        config.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("65536", 65536), ("64K", 65536), ("16M", 16 << 20), ("1GiB", 1 << 30), ("2kb", 2048)]
)
def test_sizes(text: str, size: int) -> None:
    assert config.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1T", "1.5M", "1 K"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        config.parse_size(text)


@pytest.mark.parametrize(
    ("text", "address"), [("0.0.0.0:3000", Address("0.0.0.0", 3000)), ("[::1]:0", Address("::1", 0)), ("app:65535", Address("app", 65535))]
)
def test_addresses(text: str, address: Address) -> None:
    assert config.parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "3000", ":3000", "app", "app:", "app:x", "app:65536", "app:-1", "a b:1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        config.parse_address(text)


def test_counts_have_both_bounds() -> None:
    parse = config.parse_count(1, 10)
    assert [parse("1"), parse("10")] == [1, 10]
    for text in ("0", "11", "-1", "1.0", "", "x"):
        with pytest.raises(ValueError, match="is not a whole number from 1 to 10"):
            parse(text)


def test_networks() -> None:
    assert config.parse_networks("10.0.0.0/8, fd00::/8") == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
    assert config.parse_networks("10.0.0.7") == (ipaddress.ip_network("10.0.0.7/32"),)
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/33', which is not a network"):
        config.parse_networks("10.0.0.0/8,10.0.0.0/33")


@pytest.mark.parametrize("flag", ["--heartbeat-interval", "--heartbeat-timeout", "--forget-after"])
def test_a_time_of_the_registry_that_would_make_it_spin_is_a_fault(flag: str) -> None:
    assert any(flag in fault for fault in faults(Settings, flag, "0"))
