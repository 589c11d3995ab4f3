"""One run of a benchmark: load it, check everything, open the run directory, drive it to the end."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench_data import Benchmark, Sample, load
from runner.config import RunConfig
from runner.errors import ConfigError, JournalError
from runner.factory import build_model, build_protocol, system_prompt
from runner.journal import Journal, read_trajectories
from runner.models import ModelClient, ScriptedClient
from runner.plan import attempts, select_samples
from runner.progress import watch
from runner.protocols import Protocol
from runner.records import attempt_id
from runner.resume import RunRecord, check_same_run, run_record
from runner.rollout import RolloutSettings
from runner.scheduler import RunIdentity, Scheduler, SchedulerStatistics, idle_statistics
from sandbox_pool import PoolConfig, SandboxPool, UnknownProfile

OUR_MODELS = ("oracle", "decoy", "nop")
"""Models that reply with what a benchmark itself holds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A run that is ready to begin: everything that the user named was found and is sound."""

    config: RunConfig
    benchmark: Benchmark
    samples: list[Sample]
    protocol: Protocol
    model: ModelClient
    run_dir: Path

    @property
    def n_attempts(self) -> int:
        """How many attempts the whole run is made of, done or not."""
        return len(self.samples) * self.config.epochs

    @property
    def trusted_code(self) -> bool:
        """Whether all code that it runs ships with this project: the built-in demo's, without a model."""
        return self.config.benchmark == "quickstart" and self.config.model.client in OUR_MODELS

    def done(self) -> set[str]:
        """Return the attempts of this run that have a line. Reads the journal; raises JournalError."""
        wanted = {attempt_id(s.id, e + 1) for s in self.samples for e in range(self.config.epochs)}
        return wanted & {row["attempt"] for row in read_trajectories(self.run_dir)}

    def record(self, sandbox: Mapping[str, Any]) -> RunRecord:
        """Return what decides the results of this run, and what is written down beside it."""
        return run_record(self.config, self.benchmark, self.model, self.protocol, sandbox)

    def summary(
        self, n_done_before: int, statistics: SchedulerStatistics, signal_number: int | None
    ) -> RunSummary:
        """Return what one process did of this run."""
        has_checks = any(sample.check is not None for sample in self.samples)
        return RunSummary(self.run_dir, n_done_before, statistics, signal_number, has_checks)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one process did of a run."""

    run_dir: Path
    n_done_before: int
    statistics: SchedulerStatistics
    signal_number: int | None
    """The signal that ended it early, or None."""

    has_checks: bool
    """Whether the samples say how they are scored."""


def prepare(config: RunConfig) -> Batch:
    """Load and check all that a run needs, without touching the run directory or a server.

    Raises:
        ConfigError, BenchDataError: names what is wrong and what to do.
    """
    config = config.model_copy(update={"sandbox": enough_sandboxes(config)})
    benchmark = load(config.benchmark, config.data)
    samples = select_samples(benchmark.samples, config)
    check_profiles(samples, config.sandbox)
    protocol = build_protocol(config, benchmark)
    model = build_model(config, protocol)
    if isinstance(model, ScriptedClient):
        model.require_scripts(samples)
    run_dir = config.run_dir or default_run_dir(config)
    return Batch(config, benchmark, samples, protocol, model, run_dir)


async def run_batch(batch: Batch, console: Console) -> RunSummary:
    """Run what is not done yet. SIGINT and SIGTERM drain; progress goes to the console.

    Raises:
        ConfigError, ModelError, SandboxError: the run could not begin; nothing was lost.
        JournalError: the run directory cannot be read or written; what has a line is kept.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(batch.model.close)
        if len(batch.done()) < batch.n_attempts:
            await batch.model.start()
        pool = await stack.enter_async_context(
            SandboxPool(batch.config.sandbox, trusted_code=batch.trusted_code)
        )
        record = batch.record(pool.capabilities())
        console.print(sandbox_line(record.sandbox), markup=False, soft_wrap=True)
        check_same_run(batch.run_dir, record)
        journal = stack.enter_context(Journal(batch.run_dir))
        return await _run_open(batch, record, journal, pool, console)


