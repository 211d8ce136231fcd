"""YAML 1.2 as study files use it: plain scalars, lists and mappings, with the line of every key.

Everything else (anchors, aliases, tags, duplicate keys, depth or size beyond reason) is refused with its line, before
any object is built from it.
"""

import io
import math
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from normlab.errors import UsageError

# Far above any real study, far below what would tire a machine.
MAX_BYTES, MAX_DEPTH, MAX_NODES = 1_000_000, 12, 20_000

Value = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class YamlTree:
    value: dict[str, Any]
    lines: dict[str, int]  # 1-based, by dotted path


def read_yaml(raw: bytes, path: str) -> YamlTree:
    """YAML 1.2 of plain scalars, lists and mappings; everything else is refused with its line, before it is built."""
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES:,} bytes, which no study is")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    yaml = YAML(typ="safe", pure=True)
    try:
        depth = 0
        for nodes, event in enumerate(yaml.parse(io.StringIO(text))):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            line = event.start_mark.line + 1
            if depth > MAX_DEPTH or nodes > MAX_NODES:
                raise UsageError(f"{path}:{line}: nested or large beyond what a study needs")
            if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
                raise UsageError(f"{path}:{line}: a study is YAML 1.2; remove the line that begins with %")
            if isinstance(event, NodeEvent) and getattr(event, "tag", None):
                raise UsageError(f"{path}:{line}: tags (!) are not allowed; write the value alone")
            if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
                raise UsageError(f"{path}:{line}: anchors and aliases (& and *) are not allowed; write the value out")
        root = yaml.compose(io.StringIO(text))
    except YAMLError as error:
        line, problem = _explain(error)
        raise UsageError(f"{path}:{line}: not valid YAML: {problem}") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(root, MappingNode):
        raise UsageError(f"{path}: a study is a mapping; it starts with 'question:' and 'base:'")
    lines: dict[str, int] = {}
    return YamlTree(value=_build(yaml, root, "", lines, path), lines=lines)


def _explain(error: YAMLError) -> tuple[int, str]:
    """The line of a fault, and what to write instead where that is known."""
    mark, start = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    context = str(getattr(error, "context", "") or "")
    line = mark.line + 1 if mark else 1
    if "quoted scalar" in context and start is not None:
        return start.line + 1, "the quote that opens here is never closed"
    if "mapping values are not allowed" in problem:
        return line, 'a text with a colon in it stands in quotes, as in question: "Which one: a or b?"'
    if "'\\t'" in problem:
        return line, "indent with blanks, not with a tab"
    return line, problem


def _build(yaml: YAML, node: Node, place: str, lines: dict[str, int], path: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if isinstance(node, MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise UsageError(f"{path}:{key_line}: a key must be a word or a number")
            key = str(key_node.value)
            if key in result:
                raise UsageError(f"{path}:{key_line}: the key '{key}' stands twice; keep one")
            inner = f"{place}.{key}" if place else key
            lines[inner] = key_line
            result[key] = _build(yaml, value_node, inner, lines, path)
        return result
    if isinstance(node, SequenceNode):
        return [_build(yaml, item, f"{place}.{i}", lines, path) for i, item in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    return _scalar(node, f"{path}:{line}: ")


def _scalar(node: ScalarNode, where: str) -> Value:
    kind = str(node.tag).rsplit(":", 1)[-1]
    text = str(node.value)
    try:
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text.replace("_", ""), 0)
            case "float" if math.isfinite(number := float(text.replace("_", ""))):
                return number
    except ValueError:
        pass
    raise UsageError(f"{where}'{text[:40]}' is not a word or a finite number; put a word in quotes")
