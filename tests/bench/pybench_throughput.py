"""A recorded PyBench run replayed by ours and by a loop as upstream's, both 16 at a time, in turns.

    python -m tests.bench.pybench_throughput [--recording FILE] [--root DIR] [--samples GLOB] [--repeats 3]

The data are found through KERNELFLEET_DATA (the default recording is the authors' GPT-4-turbo run) or by
--root, the folder of a PyBench checkout. Both run the same code on the same inputs: ours `configs/pybench.yaml`
with sandboxes and private copies, the other (`nbclient_loop`) without, in one folder that all tasks share.
Neither has a network: proxies that do not answer stand in for that in the other one.

The code of a recording is made to write down the CPU that each cell takes in its kernel: imports, figures,
tracebacks and programs that it runs included. All else is CPU outside the cells, the imports that our zygote
does before there are any, too. The floor is what remains if all but our cells were free: their CPU on all
cores, or the longest of the trajectories where that is more. Memory is measured in a run of its own, because
looking takes CPU; it has a floor too, which is what the largest cell takes. Needs control groups, thus root.
"""

from __future__ import annotations

import argparse
import fnmatch
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_data import DataOptions, Sample, load
from sandbox_pool.config import n_cores
from tests.bench.nbclient_loop import CODE_START, code_of
from tests.bench.whole_cost import Cost, Memory, run_costed

PROJECT = Path(__file__).parents[2]
CONCURRENCY = 16
SAMPLE_S = 0.25
CLOCK_FILE = "cell_cpu_s.txt"
"""As `clock_cell` has it, whose source stands alone in the kernels."""

NOBODY = "http://127.0.0.1:9"
"""Where no proxy listens: the discard port."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What one replay of the recording cost."""

    wall_s: float
    cpu_s: float
    cells_cpu_s: float
    longest_cpu_s: float
    """Of the cells of one task; of ours alone, as the others share a folder."""

    n_cells: int
    """Cells that came to their end; one whose kernel was killed or that has a syntax error did not."""

    memory: Memory | None

    @property
    def outside_cpu_s(self) -> float:
        """CPU of everything but the cells."""
        return self.cpu_s - self.cells_cpu_s


@dataclass(frozen=True, slots=True)
class Job:
    """What both replay."""

    root: Path
    samples: Sequence[Sample]
    recording: Path
    """With the clock in it."""

    home: Path
    """For kernels without a sandbox."""


def clock_cell() -> None:
    """Write down the CPU that this cell takes until IPython is done with it. Runs in the kernels."""
    import os
    import resource

    from IPython import get_ipython

    def spent_s() -> float:
        whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))

    def note(*_: object) -> None:
        shell.events.unregister("post_run_cell", note)
        with open(path, "a") as file:  # noqa: PTH123 - no import of its own
            file.write(f"{spent_s() - began_s}\n")

    began_s = spent_s()
    shell: Any = get_ipython()
    path = shell.__dict__.setdefault("clock_file", os.path.abspath("output/cell_cpu_s.txt"))  # noqa: PTH100
    shell.events.register("post_run_cell", note)


