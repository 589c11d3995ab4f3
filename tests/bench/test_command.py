from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from sandbox_pool.bench import add_arguments, run
from sandbox_pool.bench.command import PLANS, pool_config
from sandbox_pool.bench.contenders import MAX_SANDBOXES, PRELOAD


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_what_is_measured_is_the_default_but_for_what_makes_a_miss() -> None:
    """No limit or protection is off, the process tier is used only when asked for, none is kept ready."""
    config = pool_config(options())
    assert config.model_fields_set == {
        "tier", "allow_unsafe", "kernel", "preload", "max_sandboxes", "min_idle", "max_idle", "acquire_timeout_s",
    }  # fmt: skip
    assert (config.tier, config.kernel, config.allow_unsafe) == ("auto", "lean", False)
    assert (config.min_idle, config.max_idle, config.preload) == (0, 0, PRELOAD)
    assert pool_config(options("--tier", "process")).allow_unsafe


def test_the_pool_may_hold_what_a_plan_asks_for() -> None:
    """The burst and all levels; the full plan makes a thousand starts more."""
    for plan in PLANS.values():
        assert max(*plan.levels, plan.burst) <= MAX_SANDBOXES
    assert PLANS["full"].n_endured == 1000
    assert [options(*o).plan for o in ([], ["--full"], ["--quick"])] == ["default", "full", "quick"]


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_quick_run_measures_everything_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every figure but those of larger crowds has a number, no start failed, the cold kernels are gone."""
    file = tmp_path / "figures.json"
    assert run(options("--quick", "--json", str(file))) == 0
    found = json.loads(file.read_bytes())
    measured = {row["measure"] for row in found["table"] if row["ours"] is not None}
    assert measured >= {
        "warm_s", "warm_seeded_s", "start_s", "first_cell_s", "cell_s", "client_cpu_s", "kernel_cpu_s", "starts_hz",
        "start_cpu_s", "teardown_s", "open_s", "pss_bytes_4", "4_at_once_s", "8_at_once_s", "8_gone_at_once_s",
    }  # fmt: skip
    assert all(
        row["peers"][0] is not None for row in found["table"] if row["min_times"] and "8" not in row["title"]
    )
    assert found["failures"] == {"ours": [], "cold kernel": [], "cold kernel without wait_for_ready": []}
    assert found["n_left"] == {"ours": 0, "cold kernel": 0}
    assert found["about"]["capabilities"]["tier"] in found["about"]["tier"]
    assert "trivial cell, p50" in capsys.readouterr().out
