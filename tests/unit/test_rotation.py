"""Hidden items: which are drawn, that a period has its own, and that no text of theirs gets out."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_language import tiny_llama, tiny_tokenizer

from gate.domain.errors import InvalidInput
from gate.settings import Settings
from tasks import rotation
from tasks.bench import Bench
from tasks.prompts_stage import _changed
from tasks.rotation import Period, draw
from tasks.suites import load_suite

DAY_S = 86_400.0
NOW = 20_000 * DAY_S
SECRET = b"0123456789abcdef0123456789abcdef"
HEAD = """
name: mine
rotates_every_days: 30
capabilities:
  - {name: sums, scorer: exact, items: sums.jsonl, hidden: hidden.jsonl, hidden_items: 8, margin: 0.1}
"""


def lines(first: int, count: int) -> str:
    return "".join(json.dumps({"prompt": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(first, first + count))


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    monkeypatch.setattr(rotation, "settings", lambda: Settings(hidden_items_secret_file=path))
    return path


@pytest.fixture
def folder(tmp_path: Path, secret: Path) -> Path:
    made = tmp_path / "suite"
    made.mkdir()
    (made / "suite.yaml").write_text(HEAD)
    (made / "sums.jsonl").write_text(lines(0, 5))
    (made / "hidden.jsonl").write_text(lines(100, 40))
    return made


def hidden_of(folder: Path, now: float) -> set[str]:
    benchmark = load_suite(folder, now=now).benchmark("sums")
    assert [item.prompt for item in benchmark.items[:5]] == [f"{n}+1=" for n in range(5)]
    assert benchmark.shown == 5
    return {item.prompt for item in benchmark.items[5:]}


def test_a_period_asks_some_of_the_hidden_items_beside_the_others(folder: Path) -> None:
    hidden = hidden_of(folder, NOW)
    assert len(hidden) == 8
    assert hidden <= {f"{n}+1=" for n in range(100, 140)}


def test_within_a_period_the_items_stay_and_the_next_has_others(folder: Path) -> None:
    first, last = (NOW // (30 * DAY_S)) * 30 * DAY_S, (NOW // (30 * DAY_S) + 1) * 30 * DAY_S - 1
    assert hidden_of(folder, first) == hidden_of(folder, last)
    assert load_suite(folder, now=first) == load_suite(folder, now=last)
    assert hidden_of(folder, last) != hidden_of(folder, last + 1)
    assert load_suite(folder, now=last).digest != load_suite(folder, now=last + 1).digest


def test_over_the_periods_every_hidden_item_has_its_turn(folder: Path) -> None:
    asked = set().union(*(hidden_of(folder, NOW + n * 30 * DAY_S) for n in range(40)))
    assert len(asked) == 40


def test_another_secret_draws_other_items_and_gives_another_digest(folder: Path, secret: Path) -> None:
    before = load_suite(folder, now=NOW)
    secret.write_bytes(SECRET[::-1])
    after = load_suite(folder, now=NOW)
    assert before.benchmarks != after.benchmarks
    assert before.digest != after.digest


def test_the_digest_covers_the_drawn_items_and_cannot_be_made_without_the_secret(folder: Path, secret: Path) -> None:
    """Where all but one are drawn, two secrets that draw the same items still give two digests."""
    (folder / "hidden.jsonl").write_text(lines(100, 9))
    drawn, digests = hidden_of(folder, NOW), {load_suite(folder, now=NOW).digest}
    for attempt in range(1000):
        secret.write_bytes(f"{attempt:032}".encode())
        if hidden_of(folder, NOW) == drawn:
            break
    digests.add(load_suite(folder, now=NOW).digest)
    assert hidden_of(folder, NOW) == drawn
    assert len(digests) == 2


def test_two_capabilities_with_the_same_file_draw_differently() -> None:
    items = [f"item {n}".encode() for n in range(40)]
    period = Period.at(NOW, 30)
    assert draw(items, 8, SECRET, period, "one") != draw(items, 8, SECRET, period, "two")
    assert draw(items, 8, SECRET, period, "one") == draw(items, 8, SECRET, period, "one")


def test_the_order_of_the_lines_decides_nothing() -> None:
    items = [f"item {n}".encode() for n in range(40)]
    period = Period.at(NOW, 30)
    turned = items[::-1]
    drawn = {items[place] for place in draw(items, 8, SECRET, period, "one")}
    assert {turned[place] for place in draw(turned, 8, SECRET, period, "one")} == drawn


def test_what_was_asked_in_the_last_period_is_found_by_its_digest(folder: Path) -> None:
    before = load_suite(folder, now=NOW)
    later = NOW + 30 * DAY_S
    assert load_suite(folder, like=before.digest, now=later) == before
    assert load_suite(folder, now=later) != before


def test_what_was_asked_long_ago_or_of_another_suite_is_refused(folder: Path) -> None:
    before = load_suite(folder, now=NOW)
    with pytest.raises(InvalidInput, match=f"sha256 {before.digest[:12]}, found it changed since it was asked for"):
        load_suite(folder, like=before.digest, now=NOW + 4 * 30 * DAY_S)
    (folder / "sums.jsonl").write_text(lines(0, 6))
    with pytest.raises(InvalidInput, match="found it changed since"):
        load_suite(folder, like=before.digest, now=NOW)


def test_a_suite_that_hides_nothing_is_held_to_its_digest_too(folder: Path) -> None:
    plain = HEAD.replace(", hidden: hidden.jsonl, hidden_items: 8", "").replace("rotates_every_days: 30\n", "")
    (folder / "suite.yaml").write_text(plain)
    suite = load_suite(folder)
    assert suite.period is None
    assert suite.benchmark("sums").shown is None
    assert load_suite(folder, like=suite.digest) == suite
    with pytest.raises(InvalidInput, match="found it changed since"):
        load_suite(folder, like="0" * 64)


def test_a_period_says_its_first_and_its_last_day(folder: Path) -> None:
    assert str(load_suite(folder, now=NOW).period) == "2024-09-14 to 2024-10-13"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.replace("rotates_every_days: 30\n", ""), "expected rotates_every_days with hidden items and not without"),
        (HEAD.replace(", hidden: hidden.jsonl, hidden_items: 8", ""), "expected rotates_every_days with hidden items"),
        (HEAD.replace(", hidden_items: 8", ""), "expected hidden and hidden_items together"),
        (HEAD.replace("hidden: hidden.jsonl, ", ""), "expected hidden and hidden_items together"),
        (HEAD.replace("hidden_items: 8", "hidden_items: 40"), "expected more than the 40 hidden items .* found 40"),
        (HEAD.replace("hidden.jsonl", "../secret"), "inside the suite's folder"),
        (HEAD.replace("days: 30", "days: 0"), "rotates_every_days: .*greater than or equal to 1"),
    ],
    ids=["no period", "nothing hidden", "no number", "no file", "nothing to rotate", "outside", "no days"],
)
def test_a_head_that_hides_by_halves_is_refused(folder: Path, head: str, message: str) -> None:
    (folder / "suite.yaml").write_text(head)
    with pytest.raises(InvalidInput, match=message):
        load_suite(folder)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('{"prompt": "the hidden one"', "hidden.jsonl:41"),
        ('{"prompt": "the hidden one"}', "hidden.jsonl:41"),
        ('{"prompt": "p", "answer": "a", "the hidden one": 1}', "hidden.jsonl:41"),
    ],
    ids=["no JSON", "a key too few", "a key too many"],
)
def test_a_faulty_hidden_line_is_named_and_not_shown(folder: Path, line: str, place: str) -> None:
    with (folder / "hidden.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(InvalidInput, match=f"{place}: .*not shown because it is hidden") as raised:
        load_suite(folder, now=NOW)
    assert "the hidden one" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "found No such file"), (b"short", "expected 32 bytes or more, found 5")],
    ids=["no file", "too short"],
)
def test_without_a_proper_secret_the_suite_is_refused(
    folder: Path, secret: Path, content: bytes | None, message: str
) -> None:
    secret.unlink()
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(InvalidInput, match=message) as raised:
        load_suite(folder)
    assert "short" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "found"), [({}, "neither"), ({"hidden_items_secret": "k" * 32}, "both")], ids=["neither", "both"]
)
def test_one_secret_is_needed_and_not_two(
    folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], found: str
) -> None:
    file = {"hidden_items_secret_file": secret} if given else {}
    monkeypatch.setattr(rotation, "settings", lambda: Settings(**given, **file))
    with pytest.raises(InvalidInput, match=f"expected GATE_HIDDEN_ITEMS_SECRET or .*_FILE .*, found {found}") as raised:
        load_suite(folder)
    assert "kkk" not in str(raised.value)


def test_the_secret_may_be_in_the_environment_instead_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_file = load_suite(folder, now=NOW)
    monkeypatch.setattr(rotation, "settings", lambda: Settings(hidden_items_secret=SECRET.decode()))
    assert load_suite(folder, now=NOW) == from_file


def test_evidence_says_of_which_days_the_hidden_items_were(folder: Path) -> None:
    before, after = load_suite(folder, now=NOW), load_suite(folder, now=NOW + 30 * DAY_S)
    bench = Bench(None, None, None, before, tiny_llama(), tiny_tokenizer(), "cpu")
    assert bench.provenance()["hidden items of"] == "2024-09-14 to 2024-10-13"
    bench.ask(after)
    assert bench.provenance()["hidden items of"] == "2024-10-14 to 2024-11-12"
    assert bench.suite is after
    bench.ask(load_suite("staged"))
    assert "hidden items of" not in bench.provenance()


def test_of_hidden_items_no_prompt_is_kept(folder: Path) -> None:
    """The comparison found items 1, 3, 5 and 12 changed; the first hidden one is 5."""
    compared = SimpleNamespace(items=(12, 3, 5, 1), outcomes=(0.0, 1.0, 0.0, 0.0))
    measuring = SimpleNamespace(
        bench=SimpleNamespace(suite=load_suite(folder, now=NOW)),
        retained={"sums": compared},
        capabilities={"sums": SimpleNamespace(outcomes=[1.0, 1.0, 1.0, 0.0, 1.0] + [1.0] * 8)},
    )
    assert _changed(measuring, "sums") == [1, 3]
