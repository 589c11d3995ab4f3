"""What may break into a cell, and what it must never break: the frames, the idle message, the next cell."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox_pool.inside.kernel_process import Kernel, KernelServer

pytestmark = pytest.mark.kernel


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[KernelServer]:
    server = KernelServer()
    yield server
    server.close()


@pytest.fixture(name="kernel")
def _kernel(server: KernelServer, tmp_path: Path) -> Iterator[Kernel]:
    kernel = server.start(tmp_path)
    kernel.wait_until_ready()
    yield kernel
    kernel.kill()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("while True: pass", "KeyboardInterrupt"),
        ("import time; time.sleep(100)", "KeyboardInterrupt"),
        ("import threading; threading.Event().wait()", "KeyboardInterrupt"),
        ("import subprocess; subprocess.run(['sleep', '100'])", "KeyboardInterrupt"),
        ("!sleep 100", "KeyboardInterrupt"),
        ("import asyncio; await asyncio.sleep(100)", "CancelledError"),
        ("import asyncio; await asyncio.sleep(0)\nwhile True: pass", "KeyboardInterrupt"),
        ("import asyncio\nasyncio.run(asyncio.sleep(100))", "KeyboardInterrupt"),
        ("while True: print('x' * 100)", "KeyboardInterrupt"),
    ],
)
def test_interrupt(kernel: Kernel, code: str, name: str) -> None:
    """An interrupt ends the cell at once, with one error; what was printed before is kept, the kernel goes on."""
    kernel.run("kept = 1")
    seen = kernel.run(f"print('started')\n{code}", interrupt_on="started")
    assert seen.error is not None
    (error,) = seen.contents("error")
    # while its text is printed a cell awaits nothing yet; one that awaits is cancelled there
    assert error["ename"] in (name, "KeyboardInterrupt", *(["CancelledError"] if "await" in code else []))
    assert (seen.reply["status"], seen.reply["ename"]) == ("error", error["ename"])
    assert seen.stdout.startswith("started\n")
    assert seen.duration_s < 5
    assert kernel.run("kept").result == "1"
    assert kernel.run("import asyncio; await asyncio.sleep(0.01, 3)").result == "3"


def test_outside_signals_are_ignored(kernel: Kernel) -> None:
    """SIGINT and SIGTERM that init did not announce change nothing, in a cell and between cells."""
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(kernel.pid, number)
    kernel.post(
        "execute_request", {"code": "print('on')\nimport time\nfor _ in range(30): time.sleep(0.01)\n5"}
    )
    for _ in range(10):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(kernel.pid, number)
        time.sleep(0.01)
    seen = kernel.wait_for_idle()
    assert (seen.result, seen.error) == ("5", None)


def test_late_interrupt_does_not_hit_the_next_cell(kernel: Kernel) -> None:
    """One that comes when its cell is over is forgotten."""
    for _ in range(20):
        kernel.run("1")
        kernel.interrupt()
        assert kernel.run("2").result == "2"


def test_interrupt_after_the_code_has_changed_the_handler(kernel: Kernel) -> None:
    """A cell's own handler serves its cell; the next cell can be interrupted again."""
    kernel.run("import signal; _ = signal.signal(signal.SIGINT, signal.SIG_IGN)")
    seen = kernel.run("print('on')\nwhile True: pass", interrupt_on="on")
    assert seen.error == ("KeyboardInterrupt", "")


def test_children_can_be_ended(kernel: Kernel) -> None:
    """Programs that a cell starts, and processes that it forks, have the usual signal handlers."""
    code = (
        "import subprocess, os, signal, time\n"
        "p = subprocess.Popen(['sleep', '100']); p.terminate(); a = p.wait()\n"
        "pid = os.fork()\n"
        "if pid == 0: time.sleep(100)\n"
        "os.kill(pid, signal.SIGTERM); b = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "(a, b)"
    )
    assert kernel.run(code).result == "(-15, -15)"


@pytest.mark.parametrize("action", ["interrupt", "alarm", "thread"])
def test_no_frame_is_torn(kernel: Kernel, action: str) -> None:
    """Whatever is raised into a cell that prints without end, every frame is whole and idle comes."""
    setup = {
        "interrupt": "",
        "alarm": "import signal\ndef stop(*_): raise TimeoutError\nsignal.signal(signal.SIGALRM, stop)\nsignal.setitimer(signal.ITIMER_REAL, {delay})\n",
        "thread": (
            "import ctypes, threading, time\nmain = threading.get_ident()\n"
            "def stop():\n    time.sleep({delay})\n"
            "    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(TimeoutError))\n"
            "threading.Thread(target=stop).start()\n"
        ),
    }[action]
    printed = "".join(f"{n} {'x' * (n % 3000)}" + ("" if n % 7 else "\n") for n in range(1, 20_000))
    names = {"KeyboardInterrupt"} if action == "interrupt" else {"TimeoutError"}
    for n in range(25):
        code = (
            setup.replace("{delay}", str(0.002 + n * 0.0007))
            + "print('on')\nn = 0\nwhile True:\n    n += 1\n    print(n, 'x' * (n % 3000), end='' if n % 7 else '\\n')"
        )
        seen = kernel.run(code, interrupt_on="on" if action == "interrupt" else None)
        assert seen.error is not None
        assert seen.error[0] in names
        assert printed.startswith(seen.stdout.removeprefix("on\n"))
    assert kernel.run("1").result == "1"


def test_late_alarm_loses_no_message(kernel: Kernel) -> None:
    """A cell's own alarm that rings when the cell is over, or ends, costs neither a reply nor an idle."""
    kernel.run("import signal\ndef ring(*_): raise TimeoutError\n_ = signal.signal(signal.SIGALRM, ring)")
    for n in range(150):
        seen = kernel.run(f"_ = signal.setitimer(signal.ITIMER_REAL, {0.0001 + n * 0.00001:.6f})")
        assert seen.reply["status"] in ("ok", "error")
    assert kernel.run("signal.setitimer(signal.ITIMER_REAL, 0); 1").result == "1"


def test_handler_that_prints(kernel: Kernel) -> None:
    """A signal handler that prints while the cell is printing loses nothing and tears nothing."""
    code = (
        "import signal\nrings = 0\ndef ring(*_):\n    global rings\n    rings += 1; print('ring')\n"
        "signal.signal(signal.SIGALRM, ring); signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n"
        "for n in range(5000): print('line')\n"
        "signal.setitimer(signal.ITIMER_REAL, 0, 0); print('rings', rings)"
    )
    seen = kernel.run(code)
    assert seen.stdout.count("line") == 5000
    # one may ring within another, between its text and its line's end
    assert seen.stdout.count("ring") - seen.stdout.count("rings") == int(seen.stdout.split()[-1]) > 3


def test_interrupt_while_nobody_reads(kernel: Kernel) -> None:
    """A cell that waits for its reader, and its kernel, are interrupted as any other."""
    kernel.post("execute_request", {"code": "while True: print('x' * 10_000)"})
    time.sleep(0.3)
    kernel.interrupt()
    time.sleep(0.1)
    seen = kernel.wait_for_idle()
    assert seen.error == ("KeyboardInterrupt", "")


def test_end_while_a_cell_runs(server: KernelServer, tmp_path: Path) -> None:
    """A cell that prints when the manager is gone ends with its kernel."""
    kernel = server.start(tmp_path)
    kernel.wait_until_ready()
    kernel.post("execute_request", {"code": "while True: print('x')"})
    time.sleep(0.05)
    assert kernel.close() == 0
