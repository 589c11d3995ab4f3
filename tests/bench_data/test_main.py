from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench_data import load
from bench_data.__main__ import main


def test_list_names_the_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name, a line for each benchmark and for your own file."""
    assert main(["list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"quickstart", "pybench", "jsonl:FILE"} <= set(names)


def test_list_of_a_benchmark_has_a_line_for_each_sample(capsys: pytest.CaptureFixture[str]) -> None:
    """Id, category and the first words of the task, in columns, within a wide terminal."""
    assert main(["list", "quickstart"]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    samples = load("quickstart").samples
    assert [line.split()[0] for line in lines] == [sample.id for sample in samples]
    assert all(sample.category in line for sample, line in zip(samples, lines, strict=True))
    assert "data/orders.csv is a shop's export" in lines[0]
    assert max(map(len, lines)) < 140
    assert total == f"{len(samples)} samples, 0 skipped; protocol fenced"


def test_show_has_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Task, files with sizes, check, and each cell of the reference and the decoy."""
    assert main(["show", "quickstart/chart-energy-mix"]) == 0
    out = capsys.readouterr().out
    sample = next(s for s in load("quickstart").samples if s.id == "chart-energy-mix")
    assert out.startswith("chart-energy-mix (chart data analysis)\n")
    assert str(sample.messages[0]["content"]) in out
    assert f"data/energy.json  {len(sample.files[0].read())} bytes" in out
    assert '"kind": "all_of"' in out
    assert sample.reference is not None
    assert f"-- reference, cell 1 of 1\n{sample.reference.cells[0].rstrip()}" in out
    assert "-- decoy (must fail), final reply\n" in out


def test_show_splits_at_the_last_slash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of a benchmark can be a path; a sample without extras shows what it has."""
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({"id": "x.1", "messages": [{"role": "user", "content": "Hallo"}]}))
    assert main(["show", f"jsonl:{path}/x.1"]) == 0
    assert capsys.readouterr().out == "x.1 (no category)\n\n-- user\nHallo\n\n-- files\nnone\n"


def test_show_has_the_sandbox_that_a_sample_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Profile, workspace and the setup cell are shown where a sample has them."""
    path = tmp_path / "tasks.jsonl"
    (tmp_path / "repo").mkdir()
    task = {
        "id": "x", "messages": [{"role": "user", "content": "Hallo"}],
        "profile": "upstream", "workspace": "repo", "setup": "import repo\n",
    }  # fmt: skip
    path.write_text(json.dumps(task))
    assert main(["show", f"jsonl:{path}/x"]) == 0
    assert capsys.readouterr().out.endswith(
        f"\n-- sandbox\nprofile upstream\nworkspace {tmp_path}/repo\n"
        "\n-- setup (never shown to the model)\nimport repo\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "quikstart"], "no benchmark is called 'quikstart'; known are quickstart"),
        (["list", "jsonl:gone.jsonl"], "gone.jsonl: no such file"),
        (["show", "quickstart"], "'quickstart' names no sample; write BENCHMARK/ID"),
        (["show", "quickstart/"], "'quickstart/' names no sample"),
        (
            ["show", "quickstart/nope"],
            "quickstart has no sample 'nope'; `python -m bench_data list quickstart`",
        ),
    ],
)
def test_mistakes_go_to_stderr_with_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong name gives one line that says what to do, and nothing on stdout."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"bench_data: {words}")
    assert captured.err.count("\n") == 1


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is none is argparse's to refuse, with the same exit code."""
    with pytest.raises(SystemExit) as caught:
        main(["frobnicate"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error() -> None:
    """`list quickstart | head -1` ends without a traceback."""
    command = [sys.executable, "-m", "bench_data", "list", "quickstart"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
