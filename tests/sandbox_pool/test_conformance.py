"""What every sandbox does, real or fake. The real ones run in kernels of this machine."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from sandbox_pool import (
    FakePool,
    KernelSandbox,
    Pool,
    PoolConfig,
    Sandbox,
    SandboxClosed,
    SandboxError,
    SandboxPathError,
    SandboxPool,
    Status,
    Stream,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.kernel]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes have uids of their own only under root")
CONFIG = PoolConfig(
    max_sandboxes=8,
    interrupt_grace_s=1,
    environment={"GREETING": "hello"},
    memory_bytes=2 << 30,
    max_file_bytes=32 << 20,
    max_read_bytes=1 << 20,
    max_collect_bytes=4 << 20,
    max_collect_depth=3,
)


@pytest_asyncio.fixture(name="pool", scope="module", loop_scope="module")
async def _pool() -> AsyncIterator[SandboxPool]:
    async with SandboxPool(CONFIG) as pool:
        yield pool
        assert pool.statistics().n_leased == 0


@pytest_asyncio.fixture(name="shared", scope="module", loop_scope="module")
async def _shared(pool: SandboxPool) -> AsyncIterator[KernelSandbox]:
    """One sandbox for all tests that leave it as it was."""
    async with pool.acquire() as sandbox:
        yield sandbox


@pytest_asyncio.fixture(name="fresh", loop_scope="module")
async def _fresh(pool: SandboxPool) -> AsyncIterator[KernelSandbox]:
    """A sandbox for one test, which may break it."""
    async with pool.acquire() as sandbox:
        yield sandbox


@pytest_asyncio.fixture(name="either", loop_scope="module", params=["fake", "kernel"])
async def _either(request: pytest.FixtureRequest, pool: SandboxPool) -> AsyncIterator[Sandbox]:
    """A sandbox of each kind."""
    source: Pool = pool if request.param == "kernel" else FakePool()
    async with source.acquire() as sandbox:
        yield sandbox


def alive(pids: list[int]) -> list[int]:
    """Return which of the processes still run."""
    return [pid for pid in pids if psutil.pid_exists(pid)]


# -- cells


async def test_state_persists(shared: KernelSandbox) -> None:
    """A variable of one cell is there in the next."""
    await shared.execute("kept = 41")
    assert (await shared.execute("kept + 1")).result == "42"


async def test_output_order(shared: KernelSandbox) -> None:
    """stdout, stderr, displays and the result come in the order in which the code made them."""
    code = (
        "import sys\nprint('a')\nprint('b', file=sys.stderr)\nsys.stderr.flush()\ndisplay(1)\nprint('c')\n'd'"
    )
    seen = await shared.execute(code)
    assert [getattr(output, "text", output.type) for output in seen.outputs] == [
        "a\n", "b\n", "display", "c\n", "result",
    ]  # fmt: skip
    assert (seen.status, seen.result, seen.kernel_alive) == (Status.OK, "'d'", True)
    assert seen.duration_s > 0


async def test_error_is_an_observation(shared: KernelSandbox) -> None:
    """An exception is observed with its name, value and a traceback without colour codes."""
    seen = await shared.execute("print('before')\n1/0")
    assert seen.status is Status.ERROR
    assert seen.error is not None
    assert (seen.error.ename, seen.error.evalue) == ("ZeroDivisionError", "division by zero")
    assert "----> 2 1/0" in seen.error.traceback
    assert "\x1b" not in seen.error.traceback
    assert seen.stdout == "before\n"


async def test_picture_is_bytes(shared: KernelSandbox) -> None:
    """A displayed PNG arrives as the bytes that it was."""
    code = (
        "from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100), format='png')"
    )
    seen = await shared.execute(code)
    (output,) = seen.outputs
    assert output.type == "result"
    assert output.data["image/png"] == b"\x89PNG\r\n\x1a\n" + bytes(100)


async def test_figure_is_inline(shared: KernelSandbox) -> None:
    """A matplotlib figure is displayed as a PNG without being asked to."""
    seen = await shared.execute("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])", timeout_s=40)
    pictures = [o.data["image/png"] for o in seen.outputs if o.type == "display"]
    assert len(pictures) == 1
    assert pictures[0][:4] == b"\x89PNG"


async def test_input_is_refused(shared: KernelSandbox) -> None:
    """input() is an error at once, not a wait."""
    seen = await shared.execute("input()")
    assert seen.error is not None
    assert seen.error.ename == "StdinNotImplementedError"


async def test_top_level_await_magics_and_commands(shared: KernelSandbox) -> None:
    """What a notebook allows works: top-level await, magics, shell commands."""
    seen = await shared.execute("import asyncio\nawait asyncio.sleep(0)\n!echo shell\n%pwd")
    assert "shell" in seen.stdout
    assert seen.result is not None
    assert seen.result.endswith("/work'")


async def test_odd_text_survives(shared: KernelSandbox) -> None:
    """Surrogates, NULs, colours and undecodable bytes become printable text, whichever way they come."""
    seen = await shared.execute("import os\nprint('a\\ud800\\0\\x1b[1mb')\n_ = os.write(1, b'\\xff\\xfe\\n')")
    seen.stdout.encode()
    assert seen.status in (Status.OK, Status.ERROR)
    assert (await shared.execute("x = '\ud800'; len(x)")).result == "1"


async def test_timeout_interrupts_and_keeps_state(fresh: KernelSandbox) -> None:
    """A cell past its deadline is interrupted; what it printed and the state before it stay."""
    await fresh.execute("kept = 1")
    seen = await fresh.execute("print('started')\nimport time\ntime.sleep(100)", timeout_s=0.5)
    assert (seen.status, seen.kernel_alive, seen.stdout) == (Status.TIMEOUT, True, "started\n")
    assert seen.duration_s < 3
    assert (await fresh.execute("kept")).result == "1"


async def test_uninterruptible_code_is_killed(fresh: KernelSandbox) -> None:
    """Code that ignores the interrupt is killed after the grace, its output kept."""
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\nwhile True: pass"
    seen = await fresh.execute(code, timeout_s=0.5)
    assert (seen.status, seen.kernel_alive, seen.stdout) == (Status.TIMEOUT, False, "on\n")
    again = await fresh.execute("1")
    assert (again.status, again.kernel_alive) == (Status.DIED, False)


async def test_one_cell_at_a_time(fresh: KernelSandbox) -> None:
    """A second cell while one runs is an error, and the first is not disturbed."""
    async with asyncio.TaskGroup() as group:
        first = group.create_task(fresh.execute("import time; time.sleep(0.2); 1"))
        await asyncio.sleep(0)
        with pytest.raises(SandboxError, match="a cell is running"):
            await fresh.execute("2")
    assert first.result().result == "1"


# -- limits


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(3_000_000): print('x' * 99)",
        "print('x' * 300_000_000)",
        "'x' * 200_000_000",
        "import os\nfor _ in range(300): os.write(1, b'x' * 1_000_000)",
    ],
    ids=["lines", "one text", "result", "descriptor"],
)
async def test_output_flood(fresh: KernelSandbox, code: str) -> None:
    """300 MB of output ends the cell with output_limit; our memory stays bounded, and the kernel lives."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = await fresh.execute(code, timeout_s=50)
    assert seen.status is Status.OUTPUT_LIMIT
    assert seen.truncated
    assert len(seen.stdout) < 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000, "kB more than before"
    if seen.kernel_alive:
        assert (await fresh.execute("6 * 7")).result == "42"


