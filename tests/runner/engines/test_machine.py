"""Which GPUs there are, by the environment and by the driver; a script stands for nvidia-smi."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.engines.machine import compute_capability, list_gpus

NVIDIA_SMI = """#!/bin/sh
case "$*" in
*--query-gpu=index*) printf '0\\n1\\n2\\n';;
"-i 1,2 --query-gpu=compute_cap"*) printf '9.0\\n8.0\\n';;
"-i "*) echo 'No devices were found'; exit 6;;
*--query-gpu=compute_cap*) printf '7.5\\n9.0\\n8.0\\n';;
esac
"""


@pytest.fixture(name="driver")
def _driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver with three GPUs, of which the first is old."""
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("4,5", ("4", "5")),
        (" 1 , 0", ("1", "0")),
        ("GPU-8932f937,MIG-GPU-5a/1/0", ("GPU-8932f937", "MIG-GPU-5a/1/0")),
        ("0,-1,1", ("0",)),
        ("NoDevFiles", ()),
        ("", ()),
    ],
)
def test_the_environment_decides(visible: str, expected: tuple[str, ...]) -> None:
    """As CUDA reads it: numbers and ids, up to the first that is none."""
    assert list_gpus({"CUDA_VISIBLE_DEVICES": visible}) == expected


@pytest.mark.usefixtures("driver")
def test_else_the_driver_does() -> None:
    """All of them; and of those that are chosen the least able counts, not of those that are not."""
    assert list_gpus({}) == ("0", "1", "2")
    assert compute_capability() == 7.5
    assert compute_capability(("1", "2")) == 8.0
    assert compute_capability(("GPU-unknown",)) is None


def test_without_a_driver_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program, no GPU."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus({}) == ()
    assert compute_capability() is None
