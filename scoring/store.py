"""The run directory as scoring sees it: what it reads, and the two files that it writes."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from bench_data import Benchmark, DataOptions, load
from runner.journal import CONFIG, TRAJECTORIES, read_config, read_events, read_failures
from scoring.errors import RunDirError
from scoring.score import DEFAULT_MAX_FAILED_SHARE, Report, RunFacts, Score, run_wall_s

logger = logging.getLogger(__name__)

SCORES = "scores.jsonl"
REPORT = "report.json"

PYBENCHS = "trajectory.jsonl"
PYBENCHS_FORM = f"PyBench's {PYBENCHS} is scored by `python -m scoring pybench`"


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory whose configuration is readable."""

    run_dir: Path
    run_id: str
    config_hash: str
    benchmark: str
    data: DataOptions
    benchmark_digest: str | None
    """Of the samples that were run."""

    n_attempts: int | None
    """Of the whole run, done or not."""

    trusted_code: bool
    """Whether all code that ran is our own, as the built-in demo's is."""

    max_failed_share: float
    """Above it the report has no headline number."""

    epochs: int = 1
    prompt: str | None = None
    """Whose system prompt the model was given."""


def open_run(run_dir: Path) -> Run:
    """Return what a run directory says about itself. Blocks.

    Raises:
        RunDirError: it is no run directory, or has no trajectories.
        JournalError: its config.json cannot be read.
    """
    if not run_dir.is_dir():
        other = f"; {PYBENCHS_FORM}" if run_dir.is_file() else ""
        raise RunDirError(f"{run_dir} is not a folder; give the run directory, for example runs/demo{other}")
    if (run_dir / PYBENCHS).is_file() and not (run_dir / CONFIG).is_file():
        raise RunDirError(f"{run_dir} is no run directory of ours, for it has no {CONFIG}; {PYBENCHS_FORM}")
    stored = read_config(run_dir)
    path = run_dir / TRAJECTORIES
    if not path.is_file() or not path.stat().st_size:
        raise RunDirError(f"{path} has no trajectories yet: there is nothing to score")
    config = stored.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("benchmark"), str):
        raise RunDirError(f"{run_dir / 'config.json'}: no config.benchmark; it names what was run")
    try:
        data = DataOptions.model_validate(config.get("data") or {})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("config", "data", *first["loc"])))
        raise RunDirError(f"{run_dir / 'config.json'}: {key}: {first['msg']}") from error
    return Run(
        run_dir=run_dir,
        run_id=str(stored.get("run_id", "")),
        config_hash=str(stored.get("config_hash", "")),
        benchmark=config["benchmark"],
        data=data,
        benchmark_digest=(stored.get("settings") or {}).get("benchmark.digest"),
        n_attempts=n if isinstance(n := stored.get("n_attempts"), int) else None,
        trusted_code=stored.get("trusted_code") is True,
        max_failed_share=_share(config.get("max_failed_share")),
        epochs=n if isinstance(n := config.get("epochs"), int) else 1,
        prompt=_prompt(stored.get("settings") or {}),
    )


def _prompt(settings: Mapping[str, Any]) -> str | None:
    source, sha256 = settings.get("prompt.source"), str(settings.get("prompt.sha256") or "")
    if source is None:
        return None
    whose = {"own": "our own", "config": "the config's own"}.get(source, f"that of {source}")
    return f"{whose} (sha256 {sha256[:12]})"


def _share(value: Any) -> float:
    is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if is_share else DEFAULT_MAX_FAILED_SHARE


def load_benchmark(run: Run) -> Benchmark:
    """Return the benchmark that was run, as it is now. Blocks. Raises BenchDataError."""
    benchmark = load(run.benchmark, run.data)
    if run.benchmark_digest not in (None, benchmark.digest):
        logger.warning(
            "%s has changed since the run: samples are scored by the checks that they have now", run.benchmark
        )
    return benchmark


def run_facts(
    run: Run, attempts: set[str], n_duplicates: int, n_tokens: int = 0, cost: float | None = None
) -> RunFacts:
    """Return what the run's other files say. Blocks. Raises JournalError when one is not readable.

    `attempts` are those that have a trajectory, by name: an earlier failure of theirs is history.
    """
    failed = {str(row["attempt"]): str(row.get("owner")) for row in read_failures(run.run_dir)}
    by_owner = Counter(owner for attempt, owner in failed.items() if attempt not in attempts)
    return RunFacts(
        benchmark=run.benchmark,
        run_id=run.run_id,
        config_hash=run.config_hash,
        failures_by_owner=by_owner,
        n_duplicates=n_duplicates,
        n_attempts=run.n_attempts,
        wall_s=run_wall_s(read_events(run.run_dir)),
        max_failed_share=run.max_failed_share,
        n_tokens=n_tokens,
        cost=cost,
    )


def write_scores(run_dir: Path, scores: Iterable[Score]) -> Path:
    """Write scores.jsonl, whole or not at all; return its path. Blocks. Raises OSError."""
    lines = b"".join(orjson.dumps(asdict(score), option=orjson.OPT_APPEND_NEWLINE) for score in scores)
    return write_atomically(run_dir / SCORES, lines)


def write_report(run_dir: Path, report: Report) -> Path:
    """Write report.json, whole or not at all; return its path. Blocks. Raises OSError."""
    return write_atomically(run_dir / REPORT, report_json(report))


def report_json(report: Report) -> bytes:
    """Return the content of report.json."""
    content: dict[str, Any] = asdict(report)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def check_target(target: str | None) -> None:
    """Raise RunDirError, before any work, when a file lacks its folder, or has one in its place."""
    path = Path(target or "")
    if not path.parent.is_dir():
        raise RunDirError(f"{target}: there is no folder {path.parent}; make it, or name another file")
    if target and path.is_dir():
        raise RunDirError(f"{target} is a folder; name a file in it")


def write_atomically(path: Path, data: bytes) -> Path:
    """Replace a file by one with this content, synced; a failure leaves the old one. Blocks."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # which names the temporary file
            raise OSError(
                f"{path} cannot be written: {error.strerror}; mend that, or write elsewhere"
            ) from error
        raise
    return path
