"""Which device a job goes to."""

import pytest
from builders import a_checkpoint

from gate.adapters.celery_queue import celery_app
from gate.adapters.policy_files import load_policies
from gate.adapters.selfcheck_jobs import selfcheck_jobs
from gate.domain.checkpoint import Base
from gate.domain.errors import InvalidInput, NotMeasurable
from gate.domain.evidence import ComputeDtype
from gate.domain.gpu_sizes import GpuSizes, bytes_needed, read_sizes
from gate.domain.jobs import QUEUES
from gate.domain.policy import Policy
from gate.settings import Settings
from tasks.bases import profile_job
from tasks.doctor import placed

SIZES = GpuSizes((24, 80, 288))


def base_of(parameters: float, dtype: str = "bfloat16") -> Base:
    checkpoint = a_checkpoint(parameters=int(parameters), dtype=dtype)
    return Base(name="llm", digest=checkpoint.digest, source="models:/llm/1", suite="staged", checkpoint=checkpoint)


def policy(compute: ComputeDtype = ComputeDtype.STORED) -> Policy:
    shipped = load_policies(None).policies[0]
    return shipped.model_copy(update={"plan": shipped.plan.model_copy(update={"compute_dtype": compute})})


@pytest.mark.parametrize(
    ("parameters", "dtype", "queue"),
    [
        (3e9, "bfloat16", "gpu-24"),
        (7e9, "bfloat16", "gpu-80"),
        (7e9, "float32", "gpu-288"),
        (47e9, "bfloat16", "gpu-288"),
    ],
)
def test_a_job_goes_to_the_smallest_device_that_holds_it(parameters: float, dtype: str, queue: str) -> None:
    assert SIZES.queue_for(base_of(parameters, dtype)) == queue


def test_a_device_that_is_one_byte_too_small_is_not_taken() -> None:
    exactly = base_of((24_000_000_000 - 1_000_000_000) // 6)

    assert bytes_needed(exactly) <= 24_000_000_000 < bytes_needed(base_of(exactly.checkpoint.parameters + 1))
    assert SIZES.queue_for(exactly) == "gpu-24"
    assert SIZES.queue_for(base_of(exactly.checkpoint.parameters + 1)) == "gpu-80"


def test_computing_in_single_precision_takes_twice_the_memory_of_half_precision_weights() -> None:
    assert profile_job(base_of(7e9), policy(), SIZES).queue == "gpu-80"
    assert profile_job(base_of(7e9), policy(ComputeDtype.FLOAT32), SIZES).queue == "gpu-288"


def test_a_base_that_no_device_holds_is_refused_with_what_to_do() -> None:
    with pytest.raises(NotMeasurable, match="421 GB by estimate, found 288 GB at most; add workers of that size"):
        SIZES.queue_for(base_of(70e9))


def test_without_sizes_all_share_one_queue_however_large_they_are() -> None:
    assert GpuSizes().all_queues == QUEUES
    assert profile_job(base_of(700e9), policy()).queue == "gpu"


def test_a_base_of_unknown_size_goes_to_the_largest_device() -> None:
    assert SIZES.queue_for(base_of(0)) == "gpu-288"


def test_the_check_of_a_base_that_no_device_holds_is_asked_for_so_that_it_can_fail() -> None:
    assert {job.queue for job in selfcheck_jobs(base_of(70e9), policy(), "1", SIZES)} == {"gpu-288"}
    assert {job.queue for job in selfcheck_jobs(base_of(3e9), policy(), "1", SIZES)} == {"gpu-24"}


def test_doctor_says_whether_the_largest_base_has_workers_that_hold_it() -> None:
    assert "gpu-80" in str(placed(base_of(7e9), SIZES))
    assert "288 GB at most" in str(placed(base_of(70e9), SIZES))


@pytest.mark.parametrize("text", ["24GB", "0", "-80", "24;80", "80.5", "²"])
def test_sizes_that_are_no_whole_numbers_of_gb_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="GATE_GPU_MEMORY_GB: expected whole numbers of GB"):
        read_sizes(text)


def test_each_size_has_a_queue_at_the_broker() -> None:
    given = Settings(gpu_memory_gb="80,24,80").gpu_sizes().all_queues

    assert [queue.name for queue in celery_app("memory://", None, given).conf.task_queues] == [
        "cpu",
        "gpu-24",
        "gpu-80",
    ]
