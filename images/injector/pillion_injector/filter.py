"""`pillion inject [FILE|-]` and `pillion uninject [FILE|-]`: filters between a file, or `helm template`, and `kubectl apply -f -`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from pillion_common import keys, lifecycle
from pillion_common.config import parse_names
from pillion_common.errors import ConfigError, InvalidInput
from pillion_common.names import parse_url
from pillion_injector import facts, pod
from pillion_injector.app import asked
from pillion_injector.documents import MAX_BYTES, Document, plain, split
from pillion_injector.facts import Refusal, Template, Wanted
from pillion_injector.workloads import Found, find, misplaced

Change = Callable[[Template, str], Template | Refusal]


class Told(NamedTuple):
    """What is to be said of one object; `refused` if it was not given what it asked for."""

    text: str
    refused: bool = False


def inject(argv: list[str]) -> int:
    """Filter a file; returns the exit code: 0 done, 1 something was refused and --strict was given, 2 wrong words or no YAML."""
    words = _inject_parser().parse_args(argv)
    return _run("inject", words, lambda document: inject_into(document, _wanted(words), words.all))


def uninject(argv: list[str]) -> int:
    """Filter a file; returns the exit code as `inject` does."""
    words = _parser("uninject", "Takes out of Kubernetes files exactly what `pillion inject` has added.").parse_args(argv)
    return _run("uninject", words, _take_out)


def filtered(text: str, change: Callable[[Document], list[Told]]) -> tuple[str, list[Told]]:
    """Return a file's text as it is to be, and what is to be said.

    Args:
        change: changes a document, and returns what is to be said of it.

    Raises:
        ConfigError: the text is no YAML.
    """
    crlf = "\r\n" in text
    documents = split(text.replace("\r\n", "\n") if crlf else text)
    told = []
    for number, document in enumerate((one for one in documents if one.tree is not None), 1):
        told += [Told(f"document {number}, {line.text}", line.refused) for line in change(document)]
    out = "".join(document.text() for document in documents)
    return out.replace("\n", "\r\n") if crlf else out, told


def inject_into(document: Document, wanted: Wanted, everything: bool) -> list[Told]:
    """Inject into the pods of a document that ask, or into all but the disabled; return what is to be said."""
    told = []
    for found in list(find(document.tree)):
        template = found.template
        said = asked(_metadata(template))
        if advice := misplaced(found):
            told.append(Told(f"{found}: {advice}" + ("" if everything else ". Nothing was injected")))
        if said not in ("", *facts.SWITCH):
            told.append(Told(f"{found}: not injected: {keys.INJECT} {said[:40]!r} is neither enabled nor disabled", refused=True))
        elif said == "enabled" or (everything and not said):
            told += _change(document, found, lambda template, name: pod.inject(template, name, wanted), "not injected")
    return told


def _take_out(document: Document) -> list[Told]:
    told = []
    for found in list(find(document.tree)):
        if keys.INJECTED in (_metadata(found.template).get("annotations") or {}):
            told += _change(document, found, lambda template, name: pod.uninject(template), "not taken out")
    return told


def _change(document: Document, found: Found, change: Change, failed: str) -> list[Told]:
    template = plain(found.template)
    changed = change(template, found.name)
    if isinstance(changed, Refusal):
        return [Told(f"{found}: {failed}: {changed.reason}", refused=True)]
    if changed != template:
        document.put((*found.path, *found.way), changed)
    return []


def _metadata(template: Any) -> dict[str, Any]:
    metadata = template.get("metadata") if isinstance(template, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _run(program: str, words: argparse.Namespace, change: Callable[[Document], list[Told]]) -> int:
    try:
        out, told = filtered(_read(words.file), change)
    except ConfigError as exc:
        for fault in exc.faults:
            print(f"pillion {program}: {fault}", file=sys.stderr)
        return lifecycle.EXIT_CONFIG
    for line in told:
        print(f"pillion {program}: {line.text}", file=sys.stderr)
    try:
        sys.stdout.buffer.write(out.encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        sys.stderr.close()  # so that the interpreter does not complain of it again as it ends
        return lifecycle.EXIT_FAILED
    return lifecycle.EXIT_FAILED if words.strict and any(line.refused for line in told) else lifecycle.EXIT_OK


def _read(name: str) -> str:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError([f"{name} is larger than {MAX_BYTES >> 20} MB: filter it in parts"])
        return content.decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([f"{name} cannot be read: {exc}"]) from exc


def _wanted(words: argparse.Namespace) -> Wanted:
    return Wanted(words.image, words.registry, words.token_secret, words.native)


def _registry(text: str) -> str:
    try:
        for part in parse_names(text):
            parse_url(part, "registry")
    except InvalidInput as exc:
        raise argparse.ArgumentTypeError(exc.message) from exc
    return text


def _parser(program: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"pillion {program}", description=what, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="the file; - is standard input, which is the default")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if something was refused")
    return parser


def _inject_parser() -> argparse.ArgumentParser:
    what = f"Adds the sidecar to the pod templates in Kubernetes files that have the annotation {keys.INJECT}: enabled."
    parser = _parser("inject", what)
    parser.add_argument("--all", action="store_true", help="also to those without the annotation, but for disabled ones")
    parser.add_argument("--image", default=facts.DEFAULT_IMAGE, help=f"the sidecar's image; default {facts.DEFAULT_IMAGE}")
    parser.add_argument(
        "--registry",
        metavar="URLS",
        type=_registry,
        default=facts.DEFAULT_REGISTRY,
        help=f"as pods reach it; default {facts.DEFAULT_REGISTRY}",
    )
    parser.add_argument(
        "--token-secret", metavar="NAME", default="", help="Secret in the pods' namespace with the shared token as `token`; default none"
    )
    parser.add_argument("--native", action="store_true", help="as a native sidecar, which servers know from 1.29 on")
    return parser
