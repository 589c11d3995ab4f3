"""What a Ray job changes, and folders that killed workers left."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

from runner.cluster.digest import packages_digest
from runner.cluster.job import IN_JOB, check_run_dir, environment_of, grace_s
from runner.cluster.rebuild import read_trajectory
from runner.cluster.scratch import PREFIX, make_scratch
from runner.config import RunConfig
from runner.encoding import encode_line
from runner.errors import ConfigError
from runner.records import ArtifactRecord, FurtherAction, Owner, StopReason, TryRecord, Turn
from tests.runner.factories import trajectory


def config(**settings: object) -> RunConfig:
    return RunConfig.model_validate({"cluster": "ray", **settings})


@pytest.mark.parametrize("run_dir", [None, "runs/here"])
def test_a_job_needs_an_absolute_run_directory(run_dir: str | None) -> None:
    with pytest.raises(ConfigError, match=r"such as --run-dir /.*kernelfleet-runs/"):
        check_run_dir(run_dir and Path(run_dir), {IN_JOB: "{}"})


def test_elsewhere_a_relative_one_will_do() -> None:
    check_run_dir(None, {})
    check_run_dir(Path("/shared/run"), {IN_JOB: "{}"})


@pytest.mark.parametrize(
    ("settings", "environment", "expected_s"),
    [
        ({}, {}, 30.0),
        ({}, {IN_JOB: "{}"}, 1.5),
        ({}, {IN_JOB: "{}", "RAY_JOB_STOP_WAIT_TIME_S": "20"}, 18.5),
        ({}, {IN_JOB: "{}", "RAY_JOB_STOP_WAIT_TIME_S": "600"}, 30.0),
        ({}, {IN_JOB: "{}", "RAY_JOB_STOP_WAIT_TIME_S": "soon"}, 1.5),
        ({"cluster": {"kind": "ray", "drain_s": 7}}, {IN_JOB: "{}"}, 7.0),
    ],
)
def test_grace_ends_before_ray_kills(
    settings: dict[str, object], environment: dict[str, str], expected_s: float
) -> None:
    assert grace_s(config(**settings), environment) == expected_s


def test_workers_get_the_variables_that_the_config_names_and_no_others() -> None:
    environment = {"KEY": "secret", "OTEL_SERVICE_NAME": "x", "OTHER": "y"}

    asked = environment_of(config(model={"client": "oracle", "api_key_env": "KEY"}), environment)

    assert asked == {"KEY": "secret", "OTEL_SERVICE_NAME": "x"}


def test_a_worker_uses_the_run_directory_only_if_it_sees_it(tmp_path: Path) -> None:
    (tmp_path / "nonce").touch()

    seen = make_scratch(tmp_path, "nonce")
    unseen = make_scratch(tmp_path, "another")

    assert (seen.path, seen.is_in_run_dir) == (tmp_path, True)
    assert unseen.path.name.startswith(PREFIX)
    unseen.remove()
    assert not unseen.path.exists()


def test_folders_of_killed_workers_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, used = make_scratch(tmp_path / "no", "nonce"), make_scratch(tmp_path / "no", "nonce")
    assert killed.lock_fd is not None
    os.close(killed.lock_fd)  # as when its process ends

    last = make_scratch(tmp_path / "no", "nonce")

    assert not killed.path.exists()
    assert used.path.exists()
    for scratch in (used, last):
        scratch.remove()


def test_a_digest_tells_code_apart_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "runner").mkdir(parents=True)
        (tmp_path / name / "runner" / "x.py").write_text("1")
    assert packages_digest(tmp_path / "a") == packages_digest(tmp_path / "b")

    (tmp_path / "b" / "runner" / "x.py").write_text("2")

    assert packages_digest(tmp_path / "a") != packages_digest(tmp_path / "b")


def test_a_trajectory_is_read_back_as_it_was() -> None:
    turn = Turn("x", action="1", observation={"status": "ok"}, further=[FurtherAction("2", None)])
    made = trajectory(
        turns=[turn],
        tries=[TryRecord(StopReason.SANDBOX_ERROR, Owner.SANDBOX, "broke", 1.0)],
        artifacts=[ArtifactRecord("artifacts/one/1/a", 3, "00")],
    )

    read = read_trajectory(encode_line(made))

    assert read == made
    assert asdict(read) == asdict(made)
