"""The staged base onboarded, and its profile: made by jobs, or by one worker alone. The plan's last scale is never needed."""

from dataclasses import dataclass
from pathlib import Path

from small_checks import PLAN, STAGED, part_of_suite, small_check_policy

from gate.adapters.database import ledger_url
from gate.adapters.policy_files import load_policies
from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.checkpoint import Base
from gate.domain.evaluation import seed_of
from gate.domain.evidence import BasinProfile, Plan, digest_json
from gate.domain.jobs import noise_key
from gate.domain.records import JobRequest
from gate.settings import Settings
from tasks.bases import profile_job, take_in
from tasks.drawing import all_draws
from tasks.profile import bench_of
from tasks.profiling import profile_base

SCALES = (0.005, 0.02, 0.1, 0.2, 0.4)


@dataclass
class ProfileStand:
    """A ledger in a folder with the base onboarded; ``wanted`` is the job that profiles it."""

    settings: Settings
    ledger: SqlLedger
    base: Base
    plan: Plan
    wanted: JobRequest

    @classmethod
    def in_folder(cls, folder: Path) -> "ProfileStand":
        """A new one; nothing is asked for yet."""
        url = ledger_url("", folder)
        migrate(url)
        plan = PLAN | {"noise_scales": list(SCALES), "noise_draws": 4, "noise_items": 12}
        policies = small_check_policy(folder / "policy.yaml", plan=plan)
        settings = Settings(state_dir=folder, database_url=url, policies=policies, device="cpu", threads=1)
        ledger = SqlLedger(url)
        base = take_in(settings, ledger, str(STAGED), suite=str(part_of_suite(folder / "suite")), name="base")
        policy = load_policies(policies).policies[0]
        return cls(settings, ledger, base, policy.plan, profile_job(base, policy))

    def key(self, sigma: float, draw: int) -> str:
        """The job of one of the profile's draws."""
        return noise_key(self.wanted.key, sigma, draw)

    def draws_done(self) -> set[str]:
        """The draws that were scored."""
        found = self.ledger.job_results([self.key(*place) for place in all_draws(self.plan)])
        return {key for key, (state, *_) in found.items() if state == "done"}

    def made(self) -> BasinProfile:
        """The profile that jobs made, but for the time it took."""
        profile = self.ledger.profile(self.wanted.key)
        assert profile is not None, self.ledger.job_result(self.wanted.key)
        return profile.model_copy(update={"seconds": 0.0})

    def alone(self) -> BasinProfile:
        """The same by one worker that asks nobody."""
        bench, seed = bench_of(self.settings, self.base, self.plan), seed_of(digest_json(self.wanted.key))
        gradients = self.settings.state_dir / "gradients.safetensors"
        made = profile_base(bench, self.plan, seed, gradients, lambda *_: None)
        return made.model_copy(update={"seconds": 0.0})
