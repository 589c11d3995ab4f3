"""The lean kernel on its private channel, cell by cell. No isolation, one fork each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox_pool.inside.kernel_process import Kernel, KernelServer, Outcome

pytestmark = pytest.mark.kernel


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[KernelServer]:
    server = KernelServer(["numpy", "pandas", "matplotlib.pyplot"])
    yield server
    server.close()


@pytest.fixture(name="kernel")
def _kernel(server: KernelServer, tmp_path: Path) -> Iterator[Kernel]:
    kernel = server.start(tmp_path, seed=7)
    kernel.wait_until_ready()
    yield kernel
    kernel.kill()


def kinds(outcome: Outcome) -> list[str]:
    """Return what came, pieces of one stream as one."""
    return [kind for kind, _ in itertools.groupby(outcome.events, key=lambda event: event[0])]


# -- the template


def test_template_is_clean(server: KernelServer) -> None:
    """Preparing leaves one thread, and no descriptor that kernels would share."""
    assert server.facts["n_threads"] == 1
    assert len(server.facts["fds"]) == 5  # the usual three, the control socket and the listing itself


def test_first_cell_finds_nothing_of_the_warm_up(kernel: Kernel) -> None:
    """No variable, history, figure or event loop of the zygote's own cells is there."""
    code = (
        "import matplotlib.pyplot, linecache, sys, asyncio, warnings\n"
        "names = sorted(n for n in globals() if not n.startswith('_') and n not in ('In', 'Out', 'get_ipython', 'exit', 'quit', 'open'))\n"
        "print(names, In, Out, _, matplotlib.pyplot.get_fignums(), get_ipython().execution_count)\n"
        "print(hasattr(sys, 'last_value'), [k for k in linecache.cache if 'ipython-input' in k][1:], asyncio.get_event_loop_policy()._local._loop)"
    )
    seen = kernel.run(code)
    assert seen.error is None
    assert seen.stdout.splitlines()[0] == (
        "['asyncio', 'linecache', 'matplotlib', 'sys', 'warnings'] [''] {}  [] 1"
    )
    assert seen.stdout.splitlines()[1].startswith("False [] ")


def test_nothing_of_ours_can_be_imported(kernel: Kernel) -> None:
    """Neither sys.modules nor the search path leads to the kernel's own modules or the project."""
    seen = kernel.run(
        "import sys\nprint([m for m in sys.modules if 'sandbox_pool' in m])\nimport sandbox_pool"
    )
    assert seen.stdout == "[]\n"
    assert seen.error == ("ModuleNotFoundError", "No module named 'sandbox_pool'")


def test_files_of_the_code_can_be_imported(kernel: Kernel) -> None:
    """A module that a cell writes is found by the next cell."""
    kernel.run("%%writefile helper.py\nvalue = 5")
    assert kernel.run("import helper\nhelper.value").result == "5"


def test_seed(server: KernelServer, tmp_path: Path) -> None:
    """The same seed gives the same numbers, another or none others; a seed_request seeds anew."""
    code = "import random, numpy\n(random.random(), numpy.random.rand())"
    results = []
    for seed in (1, 1, 2, None, None):
        kernel = server.start(tmp_path, seed=seed)
        kernel.wait_until_ready()
        results.append(kernel.run(code).result)
        if seed is None:
            assert kernel.request("seed_request", {"seed": 1}).reply == {"status": "ok"}
            assert kernel.run(code).result == results[0]
        kernel.kill()
    assert results[0] == results[1]
    assert len(set(results)) == 4


def test_home_is_the_kernels_own(kernel: Kernel, tmp_path: Path) -> None:
    """Folders that the zygote could not know are this kernel's: home, temporary files, IPython's store."""
    code = (
        "import os, tempfile\nprint(os.path.expanduser('~'), tempfile.gettempdir(), get_ipython().ipython_dir,"
        " get_ipython().profile_dir.location, _dh)\nkept = 3\n%store kept"
    )
    seen = kernel.run(code)
    home = str(tmp_path)
    assert seen.stdout.splitlines()[0] == (
        f"{home} {home} {home}/.ipython {home}/.ipython/profile_default ['{home}']"
    )
    assert "Stored 'kept' (int)" in seen.stdout
    assert kernel.run("del kept\n%store -r kept\nkept").result == "3"


# -- what a cell shows


