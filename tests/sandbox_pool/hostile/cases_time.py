"""Attacks with time: cells that do not end, and that do not want to be interrupted."""

from __future__ import annotations

from sandbox_pool import Status
from tests.sandbox_pool.hostile.case import ANYHOW, HANG_S, Case, died, ends, ok, raises, timeout


def _hang(name: str, cell: str, *, alive: bool | None = None) -> Case:
    return Case(name, cell, timeout(alive=alive), timeout_s=HANG_S)


CASES = (
    _hang("busy", "while True: pass", alive=True),
    _hang("sleep", "import time\ntime.sleep(1000)", alive=True),
    _hang(
        "lock",
        "import threading\nthreading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
        alive=True,
    ),
    _hang(
        "join",
        "import threading, time\nt = threading.Thread(target=time.sleep, args=(1000,), daemon=True); t.start(); t.join()",
        alive=True,
    ),
    _hang("subprocess", "import subprocess\nsubprocess.run(['sleep', '1000'])", alive=True),
    _hang("shell-command", "!sleep 1000", alive=True),
    _hang("bash-magic", "%%bash\nsleep 1000", alive=True),
    _hang("await-forever", "import asyncio\nawait asyncio.Event().wait()", alive=True),
    _hang("read-from-a-pipe", "import os\nos.read(os.pipe()[0], 1)", alive=True),
    _hang(
        "interrupt-ignored",
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        alive=False,
    ),
    Case(
        "interrupt-blocked",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True: pass",
        {"lean": timeout(alive=False), "": timeout()},  # ipykernel has other threads, that hear it
        timeout_s=HANG_S,
    ),
    _hang(
        "interrupt-swallowed",
        "import time\nwhile True:\n  try: time.sleep(1000)\n  except BaseException: pass",
        alive=False,
    ),
    _hang("slow-clean-up", "import time\ntry: time.sleep(1000)\nfinally: time.sleep(1000)", alive=False),
    _hang("regex", "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')"),
    _hang("big-integer", "x = 10 ** 10 ** 8"),
    _hang("integer-to-text", "import sys\nsys.set_int_max_str_digits(0)\nx = str(1 << 40_000_000)"),
    _hang("c-call", "import numpy as np\nnp.linalg.svd(np.random.rand(1500, 1500))"),
    Case(
        "timer-storm",
        """
import signal
def f(*_): raise ValueError
signal.signal(signal.SIGALRM, f)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while True:
    try:
        while True: pass
    except ValueError: pass
""",
        ANYHOW,
        timeout_s=HANG_S,
        stays_usable=False,
    ),
    Case(
        "timer-between-cells",
        """
import signal
def f(*_): raise ValueError('late')
signal.signal(signal.SIGALRM, f)
_ = signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
""",
        ANYHOW,
        timeout_s=2,
        stays_usable=False,
    ),
    Case("alarm", "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(9)", died()),
    Case("input", "input()", raises("StdinNotImplementedError")),
    Case("getpass", "import getpass\ngetpass.getpass()", raises("StdinNotImplementedError")),
    Case("breakpoint", "breakpoint()\nx = 1", ends(Status.ERROR, Status.OK), timeout_s=10),
    Case("debugger", "import pdb\npdb.set_trace()\nx = 1", ends(Status.ERROR, Status.OK), timeout_s=10),
    Case(
        "read-stdin",
        "import sys\nprint(repr(sys.stdin.read()))",
        ends(Status.OK, Status.ERROR, alive=True),
        timeout_s=10,
    ),
    Case("read-descriptor-0", "import os\nprint(os.read(0, 10))", ok(r"b''\n"), timeout_s=10),
    Case(
        "exit-handler-that-hangs",
        "import atexit, time\natexit.register(time.sleep, 1000)\nexit()",
        ends(Status.OK, alive=False),
    ),
    Case(
        "thread-that-outlives-exit",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nexit()",
        ends(Status.OK, alive=False),
    ),
    Case(
        "destructor-that-hangs",
        "import time\nclass Bad:\n  def __del__(self): time.sleep(1000)\nx = Bad()\nexit()",
        ends(Status.OK, alive=False),
    ),
    Case(
        "interrupts-eaten",
        """
import os, select
own = set()
for fd in range(3, 256):
    try:
        if 'pipe' in os.readlink(f'/proc/self/fd/{fd}'): os.set_blocking(fd, False); own.add(fd)
    except OSError: pass
while True:
    for fd in own:
        try: os.read(fd, 100)
        except OSError: pass
""",
        timeout(),
        timeout_s=HANG_S,
    ),
)
