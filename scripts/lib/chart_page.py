"""Makes charts/pillion/README.md out of values.yaml: each value, its default, and the comment above it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "pillion"
PAGE = CHART / "README.md"
HEAD = """# The chart pillion

Registry and log service of Pillion, each with a volume; on request two demo apps with sidecars. Kubernetes 1.20 and newer, Helm 3 and 4.

    helm install pillion charts/pillion --set demo.enabled=true --wait
    helm test pillion --logs

How a pod of your own gets a sidecar, how it ends, what is left after `helm uninstall`: [docs/kubernetes.md](../../docs/kubernetes.md).

## Values

Made by `scripts/chart-docs` from `values.yaml`; do not edit it by hand. A key that is not here is refused.

| Value | Default | What it is |
| --- | --- | --- |
"""
_LINE = re.compile(r"( *)([A-Za-z]+):(?: (.*))?$")


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, default as JSON, comment) of each commented key, in order.

    Raises:
        ValueError: a value without a comment.
    """
    values = yaml.safe_load(text)
    path: list[str] = []
    comment = ""
    covered = ""
    for line in text.splitlines():
        if line.strip().startswith("#"):
            comment = line.strip("# ")
            continue
        match = _LINE.match(line)
        if match is None:
            comment = ""
            continue
        path = [*path[: len(match[1]) // 2], match[2]]
        name = ".".join(path)
        if covered and name.startswith(covered + "."):
            continue
        value = values
        for key in path:
            value = value[key]
        if comment and (match[3] or path[-1] == "resources"):
            yield name, json.dumps(value), comment
            covered = name
        elif match[3]:
            raise ValueError(f"values.yaml: {name} has no comment")
        comment = ""


def page() -> str:
    """Return the whole page."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    return HEAD + "".join(f"| `{name}` | `{default}` | {comment} |\n" for name, default, comment in rows(text))


def main() -> int:
    """Write the page, or check it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print("charts/pillion/README.md: not what values.yaml says; run scripts/chart-docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
