"""What is left when a part of a run is killed: nothing of it within five seconds, and every attempt once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from runner.journal import read_events, read_trajectories
from tests.fake_engine import write_model
from tests.fake_engine_core import detokenize, tokenize
from tests.runner.cluster.real.clusters import Place, ours, parent
from tests.runner.cluster.real.runs import check_whole, is_in_the_middle, wait_until

pytest.importorskip("ray", reason="Ray is not installed here: make test-engines")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

GONE_WITHIN_S = 5.0


def below(pid: int, found: dict[int, str]) -> set[int]:
    """Return those of the processes that a process is, or is the owner of; an engine's keeper names it."""
    mine = {pid}
    for one in sorted(found):  # later ones descend from earlier ones
        with suppress(OSError):  # a sandbox that has ended since
            words = Path(f"/proc/{one}/cmdline").read_bytes().split(b"\0")
            if parent(one) in mine or (found[one] == "keeper" and str(pid).encode() in words):
                mine.add(one)
    return mine


def test_a_killed_driver_leaves_nothing(tmp_path: Path, place: Place) -> None:
    """Neither engines nor workers nor sandboxes on any node; the same command goes on."""
    run_dir = tmp_path / "run"
    with place.started(tmp_path) as first:
        wait_until(lambda: is_in_the_middle(first, run_dir), 240)
        kinds = Counter(ours(place.folder).values())
        assert kinds.keys() >= {"driver", "worker", "actor", "keeper", "engine", "core", "sandbox"}, kinds
        first.kill()
        wait_until(lambda: not ours(place.folder), GONE_WITHIN_S, lambda: ours(place.folder))
    with place.started(tmp_path) as second:
        output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    check_whole(run_dir)


@pytest.mark.parametrize("victim", ["worker", "raylet"])
def test_a_killed_part_takes_its_own_along(tmp_path: Path, place: Place, victim: str) -> None:
    """A worker's sandboxes; with a raylet, the engines of its node as well. The run ends as if nothing was."""
    run_dir = tmp_path / "run"
    with place.started(tmp_path) as run:
        wait_until(lambda: is_in_the_middle(run, run_dir), 240)
        found = ours(place.folder)
        worker = next(pid for pid, kind in found.items() if kind == "worker")
        raylet = parent(worker)
        dying = [worker]
        if victim == "raylet":
            actors = [pid for pid, kind in found.items() if kind == "actor" and parent(pid) == raylet]
            dying += actors
        mine = set().union(*(below(pid, found) for pid in dying))
        assert sum(found[pid] == "sandbox" for pid in mine) >= 3  # a keeper, a zygote, and what it forked
        os.kill(worker if victim == "worker" else raylet, signal.SIGKILL)
        wait_until(lambda: not mine & ours(place.folder).keys(), GONE_WITHIN_S, lambda: ours(place.folder))
        output, _ = run.communicate(timeout=300)
    if victim == "raylet":
        place.nodes.add()
    assert run.returncode == 0, output
    assert [event["event"] for event in read_events(run_dir)].count("worker_lost") == 1
    check_whole(run_dir)
    wait_until(lambda: not ours(place.folder), GONE_WITHIN_S, lambda: ours(place.folder))


def test_token_ids_stay_with_their_worker(tmp_path: Path, place: Place) -> None:
    """Each knows what its own attempts were told; one that goes on elsewhere is rendered whole, which is said."""
    run_dir = tmp_path / "run"
    model = {
        "client": f"vllm:{write_model(tmp_path / 'model')}", "transport": "tokens", "request": {"logprobs": True},
    }  # fmt: skip
    engines = {"args": {"token_s": 0.05, "drift": True}}
    with place.started(tmp_path, model=model, engines=engines) as run:  # at most four attempts on each worker
        wait_until(lambda: run.poll() is not None or n_begun(run_dir) > 4, 240)
        assert run.poll() is None, run.communicate()
        os.kill(next(pid for pid, kind in ours(place.folder).items() if kind == "worker"), signal.SIGKILL)
        output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    check_whole(run_dir)
    rows = list(read_trajectories(run_dir))
    for turn in (turn for row in rows for turn in row["turns"]):
        ids = [int(said["token"].removeprefix("token_id:")) for said in turn["logprobs"]["content"]]
        assert detokenize(ids, skip_special=True) == turn["completion"]
        assert ids != tokenize(detokenize(ids))  # no text that was tokenized again
    moved = {row["attempt"] for row in rows if row["n_resumed_turns"]}
    rendered = {event["attempt"] for event in read_events(run_dir) if event["event"] == "history_rendered"}
    assert set() < rendered <= moved


@pytest.mark.parametrize("where", ["cluster", "none"])
def test_sigterm_before_the_run_has_begun(tmp_path: Path, place: Place, where: str) -> None:
    """While engines start, which Ray has long been connected for: it ends at once, and nothing is left."""
    engines = {"kind": "ray", "args": {"start_s": 100}}
    cluster = {"kind": "ray" if where == "cluster" else "none"}
    with place.started(tmp_path, engines=engines, cluster=cluster) as run:
        wait_until(lambda: "core" in ours(place.folder).values() or run.poll() is not None, 240)
        run.send_signal(signal.SIGTERM)
        wait_until(lambda: not set(ours(place.folder)) - {run.pid}, GONE_WITHIN_S, lambda: ours(place.folder))
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGTERM, output
    assert output.strip().endswith("stopped by SIGTERM before the run had begun; run the same command again")
    assert "SIGTERM received" not in output  # Ray's own handler
    assert "Traceback" not in output


def test_a_second_signal_ends_the_grace_period(tmp_path: Path, place: Place) -> None:
    """What runs is cut off and recorded as such, and nothing is left."""
    run_dir = tmp_path / "run"
    slow = {"args": {"token_s": 2.0}}
    with place.started(tmp_path, engines=slow, cluster={"drain_s": 500}) as run:
        wait_until(lambda: run.poll() is not None or "run_started" in told(run_dir), 240)
        run.send_signal(signal.SIGTERM)
        wait_until(lambda: run.poll() is not None or "draining" in told(run_dir), 60)
        run.send_signal(signal.SIGTERM)
        output, _ = run.communicate(timeout=240)
    assert run.returncode == 128 + signal.SIGTERM, output
    assert told(run_dir)[-1] == "run_finished"
    assert "Traceback" not in output
    wait_until(lambda: not ours(place.folder), GONE_WITHIN_S, lambda: ours(place.folder))


def n_begun(run_dir: Path) -> int:
    """Return how many attempts that go on have turns on the driver's disk."""
    return len(list((run_dir / "inflight").glob("*")))


def told(run_dir: Path) -> list[str]:
    """Return the names of a run's events so far."""
    return [event["event"] for event in read_events(run_dir)] if (run_dir / "events.log").exists() else []
