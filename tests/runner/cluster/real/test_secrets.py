"""What a sandbox on a cluster's node knows of the cluster: not its token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.journal import read_trajectories
from tests.runner.cluster.real.clusters import Place, ours, runner
from tests.runner.cluster.real.runs import wait_until

pytest.importorskip("ray", reason="Ray is not installed here: make test-engines")
pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

LOOK = """
import glob, os
seen = [repr(dict(os.environ))]
for path in glob.glob("/proc/*/environ") + [{file!r}, os.path.expanduser("~/.ray/auth_token")]:
    try:
        seen.append(open(path, errors="replace").read())
    except OSError as error:
        seen.append(str(error))
print(len(seen), *("FOUND " + word[::-1] for word in {words!r} if any(word in text for text in seen)))
"""


def test_the_token_stays_outside(tmp_path: Path, place: Place) -> None:
    """Neither the variable of the worker's process nor the file that RAY_AUTH_TOKEN_PATH names is there."""
    token, in_file = place.env["RAY_AUTH_TOKEN"], "another-secret"
    (tmp_path / "token").write_text(in_file)
    look = LOOK.format(file=str(tmp_path / "token"), words=[token, in_file])
    task = {
        "id": "look",
        "messages": [{"role": "user", "content": "look"}],
        "reference": {"cells": [look], "answer": "done"},
    }
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))
    env = {**place.env, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    settings = [f"cluster.address={place.nodes.address}", f"benchmark=jsonl:{tmp_path / 'tasks.jsonl'}"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    run = runner(
        tmp_path, place.code, env, *arguments, "--model", "oracle", "--run-dir", str(tmp_path / "run")
    )
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    (row,) = read_trajectories(tmp_path / "run")
    if row["tier"] not in ("namespace", "landlock"):
        pytest.skip(f"the tier {row['tier']} does not promise it")
    observation = row["turns"][0]["observation"]
    assert observation["status"] == "ok"
    assert "FOUND" not in json.dumps(observation)
    wait_until(lambda: not ours(place.folder), 5.0, lambda: ours(place.folder))
