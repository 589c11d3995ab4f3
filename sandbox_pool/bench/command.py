"""What the benchmark does in which order, what it says of the machine, and its command line."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import uvloop

from sandbox_pool.bench import measure, table, usage
from sandbox_pool.bench.contenders import MAX_SANDBOXES, PRELOAD, ColdKernels, Contender, Ours
from sandbox_pool.bench.record import Record
from sandbox_pool.config import PoolConfig, n_cores
from sandbox_pool.errors import SandboxError
from sandbox_pool.interface import SandboxSpec

_N_READY = 8
_ACQUIRE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How often everything is measured."""

    repetitions: int = 5
    """Of what takes turns: starts and cells."""

    n_starts: int = 50
    """Starts of ours, one after the other, in each repetition."""

    n_peer_starts: int = 2
    n_cells: int = 200
    """Cells of each contender in each repetition."""

    n_warm: int = 100
    levels: tuple[int, ...] = (16, 64)
    burst: int = 256
    n_endured: int = 0
    """Further starts of ours, to see whether any fails."""


PLANS = {
    "default": Plan(),
    "full": Plan(repetitions=7, n_peer_starts=3, n_cells=500, n_warm=500, n_endured=1000),
    "quick": Plan(2, 3, 1, 50, 5, (4,), 8),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    add("--json", nargs="?", const=Path("-"), type=Path, metavar="FILE",
        help="all figures and numbers as JSON, into FILE or instead of the table")  # fmt: skip
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--full", action="store_const", const="full", dest="plan", default="default",
        help="1,000 starts more, and more repetitions: about five minutes instead of two")  # fmt: skip
    how_much.add_argument("--quick", action="store_const", const="quick", dest="plan",
        help="hardly any repetition, to see that it runs: no figures to quote")  # fmt: skip
    add("--tier", default="auto", choices=("auto", "namespace", "landlock", "process"))
    add("--kernel", default="lean", choices=("lean", "ipykernel"))