def test_trivial_cell_is_one_send(kernel: Kernel) -> None:
    """Busy, result, reply and idle leave in one piece."""
    kernel.run("1")
    seen = kernel.run("1 + 1")
    assert (seen.result, seen.reply["status"], seen.n_reads) == ("2", "ok", 1)


def test_everything_in_order(kernel: Kernel) -> None:
    """What Python prints, displays and returns, and what bypasses Python, comes in the order of the code.

    (Of bytes that bypass it by both descriptors, with nothing of Python's in between, nobody knows the order.)
    """
    code = (
        "import os, sys, subprocess\n"
        "print('a'); os.system('echo b'); print('c', file=sys.stderr); os.write(1, b'd\\n'); display('e')\n"
        "os.write(2, b'f\\n'); print('F'); subprocess.run(['echo', 'g']); print('h'); !echo i\n"
        "'j'"
    )
    seen = kernel.run(code.replace("; !echo i", "\n!echo i"))
    shown = [
        (kind, "".join(v if isinstance(v, str) else v["data"]["text/plain"] for _, v in events))
        for kind, events in itertools.groupby(seen.events, key=lambda event: event[0])
    ]
    assert shown == [
        ("stdout", "a\n"), ("raw", "b\n"), ("stderr", "c\n"), ("raw", "d\n"), ("display_data", "'e'"),
        ("raw stderr", "f\n"), ("stdout", "F\n"), ("raw", "g\n"), ("stdout", "h\n"), ("raw", "i\n"), ("execute_result", "'j'"),
    ]  # fmt: skip


def test_partial_lines_are_joined_and_arrive(kernel: Kernel) -> None:
    """Text without newlines comes in few pieces, and complete."""
    seen = kernel.run("for n in range(1000): print('.', end='')")
    assert seen.stdout == "." * 1000
    assert seen.n_reads <= 5


def test_ids_may_repeat(kernel: Kernel) -> None:
    """Two requests with the same id are two requests."""
    for n in (1, 2):
        kernel.post("execute_request", {"code": str(n)}, msg_id="again")
        assert kernel.wait_for_idle().result == str(n)


def test_large_text(kernel: Kernel) -> None:
    """Texts larger than a frame, in several scripts, arrive whole."""
    seen = kernel.run("print('é漢😀' * 100_000)\nimport sys; sys.stderr.write('x' * 1_000_000); None")
    assert seen.stdout == "é漢😀" * 100_000 + "\n"
    assert seen.stderr == "x" * 1_000_000


def test_large_result(kernel: Kernel) -> None:
    """A result of megabytes arrives whole; where the manager names a limit it is cut there."""
    assert len(kernel.run("'x' * 5_000_000").result or "") == 5_000_002


def test_result_is_cut_at_the_managers_limit(server: KernelServer, tmp_path: Path) -> None:
    """What is longer than max_message_chars does not cross the channel."""
    kernel = server.start(tmp_path, max_sizes=[1000, 2000])
    kernel.wait_until_ready()
    assert len(kernel.run("'x' * 5_000_000").result or "") == 2000
    kernel.kill()


def test_odd_text(kernel: Kernel) -> None:
    """Lone surrogates, NULs and colours arrive as text."""
    seen = kernel.run("print('a\\ud800b\\0\\x1b[1mc')\n'\\ud800'")
    assert seen.stdout == "a\\ud800b\0\x1b[1mc\n"
    assert seen.result == "'\\ud800'"
    assert kernel.run("x = '\ud800'; len(x)").result == "1"


def test_odd_mime_values(kernel: Kernel) -> None:
    """NaN, bytes, dates and numpy numbers in a display are written as Jupyter does; the rest is the code's error."""
    code = (
        "import datetime, numpy\n"
        "display({'application/json': {'a': float('nan'), 'b': b'\\0', 'c': datetime.date(2020, 1, 2), 'd': numpy.int64(3), 'e': {1}}}, raw=True)\n"
        "display({'application/json': object()}, raw=True)"
    )
    seen = kernel.run(code)
    (content,) = seen.contents("display_data")
    value = content["data"]["application/json"]
    assert value.pop("a") != 0
    assert value == {"b": "AA==", "c": "2020-01-02", "d": 3, "e": [1]}
    assert seen.error is not None
    assert seen.error[0] == "TypeError"


