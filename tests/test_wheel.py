"""The packages hold all that they need: a wheel, unpacked elsewhere, runs and scores the demo."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import ROOT, run_module


@pytest.mark.kernel
@pytest.mark.timeout(120)
def test_wheel_runs_the_demo(tmp_path: Path) -> None:
    """No file outside the packages is needed, and tests are no part of them."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("kernelfleet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = str(tmp_path / "unpacked")
    assert not (tmp_path / "unpacked/tests").exists()
    assert (tmp_path / "unpacked/scoring/pybench/tasks.yaml").is_file()

    where = "import runner, scoring; print(runner.__file__, scoring.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env={"PYTHONPATH": unpacked},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.count(unpacked) == 2

    ran = run_module("runner", "--samples", "*-ha*", "--run-dir", "run", cwd=tmp_path, PYTHONPATH=unpacked)
    assert ran.returncode == 0, ran.stderr
    scored = run_module("scoring", "run", cwd=tmp_path, PYTHONPATH=unpacked)
    assert scored.returncode == 0, scored.stderr
    assert "pass rate: 100.0 %" in scored.stdout
