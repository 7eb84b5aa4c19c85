"""Messages to channels: from the dispatcher through Apprise to a real receiver on loopback."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from builders import a_verdict, a_version
from fakes import FakeClock, FakeQueue, FakeRegistry
from message_receiver import Receiver, a_receiver

from gate.adapters.metrics import DispatcherMetrics
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.dispatcher import Dispatcher
from gate.dispatcher.notices import of_waiver, tell
from gate.domain.checkpoint import ModelVersion
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key
from gate.domain.policy import OnApproved, OnBlocked, PolicySet
from gate.domain.verdict import Outcome
from gate.domain.waiver import Waiver
from gate.settings import Settings

PATIENCE_S = 300.0


class Telling:
    """A dispatcher whose policy tells the channel ``team`` of what it does not approve, and everything it drives."""

    def __init__(self, folder: Path, channels: Path) -> None:
        url = f"sqlite:///{folder}/ledger.db"
        migrate(url)
        self.ledger, self.queue, self.registry = SqlLedger(url), FakeQueue(), FakeRegistry()
        self.clock, self.metrics, self.channels = FakeClock(), DispatcherMetrics(), channels
        told = {"on_blocked": OnBlocked(notify=("team",)), "on_approved": OnApproved(tags={"ok": "yes"})}
        self.policies = PolicySet(policies=(load_policies().policies[0].model_copy(update=told),))
        self.dispatcher = self.another()

    def another(self) -> Dispatcher:
        settings = Settings(channels_file=self.channels, reconcile_every_s=15, lease_s=60)
        parts = (self.ledger, self.queue, self.registry, self.policies, settings)
        return Dispatcher(*parts, clock=self.clock, metrics=self.metrics)

    def request(self, version: ModelVersion) -> str:
        policy = self.policies.policies[0]
        request = EvaluationRequest.of(version, policy.name, policy.digest)
        self.ledger.request_evaluation(request, self.clock())
        return request.key

    def judge(self, version: ModelVersion, outcome: Outcome = Outcome.APPROVED) -> str:
        key = self.request(version)
        self.ledger.finish(self.ledger.claim(inspect_key(key), "w", 60, self.clock()), self.clock())
        claim = self.ledger.claim(judge_key(key), "w", 60, self.clock())
        verdict = a_verdict(subject=version.identity, outcome=outcome, expires_at=int(self.clock()) + 10**6)
        self.ledger.save_verdict(claim, key, verdict, {"summary": {"payload": "s"}}, self.clock())
        self.ledger.finish(claim, self.clock())
        return key

    def step(self, after_s: float = 0.0) -> None:
        self.clock.now += after_s
        self.dispatcher.step()

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def send(self, after_s: float = 0.0) -> int:
        """What is due is sent here and now, and not by the notifier's own thread."""
        self.clock.now += after_s
        return self.dispatcher._notifier.send_due()

    def settled(self) -> bool:
        """Whether nothing is left to send; what is due is sent on the way."""
        self.step()
        sending = self.dispatcher._notifier._sending
        return sending is not None and sending.result(PATIENCE_S) >= 0 and self.outstanding() == 0

    def outstanding(self) -> int:
        return len(self.ledger.notices(self.clock() + 10**9))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with a_receiver() as made:
        yield made


@pytest.fixture
def bench(tmp_path: Path, receiver: Receiver) -> Iterator[Telling]:
    channels = tmp_path / "channels.yaml"
    channels.write_text(f"team: {receiver.url}\n")
    made = Telling(tmp_path, channels)
    yield made
    made.dispatcher._notifier._sender.shutdown(wait=True, cancel_futures=True)
    made.ledger.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.BLOCKED, "is blocked"),
        (Outcome.NEEDS_REVIEW, "waits for a review"),
        (Outcome.ERROR, "could not be judged"),
    ],
)
def test_what_is_not_approved_is_told_to_the_policys_channel_once(
    bench: Telling, receiver: Receiver, outcome: Outcome, words: str
) -> None:
    key = bench.judge(bench.registry.add(a_version()), outcome)
    bench.step()
    until(bench.settled)

    bench.ledger.project(key, bench.clock())
    bench.step(after_s=5)
    bench.send()

    assert [message["title"] for message in receiver.taken] == [f"models:/my-llm/3 {words}"]
    assert "http://mlflow/runs/" in receiver.taken[0]["message"]
    assert bench.sample("gate_notifications_total", result="sent") == 1


def test_an_approval_is_told_to_nobody(bench: Telling, receiver: Receiver) -> None:
    bench.judge(bench.registry.add(a_version()))
    bench.step()

    assert (bench.outstanding(), receiver.taken) == (0, [])


