"""A recorded PyBench run through kernels as upstream's runner has them: what ours is measured against.

    cd FOLDER; python -m tests.bench.nbclient_loop RECORDING [--threads 16]

FOLDER holds `data/`, and gets `output/`, `Cells/` and `trajectory.jsonl`. Behaviour as in
github.com/Mercury7353/PyBench at fa90fae, `inference.py`, in code of our own: a pool of threads, for each
task one ipykernel that nbclient starts in the shared folder and shuts down at the end, for each cell a new
NotebookClient, after each task a notebook and a line. Replies come from the recording, at once.
Not upstream's: a cell ends after as long as ours may take, since upstream's would never, and a kernel that
died at its start is started again.
"""

# nbformat's functions are not typed
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import argparse
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

MAX_TURNS = 10
CELL_TIMEOUT_S = 120
MAX_STARTS = 3
CODE_START, CODE_END = "```python", "```"
OBSERVATION_START = "[INFO]This is a Code Interpreter Message:\n"

_line_lock = threading.Lock()


def code_of(reply: str) -> str:
    """Return the code of the first block, empty where there is none or it is not closed."""
    _, _, rest = reply.partition(CODE_START)
    code, closed, _ = rest.partition(CODE_END)
    return code.strip() if closed else ""


def start_kernel() -> Kernel:
    """Start a kernel, again if it died at once: two at a time may have been given the same ports."""
    for _ in range(MAX_STARTS - 1):
        with suppress(RuntimeError):
            return Kernel()
    return Kernel()


class Kernel:
    """One ipykernel for the length of one task. Close it; not safe to share between threads."""

    def __init__(self) -> None:
        self._notebook = nbformat.v4.new_notebook()
        self._first = NotebookClient(self._notebook, allow_errors=True)
        self._first.create_kernel_manager()
        self._first.start_new_kernel()
        self._client = self._first.start_new_kernel_client()

    def run(self, code: str) -> str:
        """Execute a cell and return its output as text; what becomes of the kernel is text, too."""
        cell = nbformat.v4.new_code_cell(code)
        self._notebook.cells.append(cell)
        client = NotebookClient(
            self._notebook, allow_errors=True, timeout=CELL_TIMEOUT_S, interrupt_on_timeout=True
        )
        client.km, client.kc = self._first.km, self._client
        client.reset_execution_trackers()
        try:
            client.execute_cell(cell, -1)
        except (DeadKernelError, CellTimeoutError) as error:
            return str(error)
        return "".join(map(_text, cell.outputs))

    def save(self, path: Path) -> None:
        """Write all cells as a notebook."""
        nbformat.write(self._notebook, path)

    def close(self) -> None:
        """Shut the kernel down and wait for it."""
        self._first._cleanup_kernel()


def _text(output: NotebookNode) -> str:
    match output.output_type:
        case "stream":
            return str(output.text)
        case "execute_result":
            return str(output.data.get("text/plain", ""))
        case "error":
            return f"Error: {output.ename}\n{output.evalue}\n"
    return ""


def run_task(row: dict[str, Any]) -> int:
    """Replay one task in the current folder; return how many cells were executed."""
    replies = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    messages: list[dict[str, str]] = []
    n_cells = 0
    kernel = start_kernel()
    try:
        for reply in replies[:MAX_TURNS]:
            messages.append({"role": "assistant", "content": reply})
            code = code_of(reply)
            if not code:
                break
            messages.append({"role": "user", "content": OBSERVATION_START + kernel.run(code)})
            n_cells += 1
        kernel.save(Path("Cells") / f"{row['index']}.ipynb")
    finally:
        kernel.close()
    line = json.dumps({**row, "messages": messages}, ensure_ascii=False) + "\n"
    with _line_lock, Path("trajectory.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)
    return n_cells


def main() -> None:
    """Replay all tasks of a recording, and print what was done as a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recording", type=Path, metavar="RECORDING")
    parser.add_argument("--threads", type=int, default=16)
    arguments = parser.parse_args()
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # nbclient's word on kernels that died
    for name in ("output", "Cells"):
        Path(name).mkdir(exist_ok=True)
    rows = [json.loads(line) for line in arguments.recording.read_text(encoding="utf-8").splitlines()]
    with ThreadPoolExecutor(arguments.threads) as threads:
        n_cells = sum(threads.map(run_task, rows))
    print(json.dumps({"n_tasks": len(rows), "n_cells": n_cells}))


if __name__ == "__main__":
    main()
