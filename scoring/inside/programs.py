"""Python modules and programs that the model wrote, as facts. Runs inside a sandbox: see extract.py.

They run in processes of their own, with their own deadline and in their own process group: a module
that exits, hangs, prints or crashes takes only itself down.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

MAX_OUTPUT_BYTES = 2**20
MAX_STDERR_CHARS = 300
MAX_WRITTEN_BYTES = 16 * 2**20


def read_calls(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return what each requested call of a function in the module returned or raised."""
    n_calls = len(request["calls"])
    child = str(Path(__file__).with_name("call.py"))
    with tempfile.TemporaryFile() as results:
        argv = [sys.executable, "-B", child, str(path), str(results.fileno())]
        stdin = json.dumps(request["calls"]).encode()
        run = _run(argv, stdin, root, request["timeout_s"], keep=results)
        results.seek(0)
        done = _parse_results(results.read(MAX_OUTPUT_BYTES))
    if done and "import_problem" in done[0]:
        return {"problem": str(done[0]["import_problem"])}
    ended = {"problem": run.get("problem") or f"the process ended with exit code {run['exit_code']}"}
    return {"calls": (done + [ended] * n_calls)[:n_calls]}


def read_runs(path: Path, request: dict[str, Any], root: Path) -> dict[str, Any]:
    """Return exit code, output and the end of the error output of each requested run of the program."""
    runs = []
    for run in request["runs"]:
        argv = [sys.executable, "-B", str(path), *run["argv"]]
        runs.append(_run(argv, run["stdin"].encode("utf-8", "replace"), root, request["timeout_s"]))
    return {"runs": runs}


def _run(
    argv: list[str], stdin: bytes, root: Path, timeout_s: float, *, keep: BinaryIO | None = None
) -> dict[str, Any]:
    """Run a program to its end or its deadline; then nothing of its process group is left."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(stdin)
        source.seek(0)
        process = subprocess.Popen(
            argv,
            stdin=source,
            stdout=out,
            stderr=err,
            cwd=root,
            env={**os.environ, "PYTHONUTF8": "1"},
            pass_fds=[keep.fileno()] if keep is not None else (),
            start_new_session=True,
        )
        facts: dict[str, Any] = {}
        try:
            _limit_file_size(process.pid)
            facts["exit_code"] = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            facts["problem"] = f"it ran for more than {timeout_s:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        facts["stdout"] = _text(out, 0, MAX_OUTPUT_BYTES)
        facts["stderr_end"] = _last_line(_text(err, max(0, err.seek(0, 2) - 4096), 4096), root)
        return facts


def _limit_file_size(pid: int) -> None:
    """Bound what the process may write to a file, its output included; from outside, where Linux can."""
    if hasattr(resource, "prlimit"):
        limit = (MAX_WRITTEN_BYTES, MAX_WRITTEN_BYTES)
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


def _text(file: Any, start: int, n_bytes: int) -> str:
    file.seek(start)
    return str(file.read(n_bytes).decode("utf-8", "replace"))


def _last_line(text: str, root: Path) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].replace(f"{root}/", "")[-MAX_STDERR_CHARS:] if lines else ""


def _parse_results(raw: bytes) -> list[dict[str, Any]]:
    """Return the results that are whole; the module could have written to the file itself."""
    results = []
    for line in raw.split(b"\n")[:-1]:
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            result = None
        results.append(result if isinstance(result, dict) else {"problem": "the result is unreadable"})
    return results
