"""One run of a benchmark: load it, check everything, open the run directory, drive it to the end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench_data import Benchmark, MissingDataError, Samples, load
from bench_data.requirements import Lacking, Place, look_for
from runner.attempt import OnFinished
from runner.cluster.crew import Crew
from runner.cluster.job import check_run_dir
from runner.cluster.opening import cluster_run, crew_of, drain_s
from runner.cluster.run import ClusterRun
from runner.config import RunConfig
from runner.control import ControlServer
from runner.engines import EngineGroup, plan_engines
from runner.errors import ConfigError, JournalError, RunnerError
from runner.event_sink import EventSink
from runner.factory import build_model, build_protocol, system_prompt
from runner.gate import Gate
from runner.hosting import SharedEngines, engines_line, hosted_engines, is_hosted, until_lost
from runner.journal import Journal, read_failures, read_inflight, read_trajectories
from runner.lease import Sandboxes
from runner.meter import RunMeter, in_one_line
from runner.metrics import MetricsServer
from runner.models import ModelClient, ScriptedClient
from runner.plan import Planned, attempt_names, attempts, plan, select_samples
from runner.progress import watch
from runner.protocols import Protocol
from runner.recorder import RunIdentity
from runner.resume import RunRecord, check_same_run, run_record
from runner.rollout import RolloutSettings
from runner.scheduler import Scheduler, SchedulerSettings
from runner.statistics import RunStatistics
from runner.tracing import Tracer, build_tracer
from sandbox_pool import PoolConfig, SandboxPool, UnknownProfile
from sandbox_pool.settings import kernel_environment

logger = logging.getLogger(__name__)

SILENT = ("quiet", "json")
"""Kinds of progress beside which nothing else is printed."""

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

    def done(self) -> set[str]:
        """Return the attempts of this run that have a line. Reads the journal; raises JournalError."""
        wanted = set(attempt_names(self.samples, self.config.epochs))
        return wanted & {row["attempt"] for row in read_trajectories(self.run_dir)}

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


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What one process did of a run."""

    run_dir: Path
    n_done_before: int
    statistics: RunStatistics
    signal_number: int | None
    """The signal that ended it early, or None."""

    has_checks: bool
    """Whether the samples say how they are scored."""

    is_quiet: bool = False
    """Whether the user wants to read nothing but errors."""

    @property
    def n_left(self) -> int:
        """Attempts that have no line yet."""
        return self.statistics.n_total - self.statistics.n_finished


def prepare(config: RunConfig) -> Batch:
    """Load and check all that a run needs, without touching the run directory or a server. Blocks.

    Raises:
        ConfigError, BenchDataError: names what is wrong and what to do.
    """
    check_run_dir(config)
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


@dataclass(frozen=True, slots=True)
class Watching:
    """Who sees a run while it goes on."""

    console: Console
    on_finished: OnFinished | None = None
    """Told each trajectory that has its line; the run waits for it."""

    handles_signals: bool = True
    """Whether SIGINT and SIGTERM drain the run."""

    on_begun: Callable[[Scheduler | ClusterRun], None] = lambda scheduler: None
    """Told when the run has begun, by whom it can be drained."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What several runs of one process use together."""

    trajectories: Gate
    sandboxes: Gate


async def run_batch(
    batch: Batch,
    watching: Watching,
    shared: Shared | None = None,
    shared_engines: SharedEngines | None = None,
) -> RunSummary:
    """Run what is not done yet. SIGINT and SIGTERM drain; progress goes to the console.

    `shared_engines` are for runs of the same engines, and stay open; without them a run has its own.

    Raises:
        ConfigError, ModelError, SandboxError: the run could not begin; nothing was lost.
        JournalError: the run directory cannot be read or written; what has a line is kept.
    """
    async with AsyncExitStack() as stack:
        is_needed = len(batch.done()) < batch.n_attempts
        if not is_hosted(batch.config):
            stack.push_async_callback(batch.model.close)
            if is_needed:
                await batch.model.start()
        place = await stack.enter_async_context(_open_place(batch))
        record = batch.record(place.capabilities())
        if batch.config.progress not in SILENT:
            watching.console.print(sandbox_line(record.sandbox), markup=False, soft_wrap=True)
        check_same_run(batch.run_dir, record)
        journal = stack.enter_context(Journal(batch.run_dir))
        batch.events.open(journal)
        tracer = build_tracer()
        stack.push_async_callback(asyncio.to_thread, tracer.close)
        engines = None
        if is_hosted(batch.config) and is_needed:
            if batch.config.progress not in SILENT:
                line = engines_line(batch.run_dir, shared_engines)
                watching.console.print(line, markup=False, soft_wrap=True)
            hosted = hosted_engines(batch.config, batch.model, batch.run_dir, batch.events, shared_engines)
            engines = await stack.enter_async_context(hosted)
            stack.push_async_callback(batch.model.close)
            await batch.model.start()
        return await _run_open(batch, record, journal, place, watching, shared, tracer, engines)


