"""Real cells, and what one kernel and the other make of them."""

from __future__ import annotations

import json
import queue
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient

from bench_data import DataOptions, SampleFile, load
from runner.protocols import Action, Fenced
from tests.sandbox_pool.inside.kernel_process import KernelServer

CELL_TIMEOUT_S = 120


@dataclass(frozen=True)
class Script:
    """Cells that belong together, and the files that they find."""

    name: str
    cells: tuple[str, ...]
    files: tuple[SampleFile, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What both kernels must agree on, less what differs by nature."""

    stdout: str
    result: str | None
    error: tuple[str, str] | None
    n_images: int


STUCK = Seen("", None, ("TimeoutError", f"not ended in {CELL_TIMEOUT_S} s"), 0)


def quickstart() -> list[Script]:
    """Return quickstart's reference solutions."""
    samples = load("quickstart").samples
    return [Script(f"quickstart/{s.id}", s.reference.cells, s.files) for s in samples if s.reference]


def recorded(data: Path, model: str) -> list[Script]:
    """Return the cells that a model wrote in a recorded PyBench run."""
    samples = {sample.id: sample for sample in load("pybench", DataOptions(root=data / "pybench")).samples}
    scripts = []
    protocol = Fenced(None)
    path = data / "pybench/golden" / model / "trajectory.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts = [m["content"] for m in row.get("messages") or [] if m["role"] == "assistant"]
        replies = [protocol.parse(text, "stop") for text in texts]
        cells = tuple(
            action.code for reply in replies for action in reply.actions if isinstance(action, Action)
        )
        if row["index"] in samples and cells:
            scripts.append(Script(f"{model}/{row['index']}", cells, samples[row["index"]].files))
    return scripts


class Comparison:
    """Runs scripts in both kernels. Close it."""

    def __init__(
        self, scratch: Path, preload: Sequence[str] = ("numpy", "pandas", "matplotlib.pyplot")
    ) -> None:
        self._scratch = scratch
        self._lean = KernelServer(preload, writable=scratch)
        self._reference = KernelServer(preload, "ipykernel", writable=scratch)

    def close(self) -> None:
        self._lean.close()
        self._reference.close()

    def differences(self, script: Script) -> list[tuple[int, Seen, Seen]]:
        """Return the number of each cell on which they disagree, with what lean and ipykernel made of it.

        A cell that does not end is the last one.
        """
        work = self._folder(script)
        ours = self._run_lean(script, work)
        theirs = self._run_reference(script, self._folder(script))
        pairs = zip(ours, theirs, strict=False)
        return [(n, one, other) for n, (one, other) in enumerate(pairs) if one != other]

    def _folder(self, script: Script) -> Path:
        """Make a folder with the files. Both kernels find it at the same length of path."""
        work = Path(tempfile.mkdtemp(dir=self._scratch))
        for file in script.files:
            path = work / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
        (work / "output").mkdir(exist_ok=True)
        return work

    def _run_lean(self, script: Script, work: Path) -> list[Seen]:
        kernel = self._lean.start(work, seed=0)
        try:
            kernel.wait_until_ready(60)
            seen = []
            with suppress(TimeoutError):
                for code in script.cells:
                    seen.append(STUCK)
                    cell = kernel.run(code, timeout_s=CELL_TIMEOUT_S)
                    seen[-1] = normal(work, cell.stdout, cell.result, cell.error, cell.n_images)
            return seen
        finally:
            kernel.kill()

    def _run_reference(self, script: Script, work: Path) -> list[Seen]:
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            kernel, info = self._reference.start_listening(work, folder, "key", seed=0)
            try:
                seen = []
                with client_of(info) as client, suppress(TimeoutError):
                    for code in script.cells:
                        seen.append(STUCK)
                        seen[-1] = normal(work, *reference_cell(client, code))
                return seen
            finally:
                kernel.kill()


@contextmanager
def client_of(info: dict[str, Any]) -> Iterator[BlockingKernelClient]:
    """Connect to a kernel."""
    client = BlockingKernelClient()
    client.load_connection_info(info)
    client.start_channels(stdin=False, hb=False)
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        client.context.destroy(linger=0)


def reference_cell(
    client: BlockingKernelClient, code: str
) -> tuple[str, str | None, tuple[str, str] | None, int]:
    """Run a cell in ipykernel; return its stdout, result, error and number of images."""
    msg_id = client.execute(code, store_history=False, allow_stdin=False, stop_on_error=False)
    deadline = time.monotonic() + CELL_TIMEOUT_S
    stdout, result, error, n_images = "", None, None, 0
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") != msg_id:
            continue
        if kind == "status" and content["execution_state"] == "idle":
            client.get_shell_msg(timeout=10)
            return stdout, result, error, n_images
        if kind == "stream" and content["name"] == "stdout":
            stdout += content["text"]
        elif kind == "error":
            error = content["ename"], content["evalue"]
        elif kind in ("execute_result", "display_data"):
            n_images += any(mime.startswith("image/") for mime in content["data"])
            if kind == "execute_result":
                result = content["data"].get("text/plain")
    raise TimeoutError(f"ipykernel has not ended this cell in {CELL_TIMEOUT_S} s: {code[:200]}")


_BY_NATURE = (
    (re.compile(r"0x[0-9a-f]{6,}"), "0xADDRESS"),
    (re.compile(r"<ipython-input-[^>]*>|\S{0,60}ipykernel_\d+/\d+\.py|(?<=\()\d+\.py(?=, line)"), "CELL"),
    (re.compile(r"(?<!\d)\d{1,20}(\.\d{1,20})?(e-?\d+)? ?(s|ms|µs|us|ns|seconds|sec)\b"), "DURATION"),
    (re.compile(r"(?<!\d)\d{1,20}(\.\d{1,20})?(it|kB|MB|B)?/s\b"), "RATE"),
    (re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?"), "TIME"),
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\r\n"), "\n"),
)
"""Addresses, names of cells, durations and colours: what differs from one run of a kernel to the next as well.

Each is bounded: a cell may print megabytes without a space.
"""


def normal(work: Path, stdout: str, result: str | None, error: tuple[str, str] | None, n_images: int) -> Seen:
    """Return what was seen, less what differs by nature."""

    def clean(text: str) -> str:
        text = text.replace(str(work), "WORK")
        for pattern, name in _BY_NATURE:
            text = pattern.sub(name, text)
        return text

    return Seen(
        clean(stdout),
        None if result is None else clean(result),
        None if error is None else (error[0], clean(error[1])),
        n_images,
    )
