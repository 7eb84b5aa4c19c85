"""A suite's lines: what an item of each scorer has to look like, and where a fault is pointed at."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from gate.domain.checkpoint import Frozen
from gate.domain.errors import InvalidInput
from tasks.measurements.answers import NUMBER_STOPS, cut_at, number_in
from tasks.measurements.benchmark import Item

Shape = TypeVar("Shape", bound=BaseModel)


class Faulty(InvalidInput):
    """A line that is no item, and where it is."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected text, found none")
    return text


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("expected distinct choices, found one twice")
    return values


Text = Annotated[str, AfterValidator(_not_blank)]


class _Exact(Frozen):
    prompt: Text
    answer: Text

    def item(self) -> Item:
        return Item(prompt=self.prompt, answer=self.answer)


class _Number(_Exact):
    @model_validator(mode="after")
    def _answer_has_a_number(self) -> "_Number":
        if number_in(cut_at(self.answer, NUMBER_STOPS)) is None:
            raise ValueError("expected an answer that ends on a number, before any empty line")
        return self


class _Choice(Frozen):
    prompt: Text
    choices: Annotated[tuple[Text, ...], Field(min_length=2), AfterValidator(_distinct)]
    label: int = Field(ge=0, strict=True)

    @model_validator(mode="after")
    def _label_names_a_choice(self) -> "_Choice":
        if self.label >= len(self.choices):
            raise ValueError(f"expected a label from 0 to {len(self.choices) - 1}, found {self.label}")
        return self

    def item(self) -> Item:
        return Item(prompt=self.prompt, choices=self.choices, label=self.label)


class _NextToken(Frozen):
    text: Annotated[str, Field(min_length=2), AfterValidator(_not_blank)]

    def item(self) -> Item:
        return Item(text=self.text)


class _Code(Frozen):
    prompt: Text
    answer: Text
    tests: Text

    def item(self) -> Item:
        return Item(prompt=self.prompt, answer=self.answer, tests=self.tests)


_ITEM: dict[str, type[_Exact] | type[_Choice] | type[_NextToken] | type[_Code]] = {
    "exact": _Exact,
    "cloze": _Exact,
    "number": _Number,
    "refusal": _Exact,
    "choice": _Choice,
    "next_token": _NextToken,
    "code": _Code,
}


def read_items(scorer: str, path: Path, content: bytes) -> tuple[Item, ...]:
    return tuple(_item(scorer, line, f"{path}:{number}") for number, line in read_lines(path, content))


def read_lines(path: Path, content: bytes) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise Faulty(str(path), f"expected UTF-8 text, found {error.reason}; save the file as UTF-8") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _item(scorer: str, line: str, where: str) -> Item:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise Faulty(where, f"expected one JSON object, found {line[:60]!r} ({error}); fix the line") from error
    return shaped(_ITEM[scorer], found, where).item()


def shaped(shape: type[Shape], found: Any, where: str) -> Shape:
    try:
        return shape.model_validate(found)
    except ValidationError as error:
        raise Faulty(where, f"{_first_fault(shape, error.errors())}; correct it there") from error


def _first_fault(shape: type[BaseModel], faults: Sequence[Any]) -> str:
    fault = faults[0]
    place = ".".join(str(part) for part in fault["loc"]) or "the whole"
    allowed = ", ".join(shape.model_fields)
    match fault["type"]:
        case "extra_forbidden":
            return f"expected only the keys {allowed}, found {place!r}"
        case "missing":
            return f"expected the keys {allowed}, found no {place!r}"
        case _:
            return f"{place}: {fault['msg']}, found {fault['input']!r:.80}"
