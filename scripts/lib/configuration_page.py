"""Makes docs/configuration.md out of the option tables, so that the page cannot say anything else than the programs do."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from pillion_common.config import env_name, flag_name
from pillion_log import settings as log
from pillion_registry import settings as registry
from pillion_sidecar import settings as sidecar

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

HEAD = """# Configuration

Made by `scripts/docs` from the programs' own tables; do not edit it by hand.

Every option can be given as a flag, as an environment variable, or as a key in a YAML file named by `--config FILE` (`PILLION_CONFIG`).
The first of these that is there counts: flag, environment, file, default. A program that finds a fault lists all of them and ends with
exit code 2. Durations are written `500ms`, `3s`, `2m`, `1h`; sizes `64K`, `16M`, `1G`; lists with commas. Secrets are only read from files.
"""


def section(title: str, note: str, table: type[Any]) -> str:
    """Return one program's part of the page."""
    lines = [f"\n## {title}\n", f"{note}\n", "| Flag | Environment | Default | What it does |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(table):
        default = f"`{field.metadata['default']}`" if field.metadata["default"] else "needed" if field.metadata["required"] else ""
        lines.append(f"| `{flag_name(field.name)}` | `{env_name(field.name)}` | {default} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the whole page."""
    return (
        HEAD
        + section("pillion registry", registry.DESCRIPTION, registry.Settings)
        + section("pillion log", log.DESCRIPTION, log.Settings)
        + section("pillion sidecar, pillion run", sidecar.DESCRIPTION, sidecar.Settings)
    )


def main() -> int:
    """Write the page, or check it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("docs/configuration.md is not what the option tables say; run scripts/docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
