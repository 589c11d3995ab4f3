"""Real Ray: nodes that are lost, jobs that are stopped, folders with another `runner` in them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from runner.journal import read_events, read_trajectories
from tests.runner.cluster.real.clusters import cluster, copy_of_ours, environment, ours, runner
from tests.runner.cluster.real.runs import N_SAMPLES, n_lines, wait_until

pytest.importorskip("ray", reason="Ray is not installed here: make test-engines")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

logger = logging.getLogger(__name__)


def check_once(run_dir: Path, epochs: int) -> None:
    counts = Counter(row["attempt"] for row in read_trajectories(run_dir))
    assert set(counts.values()) == {1}
    assert len(counts) == epochs * N_SAMPLES
    for row in read_trajectories(run_dir):
        for artifact in row["artifacts"]:
            assert (run_dir / artifact["path"]).stat().st_size == artifact["bytes"]


def marked(mark: str) -> list[int]:
    """Return the processes with a mark in their environment, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_one_of_three_nodes_is_lost(tmp_path: Path) -> None:
    """Every attempt once; what the node had is handed out again within seconds."""
    env, code, run_dir = environment(), copy_of_ours(tmp_path / "code"), tmp_path / "run"
    (tmp_path / "work").mkdir()
    with cluster(tmp_path / "work", env | {"PYTHONPATH": str(code)}, n_nodes=3) as running:
        arguments = ["--set", f"cluster.address={running.address}", "--run-dir", str(run_dir)]
        arguments += ["--epochs", "6", "--concurrency", "9", "--quiet"]
        process = runner(tmp_path / "work", code, env, *arguments)
        wait_until(lambda: n_lines(run_dir) > 20 or process.poll() is not None, 240)
        lost_at = time.time()
        running.remove(0)
        output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, output
    check_once(run_dir, epochs=6)
    events = list(read_events(run_dir))
    assert len([event for event in events if event["event"] == "worker_joined"]) == 3
    (lost,) = [event for event in events if event["event"] == "worker_lost"]
    logger.info("node loss to requeue: %.2f s, %d attempts", lost["at"] - lost_at, lost["n_requeued"])
    assert lost["at"] - lost_at <= 20  # 4 s, where nothing else runs: most of it is Ray's
    assert 0 < lost["n_requeued"] <= 6


def test_from_a_folder_with_another_runner(tmp_path: Path) -> None:
    """Ray puts the driver's folder into its workers' path: they find our packages all the same."""
    code, folder = copy_of_ours(tmp_path / "code"), tmp_path / "work"
    (folder / "runner").mkdir(parents=True)
    (folder / "runner" / "__init__.py").write_text("raise SystemExit('the wrong runner')\n")
    run_dir = tmp_path / "run"

    process = runner(folder, code, environment(), "--limit", "4", "--run-dir", str(run_dir))
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, output
    assert n_lines(run_dir) == 4


def test_other_code_on_the_nodes_is_refused(tmp_path: Path) -> None:
    """Workers whose packages differ say so; nothing is run."""
    own, other = copy_of_ours(tmp_path / "code"), copy_of_ours(tmp_path / "other")
    (other / "runner" / "more.py").write_text("")
    # The folder that the driver names is not there on the nodes: they have the other one.
    check = (
        "from runner.cluster.ray_worker import worker_class\n"
        "from runner.cluster.digest import packages_digest\n"
        "from pathlib import Path\n"
        f"digest = packages_digest(Path({str(own)!r}))\n"
        "print(worker_class()().start('/nowhere', digest))\n"
    )
    env = environment(PYTHONPATH=str(other))
    done = subprocess.run(
        [sys.executable, "-P", "-c", check], env=env, capture_output=True, text=True, check=True
    )

    assert f"it has other code than the driver, in {other}" in done.stdout


def test_a_wrong_address(tmp_path: Path) -> None:
    process = runner(
        tmp_path, copy_of_ours(tmp_path / "code"), environment(), "--set", "cluster.address=127.0.0.1:9"
    )
    output, _ = process.communicate(timeout=240)

    assert process.returncode == 2, output
    assert "127.0.0.1:9" in output
    assert "Traceback" not in output


def test_sigterm_drains_and_the_same_command_resumes(tmp_path: Path) -> None:
    code, env, run_dir = (
        copy_of_ours(tmp_path / "code"),
        environment(KERNELFLEET_MARK=str(tmp_path)),
        tmp_path / "run",
    )
    arguments = [
        "--epochs",
        "8",
        "--run-dir",
        str(run_dir),
        "--set",
        "cluster.drain_s=1",
        "--concurrency",
        "4",
    ]
    process = runner(tmp_path, code, env, *arguments)
    wait_until(lambda: n_lines(run_dir) > 5 or process.poll() is not None, 240)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM, output
    n_before = n_lines(run_dir)
    assert 5 < n_before < 8 * N_SAMPLES
    wait_until(lambda: not marked(f"KERNELFLEET_MARK={tmp_path}"), 20)  # Ray's own among them

    process = runner(tmp_path, code, env, *arguments)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 0, output
    check_once(run_dir, epochs=8)


def test_job_submit_stop_and_again(tmp_path: Path) -> None:
    """A job is drained when it is stopped, leaves no process, and the same command goes on."""
    env, code, run_dir = (
        environment(RAY_JOB_STOP_WAIT_TIME_S="60", KERNELFLEET_MARK=str(tmp_path)),
        copy_of_ours(tmp_path / "code"),
        tmp_path / "run",
    )
    (tmp_path / "work").mkdir()
    with cluster(tmp_path / "work", env, n_nodes=0, has_dashboard=True) as running:
        env |= {"RAY_ADDRESS": running.dashboard()}
        ray = [shutil.which("ray", path=env["PATH"]) or "ray", "job"]

        def job(*arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*ray, *arguments], cwd=code, env=env, capture_output=True, text=True, timeout=timeout
            )

        command = ["python", "-m", "runner", "--cluster", "ray", "--concurrency", "4", "--epochs", "4"]
        submit = ["submit", "--working-dir", str(code)]
        wait_until(lambda: job("list").returncode == 0, 240)
        refused = job(*submit, "--", *command, "--run-dir", "here")
        while "No available agent" in refused.stderr:  # they take longer than the list
            time.sleep(1)
            refused = job(*submit, "--", *command, "--run-dir", "here")
        assert "the run directory here is relative" in refused.stdout

        command += ["--run-dir", str(run_dir)]
        assert job(*submit, "--no-wait", "--submission-id", "first", "--", *command).returncode == 0
        try:
            wait_until(lambda: n_lines(run_dir) > 5, 240)
        except AssertionError:
            pytest.fail(job("status", "first").stdout + job("logs", "first").stdout)
        kinds = ours(tmp_path)
        driver = min(pid for pid, kind in kinds.items() if kind == "driver")
        assert "worker" in kinds.values()
        of_job = Path(f"/proc/{driver}/cwd").readlink()  # its code, which its sandboxes name
        assert "sandbox" in ours(of_job).values()
        stopped = job("stop", "first")
        assert "stopped" in stopped.stdout, stopped
        events = [event["event"] for event in read_events(run_dir)]
        assert "draining" in events
        assert events[-1] == "run_finished"
        assert 5 < n_lines(run_dir) < 4 * N_SAMPLES
        wait_until(lambda: not (ours(tmp_path) or ours(of_job)), 5)

        again = job(*submit, "--", *command)
        assert again.returncode == 0, again.stdout
    check_once(run_dir, epochs=4)
