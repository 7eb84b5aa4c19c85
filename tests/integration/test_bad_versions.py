"""Bad versions in a running product: each ends in a clear finding, none in an approval, none holds up the rest."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from math import inf, nan
from pathlib import Path
from tempfile import gettempdir

import pytest
import torch
from checkpoint_folders import copied, nudge, reconfigured, rewritten, safetensors_bytes
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file
from torch import Tensor
from whole_product import BASE_REFERENCE, STAGED, Product, Registered

from gate.domain.verdict import Outcome

EMBEDDING, NORM, DOWN = "model.embed_tokens.weight", "model.norm.weight", "model.layers.1.mlp.down_proj.weight"
RUN = Path(gettempdir()) / f"a-pickle-ran-in-{os.getpid()}"
PICKLE = f"cos\nsystem\n(S'touch {RUN}'\ntR.".encode()
UNPACKED = 1 << 28
SLICE = 1 << 20


def truncated(folder: Path) -> Path:
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size * 2 // 3)
    return folder


def reshaped(folder: Path) -> Path:
    return rewritten(folder, lambda found: found.update({DOWN: found[DOWN].T.contiguous()}))


def without_a_tensor(folder: Path) -> Path:
    return rewritten(folder, lambda found: {name: tensor for name, tensor in found.items() if name != DOWN})


def with_one_more_tensor(folder: Path) -> Path:
    return rewritten(folder, lambda found: found.update({"model.layers.9.extra": torch.ones(3)}))


def with_more_words(folder: Path) -> Path:
    def longer(found: dict[str, Tensor]) -> None:
        rows = found[EMBEDDING]
        grown = {name: torch.cat([t, t[:4]]) for name, t in found.items() if t.shape == rows.shape}
        found.update(grown)

    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    return reconfigured(rewritten(folder, longer), vocab_size=vocabulary + 4)


def of_another_kind(folder: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=64, n_positions=32)).save_pretrained(folder)
    return folder


def pickled(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(PICKLE)
    return folder


def with_a_pickle_beside(folder: Path) -> Path:
    (folder / "notes.txt").write_bytes(PICKLE)
    return folder


def with_a_bomb(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("zeros", "w") as zeros:
        for _ in range(UNPACKED // SLICE):
            zeros.write(bytes(SLICE))
    assert (folder / "data.zip").stat().st_size < UNPACKED // 500
    return folder


def with_a_lying_header(folder: Path) -> Path:
    header = {NORM: {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, bytes(64)))
    return folder


def with_endless_layers(folder: Path) -> Path:
    return reconfigured(folder, num_hidden_layers=1 << 40)


def with_deep_json(folder: Path) -> Path:
    (folder / "config.json").write_text("[" * 100_000)
    return folder


def with_its_own_code(folder: Path) -> Path:
    (folder / "modeling.py").write_text("import os\n")
    return reconfigured(folder, auto_map={"AutoModelForCausalLM": "modeling.Model"})


def without_configuration(folder: Path) -> Path:
    (folder / "config.json").unlink()
    return folder


def adapter(folder: Path, width: int) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{stem}.lora_A.weight": torch.ones(2, width), f"{stem}.lora_B.weight": torch.ones(width, 2)}
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": BASE_REFERENCE}))
    return folder


# How a copy of the base is spoilt, the outcome, and words that the version's reason must hold.
BAD: Mapping[str, tuple[Callable[[Path], Path], Outcome, str]] = {
    "truncated mid-tensor": (truncated, Outcome.BLOCKED, "model.safetensors"),
    "wrong shapes": (reshaped, Outcome.BLOCKED, DOWN),
    "NaN": (lambda f: rewritten(f, lambda found: nudge(found, NORM, nan)), Outcome.BLOCKED, NORM),
    "infinite": (lambda f: rewritten(f, lambda found: nudge(found, DOWN, inf)), Outcome.BLOCKED, DOWN),
    "a tensor too few": (without_a_tensor, Outcome.BLOCKED, DOWN),
    "a tensor too many": (with_one_more_tensor, Outcome.NEEDS_REVIEW, "model.layers.9.extra"),
    "more words": (with_more_words, Outcome.NEEDS_REVIEW, "vocabulary"),
    "another architecture": (of_another_kind, Outcome.BLOCKED, "architecture"),
    "a pickle": (pickled, Outcome.BLOCKED, "pickle"),
    "a pickle called a text": (with_a_pickle_beside, Outcome.BLOCKED, "notes.txt"),
    "a zip bomb": (with_a_bomb, Outcome.BLOCKED, "not unpacked"),
    "a lying header": (with_a_lying_header, Outcome.BLOCKED, "model.safetensors"),
    "endless layers": (with_endless_layers, Outcome.BLOCKED, "architecture"),
    "deep JSON": (with_deep_json, Outcome.BLOCKED, "config.json"),
    "code of its own": (with_its_own_code, Outcome.BLOCKED, "code"),
    "no configuration": (without_configuration, Outcome.BLOCKED, "config.json"),
    "an adapter of a wider base": (lambda f: adapter(f, 2048), Outcome.BLOCKED, "q_proj"),
}


@pytest.fixture(scope="module")
def bad(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Registered]:
    """All of them registered at once, and a sound one behind them; returns when each has its verdict."""
    root = tmp_path_factory.mktemp("bad")
    product.until_profiled()
    versions = {
        name: product.register(name, spoil(copied(STAGED, root / name)), base=BASE_REFERENCE)
        for name, (spoil, _, _) in BAD.items()
    }
    versions["base unheard of"] = product.register("base unheard of", STAGED, base="models:/somebody elses/7")
    versions["no base named"] = product.register("no base named", STAGED)
    gone = product.upload(STAGED)
    shutil.rmtree(next((product.stack.state / "artifacts").glob(f"**/{gone}")))
    versions["vanished"] = product.register_source("vanished", f"runs:/{gone}/model", base=BASE_REFERENCE, run_id=gone)
    versions["elsewhere"] = product.register_source("elsewhere", "dbfs:/somewhere/else")
    half = rewritten(copied(STAGED, root / "half"), lambda found: {n: t.bfloat16() for n, t in found.items()})
    versions["bfloat16"] = product.register("bfloat16", reconfigured(half, dtype="bfloat16"), base=BASE_REFERENCE)
    deleted = product.register("deleted", STAGED, base=BASE_REFERENCE)
    product.client.delete_model_version(deleted.name, deleted.number)
    product.until_projected(versions.values())
    return versions


@pytest.mark.parametrize("name", BAD)
def test_a_spoilt_checkpoint_ends_in_a_finding_that_names_what_is_wrong(
    product: Product, bad: Mapping[str, Registered], name: str
) -> None:
    _, outcome, words = BAD[name]
    row = product.row(bad[name])
    assert (row.outcome, words in row.reason) == (outcome, True), row.reason


ELSEWHERE = {
    "base unheard of": (Outcome.NEEDS_REVIEW, "'models:/somebody elses/7'"),
    "no base named": (Outcome.NEEDS_REVIEW, "gate.base"),
    "vanished": (Outcome.BLOCKED, "expected files"),
    "elsewhere": (Outcome.BLOCKED, "dbfs:/somewhere/else"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_cannot_be_compared_is_not_approved_and_the_reason_says_why(
    product: Product, bad: Mapping[str, Registered], name: str
) -> None:
    outcome, words = ELSEWHERE[name]
    row = product.row(bad[name])
    assert (row.outcome, words in row.reason) == (outcome, True), row.reason


@pytest.mark.parametrize("name", [*BAD, *ELSEWHERE])
def test_mlflow_refuses_to_promote_each_of_them(product: Product, bad: Mapping[str, Registered], name: str) -> None:
    with pytest.raises(MlflowException) as refused:
        product.client.set_registered_model_alias(bad[name].name, "champion", bad[name].number)
    assert refused.value.get_http_status_code() == 403


def test_the_sound_one_behind_them_is_measured_and_approved_in_its_own_dtype(
    product: Product, bad: Mapping[str, Registered]
) -> None:
    row = product.row(bad["bfloat16"])
    evidence = product.ledger.evidence(row.evidence_key)
    assert row.outcome == Outcome.APPROVED, row.reason
    assert evidence.candidate.dtype == "bfloat16"
    assert [d.code.value for d in evidence.defects] == ["dtype_changed"]


def test_no_job_is_left_over_and_no_file_of_a_judged_candidate(product: Product, bad: Mapping[str, Registered]) -> None:
    product.until_quiet()
    assert {(row.kind, row.state) for row in product.jobs() if row.state != "done"} == set()
    assert list((product.stack.state / "cache" / "candidates").iterdir()) == []


def test_no_pickle_was_run_and_no_archive_unpacked(bad: Mapping[str, Registered]) -> None:
    assert len(bad) > len(BAD)
    assert not RUN.exists()


@pytest.mark.parametrize("name", ["a/b", "a:b"])
def test_mlflow_itself_refuses_names_that_its_own_uris_cannot_hold(product: Product, name: str) -> None:
    with pytest.raises(MlflowException, match=r"[Nn]ame"):
        product.client.create_registered_model(name)