async def test_memory_bomb(shared: KernelSandbox) -> None:
    """Too large an allocation is a MemoryError that names the limit; the kernel lives."""
    seen = await shared.execute("x = bytearray(8 << 30)")
    assert (seen.status, seen.limits_hit, seen.kernel_alive) == (Status.ERROR, ("memory",), True)


async def test_file_too_large(shared: KernelSandbox) -> None:
    """A file over max_file_bytes is an OSError that names the limit."""
    code = "with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    seen = await shared.execute(code)
    assert (seen.status, seen.limits_hit) == (Status.ERROR, ("disk",))
    await shared.execute("import os; os.remove('big')")


async def test_cpu_limit(pool: SandboxPool) -> None:
    """A process that has used up its CPU time ends with cpu_limit."""
    async with SandboxPool(PoolConfig(cpu_s=3)) as small, small.acquire() as sandbox:
        seen = await sandbox.execute("while True: pass", timeout_s=30)
    assert (seen.status, seen.kernel_alive) == (Status.CPU_LIMIT, False)


@needs_root
async def test_thread_bomb(fresh: KernelSandbox) -> None:
    """Threads over max_processes are an error that names the limit."""
    code = "import threading, time\nthreading.stack_size(65536)\nfor _ in range(1000):\n  threading.Thread(target=time.sleep, args=(50,)).start()"
    seen = await fresh.execute(code)
    assert (seen.status, seen.limits_hit) == (Status.ERROR, ("pids",))


