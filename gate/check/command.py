"""The command line of the question. Exit 0 allowed, 1 denied, 3 needs review, 2 could not be asked or decided."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.status import Status

from gate.check.asking import Asker, Tell
from gate.check.reports import junit, sarif
from gate.client import GateClient
from gate.domain.errors import GateError, InvalidInput
from gate.domain.permission import Decision
from gate.domain.question import PromotionAnswer, PromotionQuestion
from gate.domain.reference import parse_reference
from gate.settings import settings

EXIT = {Decision.ALLOWED: 0, Decision.DENIED: 1, Decision.PENDING: 2, Decision.NEEDS_REVIEW: 3}


def check(
    target: Annotated[str, typer.Argument(help="models:/NAME/VERSION.")],
    alias: Annotated[str | None, typer.Option(help="The alias it would be given.")] = None,
    stage: Annotated[str | None, typer.Option(help="The stage it would be moved to.")] = None,
    registered_model: Annotated[str | None, typer.Option(help="The registered model it would be copied into.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is decided.")] = False,
    timeout: Annotated[float, typer.Option(help="Give up waiting after so many seconds.", min=0)] = 3600.0,
    url: Annotated[str, typer.Option(help="Address of the gate; GATE_PUBLIC_URL without it.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write a JUnit report here.")] = None,
    sarif_file: Annotated[Path | None, typer.Option("--sarif", help="Write a SARIF 2.1.0 log here.")] = None,
) -> None:
    """Ask the gate whether a version may be promoted. Exit status 0 allowed (also where a policy only watches), 1 denied, 3 needs review, 2 undecided: not asked, not answered, or not in time."""
    question = _question(target, alias, stage, registered_model)
    asker = Asker(GateClient.of(settings(), url))
    err = Console(stderr=True)
    try:
        with _progress(err, question) if wait else nullcontext(_silent) as tell:
            answer = asker.wait(question, timeout, tell) if wait else asker.ask(question)
    except GateError as error:
        _write(question, None, str(error), junit_file, sarif_file)
        raise
    _write(question, answer, "", junit_file, sarif_file)
    if as_json:
        sys.stdout.write(answer.model_dump_json(indent=2) + "\n")
    else:
        Console().print(told(answer), soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(EXIT[answer.decision])


def told(answer: PromotionAnswer) -> str:
    """The answer for people: the decision and its reason, then everything that speaks against."""
    word = answer.decision.value.replace("_", " ")
    where = f" to {answer.place}" if answer.place else ""
    first = f"{word}: {answer.subject}{where}: {answer.reason}"
    more = [reason for reason in answer.reasons if reason not in answer.reason]
    if answer.protected is False:
        more.append(f"no policy keeps {answer.place}; is it spelt right?")
    if answer.decision is Decision.PENDING:
        more.append("ask again with --wait")
    return "\n  ".join([first, *more, *([answer.run_url] if answer.run_url else [])])


def _question(target: str, alias: str | None, stage: str | None, registered_model: str | None) -> PromotionQuestion:
    reference = parse_reference(target)
    if reference.version is None:
        raise InvalidInput(f"expected models:/NAME/VERSION, found {target!r}: an alias may move before it is used")
    try:
        return PromotionQuestion(
            name=reference.name,
            version=reference.version,
            alias=alias,
            stage=stage,
            registered_model=registered_model,
        )
    except ValidationError as error:
        raise InvalidInput(f"{error.errors()[0]['msg']} (as --alias, --stage and --registered-model)") from error


def _write(
    question: PromotionQuestion,
    answer: PromotionAnswer | None,
    failure: str,
    junit_to: Path | None,
    sarif_to: Path | None,
) -> None:
    for file, form in ((junit_to, junit), (sarif_to, sarif)):
        if file is not None:
            try:
                file.write_bytes(form(question, answer, failure))
            except OSError as error:
                raise InvalidInput(f"{file}: expected a place to write a report to, found: {error.strerror}") from error


def _silent(_: PromotionAnswer) -> None:
    """Nobody waits, nobody is told."""


def _progress(err: Console, question: PromotionQuestion) -> AbstractContextManager[Tell]:
    return _Spinner(err, question.uri) if err.is_terminal else nullcontext(_lines(question.uri))


def _line(uri: str, answer: PromotionAnswer) -> str:
    done = f", {100 * answer.progress:.0f} %" if answer.progress else ""
    return f"waiting for {uri}: {answer.reason} {answer.stage or ''}{done}".rstrip()


def _lines(uri: str) -> Tell:
    """One line each time something changed: a log is not a terminal."""
    last = ""

    def tell(answer: PromotionAnswer) -> None:
        nonlocal last
        now = f"{answer.state} {answer.stage}"
        if now != last:
            last = now
            sys.stderr.write(_line(uri, answer) + "\n")
            sys.stderr.flush()

    return tell


class _Spinner(AbstractContextManager[Tell]):
    """One line that is written over, on a terminal."""

    def __init__(self, err: Console, uri: str) -> None:
        self._status, self._uri = Status(f"asking about {uri}", console=err), uri

    def __enter__(self) -> Tell:
        self._status.start()
        return lambda answer: self._status.update(_line(self._uri, answer))

    def __exit__(self, *_: object) -> None:
        self._status.stop()