def run(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return present(options, peers=())


def present(options: argparse.Namespace, peers: Sequence[Contender]) -> int:
    """Measure ours, cold kernels and the given peers, then print and write what the options ask for.

    Returns:
        The exit code: 0 whatever was missed, 1 when a kernel could not be had or gave wrong answers, 130 when
        stopped by SIGINT.
    """
    try:
        found = _measured(pool_config(options), peers, PLANS[options.plan])
    except KeyboardInterrupt:  # all is ended by now
        sys.stderr.write("stopped by SIGINT\n")
        return 128 + signal.SIGINT
    if found is None:
        return 1
    as_json = orjson.dumps(found.as_data(), option=orjson.OPT_INDENT_2)
    if options.json == Path("-"):
        sys.stdout.buffer.write(as_json + b"\n")
        return 0
    if options.json is not None:
        options.json.write_bytes(as_json)
    sys.stdout.write(found.text() + "\n")
    return 0


def _measured(config: PoolConfig, peers: Sequence[Contender], plan: Plan) -> Findings | None:
    """Return the findings, or None after telling why there are none."""
    with tempfile.TemporaryDirectory(prefix="kernelfleet-bench-") as folder:
        cold, hasty = ColdKernels(Path(folder)), ColdKernels(Path(folder), waits=False)
        try:
            return uvloop.run(measure_all(config, (cold, *peers), (hasty,), plan))
        except* SandboxError as errors:
            sys.stderr.write(f"error: {_first(errors)}\n")
    return None


def pool_config(options: argparse.Namespace) -> PoolConfig:
    """Return the config to measure: every limit and protection as by default."""
    return PoolConfig(
        tier=options.tier,
        allow_unsafe=options.tier == "process",  # the code is our own
        kernel=options.kernel,
        preload=PRELOAD,
        max_sandboxes=MAX_SANDBOXES,
        min_idle=0,
        max_idle=0,
        acquire_timeout_s=_ACQUIRE_TIMEOUT_S,
    )


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run of the benchmark found."""

    about: dict[str, Any]
    """The machine and the settings."""

    record: Record
    ours: str
    peers: tuple[str, ...]
    only_started: tuple[str, ...]

    def text(self) -> str:
        """Return it to read."""
        lines = table.lines(self.record, self.ours, self.peers)
        heading = [f"{key}: {value}" for key, value in self.about.items() if not isinstance(value, dict)]
        words = table.counts(self.record, self.ours, self.peers)
        words += table.started_only(self.record, self.ours, self.only_started)
        return "\n".join([*heading, "", table.render(lines, self.ours, self.peers), "", *words])

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON, with all numbers."""
        return {
            "about": self.about,
            "contenders": [self.ours, *self.peers],
            "table": table.as_data(table.lines(self.record, self.ours, self.peers)),
            "n_starts": self.record.n_starts,
            "failures": self.record.failures,
            "n_left": self.record.n_left,
            "values": self.record.values,
        }


async def measure_all(
    config: PoolConfig, peers: Sequence[Contender], only_started: Sequence[Contender], plan: Plan
) -> Findings:
    """Measure the pool beside its peers; takes turns, so that a busy machine is busy for all.

    Of `only_started` nothing but starts is measured. Nothing is left when it returns, raises or is cancelled.

    Raises:
        SandboxError: the pool cannot open, or a kernel that had started did not answer as it should.
    """
    began_at = time.perf_counter()
    record, ours, load = Record(), Ours(config), os.getloadavg()
    about: dict[str, Any] = {}
    before = {stat.process for stat in usage.tree()}
    async with AsyncExitStack() as stack:
        for contender in (ours, *peers, *only_started):
            say(f"opening {contender.name}")
            await stack.enter_async_context(contender.open())
        about = about_this(config, ours.pool.capabilities())
        await one_at_a_time(ours, peers, only_started, plan, record)
    await warm(config, plan, record)
    await in_crowds(ours, peers, plan, record)
    record.add(ours.name, "open_s", ours.open_s)
    record.count_left(ours.name, len({stat.process for stat in usage.tree()} - before))
    about["load average before, after"] = f"{load[0]:.1f}, {os.getloadavg()[0]:.1f}"
    about["took"] = f"{time.perf_counter() - began_at:.0f} s"
    names = tuple(peer.name for peer in peers)
    return Findings(about, record, ours.name, names, tuple(other.name for other in only_started))


async def one_at_a_time(
    ours: Ours, peers: Sequence[Contender], only_started: Sequence[Contender], plan: Plan, record: Record
) -> None:
    """Start kernels and run cells, one contender after the other, again and again."""
    for number in range(plan.repetitions):
        say(f"starts and cells: repetition {number + 1} of {plan.repetitions}")
        await measure.starts(ours, record, plan.n_starts)
        for peer in (*peers, *only_started):
            await measure.starts(peer, record, plan.n_peer_starts)
        await measure.cells((ours, *peers), record, plan.n_cells)


async def warm(config: PoolConfig, plan: Plan, record: Record) -> None:
    """Acquire while sandboxes are ready, as such and with a seed as the runner does."""
    ready = config.model_copy(update={"min_idle": _N_READY, "max_idle": _N_READY})
    for spec, name in ((SandboxSpec(), "warm"), (SandboxSpec(seed=1), "warm_seeded")):
        say(f"acquire while {_N_READY} are kept ready: {name}")
        ours = Ours(ready, spec)
        async with ours.open():
            await measure.warm_hits(ours, record, plan.n_warm, name)


async def in_crowds(ours: Ours, peers: Sequence[Contender], plan: Plan, record: Record) -> None:
    """Hold many kernels at once, of one contender at a time: they would share memory with each other's."""
    for contender in (ours, *peers, ours):
        say(f"{' and '.join(map(str, plan.levels))} at once: {contender.name}")
        async with contender.open():
            await measure.hold(contender, record, plan.levels)
    say(f"{plan.burst} at once: {ours.name}")
    async with ours.open():
        await measure.hold(ours, record, [plan.burst])
    if plan.n_endured:
        say(f"{plan.n_endured} starts: {ours.name}")
        async with ours.open():
            await measure.endure(ours, record, plan.n_endured)


def _first(error: BaseException) -> BaseException:
    """Return the error itself, or the first one in a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def about_this(config: PoolConfig, capabilities: dict[str, Any]) -> dict[str, Any]:
    """Return what the figures depend on."""
    packages = ("ipython", "ipykernel", "jupyter_client", "numpy", "pandas", "matplotlib")
    return {
        "tier": f"{capabilities['tier']} (the goals are for namespace on 2 cores)",
        "kernel": config.kernel,
        "preloaded": ", ".join(config.preload or ()),
        "machine": f"{n_cores()} cores, {platform.platform()}, started as uid {os.geteuid()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]
        ),
        "units": "ms and s of wall time unless it says CPU; MB of 10^6 bytes, proportional (PSS)",
        "capabilities": capabilities,
    }


def say(what: str) -> None:
    """Tell whoever waits what is being measured."""
    sys.stderr.write(f"{what} ...\n")
    sys.stderr.flush()
