"""Makes docs/configuration.md, and the table in docs/sidecar.md, out of the option tables: the pages say what the programs do."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from pillion_common.config import env_name, flag_name
from pillion_injector import settings as injector
from pillion_log import settings as log
from pillion_registry import settings as registry
from pillion_sidecar import settings as sidecar
from pillion_sidecar.agent import settings as agent

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "configuration.md"
SIDECAR_PAGE = DOCS / "sidecar.md"
BEGIN, END = "<!-- options: made by scripts/docs -->\n", "<!-- end of options -->\n"

HEAD = """# Configuration

Made by `scripts/docs` from the programs' own tables; do not edit it by hand.

Every option can be given as a flag, as an environment variable, or as a key in a YAML file named by `--config FILE` (`PILLION_CONFIG`).
The first of these that is there counts: flag, environment, file, default. A program that finds a fault lists all of them and ends with
exit code 2. Durations are written `500ms`, `3s`, `2m`, `1h`; sizes `64K`, `16M`, `1G`; lists with commas. Secrets are only read from files.
"""


def section(title: str, note: str, table: type[Any]) -> str:
    """Return one program's part of the page."""
    return f"\n## {title}\n\n{note}\n\n{rows(table)}"


def rows(table: type[Any]) -> str:
    """Return a table of options in Markdown."""
    lines = ["| Flag | Environment | Default | What it does |", "| --- | --- | --- | --- |"]
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
        + section("pillion injector", injector.DESCRIPTION, injector.Settings)
        + section("pillion agent", agent.DESCRIPTION, agent.Settings)
    )


def sidecar_page() -> str:
    """Return docs/sidecar.md with its table made anew."""
    before, _, rest = SIDECAR_PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return before + BEGIN + rows(sidecar.Settings) + END + rest.partition(END)[2]


def main() -> int:
    """Write the pages, or check them."""
    pages = {PAGE: page(), SIDECAR_PAGE: sidecar_page()}
    if "--check" not in sys.argv:
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8")
        return 0
    old = [path.name for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if old:
        print(f"docs/{', docs/'.join(old)}: not what the option tables say; run scripts/docs", file=sys.stderr)
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