async def _run_open(
    batch: Batch,
    record: RunRecord,
    journal: Journal,
    place: SandboxPool | Crew,
    watching: Watching,
    shared: Shared | None,
    tracer: Tracer,
    engines: EngineGroup | None,
) -> RunSummary:
    config = batch.config
    n_left = sum(name not in journal.done for name in attempt_names(batch.samples, config.epochs))
    n_done = batch.n_attempts - n_left
    if n_left == 0:
        return batch.summary(n_done, RunStatistics(n_total=0), None)
    data = record.as_json(batch.run_dir) | {
        "n_attempts": batch.n_attempts,
        "trusted_code": batch.trusted_code,
    }
    journal.write_config(data)
    identity = identity_of(batch, record, data["run_id"])
    shared_trajectories = shared.trajectories if shared else None
    scheduler: Scheduler | ClusterRun
    if isinstance(place, Crew):
        scheduler = cluster_run(
            config,
            place,
            identity,
            journal,
            n_total=n_left,
            n_done_before=n_done,
            on_finished=watching.on_finished,
            shared_trajectories=shared_trajectories,
        )
        if engines is not None:
            engines.subscribe(scheduler.set_endpoints)
    else:
        scheduler = Scheduler(
            _rollout_settings(batch, place, shared, tracer),
            identity,
            journal,
            SchedulerSettings(
                concurrency=config.concurrency,
                grace_s=config.grace_s,
                admission=config.admission,
                run_limits=config.run_limits,
                breaker=config.breaker,
                max_sandboxes=place.statistics().max_sandboxes,
            ),
            n_total=n_left,
            n_done_before=n_done,
            n_idle_sandboxes=lambda: place.statistics().n_idle,
            on_finished=watching.on_finished,
            shared_trajectories=shared_trajectories,
        )
    watching.on_begun(scheduler)
    journal.event(
        "run_started",
        n_attempts=batch.n_attempts,
        n_done_before=n_done,
        n_unfinished_before=len(journal.unfinished),
        versions=data["versions"],
        git_commit=data["git_commit"],
    )
    with _draining_on_signals(scheduler, watching, drain_s(config)) as received:
        try:
            await until_lost(_run_watched(scheduler, batch, journal, watching, data["run_id"]), engines)
        finally:
            statistics = scheduler.statistics()
            with suppress(JournalError):  # the run ends with the error that came first
                journal.event("run_finished", **_finished_details(statistics, received))
    return batch.summary(n_done, statistics, received[0] if received else None)


def _open_place(batch: Batch) -> AbstractAsyncContextManager[SandboxPool | Crew]:
    """Return where the sandboxes of a run will be, not open yet."""
    config, trusted_code = batch.config, batch.trusted_code
    if config.cluster.kind == "none":
        return SandboxPool(config.sandbox, trusted_code=trusted_code)
    return crew_of(config, batch.benchmark, batch.protocol, trusted_code=trusted_code)


def _finished_details(statistics: RunStatistics, received: Sequence[int]) -> dict[str, Any]:
    return {
        "wall_s": statistics.elapsed_s,
        "n_finished": statistics.n_finished,
        "n_failed": statistics.n_failed,
        "n_cancelled": statistics.n_cancelled,
        "n_resumed": statistics.n_resumed,
        "n_restarted": statistics.n_restarted,
        "draining": statistics.draining,
        "signal": signal.Signals(received[0]).name if received else None,
    }


