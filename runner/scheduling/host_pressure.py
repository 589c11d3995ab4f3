"""How pressed this machine is: memory that is left, stalls for memory, tasks that want to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.admission import HostPressure
from sandbox_pool.config import n_cores

PROC = Path("/proc")


def read_host_pressure(proc: Path = PROC) -> HostPressure:
    """Return the pressure now; None for what the system does not tell. Blocks for a moment. Never raises."""
    return HostPressure(
        available_memory_share=_available_memory_share(_read(proc / "meminfo")),
        memory_stalled_share=_stalled_share(_read(proc / "pressure" / "memory"), "full"),
        runnable_per_core=_runnable_per_core(_read(proc / "loadavg"), n_cores()),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _available_memory_share(text: str) -> float | None:
    kib = _meminfo(text)
    total, available = kib.get("MemTotal"), kib.get("MemAvailable")
    return available / total if total and available is not None else None


def _meminfo(text: str) -> Mapping[str, int]:
    rows = (line.partition(":") for line in text.splitlines())
    return {name: int(value.split()[0]) for name, _, value in rows if value.split()[:1] and _is_count(value)}


def _is_count(value: str) -> bool:
    return value.split()[0].isdigit()


def _stalled_share(text: str, kind: str) -> float | None:
    """Return the share of the last ten seconds, from a line like `some avg10=1.23 avg60=...`."""
    for line in text.splitlines():
        name, *fields = line.split() or [""]
        if name != kind:
            continue
        for field in fields:
            key, _, value = field.partition("=")
            if key == "avg10":
                try:
                    return float(value) / 100
                except ValueError:
                    return None
    return None


def _runnable_per_core(loadavg: str, cores: int) -> float | None:
    """Return the tasks that run or want to, this one not counted, from a line like `0.1 0.1 0.1 3/512 99`."""
    fields = loadavg.split()
    n_runnable, slash, _ = fields[3].partition("/") if len(fields) > 3 else ("", "", "")
    return max(0, int(n_runnable) - 1) / cores if slash and n_runnable.isdigit() else None
