"""Numbers as Prometheus reads them. Pure."""

from __future__ import annotations

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Row = tuple[str, str, str, dict[str, str], float]  # metric, type, help, labels, value; rows of one metric stand together


def exposition(rows: list[Row]) -> bytes:
    """Return rows in Prometheus' text format. Label values are names, which need no escape."""
    lines = []
    for index, (metric, kind, help_text, labels, value) in enumerate(rows):
        if index == 0 or rows[index - 1][0] != metric:
            lines += [f"# HELP {metric} {help_text}", f"# TYPE {metric} {kind}"]
        within = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{metric}{{{within}}} {value:g}" if within else f"{metric} {value:g}")
    return ("\n".join(lines) + "\n").encode()