@needs_root
async def test_fork_bomb_is_gone_after_close(pool: SandboxPool) -> None:
    """A fork bomb is stopped at the limit, and closing leaves none of its processes."""
    async with pool.acquire() as sandbox:
        uid = int((await sandbox.execute("import os; os.getuid()")).result or 0)
        await sandbox.execute("while True: os.fork()", timeout_s=0.5)
    assert [p.pid for p in psutil.process_iter() if p.uids().real == uid] == []


# -- death


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(1)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
    ],
    ids=["exit", "kill", "segv"],
)
async def test_death_is_observed(fresh: KernelSandbox, code: str) -> None:
    """A kernel that ends by itself is observed as died within a second, and never raises."""
    began_at = time.perf_counter()
    seen = await fresh.execute(code, timeout_s=30)
    assert (seen.status, seen.kernel_alive) == (Status.DIED, False)
    assert time.perf_counter() - began_at < 2


async def test_exit_ends_the_kernel_with_its_cell(fresh: KernelSandbox) -> None:
    """After exit() the kernel is gone, and the same observation says so: no later cell is lost to it."""
    seen = await fresh.execute("print('bye')\nexit()")
    assert (seen.status, seen.stdout, seen.kernel_alive) == (Status.OK, "bye\n", False)


async def test_death_before_the_first_cell_is_ours() -> None:
    """A kernel that somebody killed before it was given any code is a fault of the sandbox, not of the code."""
    before = set(psutil.Process().children())
    async with SandboxPool() as pool, pool.acquire() as sandbox:
        (guardian,) = set(psutil.Process().children()) - before
        (kernel,) = guardian.children()
        kernel.kill()
        seen = await sandbox.execute("1")
    assert (seen.status, seen.kernel_alive) == (Status.SANDBOX_FAULT, False)


async def test_replies_are_not_hoarded(fresh: KernelSandbox) -> None:
    """What a kernel sends between cells is not kept, however much it is."""
    code = (
        "import threading, time\n"
        "kernel = get_ipython().kernel\n"
        "ident = kernel._shell_parent_ident.get()\n"
        "def flood():\n"
        "    while not asked: time.sleep(0.001)\n"
        "    for n in range(200):\n"
        "        kernel.session.send(kernel.shell_stream, 'kernel_info_reply', {}, {'msg_id': str(n) * 500_000}, ident)\n"
        "    open('sent', 'w').close()\n"
        "asked = []; threading.Thread(target=flood).start()\n"
        "threading.Timer(0.1, asked.append, [1]).start()"
    )
    assert (await fresh.execute(code)).status is Status.OK
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while True:
        try:
            await fresh.read("sent")
            break
        except SandboxPathError:
            await asyncio.sleep(0.01)
    assert (await fresh.execute("1")).result == "1"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB more than before"


async def test_garbage_is_protocol(fresh: KernelSandbox) -> None:
    """A cell that sends what is no signed message loses its kernel, and nothing raises."""
    code = (
        "get_ipython().kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b'bad', b'', b'', b'', b''])"
    )
    seen = await fresh.execute(code)
    assert (seen.status, seen.kernel_alive) == (Status.PROTOCOL, False)


async def test_missing_idle_is_protocol(fresh: KernelSandbox) -> None:
    """A reply that no idle follows ends the cell a second later; the kernel is retired."""
    seen = await fresh.execute("get_ipython().kernel._publish_status = lambda *a, **k: None")
    assert (seen.status, seen.kernel_alive) == (Status.PROTOCOL, False)


async def test_processes_die_on_close(pool: SandboxPool) -> None:
    """Closing ends all children of a cell, also those in sessions of their own."""
    async with pool.acquire() as sandbox:
        code = (
            "import subprocess, os\n"
            "a = subprocess.Popen(['sleep', '1000'])\n"
            "b = subprocess.Popen(['sleep', '1000'], start_new_session=True, env={})\n"
            "print(a.pid, b.pid, os.getpid())"
        )
        pids = [int(word) for word in (await sandbox.execute(code)).stdout.split()]
        assert alive(pids) == pids
    assert alive(pids) == []


