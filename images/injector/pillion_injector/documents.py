"""Kubernetes files as text: splits them into documents, and changes one without losing comments, order, quotes or anchors.

Only a document that changes is written anew, in its own indentation; all others pass byte by byte.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from io import StringIO
from itertools import pairwise
from typing import Any

import yaml as yaml11  # what kubectl takes for a boolean or a number
from ruamel.yaml import YAML
from ruamel.yaml.comments import Comment, CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString

from pillion_common.errors import ConfigError

MAX_BYTES = 32 << 20
MAX_NODES = 1_000_000  # with what aliases repeat: a small file of aliases of aliases may unfold to billions
MAX_COLUMNS = 1 << 20  # no line is folded that was not

_BOUNDARY = re.compile(r"^(?=(?:---|\.\.\.)(?:[ \t\n]|\Z))", re.MULTILINE)
_MARKER = re.compile(r"(?:---|\.\.\.)[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_NOTHING = re.compile(r"(?:[ \t]*(?:#[^\n]*)?(?:\n|\Z)|%[^\n]*(?:\n|\Z))*\Z")
_LIST = re.compile(r"^( *(?:- +)?)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*( *)- ", re.MULTILINE)
_MAP = re.compile(r"^( *)[^\s#-][^\n]*:[ \t]*\n( +)[^\s#-][^\n]*:", re.MULTILINE)


class Document:
    """One document of a file: its text, its line and its tree.

    Raises:
        ConfigError: it is no YAML, with the line in the whole file.
    """

    def __init__(self, text: str, line: int) -> None:
        marker = _MARKER.match(text)
        self._head = marker.group() if marker else ""
        self._body = text[len(self._head) :]
        self._changed = False
        self.tree: Any = None
        if not _NOTHING.match(self._body):
            self.tree = _parse(self._body, line + self._head.count("\n"))
        self._uses = _uses(self.tree)

    def put(self, path: tuple[str | int, ...], value: Any) -> None:
        """Change what lies at the end of a path so that it is equal to plain data, and leave alone what is already."""
        self._changed = True
        self.tree = self._reach(self.tree, path, value, False)

    def text(self) -> str:
        """Return the document's text."""
        if not self._changed:
            return self._head + self._body
        out = StringIO()
        _yaml(self._body, explicit_start=self._body.startswith("---")).dump(self.tree, out)
        return self._head + out.getvalue()

    def _reach(self, node: Any, path: tuple[str | int, ...], value: Any, shared: bool) -> Any:
        shared = shared or self._uses[id(node)] > 1
        if not path:
            return self._merge(node, value, shared)
        node = _clone(node) if shared else node
        child = node[path[0]]
        changed = self._reach(child, path[1:], value, False)
        if changed is not child:
            node[path[0]] = changed
        return node

    def _merge(self, old: Any, new: Any, shared: bool = False) -> Any:
        """Return the old node changed into the new data; a node that an alias shares is left to the others."""
        if plain(old) == new:
            return old
        if self._uses[id(old)] > 1 or shared:
            old = _clone(old)
        if isinstance(old, CommentedMap) and isinstance(new, Mapping):
            for key in [key for key in old if key not in new]:
                del old[key]
            for key, value in new.items():
                changed = self._merge(old[key], value) if key in old else fresh(value)
                if key not in old or changed is not old[key]:
                    old[key] = changed
            return old
        if isinstance(old, CommentedSeq) and isinstance(new, list) and self._merge_list(old, new):
            return old
        return fresh(new)

    def _merge_list(self, old: CommentedSeq, new: list[Any]) -> bool:
        """Change a list of named entries in its place; return whether that was possible."""
        before, after = [_entry_key(one) for one in old], [_entry_key(one) for one in new]
        kept = [key for key in before if key in after]
        if len(set(before)) < len(before) or len(set(after)) < len(after) or kept != [key for key in after if key in before]:
            return False
        for index in reversed(range(len(before))):
            if before[index] not in after:
                del old[index]
        for index, (key, value) in enumerate(zip(after, new, strict=True)):
            if key in before:
                changed = self._merge(old[index], value)
                if changed is not old[index]:
                    old[index] = changed
            else:
                old.insert(index, fresh(value))
        return True


