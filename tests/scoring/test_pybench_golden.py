"""The proof of profile `upstream`: three of the authors' recorded runs, scored by real sandboxes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scoring.__main__ import main

pytestmark = [pytest.mark.kernel, pytest.mark.data]

LEFT_OUT_OF_THE_COPY = {"gpt4turbo": ["output/140/snake_game.py"]}
"""What the run's own messages say it saved, and its test passed on, but the stored copy has not."""


@pytest.fixture
def golden(kernelfleet_data: Path, tmp_path: Path) -> Any:
    """Return a function that copies a recorded run's outputs, with the files that its results presume."""
    for module in ("cv2", "mutagen"):
        pytest.importorskip(module, reason="what PyBench needs is not installed: make install-pybench")
    root = kernelfleet_data / "pybench"

    def prepare(run: str) -> tuple[list[str], dict[str, Any]]:
        expected = json.loads((root / "golden_results.json").read_text())["runs"][run]
        shutil.copytree(root / "golden" / run / "output", tmp_path / "output")
        for name in [*expected["empty_placeholders"], *LEFT_OUT_OF_THE_COPY.get(run, [])]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        trajectories = root / "golden" / run / "trajectory.jsonl"
        words = ["--trajectories", str(trajectories), "--outputs", str(tmp_path / "output")]
        return ["pybench", *words, "--data", str(root), "--json", "-"], expected

    return prepare


@pytest.mark.timeout(120)
@pytest.mark.parametrize("run", ["gpt4turbo", "PyLlama3", "PyLlama3_only_codefb"])
def test_upstream_gives_upstreams_results(golden: Any, capsys: pytest.CaptureFixture[str], run: str) -> None:
    """All 143 tasks come out as upstream's own tests found them."""
    arguments, expected = golden(run)
    assert main([*arguments, "--profile", "upstream"]) == 0
    scored = json.loads(capsys.readouterr().out)

    wanted = {task: expected["results"][task] for task in scored["results"]}
    assert len(wanted) == 143
    assert scored["results"] == wanted
    assert (scored["passed"], scored["total"]) == (expected["passed"], 143)
    groups = {
        "Chart": "chart",
        "Text": "text",
        "Image": "image and audio",
        "Math": "math",
        "Software": "software",
    }
    by_group = {groups[name]: passed for name, passed in expected["by_category"].items()}
    assert {name: share["passed"] for name, share in scored["by_group"].items()} == by_group
    assert scored["apart"]["not the model's to lose"] == {}
