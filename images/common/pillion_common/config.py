"""One table per program makes its flags, environment variables, YAML keys, `--help` and docs/configuration.md.

The table is a frozen dataclass whose fields are made with `option`:

    @dataclass(frozen=True)
    class Settings:
        listen: Address = option("0.0.0.0:3000", parse_address, "HOST:PORT to listen on")

`load(Settings, ...)` reads flag > environment (`PILLION_LISTEN`) > YAML file (`listen:`) > default, and reports all faults at once.
Nothing is read at import.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pillion_common.errors import ConfigError, PillionError
from pillion_common.logs import LEVELS
from pillion_common.names import is_host

if TYPE_CHECKING:  # each is imported where it is needed: a sidecar that is told all by its environment needs none of them
    import argparse
    import ipaddress

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network
else:
    Network = Any

T = TypeVar("T")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_DURATION_UNITS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)([KMG]i?B?)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Address(NamedTuple):
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def option(default: str, parse: Callable[[str], T], help: str, *, required: bool = False) -> T:
    """Return a dataclass field that is one row of the table.

    Args:
        default: as a user would write it.
        parse: makes the value of the text; raises ValueError with a reason.
        help: one line, for --help and the documentation.
        required: an empty value is a fault.
    """
    return dataclasses.field(metadata={"default": default, "parse": parse, "help": help, "required": required})  # type: ignore[no-any-return]


def load(table: type[T], program: str, argv: Sequence[str], environ: Mapping[str, str], description: str = "") -> T:
    """Read a program's settings.

    Args:
        table: the dataclass of options.
        argv: the words after the program's name.
        environ: usually os.environ. Variables that are no option are not looked at: other programs have theirs there.

    Returns:
        An instance of the table.

    Raises:
        ConfigError: with every fault at once.
    """
    fields = dataclasses.fields(table)  # type: ignore[arg-type]
    flags = vars(_parser(fields, program, description).parse_args(list(argv))) if argv else {}
    faults: list[str] = []
    file_name = flags.get("config") or environ.get("PILLION_CONFIG", "")
    from_file = _read_file(file_name, [field.name for field in fields], faults) if file_name else {}
    values: dict[str, Any] = {}
    for field in fields:
        source, text = _pick(field, flags, environ, from_file)
        try:
            if field.metadata["required"] and not text:
                raise ValueError(f"is needed: {field.metadata['help']}")
            values[field.name] = field.metadata["parse"](text)
        except (ValueError, PillionError) as exc:
            faults.append(f"{source}: {_quoted(text)}{exc}")
    if faults:
        raise ConfigError(faults)
    return table(**values)


def env_name(field_name: str) -> str:
    """Return the environment variable of an option."""
    return "PILLION_" + field_name.upper()


def flag_name(field_name: str) -> str:
    """Return the flag of an option."""
    return "--" + field_name.replace("_", "-")


def _parser(fields: Sequence[dataclasses.Field[Any]], program: str, description: str) -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(prog=f"pillion {program}", description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options (env PILLION_CONFIG)")
    for field in fields:
        default = field.metadata["default"]
        tail = f"default {default}" if default else "needed" if field.metadata["required"] else "default: none"
        text = f"{field.metadata['help']} (env {env_name(field.name)}; {tail})".replace("%", "%%")
        parser.add_argument(flag_name(field.name), dest=field.name, metavar="VALUE", help=text)
    return parser


def _pick(
    field: dataclasses.Field[Any], flags: Mapping[str, Any], environ: Mapping[str, str], from_file: Mapping[str, str]
) -> tuple[str, str]:
    if flags.get(field.name) is not None:
        return flag_name(field.name), str(flags[field.name]).strip()
    if env_name(field.name) in environ:
        return env_name(field.name), environ[env_name(field.name)].strip()
    if field.name in from_file:
        return f"{field.name} in the configuration file", from_file[field.name]
    return f"{flag_name(field.name)} or {env_name(field.name)}", str(field.metadata["default"])


def _read_file(name: str, known: list[str], faults: list[str]) -> dict[str, str]:
    import difflib

    import yaml

    try:
        with open(name, encoding="utf-8") as file:
            data = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        faults.append(f"--config {name}: cannot be read: {exc}")
        return {}
    if data is None:
        return {}
    if not isinstance(data, dict):
        faults.append(f"--config {name}: is not a mapping of options; write lines like `listen: 0.0.0.0:3000`")
        return {}
    values: dict[str, str] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            faults.append(f"--config {name}: {key!r} is not an option" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif isinstance(value, list):
            values[key] = ",".join(str(item) for item in value)
        else:
            values[key] = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return values


def _quoted(text: str) -> str:
    return f"{text!r} " if text else ""


# The kinds of value. Each raises ValueError with a reason that reads well after the quoted text.


def parse_text(text: str) -> str:
    """Return the text as it is."""
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """Return a comma-separated list without its blanks."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_address(text: str) -> Address:
    """Return HOST:PORT in parts; an IPv6 host stands in brackets."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdigit() or int(port) > 65535 or not is_host(host):
        raise ValueError("is not HOST:PORT, for example 0.0.0.0:3000")
    return Address(host, int(port))


def parse_duration(text: str) -> float:
    """Return seconds; `500ms`, `3`, `3s`, `2m`, `1h` and `7d` are possible."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError("is not a duration; write 500ms, 3s, 2m, 1h or 7d")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_time(text: str) -> float:
    """Return seconds like parse_duration, but at least a millisecond: for what is done again and again, and for time-outs."""
    seconds = parse_duration(text)
    if seconds < 0.001:
        raise ValueError("is too short; 1ms is the least")
    return seconds


def parse_size(text: str) -> int:
    """Return bytes; `64K`, `16M` and `1G` are powers of 1,024."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError("is not a size; write 65536, 64K, 16M or 1G")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "")[:1].upper()]


def parse_switch(text: str) -> bool:
    """Return whether something is on; an empty text is off."""
    word = text.lower()
    if word in ("1", "yes", "true", "on"):
        return True
    if word in ("", "0", "no", "false", "off"):
        return False
    raise ValueError("is not a switch; write yes or no")


def parse_count(low: int, high: int) -> Callable[[str], int]:
    """Return a parser for whole numbers from low to high."""

    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_share(text: str) -> float:
    """Return a share from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError("is not a share; write a number from 0 to 1, such as 0.5")
    return share


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return a comma-separated list of networks such as 10.0.0.0/8."""
    import ipaddress

    networks = []
    for part in parse_names(text):
        try:
            networks.append(ipaddress.ip_network(part, strict=False))
        except ValueError as exc:
            raise ValueError(f"has {part!r}, which is not a network; write 10.0.0.0/8 or fd00::/8") from exc
    return tuple(networks)


def parse_level(text: str) -> str:
    """Return a log level."""
    if text not in LEVELS:
        raise ValueError(f"is not one of {', '.join(LEVELS)}")
    return text