def split(text: str) -> list[Document]:
    """Return the documents of a file; their texts together are the file's.

    Raises:
        ConfigError: one of them is no YAML.
    """
    bounds = sorted({0, *(match.start() for match in _BOUNDARY.finditer(text)), len(text)})
    documents, line = [], 1
    for begin, end in pairwise(bounds):
        documents.append(Document(text[begin:end], line))
        line += text.count("\n", begin, end)
    return documents


def plain(node: Any) -> Any:
    """Return a tree as plain dicts, lists and scalars, merge keys filled in."""
    if isinstance(node, Mapping):
        return {plain(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for kind in (str, int, float):
        if isinstance(node, kind) and not isinstance(node, bool):
            return kind(node)
    return node


def fresh(data: Any) -> Any:
    """Return plain data as nodes to be written, with quotes around what kubectl would take for something else than a text."""
    if isinstance(data, Mapping):
        node = CommentedMap()
        for key, value in data.items():
            node[key] = fresh(value)
        return node
    if isinstance(data, list):
        return CommentedSeq([fresh(value) for value in data])
    if isinstance(data, str) and _needs_quotes(data):
        return SingleQuotedScalarString(data) if '"' in data else DoubleQuotedScalarString(data)
    return data


def _needs_quotes(text: str) -> bool:
    try:
        return bool(yaml11.safe_load(f"[{text}]") != [text] or yaml11.safe_load(text) != text)  # inside of brackets, too
    except yaml11.YAMLError:
        return True


def _entry_key(entry: Any) -> Hashable:
    if isinstance(entry, Mapping):
        return tuple(str(entry.get(key)) for key in ("name", "mountPath", "subPath"))
    return str(entry)


def _clone(node: Any) -> Any:
    """Return a copy without anchors and merge keys, that shares nothing."""
    copied: Any
    if isinstance(node, CommentedMap):
        copied = CommentedMap()
        for key, value in node.items():
            copied[key] = _clone(value)
    elif isinstance(node, CommentedSeq):
        copied = CommentedSeq([_clone(value) for value in node])
    else:
        return node
    for attribute in (Comment.attrib, node.fa.attrib):
        if hasattr(node, attribute):
            setattr(copied, attribute, getattr(node, attribute))
    return copied


def _uses(tree: Any) -> Counter[int]:
    """Return how often each map and list stands in another one: more than once if aliases or merge keys point to it."""
    uses: Counter[int] = Counter()
    if _size(tree, uses, {}) > MAX_NODES:
        raise ConfigError([f"a document has more than {MAX_NODES:,} entries, aliases filled in"])
    return uses


def _size(node: Any, uses: Counter[int], known: dict[int, int]) -> int:
    """Return the number of maps and lists in a tree, aliases filled in; looks at each only once."""
    if not isinstance(node, CommentedMap | CommentedSeq):
        return 0
    uses[id(node)] += 1
    if id(node) not in known:
        known[id(node)] = 1  # an alias inside of its own anchor would have no end
        if node.anchor.value:
            node.anchor.always_dump = True  # also one that no alias points to
        values = node.values() if isinstance(node, CommentedMap) else node
        known[id(node)] = 1 + sum(_size(value, uses, known) for value in values)
    return known[id(node)]


def _parse(text: str, line: int) -> Any:
    try:
        return _yaml(text).load(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"line {line + mark.line}, column {mark.column + 1}" if mark else f"after line {line}"
        hint = "; for a chart's template, filter what `helm template` makes of it" if "{{" in text else ""
        raise ConfigError([f"{where}: this is not valid YAML: {exc.problem or exc.context}{hint}"]) from exc
    except (YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError([f"after line {line}: this is not valid YAML: {(str(exc) or 'nested too deep').splitlines()[0]}"]) from exc


def _yaml(text: str, explicit_start: bool = False) -> YAML:
    """Return a reader and writer that keeps quotes and the text's own indentation."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = MAX_COLUMNS
    yaml.explicit_start = explicit_start
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    offsets = Counter(max(0, len(match[2]) - len(match[1])) for match in _LIST.finditer(text))
    steps = Counter(len(match[2]) - len(match[1]) for match in _MAP.finditer(text) if len(match[2]) > len(match[1]))
    offset = offsets.most_common(1)[0][0] if offsets else 0
    yaml.indent(mapping=steps.most_common(1)[0][0] if steps else 2, sequence=offset + 2, offset=offset)
    return yaml
