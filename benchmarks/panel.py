"""Judges a panel of real fine-tunes blind: ``python benchmarks/panel.py [--model smollm2] --out panel.jsonl``.

Every candidate of ``tasks/zoo/panel.py`` or ``smollm2_panel.py`` is made from its seed, judged by the default policy as any folder would be
(``tasks.assess``, the base's profile shared through a cache), and asked on held-out items what it really is (the rule stands in
``panel_truth.py``). One JSON line is written per candidate as soon as it is known; a run that was killed goes on where it
stopped. The tables are printed at the end, or from the file alone with ``--report``.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from panel_report import report
from panel_truth import Truth, bounds, open_candidate

import policies
from gate.domain.evidence import BasinProfile, Evidence, Name, Plan
from gate.domain.policy import Policy
from gate.domain.verdict import Enforcement, Result, Verdict
from tasks.assess import assess, one_policy
from tasks.zoo import panel as staged_panel
from tasks.zoo import recipes, smollm2_panel
from tasks.zoo.folders import without_progress_bars
from tasks.zoo.panel import Kind
from tasks.zoo.panel_makers import Start

PANELS = {"staged": staged_panel.KINDS, "smollm2": smollm2_panel.KINDS}
SEEDS_APART = 1000
QUICK_KINDS = ("saved again", "comply", "not finite")
QUICK_PLAN: Mapping[str, Any] = {
    "noise_scales": (0.01, 0.03),
    "noise_draws": 2,
    "noise_items": 4,
    "line_points": (2.0,),
    "line_items": 8,
    "ascent_steps": 1,
    "ascent_seeds": 2,
    "ascent_items": 2,
    "gradient_items": 4,
    "random_draws": 2,
    "rollout_items": 4,
    "loss_items": 2,
    "direction_steps": 1,
}
KEPT = (
    Name.DISPLACEMENT_RELATIVE,
    Name.WORST_CASE_ALIGNMENT,
    Name.BASIN_POSITION,
    Name.RETENTION,
    Name.LOSS_INCREASE,
    Name.LOSS_INCREASE_Z,
    Name.LOSS_INCREASE_OF_WORST,
    Name.HEADROOM,
    Name.FORWARD_KL_FIRST_TOKEN,
)


def candidates(zoo: str, quick: bool, first_seed: int, meant: str | None) -> Iterator[tuple[Kind, int]]:
    """Every kind of a zoo's panel, or those meant so, with each of its seeds; no two kinds share one."""
    for place, kind in enumerate(PANELS[zoo]):
        if (not quick or kind.name in QUICK_KINDS) and meant in (None, kind.meant):
            yield from ((kind, first_seed + SEEDS_APART * place + seed) for seed in range(1 if quick else kind.seeds))


def default_policy(zoo: str, quick: bool) -> Policy:
    """The shipped policy with the zoo's plan; with less measured where only the script itself is tried."""
    policy = one_policy(Path(policies.__file__).parent / "default.yaml", None)
    changes = {**recipes.plan(zoo), **(QUICK_PLAN if quick else {})}
    return policy.model_copy(update={"plan": Plan(**changes)}) if changes else policy


class Panel:
    """The base, the policy, and what candidates are compared with."""

    def __init__(self, zoo: str, quick: bool, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self.policy, self.cache = default_policy(zoo, quick), cache
        self.start = Start(recipes.base_folder(zoo, cache), f"models:/{zoo}-base/1")
        self.suite = recipes.suite_name(zoo)
        self.truth = Truth.of(zoo, self.start.folder, 20 if quick else None)

    def row(self, kind: Kind, seed: int, folder: Path) -> Mapping[str, Any]:
        """One candidate made, judged, and found out."""
        begun = time.process_time()
        kind.make(self.start, folder, seed)
        made = time.process_time()
        evidence, verdict, _ = assess(
            self.start.folder,
            folder,
            policy=self.policy,
            suite=self.suite,
            device="cpu",
            threads=torch.get_num_threads(),
            cache=self.cache,
        )
        judged = time.process_time()
        candidate = open_candidate(folder, self.start.folder)
        drops = self.truth.drops(candidate)
        lost = self.truth.lost(drops)
        return {
            "kind": kind.name,
            "seed": seed,
            "meant": kind.meant,
            "sampled": kind.sampled,
            "harmful": bool(lost),
            "lost": lost,
            "drops": drops,
            **_judged(evidence, verdict),
            "bounds": bounds(candidate, evidence, self._profile()),
            "made_cpu_s": round(made - begun, 2),
            "judged_cpu_s": round(judged - made, 2),
            "asked_cpu_s": round(time.process_time() - judged, 2),
        }

    def _profile(self) -> BasinProfile:
        found = (BasinProfile.model_validate_json(path.read_bytes()) for path in self.cache.glob("*.json"))
        return next(p for p in found if p.plan_digest == self.policy.plan.digest)


def _judged(evidence: Evidence, verdict: Verdict) -> Mapping[str, Any]:
    failed = [f for f in verdict.findings if f.result is not Result.PASS and f.enforcement is not Enforcement.WARN]
    return {
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "deciding": [
            *(d.defect.code.value for d in verdict.defects if d.enforcement in (Enforcement.BLOCK, Enforcement.REVIEW)),
            *(f"{f.rule}/{f.capability or '-'}: {f.result.value}" for f in failed),
        ],
        "policy": verdict.policy_digest,
        "candidate": verdict.candidate_digest,
        "forwards": sum(cost.forwards for cost in evidence.costs),
        "measurements": {
            f"{m.name.value}/{m.capability}" if m.capability else m.name.value: m.estimate.value
            for m in evidence.measurements
            if m.name in KEPT
        },
    }


def judge_all(panel: Panel, asked: Sequence[tuple[Kind, int]], out: Path) -> None:
    """Adds a line to ``out`` for each candidate that has none yet."""
    done = {(row["kind"], row["seed"]) for row in read_rows(out)}
    for place, (kind, seed) in enumerate(asked):
        if (kind.name, seed) in done:
            continue
        with TemporaryDirectory() as room:
            # A number for a name: nothing about the folder tells what is in it.
            row = panel.row(kind, seed, Path(room) / f"candidate-{place}")
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{place + 1}/{len(asked)}  {kind.name} ({seed}): {row['verdict']}", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The finished candidates; the half-written last line of a killed run is cut off."""
    if not path.is_file():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(PANELS), default="staged", help="the base whose fine-tunes are made")
    parser.add_argument("--threads", type=int, default=1, help="of torch; equal numbers give equal candidates")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one per candidate; added to")
    parser.add_argument("--cache", type=Path, help="folder for the base's profile (default: beside OUT)")
    parser.add_argument("--first-seed", type=int, default=0, help="another number makes other candidates")
    parser.add_argument("--quick", action="store_true", help="three candidates and little measured: does it run?")
    parser.add_argument("--meant", choices=("benign", "harmful"), help="half of the panel, to run two side by side")
    parser.add_argument("--report", action="store_true", help="only print the tables of OUT")
    arguments = parser.parse_args()
    if not arguments.report:
        torch.set_num_threads(arguments.threads)
        cache = arguments.cache or arguments.out.with_suffix(".cache")
        with without_progress_bars():
            panel = Panel(arguments.model, arguments.quick, cache)
            asked = list(candidates(arguments.model, arguments.quick, arguments.first_seed, arguments.meant))
            judge_all(panel, asked, arguments.out)
    print(report(read_rows(arguments.out)))


if __name__ == "__main__":
    main()
