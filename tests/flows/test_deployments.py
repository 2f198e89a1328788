"""deployments/prefect.yaml: every key is one Prefect knows, everything it names exists, and a worker runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel, RawScheduleConfig, WorkPoolConfig
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments import run_deployment
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools import is_valid_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel

from flows.blocks import LandrecordsPortal
from tasks.postgres import Database
from tasks.sample.portal import SamplePortal
from tasks.stages import load_stages

PREFECT_YAML = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
PREFECT = Path(sys.executable).with_name("prefect")
ANCHORS = {"definitions"}
"""A key of our own, for YAML's anchors; Prefect's own documentation uses it so."""


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PREFECT_YAML.read_text())
    return loaded


def deployments() -> list[dict[str, Any]]:
    return list(config()["deployments"])


def unknown_keys(content: dict[str, Any]) -> list[str]:
    """Keys that Prefect would pass over in silence."""
    found = _unknown(PrefectYamlModel, content, "file", also=ANCHORS)
    for deployment in content["deployments"]:
        name = deployment["name"]
        found += _unknown(DeploymentConfig, deployment, name)
        found += _unknown(WorkPoolConfig, deployment.get("work_pool", {}), f"{name}.work_pool")
        for schedule in deployment.get("schedules", []):
            found += _unknown(RawScheduleConfig, schedule, f"{name}.schedules")
    return found


def _unknown(model: type[BaseModel], given: dict[str, Any], where: str, also: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    known = {field.alias or name for name, field in model.model_fields.items()} | also
    return [f"{where}: {key}" for key in sorted(given.keys() - known)]


def test_every_key_is_known_and_every_value_accepted() -> None:
    assert unknown_keys(config()) == []
    PrefectYamlModel.model_validate(config())


@pytest.mark.parametrize("key", ["schedule_s", "concurency_limit", "work_pools"])
def test_a_misspelt_key_is_found(key: str) -> None:
    content = config()
    content["deployments"][0][key] = 1
    assert unknown_keys(content) == [f"county: {key}"]


@pytest.mark.parametrize("deployment", deployments(), ids=lambda d: d["name"])
def test_what_a_deployment_names_exists(deployment: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    schema = flow.parameters.model_dump_for_openapi()
    is_valid_schema(schema)  # raises
    assert validate(deployment["parameters"], {**schema, "additionalProperties": False}) == []
    assert deployment["parameters"].get("stage", "all") in load_stages(None)
    assert deployment["work_pool"]["name"] == "landrecords"


@pytest.mark.parametrize("deployment", deployments(), ids=lambda d: d["name"])
def test_nothing_starts_by_itself(deployment: dict[str, Any]) -> None:
    assert {schedule["active"] for schedule in deployment["schedules"]} == {False}


def test_a_worker_runs_a_deployment(
    prefect_server: str, database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_server,
        "LANDRECORDS_DATABASE_URL": database_url,
        "LANDRECORDS_HOME": str(tmp_path / "home"),
    }
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="landrecords", type="process"))
        prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML), environment=environment)
        deployed = {d.name: d for d in client.read_deployments()}
        assert deployed.keys() >= {"county", "county-retry"}
        assert not any(s.active for s in deployed["county"].schedules)
        with SamplePortal(3, oddities={}) as portal:
            portal.write_index(tmp_path / "index.csv")
            LandrecordsPortal(url=portal.url).save("county")
            parameters = {"stage": "all", "index": str(tmp_path / "index.csv"), "requests_per_second": 100}
            run = run_deployment("documents/county", parameters=parameters, timeout=0)
            worker = prefect("worker", "start", "--pool", "landrecords", "--run-once", environment=environment)
            run = client.read_flow_run(run.id)
        client.delete_work_pool("landrecords")
    LandrecordsPortal.delete("county")
    assert run.state_name == "Completed", worker
    assert database.rows("SELECT count(*) FROM index_documents WHERE upload_status = 'completed'") == [(3,)]


def prefect(*arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [PREFECT, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
