"""One run from its first check on disk to its last line: everything opened, driven, closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from typing import Any

from runner.batch.driver import Driver, Opened, Shared, driver_of
from runner.batch.prepared import Batch
from runner.batch.summary import RunSummary, finished_details
from runner.batch.watching import Watching, draining_on_signals, ending_on_signals, watched
from runner.cluster.crew import Crew
from runner.cluster.opening import crew_of
from runner.engines import EngineGroup
from runner.errors import JournalError
from runner.hosting import SharedEngines, engines_line, hosted_engines, is_hosted, until_lost
from runner.journal import Journal
from runner.plan import attempt_names, attempts
from runner.resume import check_same_run
from runner.telemetry.statistics import RunStatistics
from runner.telemetry.tracing import build_tracer
from sandbox_pool import SandboxPool
from sandbox_pool.threads import in_thread


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
        Interrupted: a signal came before it had begun.
        JournalError: the run directory cannot be read or written; what has a line is kept.
    """
    with ending_on_signals(watching):
        async with AsyncExitStack() as stack:
            opened = await _open(stack, batch, watching, shared_engines)
            if opened.n_done == batch.n_attempts:
                return batch.summary(opened.n_done, RunStatistics(n_total=0), None)
            data = opened.record.as_json(batch.run_dir) | {
                "n_attempts": batch.n_attempts,
                "trusted_code": batch.trusted_code,
            }
            opened.journal.write_config(data)
            driver = driver_of(stack, batch, opened, data["run_id"], shared, watching.on_finished)
            return await _drive(driver, batch, opened, watching, data)


async def _open(
    stack: AsyncExitStack, batch: Batch, watching: Watching, shared_engines: SharedEngines | None
) -> Opened:
    """Open all that the run needs, what can be refused before what takes long: engines take minutes."""
    is_needed = not await asyncio.to_thread(batch.is_done)
    if not is_hosted(batch.config):
        await _start_model(stack, batch, is_needed=is_needed)
    place = await stack.enter_async_context(_place_of(batch))
    record = batch.record(place.capabilities())
    watching.say(batch, sandbox_line(record.sandbox))
    check_same_run(batch.run_dir, record)
    # off the loop, on which other runs may be: it reads all lines
    journal = await in_thread(partial(stack.enter_context, Journal(batch.run_dir)))
    batch.events.open(journal)
    tracer = build_tracer()
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    engines: EngineGroup | None = None
    if is_hosted(batch.config) and is_needed:
        watching.say(batch, engines_line(batch.run_dir, shared_engines))
        hosted = hosted_engines(batch.config, batch.model, batch.run_dir, batch.events, shared_engines)
        engines = await stack.enter_async_context(hosted)
        await _start_model(stack, batch, is_needed=True)
    n_done = sum(name in journal.done for name in attempt_names(batch.samples, batch.config.epochs))
    return Opened(record, journal, place, tracer, engines, n_done)


async def _start_model(stack: AsyncExitStack, batch: Batch, *, is_needed: bool) -> None:
    stack.push_async_callback(batch.model.close)
    if is_needed:
        await batch.model.start()


def _place_of(batch: Batch) -> AbstractAsyncContextManager[SandboxPool | Crew]:
    """Return where the sandboxes of a run will be, not open yet."""
    config, trusted_code = batch.config, batch.trusted_code
    if config.cluster.kind == "none":
        return SandboxPool(config.sandbox, trusted_code=trusted_code)
    return crew_of(config, batch.benchmark, batch.protocol, trusted_code=trusted_code)


async def _drive(
    driver: Driver, batch: Batch, opened: Opened, watching: Watching, data: Mapping[str, Any]
) -> RunSummary:
    journal = opened.journal
    watching.on_begun(driver)
    journal.event(
        "run_started",
        n_attempts=batch.n_attempts,
        n_done_before=opened.n_done,
        n_unfinished_before=len(journal.unfinished),
        versions=data["versions"],
        git_commit=data["git_commit"],
    )
    with draining_on_signals(driver, batch, watching) as received:
        running = _run_watched(driver, batch, journal, watching, data["run_id"])
        try:
            await until_lost(running, opened.engines)
        finally:
            statistics = driver.statistics()
            signal_number = received[0] if received else None
            with suppress(JournalError):  # the run ends with the error that came first
                journal.event("run_finished", **finished_details(statistics, signal_number))
    return batch.summary(opened.n_done, statistics, signal_number)


async def _run_watched(
    driver: Driver, batch: Batch, journal: Journal, watching: Watching, run_id: str
) -> None:
    async with watched(driver, batch, watching, run_id):
        await driver.run(attempts(batch.samples, batch.config.epochs, frozenset(journal.done)))


def sandbox_line(capabilities: Mapping[str, Any]) -> str:
    """Return the line that says how the code of a run is held."""
    return f"sandboxes: tier {capabilities.get('tier')}, kernel {capabilities.get('kernel')}"
