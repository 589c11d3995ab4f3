"""`model.transport=tokens` from the command line, on engines that the run hosts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, clean_environment, wait_until_gone
from tests.test_hosted_engines import command, rows

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(240)]


def ran(folder: Path, *options: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    folder.mkdir()
    return subprocess.run(
        command(folder, *options, **arguments), cwd=ROOT, env=clean_environment(), capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


def test_a_run_in_token_ids_is_the_run_in_text(tmp_path: Path) -> None:
    """The same trajectories, turn by turn, and the same words on disk."""
    for transport in ("chat", "tokens"):
        done = ran(tmp_path / transport, "--set", f"model.transport={transport}")
        assert done.returncode == 0, done.stderr
    chat, tokens = (
        {row["attempt"]: row for row in rows(tmp_path / transport / "run")}
        for transport in ("chat", "tokens")
    )
    assert len(chat) == 24
    assert max(len(row["turns"]) for row in tokens.values()) == 3  # type: ignore[arg-type]
    assert {name: row["messages"] for name, row in chat.items()} == {
        name: row["messages"] for name, row in tokens.items()
    }
    events = (tmp_path / "tokens/run/events.log").read_text()
    assert "history_rendered" not in events
    settings = json.loads((tmp_path / "tokens/run/config.json").read_text())["settings"]
    assert settings["model.transport"] == "tokens"


def test_a_template_that_forgets(tmp_path: Path) -> None:
    """Bad input: one message with the remedies, before any attempt."""
    done = ran(tmp_path / "run", "--set", "model.transport=tokens", template="forgets")
    assert done.returncode == 2
    assert "does not keep what the model thought as it was" in done.stderr
    assert "model.transport=chat" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/run/trajectories.jsonl").exists() or not rows(tmp_path / "run/run")
    assert not wait_until_gone(tmp_path / "run")