async def _run_open(
    batch: Batch, record: RunRecord, journal: Journal, pool: SandboxPool, console: Console
) -> RunSummary:
    n_left = sum(1 for _ in attempts(batch.samples, batch.config.epochs, journal.done))
    n_done = batch.n_attempts - n_left
    if n_left == 0:
        return batch.summary(n_done, idle_statistics(), None)
    data = record.as_json(batch.run_dir) | {
        "n_attempts": batch.n_attempts,
        "trusted_code": batch.trusted_code,
    }
    journal.write_config(data)
    scheduler = Scheduler(
        _rollout_settings(batch, pool),
        identity_of(batch, record, data["run_id"]),
        journal,
        concurrency=batch.config.concurrency,
        n_total=n_left,
        grace_s=batch.config.grace_s,
    )
    journal.event(
        "run_started",
        n_attempts=batch.n_attempts,
        n_done_before=n_done,
        versions=data["versions"],
        git_commit=data["git_commit"],
    )
    began_at = time.perf_counter()
    with draining_on_signals(scheduler, console, batch.config.grace_s) as received:
        try:
            await _run_watched(scheduler, batch, journal, console)
        finally:
            statistics = scheduler.statistics()
            with suppress(JournalError):  # the run ends with the error that came first
                journal.event(
                    "run_finished",
                    wall_s=time.perf_counter() - began_at,
                    n_finished=statistics.n_finished,
                    n_failed=statistics.n_failed,
                    signal=signal.Signals(received[0]).name if received else None,
                )
    return batch.summary(n_done, statistics, received[0] if received else None)


def _rollout_settings(batch: Batch, pool: SandboxPool) -> RolloutSettings:
    return RolloutSettings(
        model=batch.model,
        protocol=batch.protocol,
        pool=pool,
        limits=batch.config.limits,
        system_prompt=system_prompt(batch.config, batch.protocol),
        merge_user_messages=batch.config.protocol.merge_user_messages,
        artifact_globs=batch.config.artifacts,
    )


def identity_of(batch: Batch, record: RunRecord, run_id: str) -> RunIdentity:
    """Return what every line of a run repeats."""
    sandbox = batch.config.sandbox
    return RunIdentity(
        run_id=run_id,
        config_hash=record.config_hash,
        benchmark=batch.config.benchmark,
        model=batch.model.name,
        protocol=batch.protocol.name,
        kernel=str(record.sandbox.get("kernel", "")),
        tier=str(record.sandbox.get("tier", "")),
        host=socket.gethostname(),
        seed=batch.config.seed,
        kernels={name: sandbox.profile_named(name).kernel for name in profiles_of(batch.samples)},
    )


async def _run_watched(scheduler: Scheduler, batch: Batch, journal: Journal, console: Console) -> None:
    watcher = asyncio.create_task(watch(scheduler.statistics, console))
    try:
        await scheduler.run(attempts(batch.samples, batch.config.epochs, frozenset(journal.done)))
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


@contextmanager
def draining_on_signals(scheduler: Scheduler, console: Console, grace_s: float) -> Iterator[list[int]]:
    """Drain on SIGINT and SIGTERM while the block runs; yields the list of the signals received."""
    received: list[int] = []

    def on_signal(number: int) -> None:
        if not received:
            n = scheduler.statistics().n_in_flight
            console.print(
                f"{signal.Signals(number).name}: letting {n} trajectories end "
                f"({grace_s:g} s at most, grace_s); once more stops at once",
                soft_wrap=True,
            )
        received.append(number)
        scheduler.drain()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def check_profiles(samples: Sequence[Sample], config: PoolConfig) -> None:
    """Raise ConfigError when a sample names a sandbox profile that there is not."""
    for name, sample_id in profiles_of(samples).items():
        try:
            config.profile_named(name)
        except UnknownProfile as error:
            raise ConfigError(f"sample {sample_id}: {error}") from error


def profiles_of(samples: Sequence[Sample]) -> dict[str, str]:
    """Return the sandbox profiles that samples name, each with the first sample that does."""
    return {sample.profile: sample.id for sample in reversed(samples) if sample.profile is not None}


def sandbox_line(capabilities: Mapping[str, Any]) -> str:
    """Return the line that says how the code of a run is held."""
    return f"sandboxes: tier {capabilities.get('tier')}, kernel {capabilities.get('kernel')}"


def enough_sandboxes(config: RunConfig) -> PoolConfig:
    """Return the pool's settings, with a sandbox for each trajectory in flight unless they say otherwise.

    A trajectory holds its sandbox from its first action to its end, so that fewer would only make it wait.
    How many this machine has the memory and the descriptors for is the pool's to find out.
    """
    if "max_sandboxes" in config.sandbox.model_fields_set:
        return config.sandbox
    n = max(config.sandbox.max_sandboxes, config.concurrency)
    return config.sandbox.model_copy(update={"max_sandboxes": n})


def default_run_dir(config: RunConfig) -> Path:
    """Return a new folder below `runs/`, named for the time and what is run."""
    kind, _, file = config.benchmark.partition(":")
    model_kind = config.model.client.partition(":")[0]
    benchmark = Path(file).stem if kind == "jsonl" else config.benchmark
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in f"{benchmark}-{model_kind}")
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name[:60]}"