def _rollout_settings(
    batch: Batch, pool: SandboxPool, shared: Shared | None, tracer: Tracer
) -> RolloutSettings:
    config = batch.config
    gate = shared.sandboxes if shared else Gate(config.sandbox.max_sandboxes)
    return RolloutSettings(
        model=batch.model,
        protocol=batch.protocol,
        sandboxes=Sandboxes(pool, gate, config.artifacts),
        limits=config.limits,
        system_prompt=system_prompt(config, batch.protocol),
        merge_user_messages=config.merges_user_messages,
        meter=RunMeter(),
        tracer=tracer,
        resume=config.resume,
        prices=config.model.prices,
        send_reasoning=config.model.send_reasoning,
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
        kernels={name: sandbox.profile_named(name).kernel for name in batch.samples.profiles},
    )


async def _run_watched(
    scheduler: Scheduler | ClusterRun, batch: Batch, journal: Journal, watching: Watching, run_id: str
) -> None:
    config = batch.config
    async with AsyncExitStack() as stack:
        if config.metrics_port is not None:
            labels = {"run_id": run_id, "model": batch.model.name, "benchmark": config.benchmark}
            server = MetricsServer(scheduler.statistics, config.metrics_port, labels)
            port = await server.start()
            stack.push_async_callback(server.close)
            if config.progress not in SILENT:
                watching.console.print(f"metrics: http://127.0.0.1:{port}/metrics", soft_wrap=True)
        try:
            await stack.enter_async_context(ControlServer(batch.run_dir, scheduler))
        except (RunnerError, OSError) as error:
            logger.warning("the run cannot be controlled from another shell: %s", error)
        watcher = asyncio.create_task(watch(scheduler.statistics, watching.console, config.progress))
        stack.push_async_callback(_end, watcher)
        await scheduler.run(attempts(batch.samples, config.epochs, frozenset(journal.done)))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@contextmanager
def _draining_on_signals(
    scheduler: Scheduler | ClusterRun, watching: Watching, grace_s: float
) -> Iterator[list[int]]:
    """Drain on SIGINT and SIGTERM while the block runs; yields the list of the signals received."""
    received: list[int] = []
    if not watching.handles_signals:
        yield received
        return

    def on_signal(number: int) -> None:
        if not received:
            n = scheduler.statistics().n_in_flight
            watching.console.print(
                f"{signal.Signals(number).name}: letting {n} trajectories end "
                f"({grace_s:g} s at most, grace_s); once more stops at once",
                soft_wrap=True,
            )
        received.append(number)
        scheduler.drain(signal.Signals(number).name)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield received
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _why_failed(row: Mapping[str, Any]) -> str:
    return in_one_line(row.get("error") or "") or str(row["stop_reason"])


def check_profiles(samples: Samples, config: PoolConfig) -> None:
    """Raise ConfigError when a sample names a sandbox profile that there is not."""
    for name, sample_id in samples.profiles.items():
        try:
            config.profile_named(name)
        except UnknownProfile as error:
            raise ConfigError(f"sample {sample_id}: {error}") from error


def sandbox_line(capabilities: Mapping[str, Any]) -> str:
    """Return the line that says how the code of a run is held."""
    return f"sandboxes: tier {capabilities.get('tier')}, kernel {capabilities.get('kernel')}"


def look_for_requirements(config: RunConfig, samples: Samples) -> Lacking | None:
    """Return what the samples of a benchmark need and their sandboxes have not, where that is known.

    Raises:
        MissingDataError: something is lacking, and `data.strict` is set.
        BenchDataError: the sandboxes' interpreter cannot be asked.
    """
    profile = config.sandbox.profile_named(None)
    place = Place(profile.python, profile.extra_paths, kernel_environment(profile))
    lacking = look_for(config.benchmark, samples.ids, place)
    if lacking and config.data.strict:
        raise MissingDataError("\n".join(["data.strict is set:", *lacking.lines()]))
    return lacking


def sandbox_settings(config: RunConfig) -> PoolConfig:
    """Return the pool's settings with what the run's other settings make of those that are not set."""
    pool = enough_sandboxes(config)
    if config.profile != "upstream":
        return pool
    # All of a cell's text, up to where the cell is stopped for it: upstream shortens nothing.
    upstream = {"kernel": "ipykernel", "max_text_bytes": pool.max_output_bytes}
    unset = {key: value for key, value in upstream.items() if key not in pool.model_fields_set}
    return pool.model_copy(update=unset)


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
