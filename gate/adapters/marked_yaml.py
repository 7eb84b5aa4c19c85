"""YAML as a plain value with the line of each part: one document, no anchors, no repeated keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gate.domain.errors import InvalidInput

MAX_BYTES = 1_000_000
DEEPEST = 30
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class MarkedYaml:
    """A document's value and, for each place in it (``("rules", 0, "at_most")``), its line from 1."""

    file: Path
    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest part around it that exists."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_marked(file: Path) -> MarkedYaml:
    """The one document of a YAML file; ``InvalidInput`` names file and line of whatever is wrong."""
    return marked(file, _read(file))


def marked(file: Path, text: str) -> MarkedYaml:
    """The one document of a text; messages call it by the name of ``file``, which need not be there."""
    try:
        _refuse_growth(file, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = str(getattr(error, "problem", None) or error).removeprefix("but found ")
        raise InvalidInput(f"{where}: expected one YAML document, found: {problem}; mend the syntax") from error
    if node is None:
        raise InvalidInput(f"{file}:1: expected a policy, found an empty file; start from policies/default.yaml")
    lines: dict[Place, int] = {}
    value = _value(file, node, (), lines)
    return MarkedYaml(file=file, value=value, lines=lines)


def _read(file: Path) -> str:
    try:
        content = file.read_bytes()
        if len(content) > MAX_BYTES:
            raise InvalidInput(f"{file}: expected at most {MAX_BYTES} bytes, found {len(content)}; is it a policy?")
        return content.decode()
    except OSError as error:
        raise InvalidInput(f"{file}: expected a readable file, found: {error.strerror}; check GATE_POLICIES") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{file}: expected UTF-8 text, found byte {error.start} that is not; save as UTF-8"
        ) from error


def _refuse_growth(file: Path, text: str) -> None:
    """Aliases can grow a small file without bound, and hide from a reader what a rule says; reading brackets within brackets takes
    time that grows with the square of their depth."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise InvalidInput(f"{file}:{line}: expected plain values, found the alias *{event.anchor}; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InvalidInput(f"{file}:{line}: expected at most {DEEPEST} levels, found more; is it a policy?")


def _value(file: Path, node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(file, node, place, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(file, item, (*place, i), lines) for i, item in enumerate(node.value)]
    return _scalar(file, node)


def _mapping(file: Path, node: yaml.MappingNode, place: Place, lines: dict[Place, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise InvalidInput(f"{file}:{line}: expected a word as the key, found a collection; check the indentation")
        key = str(key_node.value)
        if key in found:
            raise InvalidInput(f"{file}:{line}: expected each key once, found '{key}' again; remove one of them")
        lines[(*place, key)] = line
        found[key] = _value(file, value_node, (*place, key), lines)
    return found


def _scalar(file: Path, node: yaml.Node) -> Any:
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        line = node.start_mark.line + 1
        raise InvalidInput(f"{file}:{line}: expected a plain value, found {node.tag}; remove the tag") from error
