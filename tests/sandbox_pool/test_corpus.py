"""The lean kernel shows what ipykernel shows, on real cells: quickstart's solutions and the recorded runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox_pool.corpus import Comparison, Script, quickstart, recorded
from tests.sandbox_pool.particular_cells import CELLS, DIFFERENT

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="recorded code is only run where it can be kept from the disk"
    ),
]

EXPLAINED = {
    "PyLlama3_only_codefb/114": (
        "`!apt-get install` asks whether to go on. ipykernel's commands have a terminal, where nobody answers; "
        "ours read the end of a file at once"
    ),
}
"""Scripts with a difference, and its reason. Whether apt gets as far as to ask depends on the machine."""


@pytest.fixture(name="comparison", scope="module")
def _comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    comparison = Comparison(tmp_path_factory.mktemp("corpus"))
    yield comparison
    comparison.close()


def compare(comparison: Comparison, scripts: list[Script]) -> None:
    """Fail with all differences that are not explained."""
    found = {s.name: cells for s in scripts if (cells := comparison.differences(s))}
    assert {name: cells for name, cells in found.items() if name not in EXPLAINED} == {}


def test_particular_cells(comparison: Comparison) -> None:
    """What IPython and notebooks do in particular looks the same in both, but for what is explained."""
    found = comparison.differences(Script("particular", CELLS))
    assert {CELLS[n]: (ours, theirs) for n, ours, theirs in found if CELLS[n] not in DIFFERENT} == {}
    assert {CELLS[n] for n, _, _ in found} == set(DIFFERENT)


def test_quickstart(comparison: Comparison) -> None:
    """All reference solutions of quickstart look the same in both."""
    scripts = quickstart()
    assert len(scripts) >= 20
    compare(comparison, scripts)


@pytest.mark.data
def test_recorded_code_on_tables(comparison: Comparison, kernelfleet_data: Path) -> None:
    """The data cleaning tasks of PyBench look the same in both."""
    scripts = [s for s in recorded(kernelfleet_data, "gpt4turbo") if s.name.split("/")[1] in set("23456789")]
    assert len(scripts) == 8
    compare(comparison, scripts)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", ["gpt4turbo", "PyLlama3", "PyLlama3_only_codefb"])
def test_recorded_run_whole(comparison: Comparison, kernelfleet_data: Path, model: str) -> None:
    """Every cell of a recorded run looks the same in both, or it is written above why not."""
    pytest.importorskip("jieba", reason="what PyBench's tasks import is not installed: make install-pybench")
    scripts = recorded(kernelfleet_data, model)
    assert len(scripts) > 100
    compare(comparison, scripts)
