"""What the machine says of itself, and how late the loop is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from runner.scheduling.host_pressure import read_host_pressure
from runner.telemetry.loop_lag import LoopLag
from sandbox_pool.config import n_cores


def write(proc: Path, **files: str) -> Path:
    (proc / "pressure").mkdir()
    for name, text in files.items():
        (proc / name.replace("__", "/")).write_text(text)
    return proc


def test_pressure_is_read(tmp_path: Path) -> None:
    """Memory that is left, stalls for memory, tasks that want to run, this one not counted."""
    proc = write(
        tmp_path,
        meminfo="MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n",
        pressure__memory="some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=12.50 avg60=0.00 avg300=0.00 total=1\n",
        loadavg=f"0.10 0.20 0.30 {1 + 3 * n_cores()}/512 99\n",
    )
    pressure = read_host_pressure(proc)
    assert (pressure.available_memory_share, pressure.memory_stalled_share, pressure.runnable_per_core) == (
        0.25,
        0.125,
        3.0,
    )


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "full avg10=x", "MemTotal: x kB", "1 2 3 4"])
def test_what_is_not_there_is_none(tmp_path: Path, text: str) -> None:
    """A system without these files, or with others, says nothing."""
    assert set(vars_of(read_host_pressure(tmp_path / "none"))) == {None}
    proc = write(tmp_path, meminfo=text, pressure__memory=text, loadavg=text)
    assert set(vars_of(read_host_pressure(proc))) == {None}


def vars_of(pressure: object) -> list[object]:
    return [
        getattr(pressure, name)
        for name in ("available_memory_share", "memory_stalled_share", "runnable_per_core")
    ]


async def test_loop_that_is_held_is_late() -> None:
    """Something that blocks for a tenth of a second is seen as such; a loop that waits is not late."""
    async with LoopLag() as lag:
        await asyncio.sleep(0.3)
        quiet_s = lag.p50_s
        time.sleep(0.15)  # noqa: ASYNC251 - it is what is measured
        await asyncio.sleep(0.1)
    assert quiet_s < 0.09
    assert lag.max_s >= 0.09
    assert lag.p99_s >= 0.09
    assert LoopLag().p99_s == 0.0
