"""A matrix becomes runs, one after the other or side by side, and the same command goes on with all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from runner.__main__ import main
from runner.batch import RunSummary
from runner.cluster.job import IN_JOB
from runner.commands.sweep import report_cell
from runner.config import RunConfig
from runner.errors import ConfigError
from runner.journal import read_trajectories
from runner.matrix import Cell, cell_name, read_sweep
from runner.sweep import CellResult, _shared, run_sweep
from runner.telemetry.statistics import RunStatistics
from sandbox_pool import PoolConfig, SandboxPool
from tests.processes import clean_environment
from tests.stub_server import StubServer

MATRIX = """\
benchmark: quickstart
samples: math*
limit: 2
concurrency: 4
matrix:
  models: [oracle, nop]
  protocols: [fenced, tool_call]
"""


def write(path: Path, text: str) -> Path:
    file = path / "sweep.yaml"
    file.write_text(text)
    return file


def table_of(output: str) -> list[list[str]]:
    """Return the rows of the table that a sweep ends with."""
    lines = output.splitlines()
    (head,) = (number for number, line in enumerate(lines) if line.startswith("run  "))
    return [line.split() for line in lines[head + 1 :]]


def test_cells(tmp_path: Path) -> None:
    """Every combination, with its own folder, named for its values; any key can be swept."""
    text = "matrix:\n  models: [oracle, {client: nop, name: x}]\n  temperatures: [0.0, 1]\n  epochs: [1, 2]\n  limits.max_turns: [3]\n"
    cells = read_sweep(write(tmp_path, text), {"run_dir": tmp_path / "out", "seed": 4})
    assert len(cells) == len({cell.config.run_dir for cell in cells}) == 8
    last = cells[-1]
    assert (last.config.model.client, last.config.model.name, last.config.epochs) == ("nop", "x", 2)
    assert (last.config.model.request, last.config.limits.max_turns, last.config.seed) == (
        {"temperature": 1},
        3,
        4,
    )
    assert last.name.startswith("model=x,temperature=1,epochs=2,max_turns=3-")
    assert {cell.config.run_dir.parent for cell in cells} == {tmp_path / "out"}  # type: ignore[union-attr]
    assert [c.name for c in cells] == [c.name for c in read_sweep(write(tmp_path, text), {})]


def test_cells_keep_what_the_config_says_besides(tmp_path: Path) -> None:
    """A value of the matrix is laid over its section; the rest of it, and of what --set says, holds for all."""
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "matrix:\n"
        "  temperatures: [0.5]\n"
        "  models: ['openai:http://a/v1', {client: 'openai:http://b/v1', request: {max_tokens: 7}}]\n"
        "  protocols: [tool_call]\n"
        "model: {request: {max_tokens: 2000, top_p: 0.9}}\n"
        "protocol: {system_prompt: hello}\n"
    )
    first, second = (cell.config for cell in read_sweep(path, {"model.send_seed": False}))

    assert first.model.request == {"max_tokens": 2000, "top_p": 0.9, "temperature": 0.5}
    assert second.model.request == {"max_tokens": 7, "top_p": 0.9, "temperature": 0.5}
    assert (first.model.client, second.model.client) == ("openai:http://a/v1", "openai:http://b/v1")
    assert not first.model.send_seed
    assert (first.protocol.kind, first.protocol.system_prompt) == ("tool_call", "hello")


def test_names_of_cells_differ() -> None:
    """Also where they read the same."""
    long = "http://" + "x" * 200
    assert cell_name({"model": long + "1"}) != cell_name({"model": long + "2"})
    assert "/" not in cell_name({"model": "openai:http://gpu:8000/v1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: 1\n", "a sweep needs a matrix"),
        ("matrix: {}\n", "a sweep needs a matrix"),
        ("matrix: {models: oracle}\n", "matrix.models: give a list of values, not 'oracle'"),
        ("matrix: {models: []}\n", "matrix.models: give a list"),
        ("matrix: {models: [nop, nop]}\n", "two cells are the same"),
        ("matrix: {epochs: [0]}\n", r"cell epochs=0.*: epochs: .*got 0"),
        ("matrix: {speed: [1]}\n", "unknown key speed"),
    ],
)
def test_bad_matrix_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Before anything is run, with the file, the key and the value."""
    with pytest.raises(ConfigError, match=message):
        read_sweep(write(tmp_path, text), {})