async def test_cancelled_execute_leaves_no_process(pool: SandboxPool) -> None:
    """Cancelling a cell ends its kernel, and with it the sandbox."""
    running = asyncio.Event()
    pids = []

    async def work() -> None:
        async with pool.acquire() as sandbox:
            pids.append(int((await sandbox.execute("import os; os.getpid()")).result or 0))
            running.set()
            await sandbox.execute("while True: pass", timeout_s=50)

    task = asyncio.create_task(work())
    await running.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alive(pids) == []


async def test_timeout_around_execute_kills(fresh: KernelSandbox) -> None:
    """After a cancelled cell the kernel is dead: a second cell says so instead of running in its ruins."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await fresh.execute("while True: pass")
    assert (await fresh.execute("1")).status is Status.DIED


async def test_close_during_a_cell(pool: SandboxPool) -> None:
    """close() while a cell runs ends the cell with SandboxClosed."""
    async with pool.acquire() as sandbox:
        task = asyncio.create_task(sandbox.execute("while True: pass", timeout_s=50))
        await asyncio.sleep(0)
        await sandbox.close()
        with pytest.raises(SandboxClosed):
            await task


async def test_closed_is_closed(either: Sandbox) -> None:
    """close() can be called twice; afterwards everything else is SandboxClosed."""
    await either.close()
    await either.close()
    for call in (either.execute("1"), either.put("a", b""), either.read("a"), either.collect(["*"])):
        with pytest.raises(SandboxClosed):
            await call


# -- files


async def test_files_in_and_out(either: Sandbox, tmp_path: Path) -> None:
    """What is put can be read, and is collected with its size and digest; parents are made."""
    source = tmp_path / "source.bin"
    source.write_bytes(b"from a file")
    await either.put("a/b/data.txt", b"hello")
    await either.put("./source.bin", source)
    await either.make_folder("output/deep")
    assert await either.read("a/b/data.txt") == b"hello"
    files = await either.collect(["**/*.txt", "*.bin"])
    assert [(f.path, f.n_bytes, f.data, f.problem) for f in files] == [
        ("a/b/data.txt", 5, b"hello", None),
        ("source.bin", 11, b"from a file", None),
    ]
    assert (await either.execute("1")).status is Status.DIED


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b", "\udcff"])
async def test_paths_outside_are_refused(either: Sandbox, path: str) -> None:
    """A path that is not beneath the working directory is an error for every method."""
    for call in (either.put(path, b""), either.read(path), either.make_folder(path), either.collect([path])):
        with pytest.raises(SandboxPathError):
            await call


async def test_code_and_files_meet(shared: KernelSandbox) -> None:
    """The code can read, change and delete what was put, and we read what it wrote."""
    await shared.put("in/data.txt", b"21")
    code = "n = int(open('in/data.txt').read())\nopen('in/data.txt', 'w').write(str(2 * n))\nopen('in/new', 'w').close()"
    assert (await shared.execute(code)).status is Status.OK
    assert await shared.read("in/data.txt") == b"42"
    await shared.put("in/data.txt", b"again")
    assert (await shared.execute("open('in/data.txt').read()")).result == "'again'"


async def test_read_trusts_nothing(shared: KernelSandbox) -> None:
    """Links, fifos, folders, links on the way and too large files are errors, never followed, never a hang."""
    code = (
        "import os\nos.symlink('/etc/passwd', 'link'); os.mkfifo('fifo'); os.makedirs('folder')\n"
        "os.symlink('/etc', 'way'); f = open('sparse', 'wb'); f.truncate(20 << 20); f.close()"
    )
    assert (await shared.execute(code)).status is Status.OK
    for path in ("link", "fifo", "folder", "way/passwd", "sparse", "missing", "link/x"):
        with pytest.raises(SandboxPathError):
            await shared.read(path)
    with pytest.raises(SandboxPathError):
        await shared.put("way/x", b"")
    await shared.put("link", b"mine")
    assert await shared.read("link") == b"mine", "a link is replaced, not written through"


async def test_collect_trusts_nothing(pool: SandboxPool, tmp_path: Path) -> None:
    """What is no plain small file with a plain name is reported with its problem; the rest is copied."""
    into = tmp_path / "into"
    code = (
        "import os\n"
        "os.makedirs('output/a/b/c'); open('output/good.txt', 'w').write('good')\n"
        "open('output/a/b/c/deep.txt', 'w').close()\n"
        "os.symlink('/etc/passwd', 'output/link'); os.symlink('/etc', 'output/way'); os.mkfifo('output/fifo')\n"
        "f = open('output/sparse', 'wb'); f.truncate(30 << 20); f.close()\n"
        "open(b'output/\\xff.txt', 'w').close(); os.link('output/good.txt', 'output/hard')\n"
        "open('other.txt', 'w').write('x')"
    )
    async with pool.acquire() as sandbox:
        assert (await sandbox.execute(code)).status is Status.OK
        files = {file.path: file for file in await sandbox.collect(["output/**"], into=into)}
    assert {path for path, file in files.items() if file.problem is None} == {
        "output/good.txt",
        "output/hard",
    }
    assert files["output/good.txt"].data is None
    assert (into / "output/good.txt").read_bytes() == b"good"
    problems = {path: file.problem or "" for path, file in files.items() if file.problem}
    assert problems["output/link"] == "symbolic link"
    assert problems["output/way"] == "symbolic link"
    assert problems["output/fifo"] == "fifo"
    assert "max_collect_bytes" in problems["output/sparse"]
    assert "UTF-8" in problems["output/\\xff.txt"]
    assert "max_collect_depth" in problems["output/a/b/c"]
    assert sorted(path.name for path in into.rglob("*")) == ["good.txt", "hard", "output"]


# -- isolation


async def test_environment_is_scrubbed(shared: KernelSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel sees the variables of its config, and none of the runner's."""
    seen = await shared.execute("import os; print(*sorted(os.environ)); print(os.environ['GREETING'])")
    names, greeting = seen.stdout.splitlines()
    assert greeting == "hello"
    ours = set(os.environ) - {
        "PATH",
        "LANG",
        "HOME",
        "USER",
        "LOGNAME",
        "TERM",
        "TMPDIR",
        "PAGER",
        "GIT_PAGER",
    }
    assert not ours & set(names.split())


