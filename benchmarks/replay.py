"""What it takes to judge, and to replay a policy over a thousand stored evaluations, beside parsing the same JSON.

``python benchmarks/replay.py [--evaluations 1000]``. A real ledger on SQLite. Parsing the evidence's JSON into plain
objects by the standard library is the floor: nothing that reads stored evidence can do less. Exit status 1 where judging
one takes a millisecond of processor time or more, or the replay ten seconds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import sqlalchemy as sa
from builders import a_version, an_evidence

from gate.adapters.ledger_tables import evaluation, evidence, verdict
from gate.adapters.policy_files import load_policies, select_policy
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.evaluation import EvaluationRequest
from gate.domain.judging import judge
from gate.domain.rehearsal import replay

JUDGE_S, REPLAY_S = 0.001, 10.0
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=1000)
    count = parser.parse_args().evaluations
    policies, found = load_policies(), an_evidence()
    policy, text = policies.policies[0], an_evidence().model_dump_json()
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        ledger = filled(f"sqlite:///{folder}/ledger.db", count)
        began = time.perf_counter()
        replayed = replay((select_policy(policies, each.version), each) for each in ledger.judged_since(0))
        replay_s = time.perf_counter() - began
        ledger.close()
    if replayed.judged != count or replayed.flips:
        raise SystemExit(f"expected {count} versions judged as before, found {replayed}")
    judge_s = processor_seconds(lambda: judge(policy, found, subject="s", now=0), 200)
    parse_s = processor_seconds(lambda: json.loads(text), 200)
    told = {
        "evaluations": count,
        "evidence_bytes": len(text),
        "parse_one_ms": round(1000 * parse_s, 4),
        "judge_one_ms": round(1000 * judge_s, 4),
        "judge_over_parse": round(judge_s / parse_s, 2),
        "replay_s": round(replay_s, 3),
        "replay_over_parsing_all": round(replay_s / (count * parse_s), 2),
    }
    print(json.dumps(told, indent=2))
    return int(judge_s >= JUDGE_S or replay_s >= REPLAY_S)


def filled(url: str, count: int) -> SqlLedger:
    """A ledger with that many approved versions, written straight into its tables."""
    policy = load_policies().policies[0]
    rows: dict[sa.Table, list[dict[str, object]]] = {evaluation: [], evidence: [], verdict: []}
    for number in range(1, count + 1):
        version, measured = a_version(version=str(number)), an_evidence(key=f"{number:064x}")
        request = EvaluationRequest.of(version, policy.name, policy.digest)
        given = judge(policy, measured, subject=version.identity, now=0)
        at = {"created_at": float(number), "updated_at": float(number)}
        asked = {"name": version.name, "request": request.model_dump_json(), "evidence_key": measured.key}
        rows[evaluation].append({"key": request.key, **asked, **at})
        body = {"body": measured.model_dump_json(), "saved_by": "benchmark", "saved_at": 0.0}
        rows[evidence].append({"key": measured.key, **body})
        rows[verdict].append({"key": request.key, "body": given.model_dump_json(), "envelope": "{}", "saved_at": 0.0})
    migrate(url)
    engine = sa.create_engine(url)
    with engine.begin() as c:
        for table, values in rows.items():
            c.execute(sa.insert(table), values)
    engine.dispose()
    return SqlLedger(url)


def processor_seconds(work: Callable[[], object], times: int) -> float:
    """Processor time of one call: the median over rounds, so that a busy machine says the same."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - began) / times)
    return statistics.median(rounds)


if __name__ == "__main__":
    raise SystemExit(main())
