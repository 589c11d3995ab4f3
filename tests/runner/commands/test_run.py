"""Bad input: one clear message that names the thing and the remedy, the right exit code, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from runner.__main__ import main
from runner.batch import RunSummary
from runner.commands.run import report_code
from runner.telemetry.statistics import RunStatistics
from tests.processes import clean_environment, run_module
from tests.stub_server import StubServer, completion, refusal


@pytest.fixture(name="cwd", autouse=True)
def _cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERNELFLEET_CONFIG", raising=False)
    return tmp_path


def write_tasks(path: Path, *ids: str) -> str:
    """Write a benchmark of samples without input; return its name."""
    tasks = [{"id": i, "messages": [{"role": "user", "content": "hi"}]} for i in ids]
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return f"jsonl:{path}"


USAGE = [
    pytest.param(["--config", "absent.yaml"], "config file absent.yaml: No such file", id="missing-config"),
    pytest.param(["--set", "concurency=3"], "unknown key concurency; known here: benchmark", id="unknown-key"),
    pytest.param(["--set", "limits.max_turns=three"], "limits.max_turns: .*'three'", id="wrong-type"),
    pytest.param(["--set", "benchmark=pybnch"], "no benchmark is called 'pybnch'", id="unknown-benchmark"),
    pytest.param(["--set", "benchmark=pybench"], "pybench needs data.root", id="no-data-root"),
    pytest.param(
        ["--set", "benchmark=pybench", "--set", "data.root=nowhere"],
        "nowhere/data/meta/task.json is not there", id="missing-data-root",
    ),
    pytest.param(["--set", "benchmark=jsonl:absent.jsonl"], "absent.jsonl", id="missing-tasks"),
    pytest.param(["--samples", "zzz*"], "--samples 'zzz\\*' matches none of the", id="no-sample"),
    pytest.param(["--model", "gpt"], "--model gpt: no such model client; known: vllm:PATH_OR_ID, openai:URL", id="unknown-model"),
    pytest.param(["--model", "replay:absent"], "replay:absent: No such file", id="missing-recording"),
    pytest.param(["--model", "openai:localhost"], "openai:http://localhost:8000/v1", id="no-url"),
    pytest.param(
        ["--model", "openai:http://x/v1", "--set", "model.api_key_env=NO_SUCH_KEY"],
        "environment variable NO_SUCH_KEY is not set", id="no-key",
    ),
    pytest.param(["--set", "nonsense"], "--set 'nonsense': write key.path=value", id="no-setting"),
    pytest.param(["--set", "model.request.seed=99999999999999999999"], "model.request.seed: .*64-bit", id="big-number"),
    pytest.param(["--set", 'protocol.system_prompt="\\ud800"'], "protocol.system_prompt: .*surrogate", id="surrogate"),
    pytest.param(["--concurrency", "0"], "concurrency: .*got 0", id="zero-concurrency"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 2, one message, and nothing is written."""
    assert main(arguments) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a/b", "messages": [{"role": "user", "content": "x"}]}, "'a/b' cannot be a folder name"),
        ({"id": "a", "messages": [{"role": "user", "content": "x"}], "chek": {}}, "chek"),
        ({"id": "a"}, "messages"),
    ],
)
def test_bad_tasks_file(
    tmp_path: Path, row: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that is no sample is named with its place."""
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["--set", f"benchmark=jsonl:{tmp_path}/t.jsonl"]) == 2

    error = capsys.readouterr().err
    assert "t.jsonl:1" in error
    assert message in error


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """The help is short and complete."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = capsys.readouterr().out

    assert ended.value.code == 0
    options = "--config --model --concurrency --limit --shuffle --samples --epochs --run-dir --set --dry-run"
    assert [option for option in options.split() if option not in text] == []
    assert len(text.splitlines()) < 45


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It lists what would run and touches nothing."""
    assert main(["--dry-run", "--samples", "math*", "--epochs", "2", "--run-dir", "r"]) == 0

    output = capsys.readouterr().out
    assert "run     math" in output
    assert "0 done, in r (dry run: nothing done)" in output
    assert list(tmp_path.iterdir()) == []


def test_config_in_the_folder_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kernelfleet.yaml is found; $KERNELFLEET_CONFIG wins over it."""
    (tmp_path / "kernelfleet.yaml").write_text("limit: 1\n")
    assert main(["--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("kernelfleet.yaml: benchmark quickstart, 1 samples")


def test_config_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """$KERNELFLEET_CONFIG names the config, also where a kernelfleet.yaml is."""
    (tmp_path / "kernelfleet.yaml").write_text("limit: 1\n")
    (tmp_path / "other.yaml").write_text("limit: 2\n")
    monkeypatch.setenv("KERNELFLEET_CONFIG", "other.yaml")
    assert main(["--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("other.yaml: benchmark quickstart, 2 samples")


def nop_run(tmp_path: Path, *more: str) -> int:
    benchmark = write_tasks(tmp_path / "t.jsonl", "a", "b")
    return main(["--set", f"benchmark={benchmark}", "--model", "nop", "--run-dir", "r", *more])


def test_tier_is_said_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """How the code is held is printed before it runs, and is in config.json with what is enforced."""
    assert nop_run(tmp_path) == 0

    config = json.loads((tmp_path / "r/config.json").read_text())
    tier = config["sandbox"]["tier"]
    assert tier in ("namespace", "landlock", "process")
    assert config["settings"]["sandbox.tier"] == tier
    assert config["sandbox"]["enforced"]
    assert config["trusted_code"] is False
    lines = capsys.readouterr().err.splitlines()
    assert f"sandboxes: tier {tier}, kernel {config['sandbox']['kernel']}" in lines


def test_unknown_profile_of_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample whose profile is not in the config ends the run before it begins, with nothing written."""
    task = {"id": "a", "messages": [{"role": "user", "content": "hi"}], "profile": "gpu"}
    (tmp_path / "t.jsonl").write_text(json.dumps(task) + "\n")
    arguments = ["--set", f"benchmark=jsonl:{tmp_path}/t.jsonl", "--model", "nop", "--run-dir", "r"]

    assert main(arguments) == 2
    assert "sample a: no sandbox profile 'gpu': known are default" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert main([*arguments, "--set", "sandbox.profiles={gpu: {network: host}}"]) == 0


def test_changed_config_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume that would mix results names each key that differs; other changes are fine."""
    assert nop_run(tmp_path, "--limit", "1") == 0
    before = (tmp_path / "r/trajectories.jsonl").read_bytes()

    assert nop_run(tmp_path, "--set", "limits.max_turns=3", "--set", "model.request={top_p: 1}") == 2
    error = capsys.readouterr().err
    assert "limits.max_turns: 10 there, 3 now" in error
    assert "model.request" in error
    assert (tmp_path / "r/trajectories.jsonl").read_bytes() == before

    assert nop_run(tmp_path, "--concurrency", "3", "--epochs", "2") == 0
    assert len((tmp_path / "r/trajectories.jsonl").read_text().splitlines()) == 4


def test_dry_run_refuses_what_the_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not promise a resume that will be refused."""
    assert nop_run(tmp_path) == 0
    assert nop_run(tmp_path, "--dry-run") == 0
    assert "0 to run, 0 to go on with, 2 done" in capsys.readouterr().out
    assert nop_run(tmp_path, "--dry-run", "--set", "limits.max_turns=3") == 2


@pytest.mark.kernel
def test_changed_solutions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The oracle's replies are part of what a trajectory is."""
    task = {"id": "a", "messages": [{"role": "user", "content": "hi"}]}
    for answer, code in (("one", 0), ("one", 0), ("two", 2)):
        task["reference"] = {"cells": ["1"], "answer": answer}
        (tmp_path / "t.jsonl").write_text(json.dumps(task) + "\n")
        assert main(["--set", f"benchmark=jsonl:{tmp_path}/t.jsonl", "--run-dir", "r"]) == code
    assert "model.script_digest" in capsys.readouterr().err


def test_unrecorded_samples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recording that lacks samples is warned of before the run, not discovered in its scores."""
    (tmp_path / "recorded.jsonl").write_text('{"index": "a", "messages": []}\n')
    benchmark = write_tasks(tmp_path / "t.jsonl", "a", "b")
    assert main(["--set", f"benchmark={benchmark}", "--model", "replay:recorded.jsonl", "--dry-run"]) == 0
    assert "warning: 1 samples are not in recorded.jsonl" in capsys.readouterr().err


def test_changed_tasks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark whose content changed is not mixed into the same run."""
    assert nop_run(tmp_path) == 0
    write_tasks(tmp_path / "t.jsonl", "a", "c")
    assert main(["--set", f"benchmark=jsonl:{tmp_path}/t.jsonl", "--model", "nop", "--run-dir", "r"]) == 2
    assert "benchmark.digest" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"not json\n", b'{"foreign": 1}\n', b"not\njson\n", b"no newline"])
def test_foreign_journal_is_refused(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal of somebody else is named, and not touched."""
    path = tmp_path / "r/trajectories.jsonl"
    path.parent.mkdir()
    path.write_bytes(content)

    assert nop_run(tmp_path) == 1
    assert re.search("trajectories.jsonl.*choose another --run-dir", capsys.readouterr().err)
    assert path.read_bytes() == content


@pytest.mark.parametrize("end", [b"", b"\0" * 500, b"\0" * 500 + b"}\n"])
def test_torn_line_runs_again(tmp_path: Path, end: bytes) -> None:
    """A journal torn in the middle of its last line costs that attempt and nothing else.

    By whoever was killed, or by a power cut, which leaves zeros.
    """
    assert nop_run(tmp_path) == 0
    path = tmp_path / "r/trajectories.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:50] + end)

    assert nop_run(tmp_path) == 0
    attempts = [json.loads(line)["attempt"] for line in path.read_text().splitlines()]
    assert sorted(attempts) == ["a@1", "b@1"]


def test_no_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A server that is down fails the run at once, names the address, and leaves no folder."""
    arguments = ["--model", "openai:http://127.0.0.1:9/v1", "--set", "model.max_backoff_s=0"]
    assert main([*arguments, "--run-dir", "r"]) == 1

    error = capsys.readouterr().err
    assert "no model server at http://127.0.0.1:9/v1" in error
    assert not (tmp_path / "r").exists()


async def run_against(server: StubServer, tmp_path: Path, *more: str) -> tuple[int, str, str]:
    """Run three samples against a server, in a process of its own."""
    benchmark = write_tasks(tmp_path / "t.jsonl", "a", "b", "c")
    options = [
        "--set",
        "model.max_retries=1",
        "--set",
        "model.max_backoff_s=0",
        "--set",
        "limits.max_tries=1",
    ]
    command = [
        "runner",
        "--set",
        f"benchmark={benchmark}",
        "--model",
        f"openai:{server.url}",
        "--run-dir",
        "r",
    ]
    ran = await asyncio.to_thread(run_module, *command, *options, *more, cwd=tmp_path)
    return ran.returncode, ran.stdout, ran.stderr


GARBAGE = [
    pytest.param(
        lambda: web.Response(text="<html>x</html>", content_type="text/html"), "not JSON", id="html"
    ),
    pytest.param(lambda: web.Response(text='{"choices": [{"me'), "not JSON", id="truncated"),
    pytest.param(lambda: web.json_response({"choices": []}), "without choices", id="empty-choices"),
    pytest.param(lambda: refusal(500, "boom"), "HTTP 500: boom", id="500"),
]


@pytest.mark.parametrize(("response", "said"), GARBAGE)
async def test_server_answers_garbage(
    tmp_path: Path, response: Callable[[], web.StreamResponse], said: str
) -> None:
    """Exit code 1, the failures are kept apart with what the server said, and a resume mends it."""

    async def garbage(body: dict[str, Any]) -> web.StreamResponse:
        return response()

    async with StubServer(garbage) as server:
        code, _, error = await run_against(server, tmp_path)
        assert code == 1
        assert "3 attempts failed by no fault of the model; see r/failures.jsonl" in error
        assert said in error
        assert (tmp_path / "r/trajectories.jsonl").read_bytes() == b""

        async def fine(body: dict[str, Any]) -> web.StreamResponse:
            return completion("42")

        server.handler = fine
        assert (await run_against(server, tmp_path))[0] == 0
    assert len((tmp_path / "r/trajectories.jsonl").read_text().splitlines()) == 3


@pytest.mark.kernel
async def test_model_that_never_stops(tmp_path: Path) -> None:
    """A model that always writes code ends at the turn limit."""

    async def more(body: dict[str, Any]) -> web.StreamResponse:
        return completion("```python\n1\n```")

    async with StubServer(more) as server:
        code, _, error = await run_against(server, tmp_path, "--set", "limits.max_turns=2", "--limit", "1")

    assert code == 0, error
    row = json.loads((tmp_path / "r/trajectories.jsonl").read_text())
    assert (row["stop_reason"], len(row["turns"])) == ("max_turns", 2)


@pytest.mark.kernel
async def test_hostile_cells(tmp_path: Path) -> None:
    """A cell that prints 300 MB and one that kills its kernel are turns like others."""
    cells = ["print('x' * 300_000_000)", "import os\nos._exit(1)", "print('still here')"]

    async def hostile(body: dict[str, Any]) -> web.StreamResponse:
        n_replies = sum(1 for message in body["messages"] if message["role"] == "assistant")
        return completion(f"```python\n{cells[n_replies]}\n```" if n_replies < 3 else "done")

    async with StubServer(hostile) as server:
        code, _, error = await run_against(server, tmp_path, "--limit", "1")

    assert code == 0, error
    text = (tmp_path / "r/trajectories.jsonl").read_text()
    assert len(text) < 2_000_000
    statuses = [turn["observation"]["status"] for turn in json.loads(text)["turns"][:3]]
    assert statuses == ["output_limit", "died", "ok"]


def test_full_disk_while_writing_the_journal(tmp_path: Path) -> None:
    """When the disk is full the run fails with a remedy, whole lines stay, and a resume goes on."""
    benchmark = write_tasks(tmp_path / "t.jsonl", *(f"s{i}" for i in range(30)))
    # a tier that the small limit on files does not keep from being used
    unsafe = ["--set", "sandbox.tier=process", "--set", "sandbox.allow_unsafe=true"]
    command = ["runner", "--set", f"benchmark={benchmark}", "--model", "nop", "--run-dir", "r", *unsafe]
    full = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=clean_environment(), timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip

    assert full.returncode == 1
    assert "error: cannot write r/trajectories.jsonl: File too large; free some space" in full.stderr
    lines = (tmp_path / "r/trajectories.jsonl").read_text().splitlines()
    assert 0 < len(lines) < 30
    assert all(json.loads(line)["stop_reason"] == "answer" for line in lines)

    assert run_module(*command, cwd=tmp_path).returncode == 0
    assert len((tmp_path / "r/trajectories.jsonl").read_text().splitlines()) == 30


def test_reader_that_leaves(tmp_path: Path) -> None:
    """`| head` ends a command as it does others, without a traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = subprocess.run(
        [sys.executable, "-m", "runner", "--model", "nop", "--dry-run"],
        stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_two_runners_in_one_folder(tmp_path: Path) -> None:
    """The second runner is refused."""
    from runner.journal import Journal

    with Journal(tmp_path / "r"):
        ran = run_module(
            "runner", "--model", "nop", "--limit", "1", "--run-dir", str(tmp_path / "r"), cwd=tmp_path
        )
    assert ran.returncode == 1
    assert "in use by another runner" in ran.stderr


async def test_interrupt_before_the_run_begins(cwd: Path) -> None:
    """SIGINT while the model server has not answered yet ends with 130 and one line, no traceback."""
    asked = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    url = f"openai:http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    runner = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runner", "--model", url, cwd=cwd, env=clean_environment(),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await asked.wait()
    runner.send_signal(signal.SIGINT)
    _, error = await runner.communicate()
    server.close()
    await server.wait_closed()
    says = "stopped by SIGINT before the run had begun; run the same command again\n"
    assert (runner.returncode, error.decode()) == (130, says)


@pytest.mark.parametrize(
    ("happened", "signal_number", "code"),
    [
        ({"n_finished": 3}, None, 0),
        ({"n_finished": 3, "draining": "SIGTERM"}, signal.SIGTERM, 0),
        ({"n_finished": 2, "n_failed": 1}, None, 1),
        ({"n_finished": 2, "n_cancelled": 1}, None, 1),
        ({"n_finished": 1, "draining": "run_limits.wall_s"}, None, 1),
        ({"n_finished": 1, "draining": "SIGTERM"}, signal.SIGTERM, 143),
    ],
)
def test_exit_code_says_whether_all_is_done(
    happened: dict[str, Any], signal_number: int | None, code: int
) -> None:
    """0 only where each attempt has a line, whatever has left one without."""
    statistics = RunStatistics(3, **happened)
    assert report_code(RunSummary(Path("run"), 0, statistics, signal_number, has_checks=False)) == code