def test_a_message_that_was_not_taken_is_sent_again_ever_later_until_it_is(bench: Telling, receiver: Receiver) -> None:
    tell(bench.ledger, bench.policies.policies[0], of_waiver("w", _waiver(), 3), bench.clock())
    receiver.refuse = 2

    assert bench.send() == 0
    assert bench.send() == 0  # not due yet: it is not tried again at once
    assert receiver.refuse == 1
    assert bench.send(after_s=11) == 0
    assert bench.send(after_s=11) == 0  # the second delay is longer than the first
    assert bench.send(after_s=11) == 1

    assert receiver.taken[0]["title"] == "A waiver of rule kept ends in 3 days"
    assert bench.outstanding() == 0
    assert bench.sample("gate_notifications_total", result="failed") == 2


def test_a_dispatcher_that_dies_before_a_message_was_taken_has_another_send_it(
    bench: Telling, receiver: Receiver
) -> None:
    tell(bench.ledger, bench.policies.policies[0], of_waiver("w", _waiver(), 1), bench.clock())
    receiver.refuse = 1
    bench.send()

    bench.dispatcher = bench.another()

    assert bench.send(after_s=20) == 1
    assert receiver.taken[0]["title"] == "A waiver of rule kept ends in 1 day"


def test_a_channel_that_hangs_delays_no_verdict_and_no_worker(bench: Telling, receiver: Receiver) -> None:
    receiver.hold.clear()
    bench.judge(bench.registry.add(a_version()), Outcome.BLOCKED)
    bench.step()
    bench.step()
    until(receiver.asked.is_set)

    # The channel holds the first message; all other work goes on beside it.
    second = bench.registry.add(a_version(version="4", created_ms=5))
    bench.judge(second, Outcome.APPROVED)
    bench.request(bench.registry.add(a_version(version="5", created_ms=6)))
    bench.step(after_s=5)

    assert bench.registry.version("my-llm", "4").tags["gate.verdict"] == "approved"
    assert len(bench.queue.rung) >= 1
    assert receiver.taken == []
    receiver.hold.set()
    until(lambda: len(receiver.taken) == 1)


def test_no_secret_of_a_channel_reaches_the_log_the_ledger_or_an_error(
    bench: Telling, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    tell(bench.ledger, bench.policies.policies[0], of_waiver("w", _waiver(), 2), bench.clock())
    receiver.refuse = 1
    with structlog.testing.capture_logs() as logged:
        bench.send()
        bench.channels.write_text("team: json://127.0.0.1:9/top-secret-path\n")
        bench.send(after_s=20)
        bench.channels.write_text("team: nonsense://top-secret-path\n")
        bench.send(after_s=60)
        bench.channels.write_text("other: json://127.0.0.1:9/top-secret-path\n")
        bench.send(after_s=600)

    assert [line["event"] for line in logged] == ["message put off"] * 4
    assert "expected the channel 'team' in GATE_CHANNELS_FILE" in logged[-1]["error"]
    with bench.ledger._database.engine.connect() as connection:
        kept = str(connection.exec_driver_sql("select payload, error from outbox").all())
    assert "top-secret" not in f"{logged}{kept}{caplog.text}"


def test_words_of_others_call_nobody_in_a_chat(bench: Telling, receiver: Receiver) -> None:
    named = _waiver(owner="<!channel> @here [x](http://evil)")
    tell(bench.ledger, bench.policies.policies[0], of_waiver("w", named, 2), bench.clock())
    bench.send()

    assert not set("<>@[]`") & set(receiver.taken[0]["message"])


def test_a_policy_in_dry_run_tells_nobody(bench: Telling) -> None:
    watching = bench.policies.policies[0].model_copy(update={"enforcement": "dry_run"})

    tell(bench.ledger, watching, of_waiver("w", _waiver(), 2), bench.clock())

    assert bench.outstanding() == 0


def test_a_promotion_around_the_gate_is_told_once(bench: Telling, receiver: Receiver) -> None:
    version = bench.registry.add(a_version())
    bench.judge(version, Outcome.BLOCKED)
    bench.registry.pointers["my-llm", "champion"] = "3"
    for _ in range(3):
        bench.step(after_s=20)
        until(bench.settled)

    titles = [message["title"] for message in receiver.taken]
    assert sorted(titles) == ["models:/my-llm/3 is blocked", "models:/my-llm/3 was promoted without approval"]


def test_the_tags_of_an_approval_are_set_with_it_and_taken_with_it(bench: Telling) -> None:
    version = bench.registry.add(a_version())
    bench.judge(version)
    bench.step()
    assert bench.registry.version("my-llm", "3").tags["ok"] == "yes"

    changed = bench.policies.policies[0].model_copy(update={"description": "another text"})
    bench.policies = PolicySet(policies=(changed,))
    bench.dispatcher.hand_over()
    bench.dispatcher = bench.another()
    bench.judge(version, Outcome.BLOCKED)
    bench.step(after_s=5)

    assert "ok" not in bench.registry.version("my-llm", "3").tags


def _waiver(**changes: str) -> Waiver:
    given = {
        "owner": "ann",
        "reason": "why",
        "ticket": "T-1",
        "requested_by": "ann",
        "policy": "default",
        "rule": "kept",
    }
    return Waiver(candidate_digest="a" * 64, requested_at=0, expires_at=10, **(given | changes))
