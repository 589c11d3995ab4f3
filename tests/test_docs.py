"""What docs/ and the configs for engines say exists: keys, options, files, fields of Kubernetes, Slurm's steps."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from runner.cluster.job import DEFAULT_STOP_WAIT_S, STOP_WAIT
from runner.commands.run import parse_arguments
from runner.commands.sweep import main as sweep
from runner.config import RunConfig
from runner.engines.ray_connection import LABEL
from runner.factory import MODEL_KINDS
from runner.matrix import read_sweep
from runner.sweep import by_engines
from tests.processes import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "clusters.md").read_text(encoding="utf-8")
MANIFEST = YAML(typ="safe").load((DOCS / "rayjob.yaml").read_text(encoding="utf-8"))
SLURM = DOCS / "slurm.sh"
TEXTS = [PAGE, SLURM.read_text(encoding="utf-8"), MANIFEST["spec"]["entrypoint"]]
TEXTS += [(ROOT / "configs" / name).read_text(encoding="utf-8") for name in ("nightly.yaml", "sweep.yaml")]

FIELDS = {
    "RayJob": "apiVersion kind metadata spec",
    "RayJobSpec": "activeDeadlineSeconds backoffLimit clusterSelector entrypoint rayClusterSpec runtimeEnvYAML "
    "entrypointNumCpus shutdownAfterJobFinishes submissionMode ttlSecondsAfterFinished suspend",
    "RayClusterSpec": "authOptions enableInTreeAutoscaling headGroupSpec rayVersion workerGroupSpecs",
    "HeadGroupSpec": "rayStartParams serviceType template",
    "WorkerGroupSpec": "groupName maxReplicas minReplicas numOfHosts rayStartParams replicas template",
    "PodSpec": "containers volumes",
    "Container": "env image name resources securityContext volumeMounts",
}
"""Of KubeRay's ray.io/v1 (its API reference, 1.6) and of pods: those that a manifest here may use."""