def with_clock(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a recording whose code notes its CPU, and does otherwise what it did."""
    prologue = f"\n{inspect.getsource(clock_cell)}\nclock_cell()\ndel clock_cell\n"
    messages = []
    for message in row["messages"]:
        content = message["content"]
        if message["role"] == "assistant" and code_of(content):
            content = content.replace(CODE_START, CODE_START + prologue, 1)
        messages.append({**message, "content": content})
    return {**row, "messages": messages}


def write_recording(recording: Path, samples: Sequence[Sample], path: Path) -> list[Sample]:
    """Write the lines of these samples with the clock in them; return the samples that were recorded."""
    wanted = {sample.id: sample for sample in samples}
    recorded = map(json.loads, recording.read_text(encoding="utf-8").splitlines())
    rows = [row for row in recorded if row["index"] in wanted and row.get("messages")]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(with_clock(row), ensure_ascii=False) + "\n" for row in rows)
    return [wanted[row["index"]] for row in rows]


def replay_ours(job: Job, folder: Path, sample_s: float | None) -> Replay:
    """Replay with the runner, as the README says."""
    run_dir = folder / "run"
    command = [
        sys.executable, "-m", "runner", "--config", "configs/pybench.yaml", "--quiet",
        "--model", f"replay:{job.recording}", "--set", f"data.root={job.root}",
        "--concurrency", str(CONCURRENCY), "--run-dir", str(run_dir),
    ]  # fmt: skip
    cost = run_costed(command, cwd=PROJECT, environment=dict(os.environ), sample_s=sample_s)
    return replay_of(cost, sorted(run_dir.glob(f"artifacts/*/*/output/{CLOCK_FILE}")))


def replay_theirs(job: Job, folder: Path, sample_s: float | None) -> Replay:
    """Replay with one kernel per task in a folder that all share, which is made before the clock starts."""
    for file in (file for sample in job.samples for file in sample.files):
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read())
    cost = run_costed(
        [sys.executable, "-m", "tests.bench.nbclient_loop", str(job.recording), "--threads", str(CONCURRENCY)],
        cwd=folder, environment=theirs_environment(job.home), sample_s=sample_s,
    )  # fmt: skip
    return replay_of(cost, [folder / "output" / CLOCK_FILE])


def theirs_environment(home: Path) -> dict[str, str]:
    """Return this process's environment, less its home and its network: recorded code knows no bounds."""
    proxies = {f"{scheme}_proxy": NOBODY for scheme in ("http", "https", "all")}
    return {
        **os.environ, **proxies, **{name.upper(): url for name, url in proxies.items()},
        "no_proxy": "", "NO_PROXY": "", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(PROJECT),
    }  # fmt: skip


def replay_of(cost: Cost, clocks: Sequence[Path]) -> Replay:
    """Add up what the cells wrote down."""
    spent_s = [[float(line) for line in path.read_text().splitlines()] for path in clocks]
    by_file_s = [sum(cells) for cells in spent_s]
    return Replay(
        wall_s=cost.wall_s,
        cpu_s=cost.cpu_s,
        cells_cpu_s=sum(by_file_s),
        longest_cpu_s=max(by_file_s, default=0.0),
        n_cells=sum(map(len, spent_s)),
        memory=cost.memory,
    )


def measure(job: Job, folder: Path, repeats: int) -> dict[str, list[Replay]]:
    """Replay in turns, so that what else this machine does falls upon both; the last of each looks at memory."""
    replays: dict[str, list[Replay]] = {"ours": [], "theirs": []}
    for number in range(repeats + 1):
        for name, replay in (("ours", replay_ours), ("theirs", replay_theirs)):
            place = folder / f"{name}-{number}"
            place.mkdir()
            done = replay(job, place, SAMPLE_S if number == repeats else None)
            print(f"{number + 1}/{repeats + 1} {name}: {done}", file=sys.stderr, flush=True)
            replays[name].append(done)
    return replays


def summary(replays: Sequence[Replay]) -> dict[str, float]:
    """Return medians of the timed runs, and the peak of the one that looked at memory. Pure."""
    *timed, watched = replays
    assert watched.memory is not None
    names = ("wall_s", "cpu_s", "cells_cpu_s", "outside_cpu_s", "longest_cpu_s", "n_cells")
    medians = {name: float(statistics.median(getattr(r, name) for r in timed)) for name in names}
    return {
        **medians,
        **{name.replace("bytes", "mib"): size / 2**20 for name, size in asdict(watched.memory).items()},
    }


def table(ours: dict[str, float], theirs: dict[str, float], cores: int) -> str:
    """Return the comparison as Markdown. Pure."""
    figures = (
        ("wall time", "wall_s", "s", "at most 0.50"),
        ("CPU, all", "cpu_s", "s", ""),
        ("CPU inside the cells", "cells_cpu_s", "s", ""),
        ("CPU outside the cells", "outside_cpu_s", "s", "at most 0.10"),
        ("peak memory", "all_mib", "MiB", "at most 0.50"),
        ("  of one process", "largest_mib", "MiB", ""),
        ("  without the then largest process", "rest_mib", "MiB", ""),
        ("cells", "n_cells", "", ""),
    )
    lines = ["| | ours | as upstream's | ratio | wanted |", "|---|---|---|---|---|"]
    for title, name, unit, wanted in figures:
        values = " | ".join(f"{side[name]:.4g} {unit}".rstrip() for side in (ours, theirs))
        lines.append(f"| {title} | {values} | {ours[name] / theirs[name]:.2f} | {wanted} |")
    floor_s = max(ours["cells_cpu_s"] / cores, ours["longest_cpu_s"])
    lines.append(
        f"\nThe floor that our cells set on {cores} cores: {floor_s:.3g} s; "
        f"ours takes {ours['wall_s'] / floor_s:.2f} times that."
    )
    return "\n".join(lines)


def warm_up(home: Path) -> None:
    """Let matplotlib list the fonts, once and not in a kernel of the comparison."""
    (home / "tmp").mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.pyplot"], check=True, env=theirs_environment(home)
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data = os.environ.get("KERNELFLEET_DATA")
    pybench = Path(data, "pybench") if data else None
    recording = pybench / "golden/gpt4turbo/trajectory.jsonl" if pybench else None
    parser.add_argument("--recording", type=Path, default=recording, required=recording is None)
    parser.add_argument("--root", type=Path, default=pybench, required=pybench is None)
    parser.add_argument("--samples", default="*", metavar="GLOB")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each; one more looks at memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run, and the medians")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = parse_arguments(argv)
    samples = load("pybench", DataOptions(root=arguments.root.absolute())).samples
    chosen = [sample for sample in samples if fnmatch.fnmatchcase(sample.id, arguments.samples)]
    with tempfile.TemporaryDirectory(prefix="kernelfleet-throughput-") as name:
        folder = Path(name)
        recording, home = folder / "trajectory.jsonl", folder / "home"
        recorded = write_recording(arguments.recording, chosen, recording)
        if not recorded:
            raise SystemExit(f"{arguments.recording} holds none of the samples {arguments.samples!r}")
        warm_up(home)
        replays = measure(
            Job(arguments.root.absolute(), recorded, recording, home), folder, arguments.repeats
        )
    ours, theirs = summary(replays["ours"]), summary(replays["theirs"])
    print(f"{len(recorded)} tasks, {CONCURRENCY} at a time; medians of {arguments.repeats}\n")
    print(table(ours, theirs, n_cores()))
    if arguments.json:
        rows = {name: [asdict(replay) for replay in done] for name, done in replays.items()}
        arguments.json.write_text(json.dumps({"ours": ours, "theirs": theirs, "replays": rows}, indent=2))


if __name__ == "__main__":
    main()
