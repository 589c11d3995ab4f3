"""Attacks of a cell on its own kernel: it may lose it, and nobody else may notice."""

from __future__ import annotations

from sandbox_pool import Observation, Sandbox, Status
from tests.sandbox_pool.hostile.case import ANYHOW, HANG_S, Case, died, ends, ok, raises


def _breaks(name: str, cell: str, *, kernel: str | None = None) -> Case:
    """Return a case after which the kernel may be useless."""
    return Case(name, cell, ANYHOW, timeout_s=0.3, stays_usable=False, kernel=kernel)


async def _prints(sandbox: Sandbox, seen: Observation) -> None:
    """The next cell can print."""
    assert (await sandbox.execute("print('again')")).stdout == "again\n"


CASES = (
    Case("os-exit", "import os\nos._exit(0)", died()),
    Case("kill-itself", "import os\nos.kill(os.getpid(), 9)", died()),
    Case("segmentation-fault", "import ctypes\nctypes.string_at(0)", died()),
    Case("abort", "import os\nos.abort()", died()),
    Case(
        "exec", "import os\nos.execv('/bin/true', ['true'])", ends(Status.DIED, Status.PROTOCOL, alive=False)
    ),
    Case(
        "broken-pipe",
        "import os\nreader, writer = os.pipe(); os.close(reader); os.write(writer, b'x')",
        raises("BrokenPipeError"),
    ),
    Case("exit", "exit()", ends(Status.OK, alive=False)),
    Case("sys-exit", "import sys\nsys.exit(3)", raises("SystemExit")),
    Case("keyboard-interrupt", "raise KeyboardInterrupt", raises("KeyboardInterrupt")),
    Case("generator-exit", "raise GeneratorExit", raises("GeneratorExit")),
    Case("base-exception", "class E(BaseException): pass\nraise E", raises("E")),
    Case(
        "close-all-descriptors",
        "import os\nos.closerange(0, 65536)",
        ends(Status.DIED, Status.PROTOCOL, Status.TIMEOUT, alive=False),
        timeout_s=HANG_S,
    ),
    Case(
        "stdout-none",
        "import sys\nsys.stdout = sys.stderr = None",
        ends(Status.OK, alive=True),
        stays_usable=False,
    ),
    Case(
        "stdout-that-raises",
        "import sys\nclass Bad:\n  def write(self, t): raise ValueError\n  flush = write\nsys.stdout = sys.stderr = Bad()",
        {"lean": ends(Status.OK, Status.ERROR, alive=True), "": ANYHOW},
        timeout_s=2,
        stays_usable=False,
    ),
    Case(
        "stdout-closed",
        "import sys\nsys.stdout.close(); sys.stderr.close()",
        ends(Status.OK, Status.ERROR, alive=True),
        stays_usable=False,
    ),
    Case("reset", "%reset -f", ok(), check=_prints),
    Case(
        "globals-cleared", "globals().clear()", ends(Status.OK, Status.ERROR, alive=True), stays_usable=False
    ),
    Case("no-get-ipython", "del get_ipython", ends(Status.OK, Status.ERROR, alive=True)),
    Case("no-print", "import builtins\ndel builtins.print", ok()),
    Case("gc-off", "import gc\ngc.disable(); gc.set_threshold(0); x = [[] for _ in range(10**5)]", ok()),
    Case("chdir", "import os\nos.chdir('/')", ok()),
    Case("environment-cleared", "import os\nos.environ.clear()", ok(), check=_prints),
    Case(
        "no-sys-path",
        "import sys\nsys.path.clear(); sys.meta_path.clear(); sys.path_hooks.clear()",
        ok(),
        check=_prints,
    ),
    Case("recursion-limit", "import sys\nsys.setrecursionlimit(60)", ANYHOW, stays_usable=False, timeout_s=2),
    Case(
        "recursion-into-c",
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        ANYHOW,
        stays_usable=False,
        timeout_s=1,
    ),
    _breaks(
        "no-builtins",
        "import builtins\nfor name in list(vars(builtins)):\n  if name not in ('delattr', 'builtins'): delattr(builtins, name)",
    ),
    _breaks("no-import", "import builtins\nbuiltins.__import__ = None"),
    _breaks("no-modules", "import sys\nsys.modules.clear()"),
    _breaks("json-lies", "import json\njson.dumps = lambda *a, **k: '{'; json.loads = lambda *a, **k: []"),
    _breaks("sockets-lie", "import socket\nsocket.socket.send = socket.socket.sendall = lambda *a: 0"),
    _breaks(
        "os-lies",
        "import os\nos.read = lambda *a: b''; os.write = lambda *a: 0; os.getpid = lambda: 1; os._exit = print",
    ),
    _breaks("struct-lies", "import struct\nstruct.pack = lambda *a: b'\\xff' * 9"),
    _breaks("time-lies", "import time\ntime.monotonic = time.perf_counter = time.time = lambda: -1e9"),
    _breaks(
        "len-lies", "import builtins\nbuiltins.len = lambda x: -1; builtins.isinstance = lambda *a: False"
    ),
    _breaks(
        "run-cell-none",
        "shell = get_ipython()\nshell.run_cell = shell.run_cell_async = shell.display_pub = shell.displayhook = None",
    ),
    _breaks(
        "showtraceback-raises",
        "get_ipython()._showtraceback = get_ipython().showtraceback = lambda *a: 1 / 0\n1 / 0",
    ),
    _breaks(
        "events-raise",
        "def f(*a): raise SystemExit\nfor e in ('pre_execute', 'pre_run_cell', 'post_run_cell', 'post_execute'): get_ipython().events.register(e, f)",
    ),
    _breaks(
        "transformers-raise",
        "def f(lines): raise RuntimeError\nget_ipython().input_transformers_cleanup.append(f)",
    ),
    _breaks(
        "ast-transformer-hangs",
        "class T:\n  def visit(self, node):\n    while True: pass\nget_ipython().ast_transformers.append(T())",
    ),
    _breaks("settrace", "import sys\ndef f(*a): raise ValueError\nsys.settrace(f); sys.setprofile(f)"),
    _breaks(
        "loop-closed",
        "import asyncio\nloop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); loop.close()",
    ),
    _breaks("loop-stopped", "import asyncio\nasyncio.get_event_loop_policy().get_event_loop().stop()"),
    _breaks("await-cancelled", "import asyncio\nasyncio.current_task().cancel()\nawait asyncio.sleep(1)"),
    _breaks("memory-overwritten", "import ctypes\nctypes.memset(id(None), 0xff, 16)"),
    _breaks(
        "stack-overwritten",
        "import ctypes\nb = ctypes.create_string_buffer(8)\nctypes.memset(b, 0x41, 1 << 24)",
    ),
    _breaks(
        "excepthook-and-unraisable",
        "import sys\nsys.excepthook = sys.unraisablehook = None\nclass B:\n  def __del__(self): 1 / 0\nB()",
    ),
    _breaks(
        "frames-walked",
        "import sys\nf = sys._getframe()\nwhile f:\n  f.f_globals.clear() if f.f_back is None else None\n  f = f.f_back",
    ),
    _breaks(
        "kernel-code-replaced",
        "import gc, types\nfor f in gc.get_objects():\n  if isinstance(f, types.FunctionType) and 'inside' in f.__code__.co_filename: f.__code__ = (lambda *a, **k: None).__code__",
    ),
    Case(
        "status-withheld",
        "get_ipython().kernel._publish_status = lambda *a, **k: None",
        ends(Status.PROTOCOL, alive=False),
        kernel="ipykernel",
    ),
    _breaks(
        "session-garbled", "get_ipython().kernel.session.send = lambda *a, **k: None", kernel="ipykernel"
    ),
    _breaks("iopub-stopped", "get_ipython().kernel.iopub_thread.stop()", kernel="ipykernel"),
    _breaks("io-loop-stopped", "get_ipython().kernel.io_loop.stop()", kernel="ipykernel"),
    _breaks("abort-queues", "get_ipython().kernel._aborting = True", kernel="ipykernel"),
)