@needs_root
async def test_runner_environment_is_out_of_reach(shared: KernelSandbox) -> None:
    """Under root neither the guardian's nor the runner's environment can be read."""
    code = f"""
for pid in (os.getppid(), {os.getpid()}, 1):
    try:
        open(f'/proc/{{pid}}/environ').read(); print('read', pid)
    except PermissionError:
        print('denied')
"""
    assert (await shared.execute("import os\n" + code)).stdout == "denied\n" * 3


@needs_root
async def test_sandboxes_have_their_own_uids(shared: KernelSandbox, fresh: KernelSandbox) -> None:
    """Two sandboxes have different uids, neither root's, and cannot enter or signal each other."""
    code = "import os; print(os.getuid(), os.getgid(), os.getgroups(), os.getpid(), os.getcwd())"
    mine = (await shared.execute(code)).stdout.split()
    other = (await fresh.execute(code)).stdout.split()
    assert mine[0] != other[0]
    assert "0" not in (mine[0], mine[1], other[0], other[1])
    assert mine[2] == "[]"
    for attempt in (
        f"os.listdir({other[4]!r})",
        f"os.kill({other[3]}, 9)",
        "os.setuid(0)",
        "os.kill(os.getppid(), 9)",
    ):
        seen = await shared.execute(attempt)
        assert seen.error is not None, attempt
        assert seen.error.ename == "PermissionError", attempt


async def test_folders_are_private(shared: KernelSandbox) -> None:
    """Working directory, HOME and TMPDIR are empty at first and closed to others."""
    code = "import os, tempfile\nfor p in (os.getcwd(), os.environ['HOME'], tempfile.gettempdir()):\n  print(oct(os.stat(p).st_mode & 0o777))"
    assert (await shared.execute(code)).stdout == "0o700\n" * 3


async def test_no_connection_file(shared: KernelSandbox) -> None:
    """The key that signs messages is in no file and on no command line."""
    key = (await shared.execute("get_ipython().kernel.session.key.decode()")).result
    assert key is not None
    assert re.fullmatch(r"'[0-9a-f]{64}'", key)
    code = f"""
import os
found = open('/proc/self/cmdline').read()
for top, _, names in os.walk(os.path.dirname(os.getcwd())):
    for name in names:
        path = os.path.join(top, name)
        if os.path.isfile(path): found += open(path, errors='replace').read()
print({key} in found)
"""
    assert (await shared.execute(code)).stdout == "False\n"


async def test_streams_are_typed(shared: KernelSandbox) -> None:
    """Output of commands arrives as streams like Python's own."""
    seen = await shared.execute("import os\n_ = os.system('echo out; echo err >&2')")
    assert {(o.name, o.text) for o in seen.outputs if isinstance(o, Stream)} == {
        ("stdout", "out\n"),
        ("stderr", "err\n"),
    }