def test_displays_are_updated_and_cleared(kernel: Kernel) -> None:
    """display_id, update_display and clear_output are messages of their own."""
    code = (
        "from IPython.display import clear_output, display, update_display\n"
        "handle = display('one', display_id='x'); update_display('two', display_id='x'); clear_output(wait=True)"
    )
    seen = kernel.run(code)
    assert kinds(seen) == ["display_data", "update_display_data", "clear_output"]
    assert [c.get("transient") for _, c in seen.events[:2]] == [{"display_id": "x"}] * 2
    assert seen.events[2][1] == {"wait": True}


def test_figures(kernel: Kernel) -> None:
    """A figure is shown once at the end of its cell, at once by plt.show(), and never again."""
    seen = kernel.run("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\nprint('after')")
    assert (kinds(seen), seen.n_images) == (["stdout", "display_data"], 1)
    seen = kernel.run("_ = plt.plot([1, 2])\nplt.show()\nprint('after')\nfig, ax = plt.subplots()")
    assert (kinds(seen), seen.n_images) == (["display_data", "stdout", "display_data"], 2)
    assert kernel.run("1").n_images == 0
    assert kernel.run("%matplotlib inline\n_ = plt.plot([1, 2])").n_images == 1
    assert (
        kernel.run("import matplotlib\nmatplotlib.use('agg')\n_ = plt.plot([1, 2])\nplt.show()").n_images == 0
    )


def test_pandas_prints_as_in_a_notebook(kernel: Kernel) -> None:
    """Tables have html, and as many columns as in a notebook rather than as fit into a terminal."""
    seen = kernel.run(
        "import pandas as pd\ndf = pd.DataFrame([range(30)])\nprint(df)\nprint(pd.get_option('display.max_columns'))\ndf"
    )
    assert seen.stdout.splitlines()[-1] == "20"
    assert "..." in seen.stdout
    assert "text/html" in seen.contents("execute_result")[0]["data"]


# -- errors


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("def f(:", "SyntaxError", "invalid syntax (<ipython-input-...>, line 1)"),
        ("if 1:\nx", "IndentationError", "expected an indented block after 'if' statement on line 1 (<ipython-input-...>, line 2)"),
        ("raise SystemExit(3)", "SystemExit", "3"),
        ("input()", "StdinNotImplementedError", "raw_input was called, but this frontend does not support input requests."),
        ("import getpass; getpass.getpass()", "StdinNotImplementedError", "getpass was called, but this frontend does not support input requests."),
        ("class E(Exception):\n  def __str__(self): raise ValueError\nraise E", "E", "<E whose text cannot be made>"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("%%bash\nexit 3", "CalledProcessError", "Command 'b'exit 3\\n'' returned non-zero exit status 3."),
        ("def f(): f()\nf()", "RecursionError", "maximum recursion depth exceeded"),
        ("return 1", "SyntaxError", "'return' outside function (<ipython-input-...>, line 1)"),
        ("def f(): 1/0\nf.__code__ = f.__code__.replace(co_linetable=b'')\nf()", "ZeroDivisionError", "division by zero"),
    ],
)  # fmt: skip
def test_errors(kernel: Kernel, code: str, name: str, value: str) -> None:
    """An error is one message with name, value and a traceback without colours, and the reply says the same."""
    seen = kernel.run(code)
    (error,) = seen.contents("error")
    shown = re.sub(
        r"<ipython-input-[^>]*>, line (\d)", lambda m: f"<ipython-input-...>, line {m[1]}", error["evalue"]
    )
    assert (error["ename"], shown) == (name, value)
    assert {key: seen.reply[key] for key in ("status", *error)} == {"status": "error", **error}
    assert "\x1b" not in "".join(error["traceback"])
    assert kernel.run("1").result == "1"


def test_usage_error_of_a_magic(kernel: Kernel) -> None:
    """A wrong magic is told on stderr, and the reply is an error."""
    seen = kernel.run("%nosuchmagic")
    assert "UsageError: Line magic function `%nosuchmagic` not found." in seen.stderr
    assert (seen.reply["status"], seen.reply["ename"], seen.error) == ("error", "UsageError", None)


def test_exception_group(kernel: Kernel) -> None:
    """IPython writes the tree of an exception group to stderr, and the reply is an error."""
    seen = kernel.run("raise ExceptionGroup('two', [ValueError(1), KeyError(2)])")
    assert "ExceptionGroup: two (2 sub-exceptions)" in seen.stderr
    assert (seen.reply["status"], seen.reply["evalue"]) == ("error", "two (2 sub-exceptions)")