@pytest.mark.parametrize("more", [[], ["--run-dir", "here"]])
def test_a_job_on_ray_needs_an_absolute_run_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    """Said once, before any cell."""
    monkeypatch.setenv(IN_JOB, "{}")
    assert main(["sweep", str(write(tmp_path, MATRIX)), *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("error: the run directory") == 1
    assert "is relative" in said.err


def test_run_says_that_it_is_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` on a config with a matrix names the command to use."""
    assert main(["--config", str(write(tmp_path, MATRIX))]) == 2
    assert "it holds a matrix: run it with python -m runner sweep" in capsys.readouterr().err


@pytest.mark.kernel
async def test_sandboxes_that_are_shared_are_those_that_fit() -> None:
    """Side by side no more are leased than one pool would hold here, nor than the config allows."""
    cells = [Cell(str(n), {}, RunConfig(concurrency=100_000)) for n in range(2)]
    async with SandboxPool(PoolConfig(max_sandboxes=100_000), trusted_code=True) as pool:
        n_fit = pool.statistics().max_sandboxes
    assert _shared(cells).sandboxes.limit == pytest.approx(n_fit, rel=0.5)

    few = RunConfig(concurrency=20, sandbox=PoolConfig(max_sandboxes=3, profiles={"p": {"cpu_s": 9}}))
    assert _shared([Cell("a", {}, few)]).sandboxes.limit == 3


def test_reader_that_leaves_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`| head` on a sweep: only what would be printed of the next cells is lost."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    summary = RunSummary(tmp_path, 1, RunStatistics(0), None, has_checks=False)
    with os.fdopen(write_end, "w") as nobody:
        for stream, result in (("stdout", (summary, None)), ("stderr", (None, "no server"))):
            monkeypatch.setattr(f"sys.{stream}", nobody)
            report_cell(CellResult(Cell("a", {}, RunConfig()), *result))
        os.dup2(os.open(os.devnull, os.O_WRONLY), write_end)


async def test_loop_of_those_that_run_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell is prepared off it: its data is read, and its interpreter may be asked for what it has."""
    threads = []

    def prepare(config: RunConfig) -> None:
        threads.append(threading.current_thread())
        raise ConfigError("no more is needed")

    monkeypatch.setattr("runner.sweep.prepare", prepare)
    (result,) = await run_sweep([Cell("a", {}, RunConfig())], Console())
    assert result.error == "no more is needed"
    assert threads != [threading.main_thread()]


@pytest.mark.parametrize("side_by_side", [1, 4])
def test_sweep_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str], side_by_side: int) -> None:
    """All cells run, the table says so, and the same command finds nothing left to do."""
    arguments = [
        "sweep",
        str(write(tmp_path, MATRIX)),
        "--run-dir",
        str(tmp_path / "out"),
        "--side-by-side",
        str(side_by_side),
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"4 runs below {tmp_path / 'out'}" in out
    runs = sorted((tmp_path / "out").iterdir())
    assert [len(list(read_trajectories(run))) for run in runs] == [2] * 4
    assert out.count("2 finished, 0 left") == 4
    names = [cell.name for cell in read_sweep(tmp_path / "sweep.yaml", {})]
    n_turns = {run.name: sum(len(row["turns"]) for row in read_trajectories(run)) for run in runs}
    expected = [[name, "2", "0", "0", str(n_turns[name])] for name in names]
    assert [row[:5] for row in table_of(out)] == expected

    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("0 to run, 0 to go on with, 2 done") == 4
    assert main(arguments) == 0
    assert [len(list(read_trajectories(run))) for run in runs] == [2] * 4
    assert [row[:5] for row in table_of(capsys.readouterr().out)] == expected, (
        "of all commands, not of the last"
    )


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("axis", "error"),
    [
        ("benchmark: [pybench, quickstart]", "error: pybench needs data.root"),
        ("models: [nosuch, nop]", "error: --model nosuch: no such model client"),
    ],
)
def test_what_cannot_be_prepared_costs_its_own_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], axis: str, error: str
) -> None:
    """Data that is not there, a model that nobody knows: the others run, and a dry run says it beforehand."""
    text = f"model: nop\nsamples: math*\nlimit: 1\nmatrix:\n  {axis}\n"
    arguments = ["sweep", str(write(tmp_path, text)), "--run-dir", str(tmp_path / "out")]
    assert main([*arguments, "--dry-run"]) == 2
    out = capsys.readouterr().out
    assert out.count("error") == out.count(error) == out.count("1 to run") == 1
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert error in captured.err
    assert [row[1] for row in table_of(captured.out)] == ["error", "1"]


@pytest.mark.kernel
def test_one_bad_cell_does_not_keep_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not there costs its own cell; the exit code says that not all is done."""
    text = MATRIX.replace("[oracle, nop]", "['openai:http://127.0.0.1:9/v1', nop]")
    assert main(["sweep", str(write(tmp_path, text)), "--run-dir", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("no model server at http://127.0.0.1:9/v1") == 2
    assert captured.out.count("2 finished, 0 left") == 2


@pytest.mark.kernel
@pytest.mark.parametrize("first", ["", "nop, "], ids=["in-the-first", "after-one-is-over"])
async def test_signal_ends_all_cells(tmp_path: Path, first: str) -> None:
    """SIGTERM drains what runs, begins nothing more, and the exit code says so."""
    async with StubServer(latency_s=20.0) as server:
        text = MATRIX.replace("[oracle, nop]", f"[{first}'openai:{server.url}']").replace(
            "limit: 2", "limit: 3\ngrace_s: 0.1"
        )
        if first:
            text = text.replace(", tool_call", "")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runner", "sweep", str(write(tmp_path, text)), "--run-dir", str(tmp_path / "out"),
            env=clean_environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            while len(server.requests) < 3:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(25):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 128 + signal.SIGTERM, output.decode()
    n_begun = 2 if first else 1
    assert len(list((tmp_path / "out").iterdir())) == n_begun, "no other cell was begun"
