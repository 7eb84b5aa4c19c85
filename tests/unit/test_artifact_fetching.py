"""Where a version's files may come from, and when they are taken."""

import json

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from gate.adapters.mlflow_artifacts import MOST_FILES, ArtifactFetcher
from gate.domain.errors import InvalidInput, NotFound, NotMeasurable, Unavailable

HERE = "http://mlflow.example:5000"


def a_fetcher(*roots, most_bytes=10_000):
    return ArtifactFetcher(HERE, most_bytes=most_bytes, local_roots=roots)


def put(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def source(tmp_path):
    return put(tmp_path / "source", config__json=b"{}", model__safetensors=b"weights")


@pytest.mark.parametrize(
    "uri",
    [
        "mlflow-artifacts://elsewhere.example/1/model",
        "http://169.254.169.254/latest/meta-data",
        "https://elsewhere.example/model",
        "file:///etc",
        "/etc",
        "../etc",
        "ftp://elsewhere.example/model",
        "sftp://elsewhere.example/model",
        "hdfs://elsewhere.example/model",
        "dbfs:/model",
        "hf://meta-llama/x",
        "models:/other/1",
        "prompt-template",
    ],
)
def test_a_source_elsewhere_is_refused_before_anything_is_asked_of_it(uri, tmp_path):
    with pytest.raises(InvalidInput, match="expected"):
        a_fetcher().fetch(uri, tmp_path / "into")


def test_a_local_folder_is_fetched_only_below_a_root_the_operator_gave(source, tmp_path):
    fetched = a_fetcher(tmp_path).fetch(str(source), tmp_path / "into")
    assert (fetched / "model.safetensors").read_bytes() == b"weights"
    with pytest.raises(InvalidInput, match="local path"):
        a_fetcher(source / "deeper").fetch(str(source), tmp_path / "into")
    with pytest.raises(InvalidInput, match="local path"):
        a_fetcher(source).fetch(f"{source}/../other", tmp_path / "into")


def test_an_earlier_fetch_is_replaced_whole(source, tmp_path):
    put(tmp_path / "into", stale__bin=b"old")
    fetched = a_fetcher(tmp_path).fetch(str(source), tmp_path / "into")
    assert sorted(p.name for p in fetched.iterdir()) == ["config.json", "model.safetensors"]


def test_an_empty_source_is_not_found(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(NotFound, match="upload"):
        a_fetcher(tmp_path).fetch(str(tmp_path / "source"), tmp_path / "into")


@pytest.mark.parametrize("there", [{}, {"config__json": b"{}"}, {"model__safetensors": b"weights"}])
def test_files_still_on_their_way_are_looked_for_again_later(tmp_path, there):
    (tmp_path / "source").mkdir()
    source = put(tmp_path / "source", **there)
    with pytest.raises(Unavailable, match="incomplete"):
        a_fetcher(tmp_path).fetch(str(source), tmp_path / "into", may_be_uploading=True)
    put(source, config__json=b"{}", model__safetensors=b"weights")
    fetched = a_fetcher(tmp_path).fetch(str(source), tmp_path / "into", may_be_uploading=True)
    assert sorted(p.name for p in fetched.iterdir()) == ["config.json", "model.safetensors"]


def test_a_checkpoint_that_stays_incomplete_is_fetched_as_it_is_for_its_defects_to_be_told(tmp_path):
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    source = put(tmp_path / "source", config__json=b"{}")
    (source / "model.safetensors.index.json").write_bytes(index)
    (source / "model-1.safetensors").write_bytes(b"weights")
    fetched = a_fetcher(tmp_path).fetch(str(source), tmp_path / "into")
    assert not (fetched / "model-2.safetensors").exists()


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"weight_map": 7}', b"\xff"])
def test_a_broken_index_does_not_stop_the_fetch(source, tmp_path, index):
    (source / "model.safetensors.index.json").write_bytes(index)
    fetched = a_fetcher(tmp_path).fetch(str(source), tmp_path / "into")
    assert (fetched / "model.safetensors.index.json").read_bytes() == index


def test_a_source_that_changes_while_it_is_read_leaves_nothing_behind(source, tmp_path, monkeypatch):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    download = LocalArtifactRepository.download_artifacts

    def change_meanwhile(self, *args, **kwargs):
        result = download(self, *args, **kwargs)
        (source / "model.safetensors").write_bytes(b"other weights")
        return result

    monkeypatch.setattr(LocalArtifactRepository, "download_artifacts", change_meanwhile)
    with pytest.raises(Unavailable, match="changed"):
        a_fetcher(tmp_path).fetch(str(source), tmp_path / "into")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_checkpoint_over_the_limit_is_not_fetched(source, tmp_path):
    with pytest.raises(NotMeasurable, match="GATE_MAX_ARTIFACT_BYTES"):
        a_fetcher(tmp_path, most_bytes=5).fetch(str(source), tmp_path / "into")


class Entry:
    """One line of a server's listing."""

    def __init__(self, path: str, is_dir: bool = False) -> None:
        self.path, self.is_dir, self.file_size = path, is_dir, 1


class LyingRepository:
    """A server that lists what it likes."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = entries

    def list_artifacts(self, _: str | None) -> tuple[Entry, ...]:
        return self.entries


def fetched_from(repository, tmp_path, monkeypatch):
    monkeypatch.setattr("gate.adapters.mlflow_artifacts.get_artifact_repository", lambda *_, **__: repository)
    return a_fetcher().fetch("mlflow-artifacts:/1/model", tmp_path / "into")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\\..\\x", "nul\0", ""])
def test_a_listing_that_names_a_path_outside_the_folder_is_refused(tmp_path, monkeypatch, path):
    with pytest.raises(InvalidInput, match="inside the artifact folder"):
        fetched_from(LyingRepository(Entry(path)), tmp_path, monkeypatch)


class RestartingRepository(LyingRepository):
    """A run's files on a server that goes away between their listing and their fetching, in MLflow's own words."""

    def download_artifacts(self, path: str, dst_path: str) -> str:
        raise MlflowException(f"Failed to download artifacts from path {path!r}", RESOURCE_DOES_NOT_EXIST)


@pytest.mark.parametrize("names", [["config.json", "model.safetensors"], ["model.safetensors.index.json"]])
def test_files_that_were_listed_but_cannot_be_fetched_are_not_taken_for_missing(tmp_path, monkeypatch, names):
    with pytest.raises(Unavailable, match="just listed"):
        fetched_from(RestartingRepository(*map(Entry, names)), tmp_path, monkeypatch)


def test_a_listing_without_end_is_refused(tmp_path, monkeypatch):
    with pytest.raises(NotMeasurable, match="folders"):
        fetched_from(LyingRepository(Entry("again", is_dir=True)), tmp_path, monkeypatch)
    many = LyingRepository(*(Entry(f"f{n}") for n in range(MOST_FILES + 1)))
    with pytest.raises(NotMeasurable, match="files"):
        fetched_from(many, tmp_path, monkeypatch)
