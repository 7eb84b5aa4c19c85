"""The guard's refusals are counted at MLflow's own /metrics, over all of the server's processes."""

import urllib.request
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_server import MlflowServer
from prometheus_client.parser import text_string_to_metric_families


def refusals(server: MlflowServer) -> dict[str, float]:
    """The guard's counter as a scraper gets it, by answer."""
    with urllib.request.urlopen(f"{server.uri}/metrics", timeout=120) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {
            sample.labels["answer"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "gate_guard_refusals_total"
        }


def test_each_refusal_is_counted_whichever_process_refused(tmp_path: Path) -> None:
    server = MlflowServer(
        tmp_path,
        registry_uri=f"gate+sqlite:///{tmp_path}/mlflow.db",
        environment={"MLFLOW_EXPOSE_PROMETHEUS": str(tmp_path / "metrics")},
        workers=2,
    )
    server.start()
    try:
        client = MlflowClient(server.uri, server.uri)
        client.create_registered_model("my-llm")
        client.create_model_version("my-llm", "s3://bucket/model")
        for _ in range(6):
            with pytest.raises(MlflowException, match="is refused"):
                client.set_registered_model_alias("my-llm", "champion", "1")
        assert refusals(server) == {"refused": 6}
    finally:
        server.stop()
