"""What a user who got something wrong is told of Ray and of engines on it: one message, what to do, the code."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.journal import read_events
from tests.fake_engine import ENVIRONMENT, write_model
from tests.runner.cluster.real.clusters import (
    Place,
    cluster,
    copy_of_ours,
    environment,
    hosting_config,
    ours,
    runner,
)
from tests.runner.cluster.real.runs import check_whole, is_in_the_middle, wait_until

pytest.importorskip("ray", reason="Ray is not installed here: make test-engines")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

WITHIN_S = 180.0
"""Most take a twentieth of it on a machine with nothing else to do; a port that says nothing, 20 s anywhere."""


def check_told(process: subprocess.Popen[str], code: int, says: str) -> str:
    """See that a run ends at once, with this code and one message; return its output."""
    output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == code, output
    assert re.search(says, output), output
    assert "Traceback" not in output, output
    assert output.count("error: ") == 1, output
    return output


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        ({"engines": {"gpus_per_replica": 1}}, 2, "no node of the Ray cluster has a GPU.*openai:URL"),
        ({"engines": {"tensor_parallel": 3}}, 2, "8 attention heads cannot be divided.*a divisor of 8"),
        ({"engines": {"cpus_per_replica": 2}}, 2, "do not fit .*less those of workers.*cpus_per_worker"),
        ({"model": "vllm:/no/such"}, 2, "vllm:/no/such: no such folder; name one"),
        ({"engines": {"chat_template": "/no/such"}}, 2, "cannot read /no/such.*name a Jinja file"),
        ({"engines": {"command": ["/no/such"]}}, 1, "none of 2 engines started.*(?s:.*)cannot execute /no/such"),
        ({"engines": {"args": {"start_fault": "port"}}}, 1, "a port is taken: end what listens there.*(?s:.*)Errno 98"),
        ({"engines": {"args": {"start_fault": "oom"}}}, 1, "the model does not fit: raise .*(?s:.*)CUDA out of memory"),
        ({"engines": {"args": {"start_fault": "crash"}}}, 1, "the log says why.*(?s:.*)RuntimeError: the reason"),
        ({"cluster": {"cpus_per_worker": 99}}, 1, "no node of the cluster may have a worker: none has a CPU"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_engines_that_cannot_be(
    tmp_path: Path, place: Place, settings: dict[str, Any], code: int, says: str
) -> None:
    """Found by the driver, by a node, or by an engine that does not start; then with the end of its log."""
    with place.started(tmp_path, **settings) as run:
        check_told(run, code, says)
    wait_until(lambda: not ours(place.folder), 5.0, lambda: ours(place.folder))


def test_too_few_gpus_for_the_parallelism(tmp_path: Path) -> None:
    """On a cluster of two nodes that say that they have two each: by all, and by those of a node."""
    code, env = copy_of_ours(tmp_path / "code"), environment(KERNELFLEET_MARK=str(tmp_path))
    with cluster(tmp_path, env | {"PYTHONPATH": str(code)}, n_nodes=2, n_gpus=2) as nodes:
        place = Place(tmp_path, code, env, nodes)
        for number, (settings, says) in enumerate(TOO_FEW_GPUS):
            engines = {"gpus_per_replica": None, "replicas": "auto", **settings}
            with place.started(tmp_path / f"{number}", engines=engines) as run:
                check_told(run, 2, says)
        fits = {"gpus_per_replica": None, "replicas": "auto", "tensor_parallel": 2}
        with place.started(tmp_path / "fits", engines=fits, limit=4) as run:
            output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
        assert "4 trajectories finished" in output
        ready = [
            event for event in read_events(tmp_path / "fits" / "run") if event["event"] == "engine_ready"
        ]
        assert len(ready) == 2
        wait_until(lambda: not ours(tmp_path), 5.0, lambda: ours(tmp_path))


TOO_FEW_GPUS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"tensor_parallel": 8}, r"need 1 x 8 GPUs .*and there are 4; lower .*engines\.tensor_parallel"),
    ({"tensor_parallel": 2, "replicas": 3}, r"3 engines of 2 GPUs .*do not fit .*2 \+ 1.*room for 2\. Lower"),
    ({"args": ["--enforce-eager", "-dp", "8"]}, "need 1 x 8 GPUs .*and there are 4"),
    ({"args": ["-tp", "2"]}, r"tensor_parallel_size is not passed through; set engines\.tensor_parallel"),
    (
        {"env": {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "0"}},
        "CUDA_VISIBLE_DEVICES is '0': on Ray.*leave it out",
    ),
)


def test_a_model_without_a_chat_template(tmp_path: Path, place: Place) -> None:
    """The node looks into the model's folder."""
    model = write_model(tmp_path / "base")
    (model / "tokenizer_config.json").write_text("{}")
    with place.started(tmp_path, model=f"vllm:{model}") as run:
        check_told(run, 2, "it has no chat template.*set engines.chat_template to a Jinja file")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, "refused this process's token.*set RAY_AUTH_MODE=token"),
        (
            {"RAY_AUTH_MODE": "disabled"},
            "refused this process's token, or the lack of one.*set RAY_AUTH_MODE",
        ),
        ({"RAY_AUTH_TOKEN": "", "HOME": "/no/such"}, "there is no token here; set RAY_AUTH_TOKEN"),
    ],
    ids=["wrong", "none", "missing"],
)
def test_a_token_that_is_not_the_clusters(
    tmp_path: Path, place: Place, change: dict[str, str], says: str
) -> None:
    address = ["--set", f"cluster.address={place.nodes.address}"]
    check_told(runner(tmp_path, place.code, {**place.env, **change}, *address), 2, says)