def keys_named(text: str) -> set[str]:
    """Return the keys of the config that a text sets, or names in backticks."""
    sections = "|".join(RunConfig.model_fields)
    return {
        *re.findall(r"--set '?([a-z_.]+)=", text),
        *re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)(?:=[^`]*)?`", text),
    }


def is_known(key: str) -> bool:
    """Return whether RunConfig has a key; below a free mapping, all do."""
    model: Any = RunConfig
    for part in key.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return str(model).startswith("dict")
        if part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation
    return True


def test_keys_of_the_config_exist() -> None:
    """Each key that the page, the manifest, the script and the configs name is one."""
    named = set().union(*map(keys_named, TEXTS))
    assert len(named) >= 10
    assert [key for key in sorted(named) if not is_known(key)] == []
    assert not is_known("engines.gpus")
    assert not is_known("cluster.kind.x")


def test_commands_have_the_options_shown() -> None:
    """Every run shown is a command line that is accepted."""
    text = "\n".join(TEXTS).replace("\\\n", " ")
    commands = re.findall(r"python -m runner (--[^\n`]*)", text)
    assert len(commands) >= 5
    for command in commands:
        words = [word for word in command.replace(") does", "").split() if word != "..."]
        parse_arguments([word.strip("'\"") for word in words if not word.startswith("#")])


def test_help_names_every_kind_of_model(capsys: pytest.CaptureFixture[str]) -> None:
    """What --model may be is what the factory takes."""
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert [kind for kind in MODEL_KINDS.split(", ") if kind not in words] == []


def test_links_lead_somewhere() -> None:
    """Files that the page links to, and configs that it names, are there."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert len(links) >= 3
    assert [link for link in links if not (DOCS / link).exists()] == []
    assert [name for name in re.findall(r"configs/\w+\.yaml", PAGE) if not (ROOT / name).exists()] == []


def test_what_the_page_says_of_ray_is_what_the_code_does() -> None:
    """The variable of the time to stop and its default, and the resource of nodes for sandboxes."""
    assert f"{STOP_WAIT}=60" in PAGE
    assert f"default is {DEFAULT_STOP_WAIT_S:g} s" in " ".join(PAGE.split())
    assert f"--resources '{{\"{LABEL}\": 1}}'" in PAGE
    for side in ("ray start", "ray job submit"):
        block = next(block for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) if side in block)
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=" in block


def check_fields(kind: str, found: dict[str, Any]) -> None:
    """Fail where a part of the manifest has a field that there is not."""
    assert found.keys() <= set(FIELDS[kind].split()), kind


def test_fields_of_the_manifest() -> None:
    """It has the fields of KubeRay's definition, on every level that is KubeRay's, and those that are needed."""
    spec = MANIFEST["spec"]
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]

    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")
    check_fields("RayJob", MANIFEST)
    check_fields("RayJobSpec", spec)
    check_fields("RayClusterSpec", cluster)
    check_fields("HeadGroupSpec", head)
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    assert cluster["authOptions"] == {"mode": "token"}
    for group in workers:
        check_fields("WorkerGroupSpec", group)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        check_fields("PodSpec", pod)
        (container,) = pod["containers"]
        check_fields("Container", container)
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys()


def test_the_manifest_runs_as_the_page_says() -> None:
    """An absolute run directory on a claim that all pods mount, workers on the nodes for them alone."""
    arguments = parse_arguments(MANIFEST["spec"]["entrypoint"].split()[3:])
    cluster = MANIFEST["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]

    assert arguments.cluster == "ray"
    assert arguments.run_dir.is_absolute()
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        paths = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        assert any(arguments.run_dir.is_relative_to(path) for path in paths)
    labelled = [group for group in groups if LABEL in group["rayStartParams"].get("resources", "")]
    assert [group["groupName"] for group in labelled] == ["sandboxes"]
    assert STOP_WAIT in str(cluster["headGroupSpec"])


STUBS = {
    "scontrol": "echo node1; echo node2",
    "srun": 'echo "srun $*" >>"$CALLS"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1",
    "ray": 'echo "ray $* $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $RAY_ADDRESS" >>"$CALLS"',
    "sleep": "exec /bin/sleep 0.01",
    "python": """if [[ $1 == -c ]]; then echo "count $3" >>"$CALLS"; (($(grep -c ^count "$CALLS") > 2)); exit; fi
        echo "python $*" >>"$CALLS"; exec /bin/sleep 30""",
}
"""In place of Slurm, Ray and the runner: they say how they were called."""


@pytest.fixture(name="slurm")
def _slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of the script in a Slurm job of two nodes."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f'PATH="{tmp_path}/stubs:$PATH"\n')
    (tmp_path / "stubs").mkdir()
    for name, code in STUBS.items():
        stub = tmp_path / "stubs" / name
        stub.write_text(f"#!/bin/bash\n{code}\n")
        stub.chmod(0o755)
    return {
        "PATH": os.environ["PATH"], "CALLS": str(tmp_path / "calls"), "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "4",
        "MODEL": "vllm:/models/m",
    }  # fmt: skip


def test_slurm_script(slurm: dict[str, str], tmp_path: Path) -> None:
    """Ray's head on the first node, the rest joins it, all with one token; the runner takes the shell's place.

    Once all nodes are there: the runner counts their GPUs when it begins.
    """
    calls = tmp_path / "calls"
    with subprocess.Popen(["bash", str(SLURM)], env=slurm, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (calls.exists() and "\npython " in calls.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM, "Slurm's signal reaches the runner itself"
    lines = calls.read_text().splitlines()
    (run,) = [line for line in lines if line.startswith("python")]
    assert [line for line in lines if line.startswith("count")] == ["count 2"] * 3
    starts = [line.split() for line in lines if line.startswith("ray start")]
    steps = [line for line in lines if line.startswith("srun") and "ray start" in line]

    arguments = parse_arguments(run.split()[3:])
    assert (arguments.model, arguments.cluster) == ("vllm:/models/m", "ray")
    assert arguments.run_dir == tmp_path / "runs/slurm"
    assert {tuple(start[-3:]) for start in starts} == {("token", "64", "10.0.0.1:6379")}
    assert sorted("--head" in start for start in starts) == [False, True]
    assert all("--block" in start for start in starts)
    assert sorted(step.split()[4] for step in steps) == ["--exclude=node1", "--nodelist=node1"]


def test_slurm_script_needs_a_model(slurm: dict[str, str]) -> None:
    """Without one it says how to name it, and starts nothing."""
    del slurm["MODEL"]
    ran = subprocess.run(["bash", str(SLURM)], env=slurm, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "MODEL=vllm:PATH_OR_ID" in ran.stderr
    assert not Path(slurm["CALLS"]).exists()


def test_nightly_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """Three hosted models by two benchmarks, in three groups; listed where there are neither GPUs nor models."""
    path = ROOT / "configs/nightly.yaml"
    groups = by_engines(read_sweep(path, {}))

    assert [[cell.config.benchmark for cell in group] for group in groups] == [["quickstart", "pybench"]] * 3
    models = [{cell.config.model.client for cell in group} for group in groups]
    assert len(set().union(*models)) == 3
    assert all(client.startswith("vllm:") for (client,) in models)
    assert all(cell.config.run_limits.wall_s for group in groups for cell in group)
    assert all(
        cell.config.model.request == {"temperature": 0.2, "max_tokens": 2000} for cell in chain(*groups)
    )
    assert sweep([str(path), "--dry-run"]) == 2
    out = capsys.readouterr().out
    assert "6 runs below" in out
    assert out.count("error: pybench needs data.root") == 3


def test_ray_serve_config() -> None:
    """The file that the README serves with names one model, and keys that LLMConfig has."""
    (app,) = YAML(typ="safe").load((DOCS / "serve_llm.yaml").read_text())["applications"]
    (model,) = app["args"]["llm_configs"]
    assert app["import_path"] == "ray.serve.llm:build_openai_app"
    assert model.keys() <= {"model_loading_config", "deployment_config", "engine_kwargs", "accelerator_type"}
    assert model["model_loading_config"].keys() == {"model_id", "model_source"}
    assert app["route_prefix"] == "/"
