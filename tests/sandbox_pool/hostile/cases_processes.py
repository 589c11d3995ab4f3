"""Attacks with processes and threads: too many, out of reach, or in the way of the kernel's end."""

from __future__ import annotations

from sandbox_pool import Status
from tests.sandbox_pool.hostile.case import (
    ANYHOW,
    HANG_S,
    Case,
    died,
    ends,
    ok,
    raises,
    timeout,
    unpromised,
)

CASES = (
    Case(
        "fork-bomb",
        "import os\nwhile True: os.fork()",
        {"lean": raises("BlockingIOError", "pids"), "": ANYHOW},
        needs="pids",
        stays_usable=False,
    ),
    Case(
        "fork-bomb-that-hides-errors",
        """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
        timeout(),
        timeout_s=HANG_S,
        needs="pids",
        stays_usable=False,
    ),
    Case(
        "shell-fork-bomb",
        "import os\nos.system('bomb() { bomb | bomb & }; bomb; sleep 0.2')\nprint('survived')",
        ends(Status.OK, Status.ERROR, Status.OUTPUT_LIMIT),
        needs="pids",
        stays_usable=False,
    ),
    Case(
        "fork-and-return",
        "import os\npid = os.fork()\nprint('once', flush=True)",
        {"lean": ends(Status.OK, alive=True), "": ANYHOW},
        stays_usable=False,
    ),
    Case(
        "fork-and-return-twice",
        "1 + 1",
        {"lean": ok(), "": ANYHOW},
        before=("import os\npid = os.fork()",),
        stays_usable=False,
    ),
    Case(
        "daemon",
        """
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(3, writer); os.write(writer, b'x')
        for n in (0, 1, 2): os.close(n)
        while True: time.sleep(1)
    os._exit(0)
os.wait(); print(os.read(reader, 1).decode())
""",
        ok("x\n"),
    ),
    Case(
        "daemon-that-holds-stdout",
        "import os\n_ = os.system('sleep 1000 & echo started')",
        ok("started\n"),
    ),
    Case(
        "daemon-that-floods-stdout",
        "import os, time\n_ = os.system('yes daemon >&1 2>&1 & echo started'); time.sleep(0.1)",
        ends(Status.OK, Status.OUTPUT_LIMIT, Status.TIMEOUT),
        timeout_s=4,
        stays_usable=False,
    ),
    Case(
        "process-that-changes-its-pid",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        try:
            if os.fork(): os._exit(0)
        except OSError: pass
time.sleep(0.2); print('runs')
""",
        ok("runs\n"),
        stays_usable=False,
    ),
    Case(
        "processes-that-restart-each-other",
        """
import os, signal, time
def guard(depth):
    os.setsid()
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP): signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        try: child = os.fork()
        except OSError: time.sleep(0.01); continue
        if child == 0:
            if depth: guard(depth - 1)
            while True: time.sleep(1)
        os.waitpid(child, 0)
if os.fork() == 0: guard(3)
time.sleep(0.1); print('runs')
""",
        ok("runs\n"),
    ),
    Case(
        "thread-bomb",
        """
import threading, time
threading.stack_size(65536)
for _ in range(1000): threading.Thread(target=time.sleep, args=(50,), daemon=True).start()
""",
        raises("RuntimeError", "pids"),
        needs="pids",
    ),
    Case(
        "kill-everyone",
        "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass\nprint('alive')",
        ok("alive\n"),
        needs="contained-signals",
    ),
    Case(
        "kill-init",
        """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP, signal.SIGSEGV, signal.SIGKILL):
    for pid in {1, os.getppid()}:
        try: os.kill(pid, number)
        except OSError: pass
print('alive')
""",
        {
            "namespace": ok("alive\n"),
            "root": ok("alive\n"),
            "landlock": ok("alive\n"),
            "": unpromised("shares its uid with the sandbox's guardian", ANYHOW),
        },
        needs="not-pid-1",
    ),
    Case(
        "kill-zygote-and-runner",
        """
import os, signal
for pid in (@RUNNER_PID@, @ZYGOTE_PID@):
    try: os.kill(pid, 0); print('could', pid)
    except OSError: pass
""",
        {
            "namespace": ok(""),
            "landlock": ok(""),
            "root": ok(""),
            "": unpromised("shares its uid with the runner", ok(r"(could \d+\n){2}")),
        },
    ),
    Case(
        "zombies",
        """
import os
for _ in range(15):
    if os.fork() == 0: os._exit(0)
for _ in range(60):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
print('ok')
""",
        ok("ok\n"),
    ),
    Case(
        "stop-itself",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        timeout(alive=False),
        timeout_s=HANG_S,
    ),
    Case(
        "stop-its-group",
        "import os, signal\nos.killpg(0, signal.SIGTSTP); import time; time.sleep(9)",
        timeout(),
        timeout_s=HANG_S,
    ),
    Case("kill-its-group", "import os, signal\nos.killpg(0, signal.SIGKILL)", died()),
    Case(
        "terminate-itself",
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nprint('alive')",
        ok("alive\n"),
    ),
    Case(
        "interrupt-itself",
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.05)\nprint('alive')",
        {"lean": ok("alive\n"), "": ends(Status.OK, Status.ERROR, alive=True)},
    ),
    Case(
        "children-get-default-signals",
        """
import subprocess
for name in ('TERM', 'INT', 'PIPE', 'HUP'):
    print(subprocess.run(['sh', '-c', f'kill -{name} $$; echo survived {name}'], capture_output=True, text=True).stdout, end='')
""",
        ok(""),
    ),
    Case(
        "posix-spawn-storm",
        """
import os
for _ in range(100):
    os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)
print('ok')
""",
        ok("ok\n"),
    ),
    Case(
        "ignored-children",
        "import signal, subprocess\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nfor _ in range(5): subprocess.run(['true'])\nprint('ok')",
        ok("ok\n"),
    ),
    Case(
        "multiprocessing-pool",
        """
import multiprocessing
def work(n): return n * n
with multiprocessing.get_context('fork').Pool(3) as pool: print(pool.map(work, range(5)))
""",
        {
            "landlock": ends(Status.OK, Status.ERROR),
            "": ok(r"\[0, 1, 4, 9, 16\]\n"),
        },
    ),
    Case(
        "orphan-with-a-new-name",
        """
import ctypes, os, time
if os.fork() == 0:
    os.setsid(); os.chdir('/')
    ctypes.CDLL(None).prctl(15, b'systemd', 0, 0, 0)
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    os.execve('/bin/sleep', ['[kworker/0:1]', '1000'], {})
time.sleep(0.05); print('ok')
""",
        ok("ok\n"),
    ),
)