@pytest.mark.parametrize("versions", [("2.60.0", "3.9.1"), ("1.0.0", "3.11.7")], ids=["python", "ray"])
def test_other_versions_on_the_cluster(tmp_path: Path, place: Place, versions: tuple[str, str]) -> None:
    """Ray compares them; both are named."""
    import ray

    address = ["--set", f"cluster.address={place.nodes.address}"]
    place.nodes.tell_versions(*versions)
    try:
        says = f"Ray: {versions[0]} Python: {versions[1]} .* install the cluster's versions"
        check_told(runner(tmp_path, place.code, place.env, *address), 2, says)
    finally:
        place.nodes.tell_versions(ray.__version__, ".".join(map(str, sys.version_info[:3])))


@pytest.fixture(name="silent")
def _silent() -> Iterator[str]:
    """An address where something listens that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_something_else_at_the_address(tmp_path: Path, place: Place, silent: str) -> None:
    """Ray itself would try for minutes."""
    run = runner(tmp_path, place.code, environment(), "--set", f"cluster.address={silent}")
    check_told(run, 2, f"{silent}: no head of Ray has answered .* 8265 is for ray job submit")


@pytest.mark.parametrize("engines", ["none", "hosted"])
def test_ray_is_not_installed(tmp_path: Path, place: Place, engines: str) -> None:
    (tmp_path / "shadow" / "ray").mkdir(parents=True)
    (tmp_path / "shadow" / "ray" / "__init__.py").write_text("raise ImportError('there is none')\n")
    more = ["--config", str(hosting_config(tmp_path))] if engines == "hosted" else []
    env = {**environment(), "PYTHONPATH": f"{tmp_path / 'shadow'}:{place.code}"}
    command = [sys.executable, "-P", "-m", "runner", "--cluster", "ray", *more]
    run = subprocess.Popen(
        command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    check_told(run, 2, "Ray is not installed here .*there is none.*make install-engines, or pip install")


def test_engines_of_this_machine_with_workers_of_its_cluster(tmp_path: Path, place: Place) -> None:
    """Not refused where all nodes are on it; see test_ray_plan.py for those that are elsewhere."""
    with place.started(tmp_path, engines={"kind": "local"}, limit=4) as run:
        output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert "4 trajectories finished" in output
    wait_until(lambda: not ours(place.folder), 5.0, lambda: ours(place.folder))


def test_engines_that_crash_until_none_is_left(tmp_path: Path, place: Place) -> None:
    """The run ends with a log and can be resumed."""
    engines = {"max_restarts": 1, "args": {"token_s": 0.02, "start_s": 0.5}}
    with place.started(tmp_path, engines=engines) as run:
        wait_until(lambda: is_in_the_middle(run, tmp_path / "run"), 240)
        deadline = time.monotonic() + 240
        while run.poll() is None and time.monotonic() < deadline:
            for pid, kind in ours(place.folder).items():
                if kind == "core":
                    kill(pid)
            time.sleep(0.2)
        says = r"all 2 engines are lost; run the same command again(?s:.*)EngineCore died unexpectedly"
        check_told(run, 1, says)
    wait_until(lambda: not ours(place.folder), 5.0, lambda: ours(place.folder))
    with place.started(tmp_path, engines=engines) as again:
        output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    check_whole(tmp_path / "run")


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