def test_repr_that_raises(kernel: Kernel) -> None:
    """A result whose repr raises is an error of the cell."""
    seen = kernel.run("class A:\n  def __repr__(self): raise ValueError('odd')\nA()")
    assert seen.error == ("ValueError", "odd")
    assert seen.reply["status"] == "error"


# -- IPython's own


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("x = !printf 'a\\nb'\nprint(x)", "['a', 'b']\n"),
        ("name = 'there'\n!echo hello {name}", "hello there\n"),
        ("%%bash\necho shell", "shell\n"),
        ("!exit 3\nprint(_exit_code)", "3\n"),
        ("!echo err >&2", "err\n"),
        ("%cd -q /\nimport os\nprint(os.getcwd())", "/\n"),
        ("%%capture caught\nprint('x'); display(1)\n", ""),
        ("%%writefile f.py\nprint('run')\n", "Writing f.py\n"),
        ("%env GREETING=hi\n!echo $GREETING", "env: GREETING=hi\nhi\n"),
        (
            "%alias_magic t timeit",
            "Created `%t` as an alias for `%timeit`.\nCreated `%%t` as an alias for `%%timeit`.\n",
        ),
        ("!cat", ""),
    ],
)
def test_magics_and_commands(kernel: Kernel, code: str, stdout: str) -> None:
    """Magics and commands write what they write elsewhere; a command that reads finds nothing to read."""
    seen = kernel.run(code)
    assert (seen.stdout, seen.reply["status"]) == (stdout, "ok")


def test_timeit_run_and_time(kernel: Kernel) -> None:
    """%timeit, %run, %time and %%timeit work."""
    kernel.run("%%writefile f.py\nprint('run', __name__)")
    assert kernel.run("%run f.py").stdout == "run __main__\n"
    assert "per loop" in kernel.run("%timeit -n1 -r1 1").stdout
    assert "Wall time" in kernel.run("%time 1").stdout


