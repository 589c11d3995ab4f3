"""A run that is ready to begin: found and checked, before anything is written and any server asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_data import Benchmark, Samples, load
from bench_data.requirements import Lacking
from runner.batch.settings import check_profiles, default_run_dir, look_for_requirements, sandbox_settings
from runner.batch.summary import RunSummary
from runner.cluster.job import check_run_dir
from runner.config import RunConfig
from runner.engines import plan_engines
from runner.event_sink import EventSink
from runner.factory import build_model, build_protocol, system_prompt
from runner.hosting import is_hosted
from runner.journal import TRAJECTORIES, count_lines, read_failures, read_inflight, read_trajectories
from runner.models import ModelClient, ScriptedClient
from runner.plan import Planned, attempt_names, plan, select_samples
from runner.protocols import Protocol
from runner.resume import RunRecord, run_record
from runner.telemetry.meter import in_one_line
from runner.telemetry.statistics import RunStatistics

OUR_MODELS = ("oracle", "decoy", "nop")
"""Models that reply with what a benchmark itself holds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A run that is ready to begin: everything that the user named was found and is sound."""

    config: RunConfig
    benchmark: Benchmark
    samples: Samples
    protocol: Protocol
    model: ModelClient
    run_dir: Path
    events: EventSink
    lacking: Lacking | None = None
    """What the samples need and this machine has not; None where nothing is known of what they need."""

    @property
    def n_attempts(self) -> int:
        """How many attempts the whole run is made of, done or not."""
        return len(self.samples) * self.config.epochs

    @property
    def trusted_code(self) -> bool:
        """Whether all code that it runs ships with this project: the built-in demo's, without a model."""
        return self.config.benchmark == "quickstart" and self.config.model.client in OUR_MODELS

    def is_done(self) -> bool:
        """Return whether every attempt has a line. Blocks; raises JournalError.

        The lines are read only where there are enough of them: whoever holds the journal reads them too.
        """
        if count_lines(self.run_dir / TRAJECTORIES) < self.n_attempts:
            return False
        done = {row["attempt"] for row in read_trajectories(self.run_dir)}
        return all(name in done for name in attempt_names(self.samples, self.config.epochs))

    def record(self, sandbox: Mapping[str, Any]) -> RunRecord:
        """Return what decides the results of this run, and what is written down beside it."""
        prompt = system_prompt(self.config, self.protocol)
        return run_record(self.config, self.benchmark, self.model, self.protocol, sandbox, prompt)

    def summary(self, n_done_before: int, statistics: RunStatistics, signal_number: int | None) -> RunSummary:
        """Return what one process did of this run."""
        has_checks = self.samples.has_checks
        is_quiet = self.config.progress == "quiet"
        return RunSummary(self.run_dir, n_done_before, statistics, signal_number, has_checks, is_quiet)

    def plan(self) -> Iterator[Planned]:
        """Yield what a run would do with each attempt. Reads the run directory; raises JournalError."""
        return plan(
            self.samples,
            self.config.epochs,
            done={row["attempt"]: row["stop_reason"] for row in read_trajectories(self.run_dir)},
            unfinished={found.attempt: len(found.turns) for found in read_inflight(self.run_dir)},
            failed={row["attempt"]: _why_failed(row) for row in read_failures(self.run_dir)},
            resumes_turns=self.config.resume.unit == "turns",
        )


def _why_failed(row: Mapping[str, Any]) -> str:
    return in_one_line(row.get("error") or "") or str(row["stop_reason"])


def prepare(config: RunConfig) -> Batch:
    """Load and check all that a run needs, without touching the run directory or a server. Blocks.

    Raises:
        ConfigError, BenchDataError: names what is wrong and what to do.
    """
    check_run_dir(config.run_dir)
    config = config.model_copy(update={"sandbox": sandbox_settings(config)})
    benchmark = load(config.benchmark, config.data)
    samples = select_samples(benchmark.samples, config, benchmark.skipped)
    check_profiles(samples, config.sandbox)
    protocol = build_protocol(config, benchmark)
    events = EventSink()
    lacking = look_for_requirements(config, samples)
    if lacking is not None:
        events("requirements", lacking.as_json())
    if is_hosted(config):
        plan_engines(config)
    model = build_model(config, protocol, events)
    if isinstance(model, ScriptedClient):
        model.require_scripts(samples)
    run_dir = config.run_dir or default_run_dir(config)
    return Batch(config, benchmark, samples, protocol, model, run_dir, events, lacking)