def test_pip_without_a_network_says_so(server: KernelServer, tmp_path: Path) -> None:
    """A failed `pip install` is followed by what the reason is."""
    kernel = server.start(tmp_path, environment={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"})
    kernel.wait_until_ready()
    for code in ("!pip install nosuchpackage", "!false && pip install nosuchpackage"):
        seen = kernel.run(code)
        assert "This sandbox has no network: only packages in /wheels can be installed." in seen.stderr
    assert "no network" not in kernel.run("!false").stderr
    kernel.kill()


def test_payloads(kernel: Kernel) -> None:
    """Help goes into the reply, set_next_input too, and neither into a later one."""
    assert kernel.run("print?").reply["payload"][0]["source"] == "page"
    reply = kernel.run("get_ipython().set_next_input('x = 1')").reply
    assert reply["payload"] == [{"source": "set_next_input", "text": "x = 1", "replace": False}]
    assert kernel.run("1").reply["payload"] == []


def test_user_expressions(kernel: Kernel) -> None:
    """They are evaluated after the cell; one that fails spoils nothing."""
    reply = kernel.run("a = 2", user_expressions={"x": "a + 1", "y": "nosuch"}).reply
    assert reply["user_expressions"]["x"]["data"] == {"text/plain": "3"}
    assert reply["user_expressions"]["y"]["ename"] == "NameError"


def test_silent_and_counted_cells(kernel: Kernel) -> None:
    """A silent cell shows no result; one with store_history is counted and remembered."""
    assert kernel.run("5", silent=True).result is None
    assert kernel.run("5", store_history=True).reply["execution_count"] == 1
    assert kernel.run("_ + 1", store_history=True).result == "6"
    assert kernel.run("(In[1], Out[2])").result == "('5', 6)"


def test_what_libraries_look_for(kernel: Kernel) -> None:
    """The names by which pandas, tqdm, rich and widgets recognise a notebook are there, and comms do not crash."""
    code = (
        "ip = get_ipython()\n"
        "import comm\n"
        "c = comm.create_comm(target_name='x', data={}); c.send({'a': 1}); c.close()\n"
        "print(type(ip).__name__, 'IPKernelApp' in ip.config, ip.kernel.get_parent()['header']['msg_type'], ip.kernel.comm_manager is not None)"
    )
    assert kernel.run(code).stdout == "ZMQInteractiveShell True execute_request True\n"


# -- asyncio


def test_asyncio(kernel: Kernel) -> None:
    """Top-level await and asyncio.run() work, in the same kernel and in any order."""
    assert kernel.run("import asyncio\nawait asyncio.sleep(0.01, 5)").result == "5"
    assert kernel.run("asyncio.run(asyncio.sleep(0.01, 6))").result == "6"
    assert kernel.run("await asyncio.sleep(0.01, 7)").result == "7"
    assert kernel.run("asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 8))").result == "8"
    assert kernel.run("async for _ in (lambda: (yield))(): pass").error is not None


def test_tasks_of_earlier_cells_go_on(kernel: Kernel) -> None:
    """A task made in one cell, with or without await, goes on while a later cell awaits."""
    kernel.run(
        "import asyncio\nasync def work():\n    await asyncio.sleep(0.01)\n    return 9\ntask = asyncio.create_task(work())"
    )
    assert kernel.run("await task").result == "9"
    kernel.run(
        "queue = asyncio.Queue()\nasync def fill():\n    await queue.put(1)\nt = asyncio.ensure_future(fill())"
    )
    assert kernel.run("await queue.get()").result == "1"


# -- threads and processes


def test_threads_print(kernel: Kernel) -> None:
    """Output of threads is whole; what they print after their cell is not lost to the protocol."""
    code = (
        "import threading, time\n"
        "def work(n):\n    for i in range(50): print(f'{n}:{i}')\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "def late():\n    time.sleep(0.05); print('late')\nt = threading.Thread(target=late); t.start()"
    )
    seen = kernel.run(code)
    assert sorted(seen.stdout.split()) == sorted(f"{n}:{i}" for n in range(5) for i in range(50))
    assert kernel.run("t.join()\nprint('next')").stdout.endswith("next\n")


def test_forked_child_does_not_speak_for_the_kernel(kernel: Kernel) -> None:
    """Of os.fork() in a cell the parent goes on; the child's prints come as raw output, and it ends with the cell."""
    seen = kernel.run(
        "import os\nprint('once', end='')\npid = os.fork()\nprint(pid == 0)\nif pid: os.waitpid(pid, 0)\npid == 0"
    )
    assert seen.result == "False"
    assert sorted(seen.stdout.split()) == sorted(["onceFalse", "True"])
    assert ("raw", "True\n") in seen.events
    seen = kernel.run(
        "pid = os.fork()\nif pid == 0: 1/0\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert seen.stdout == "1\n"
    assert "ZeroDivisionError" in seen.stderr
    assert seen.error is None


def test_multiprocessing(kernel: Kernel) -> None:
    """A pool of processes works, and can be terminated."""
    code = (
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
        "p = multiprocessing.get_context('fork').Process(target=__import__('time').sleep, args=(100,)); p.start(); p.terminate(); p.join(); p.exitcode"
    )
    seen = kernel.run(code)
    assert (seen.stdout, seen.result) == ("[1, 2]\n", "-15")


def test_children_inherit_nothing(kernel: Kernel) -> None:
    """A program that a cell starts has the three usual descriptors and default signals."""
    seen = kernel.run(
        "import os\nos.system('ls /proc/self/fd; grep -E \"Sig(Ign|Blk)\" /proc/self/status')", timeout_s=10
    )
    numbers = [word for word in seen.stdout.split() if word.isdigit() and len(word) < 4]
    assert numbers == ["0", "1", "2", "3"]  # 3 is the listing


def test_limits_are_errors(kernel: Kernel) -> None:
    """A broken pipe and a file over its limit are exceptions, not the end of the kernel."""
    code = (
        "import os, resource\nr, w = os.pipe(); os.close(r)\n"
        "try: os.write(w, b'x')\nexcept BrokenPipeError as error: print(error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\nwith open('f', 'wb') as f: f.write(bytes(200))"
    )
    seen = kernel.run(code)
    assert (seen.stdout, seen.error) == ("32\n", ("OSError", "[Errno 27] File too large"))


def test_flood_of_a_child_does_not_stop_the_cell(kernel: Kernel) -> None:
    """A child that writes without end delays what is printed, but only by so much in all."""
    code = (
        "import subprocess, time\np = subprocess.Popen(['sh', '-c', 'while :; do echo flood; done'])\n"
        "for n in range(20): print('line', n)\np.kill(); p.wait()"
    )
    seen = kernel.run(code)
    assert [value for kind, value in seen.events if kind == "stdout" and "line" in value] != []
    assert sum(value.count("line") for kind, value in seen.events if kind == "stdout") == 20
    assert seen.duration_s < 6


# -- cells that break things


@pytest.mark.parametrize(
    "code",
    [
        "import sys, io\nsys.stdout = sys.stderr = io.StringIO()\nprint('x')",
        "import sys\nsys.stdout = None",
        "import sys\nsys.stdout.close(); sys.stderr.close()",
        "import sys\nclass S:\n  def flush(self): raise OSError\n  write = flush\nsys.stdout = S()",
        "import sys\ndel sys.stdout, sys.stderr",
        "import builtins\ndel builtins.print, builtins.input",
        "%reset -f",
        "del get_ipython",
        "import sys\nsys.settrace(lambda *a: 1/0)",
        "import gc; gc.disable()",
        "import sys; sys.setrecursionlimit(100)",
        "import os; os.close(0); os.close(1); os.close(2)",
        "get_ipython().display_pub = None; get_ipython().displayhook = None",
        "import sys; sys.displayhook = None",
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass",
        "import json, time, threading\njson.JSONEncoder.encode = time.monotonic = threading.RLock = None",
        "import os; os.chdir('/'); os.environ.clear()",
        "import sys; sys.modules.clear()",
        "import asyncio; asyncio.get_event_loop().close()",
    ],
)
def test_kernel_survives(kernel: Kernel, code: str) -> None:
    """Whatever the cell breaks, it ends, and the next one is run and answered."""
    seen = kernel.run(code)
    assert seen.reply["status"] in ("ok", "error")
    again = kernel.run("7 * 6")
    assert again.reply["status"] in ("ok", "error")
    assert not kernel.is_over


def test_exit_ends_the_kernel_after_the_cell(server: KernelServer, tmp_path: Path) -> None:
    """exit() lets its cell end, says so in the reply, and the kernel is gone with status 0."""
    kernel = server.start(tmp_path)
    kernel.wait_until_ready()
    seen = kernel.run("print('bye')\nexit()")
    assert (seen.stdout, seen.reply["status"]) == ("bye\n", "ok")
    assert seen.reply["payload"] == [{"source": "ask_exit", "keepkernel": False}]
    kernel.wait_for_end()
    assert kernel.close() == 0


def test_late_threads_do_not_delay_the_end(server: KernelServer, tmp_path: Path) -> None:
    """When the manager hangs up the kernel ends, whatever threads still run."""
    kernel = server.start(tmp_path)
    kernel.wait_until_ready()
    kernel.run("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()")
    assert kernel.close() == 0


# -- other requests


def test_other_requests(kernel: Kernel) -> None:
    """What Jupyter clients ask beside cells is answered."""
    info = kernel.request("kernel_info_request", {}).reply
    assert (info["protocol_version"], info["language_info"]["name"]) == ("5.4", "python")
    assert kernel.request("is_complete_request", {"code": "for x in y:"}).reply == {
        "status": "incomplete",
        "indent": "    ",
    }
    assert kernel.request("is_complete_request", {"code": "1"}).reply == {"status": "complete"}
    kernel.run("variable = 5")
    reply = kernel.request("complete_request", {"code": "x = varia", "cursor_pos": 9}).reply
    assert (reply["matches"], reply["cursor_start"], reply["cursor_end"]) == (["variable"], 4, 9)
    reply = kernel.request("inspect_request", {"code": "variable", "cursor_pos": 3, "detail_level": 0}).reply
    assert reply["found"]
    assert "int" in reply["data"]["text/plain"]
    assert not kernel.request("inspect_request", {"code": "nosuch", "cursor_pos": 3}).reply["found"]
    assert kernel.request("history_request", {}).reply == {"status": "ok", "history": []}
    assert kernel.request("comm_info_request", {}).reply == {"status": "ok", "comms": {}}
    assert kernel.request("interrupt_request", {}).reply == {"status": "ok"}
    assert kernel.request("complete_request", {"nonsense": 1}).reply["status"] == "error"
    kernel.request("nonsense_request", {})
    assert kernel.run("1").result == "1"
    assert kernel.request("shutdown_request", {"restart": True}).reply == {"status": "ok", "restart": True}
