"""What every sandbox does: the fake one, and real ones of each tier with each kernel.

What it does under attack is in hostile/.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sandbox_pool import (
    FakePool,
    Pool,
    PoolConfig,
    Sandbox,
    SandboxClosed,
    SandboxError,
    SandboxPathError,
    SandboxPool,
    SandboxSetupError,
    SandboxSpec,
    Status,
    Stream,
    UnsupportedHost,
)
from tests.sandbox_pool.hostile.setups import SETUPS, Setup, why_not
from tests.sandbox_pool.hostile.world import Habitat, Process, below, peak_rss_bytes, processes, reset_peak

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.kernel]


DEFAULT = {"namespace-lean", "namespace-ipykernel", "landlock-lean"}
"""What the default suite runs; `make test-slow`, which CI runs too, takes all others."""


def config(setup: Setup, **more: Any) -> PoolConfig:
    """Return a config with limits that a test can reach."""
    limits: dict[str, Any] = {
        "max_sandboxes": 8,
        "max_idle": 0,
        "interrupt_grace_s": 1,
        "environment": {"GREETING": "hello"},
        "memory_bytes": 2 << 30,
        "max_file_bytes": 32 << 20,
        "max_processes": 64,
        "max_read_bytes": 1 << 20,
        "max_collect_bytes": 4 << 20,
        "max_collect_depth": 3,
    }
    how = {"tier": setup.tier, "kernel": setup.kernel, "allow_unsafe": setup.tier == "process"}
    return PoolConfig.model_validate(how | limits | more)


@pytest_asyncio.fixture(
    name="pool",
    scope="module",
    loop_scope="module",
    params=[
        pytest.param(setup, id=str(setup), marks=[] if str(setup) in DEFAULT else [pytest.mark.slow])
        for setup in SETUPS
    ],
)
async def _pool(request: pytest.FixtureRequest) -> AsyncIterator[SandboxPool]:
    """A pool of each kind of sandbox that this machine offers."""
    setup: Setup = request.param
    if reason := why_not(setup.tier):
        pytest.skip(reason)
    async with SandboxPool(config(setup)) as pool:
        yield pool
        assert pool.statistics().n_leased == 0


@pytest_asyncio.fixture(name="shared", scope="module", loop_scope="module")
async def _shared(pool: SandboxPool) -> AsyncIterator[Sandbox]:
    """One sandbox for all tests that leave it as it was."""
    async with pool.acquire() as sandbox:
        yield sandbox


@pytest_asyncio.fixture(name="fresh", loop_scope="module")
async def _fresh(pool: SandboxPool) -> AsyncIterator[Sandbox]:
    """A sandbox for one test, which may break it."""
    async with pool.acquire() as sandbox:
        yield sandbox


@pytest_asyncio.fixture(name="either", loop_scope="module", params=["fake", "kernel"])
async def _either(request: pytest.FixtureRequest, pool: SandboxPool) -> AsyncIterator[Sandbox]:
    """A real sandbox, and the fake one."""
    source: Pool = pool if request.param == "kernel" else FakePool()
    async with source.acquire() as sandbox:
        yield sandbox


def new_habitat(known: dict[Process, Any]) -> Habitat:
    """Return what tells the processes that are new below us from all others."""
    own = [seen for key, seen in below(os.getpid()).items() if key not in known]
    keys = {seen.key for seen in own}
    assert own
    return Habitat.of(own, [seen for seen in processes() if seen.key not in keys])


# -- cells


async def test_state_persists(shared: Sandbox) -> None:
    """A variable of one cell is there in the next."""
    await shared.execute("kept = 41")
    assert (await shared.execute("kept + 1")).result == "42"


async def test_output_order(shared: Sandbox) -> None:
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


async def test_error_is_an_observation(shared: Sandbox) -> None:
    """An exception is observed with its name, value and a traceback without colour codes."""
    seen = await shared.execute("print('before')\n1/0")
    assert seen.status is Status.ERROR
    assert seen.error is not None
    assert (seen.error.ename, seen.error.evalue) == ("ZeroDivisionError", "division by zero")
    assert "----> 2 1/0" in seen.error.traceback
    assert "\x1b" not in seen.error.traceback
    assert seen.stdout == "before\n"


async def test_picture_is_bytes(shared: Sandbox) -> None:
    """A displayed PNG arrives as the bytes that it was."""
    code = (
        "from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100), format='png')"
    )
    seen = await shared.execute(code)
    (output,) = seen.outputs
    assert output.type == "result"
    assert output.data["image/png"] == b"\x89PNG\r\n\x1a\n" + bytes(100)


async def test_figure_is_inline(shared: Sandbox) -> None:
    """A matplotlib figure is displayed as a PNG without being asked to."""
    seen = await shared.execute("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])", timeout_s=40)
    pictures = [o.data["image/png"] for o in seen.outputs if o.type == "display"]
    assert len(pictures) == 1
    assert pictures[0][:4] == b"\x89PNG"


async def test_input_is_refused(shared: Sandbox) -> None:
    """input() is an error at once, not a wait."""
    seen = await shared.execute("input()")
    assert seen.error is not None
    assert seen.error.ename == "StdinNotImplementedError"


async def test_top_level_await_magics_and_commands(shared: Sandbox) -> None:
    """What a notebook allows works: top-level await, magics, shell commands."""
    seen = await shared.execute("import asyncio\nawait asyncio.sleep(0)\n!echo shell\n%pwd")
    assert "shell" in seen.stdout
    assert seen.result is not None
    assert seen.result.endswith("/work'")


async def test_odd_text_survives(shared: Sandbox) -> None:
    """Surrogates, NULs, colours and undecodable bytes become printable text, whichever way they come."""
    seen = await shared.execute("import os\nprint('a\\ud800\\0\\x1b[1mb')\n_ = os.write(1, b'\\xff\\xfe\\n')")
    seen.stdout.encode()
    assert seen.status in (Status.OK, Status.ERROR)
    assert (await shared.execute("x = '\ud800'; len(x)")).result == "1"


async def test_timeout_interrupts_and_keeps_state(fresh: Sandbox) -> None:
    """A cell past its deadline is interrupted; what it printed and the state before it stay."""
    await fresh.execute("kept = 1")
    seen = await fresh.execute("print('started')\nimport time\ntime.sleep(100)", timeout_s=0.5)
    assert (seen.status, seen.kernel_alive, seen.stdout) == (Status.TIMEOUT, True, "started\n")
    assert seen.duration_s < 20
    assert (await fresh.execute("kept")).result == "1"


async def test_interrupted_at_any_moment(fresh: Sandbox, pool: SandboxPool) -> None:
    """A deadline of next to nothing interrupts its own cell, begun or not, and never the next one."""
    if pool.config.kernel == "ipykernel":
        pytest.skip("ipykernel does not hear an interrupt that comes before its cell has begun")
    for timeout_s in (0.0, 0.0002, 0.0005, 0.001, 0.002, 0.004) * 4:
        seen = await fresh.execute("while True: pass", timeout_s=timeout_s)
        assert (seen.status, seen.kernel_alive) == (Status.TIMEOUT, True)
        assert (await fresh.execute("1 + 1")).result == "2"
    seen = await fresh.execute("def wait():\n    while True: pass\nwait()", timeout_s=0.3)
    assert seen.error is not None
    assert "/inside/" not in seen.error.traceback


async def test_uninterruptible_code_is_killed(fresh: Sandbox) -> None:
    """Code that ignores the interrupt is killed after the grace, its output kept."""
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\nwhile True: pass"
    seen = await fresh.execute(code, timeout_s=0.5)
    assert (seen.status, seen.kernel_alive, seen.stdout) == (Status.TIMEOUT, False, "on\n")
    again = await fresh.execute("1")
    assert (again.status, again.kernel_alive) == (Status.DIED, False)


async def test_one_cell_at_a_time(fresh: Sandbox) -> None:
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
async def test_output_flood(fresh: Sandbox, code: str) -> None:
    """300 MB of output ends the cell with output_limit; our memory stays bounded, and the kernel lives."""
    before = reset_peak()
    seen = await fresh.execute(code, timeout_s=50)
    assert seen.status is Status.OUTPUT_LIMIT
    assert seen.truncated
    assert len(seen.stdout) < 200_000
    assert peak_rss_bytes() - before < 150 << 20
    if seen.kernel_alive:
        assert (await fresh.execute("6 * 7")).result == "42"


async def test_cpu_limit(pool: SandboxPool) -> None:
    """A process that has used up its CPU time ends with cpu_limit."""
    small = pool.config.model_copy(update={"cpu_s": 2, "preload": ()})
    async with SandboxPool(small) as other, other.acquire() as sandbox:
        seen = await sandbox.execute("while True: pass", timeout_s=30)
    assert (seen.status, seen.kernel_alive) == (Status.CPU_LIMIT, False)


async def test_memory_bomb(shared: Sandbox) -> None:
    """Too large an allocation is a MemoryError that names the limit; the kernel lives."""
    seen = await shared.execute("x = bytearray(8 << 30)")
    assert (seen.status, seen.limits_hit, seen.kernel_alive) == (Status.ERROR, ("memory",), True)


async def test_file_too_large(shared: Sandbox) -> None:
    """A file over max_file_bytes is an OSError that names the limit."""
    code = "with open('big', 'wb') as f:\n    for _ in range(100): f.write(bytes(1 << 20))"
    seen = await shared.execute(code)
    assert (seen.status, seen.limits_hit) == (Status.ERROR, ("disk",))
    await shared.execute("import os; os.remove('big')")


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
async def test_death_is_observed(fresh: Sandbox, code: str) -> None:
    """A kernel that ends by itself is observed as died long before its deadline, and never raises."""
    began_at = time.perf_counter()
    seen = await fresh.execute(code, timeout_s=30)
    assert (seen.status, seen.kernel_alive) == (Status.DIED, False)
    assert time.perf_counter() - began_at < 10


async def test_exit_ends_the_kernel_with_its_cell(fresh: Sandbox) -> None:
    """After exit() the kernel is gone, and the same observation says so: no later cell is lost to it."""
    seen = await fresh.execute("print('bye')\nexit()")
    assert (seen.status, seen.stdout, seen.kernel_alive) == (Status.OK, "bye\n", False)


async def test_timeout_around_execute_kills(fresh: Sandbox) -> None:
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


async def test_processes_die_on_close(pool: SandboxPool) -> None:
    """Closing ends all children of a cell, also those in sessions of their own."""
    known = below(os.getpid())
    async with pool.acquire() as sandbox:
        code = (
            "import subprocess\n"
            "a = subprocess.Popen(['sleep', '1000'])\n"
            "b = subprocess.Popen(['sleep', '1000'], start_new_session=True, env={})"
        )
        assert (await sandbox.execute(code)).status is Status.OK
        habitat = new_habitat(known)
        own = below(os.getpid()).keys() - known.keys()
        assert sum(seen.name == "sleep" for seen in below(os.getpid()).values()) == 2
    assert habitat.inhabitants() == []
    assert not own & {seen.key for seen in processes()}


async def test_cancelled_execute_leaves_no_process(pool: SandboxPool) -> None:
    """Cancelling a cell ends its kernel, and with it all that it started."""
    known = below(os.getpid())
    async with pool.acquire() as sandbox:
        await sandbox.execute("import subprocess; child = subprocess.Popen(['sleep', '1000'])")
        habitat = new_habitat(known)
        task = asyncio.create_task(sandbox.execute("while True: pass", timeout_s=50))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await sandbox.execute("1")).status is Status.DIED
    assert habitat.inhabitants() == []


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


async def test_code_and_files_meet(shared: Sandbox) -> None:
    """The code can read, change and delete what was put, and we read what it wrote."""
    await shared.put("in/data.txt", b"21")
    code = "n = int(open('in/data.txt').read())\nopen('in/data.txt', 'w').write(str(2 * n))\nopen('in/new', 'w').close()"
    assert (await shared.execute(code)).status is Status.OK
    assert await shared.read("in/data.txt") == b"42"
    await shared.put("in/data.txt", b"again")
    assert (await shared.execute("open('in/data.txt').read()")).result == "'again'"


async def test_read_trusts_nothing(shared: Sandbox) -> None:
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


async def test_folders_are_private(shared: Sandbox) -> None:
    """Working directory, HOME and TMPDIR are empty at first and closed to others."""
    code = "import os, tempfile\nfor p in (os.getcwd(), os.environ['HOME'], tempfile.gettempdir()):\n  print(oct(os.stat(p).st_mode & 0o777))"
    assert (await shared.execute(code)).stdout == "0o700\n" * 3


async def test_streams_are_typed(shared: Sandbox) -> None:
    """Output of commands arrives as streams like Python's own."""
    seen = await shared.execute("import os\n_ = os.system('echo out; echo err >&2')")
    assert {(o.name, o.text) for o in seen.outputs if isinstance(o, Stream)} == {
        ("stdout", "out\n"),
        ("stderr", "err\n"),
    }


# -- what a caller may ask for


async def test_environment(shared: Sandbox) -> None:
    """A kernel sees the variables of its config."""
    assert (await shared.execute("import os; os.environ['GREETING']")).result == "'hello'"


async def test_seed(pool: SandboxPool) -> None:
    """The same seed gives the same numbers, another one others, and none any."""
    code = "import random, numpy\nprint(random.random(), numpy.random.random(), random.randrange(10**9))"
    said = []
    for seed in (7, 7, 8, 2**40 + 7, None, None):
        async with pool.acquire(SandboxSpec(seed=seed)) as sandbox:
            said.append((await sandbox.execute(code)).stdout)
    assert said[0] == said[1]
    assert len({said[0], *said[2:]}) == 5


async def test_setup_cell(pool: SandboxPool) -> None:
    """A setup cell leaves its state and neither output nor history; one that fails is an error of its own."""
    setup = "print('unseen')\nkept = 41\nopen('made', 'w').close()"
    async with pool.acquire(SandboxSpec(setup=setup)) as sandbox:
        seen = await sandbox.execute("import os\nprint(kept + 1, os.listdir(), len(In))")
        assert seen.stdout == "42 ['made'] 2\n"
    with pytest.raises(SandboxSetupError, match="ZeroDivisionError"):
        async with pool.acquire(SandboxSpec(setup="1 / 0")):
            pass


async def test_workspace(pool: SandboxPool, tmp_path: Path) -> None:
    """A workspace is there to be read, by its name in the working directory."""
    open_to_all(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "data.txt").write_text("given")
    async with pool.acquire(SandboxSpec(workspace=tmp_path / "one")) as sandbox:
        assert (await sandbox.execute("open('workspace/data.txt').read()")).result == "'given'"


async def test_extra_paths(pool: SandboxPool, tmp_path: Path) -> None:
    """Modules of extra_paths can be imported, after those of the interpreter, and not be changed."""
    open_to_all(tmp_path)
    (tmp_path / "json.py").write_text("raise ImportError('not this one')")
    (tmp_path / "added_module.py").write_text("answer = 42")
    own = pool.config.model_copy(update={"extra_paths": (tmp_path,), "preload": ()})
    async with SandboxPool(own) as other, other.acquire() as sandbox:
        assert (await sandbox.execute("import json, added_module\nadded_module.answer")).result == "42"
        if pool.config.tier != "process":
            seen = await sandbox.execute("open(added_module.__file__, 'a')")
            assert seen.error is not None
            assert seen.error.ename in ("PermissionError", "OSError")


async def test_mounts(pool: SandboxPool, tmp_path: Path) -> None:
    """A mount is there to be read, where the tier can make one; elsewhere it is an error that says so."""
    open_to_all(tmp_path)
    (tmp_path / "data.txt").write_text("given")
    own = pool.config.model_copy(update={"mounts": {"/data/set": tmp_path}, "preload": ()})
    if pool.config.tier == "namespace":
        async with SandboxPool(own) as other, other.acquire() as sandbox:
            assert (await sandbox.execute("open('/data/set/data.txt').read()")).result == "'given'"
            assert (await sandbox.execute("open('/data/set/new', 'w')")).status is Status.ERROR
    else:
        with pytest.raises(UnsupportedHost, match="mounts"):
            async with SandboxPool(own) as other, other.acquire():
                pass


async def test_files_of_a_cell_can_be_imported(shared: Sandbox) -> None:
    """A module that a cell writes can be imported in the next."""
    await shared.execute("open('written_module.py', 'w').write('answer = 42')")
    assert (await shared.execute("import written_module\nwritten_module.answer")).result == "42"


async def test_peak_memory(fresh: Sandbox) -> None:
    """Where the system counts it, the most memory held is told, and never falls."""
    first = (await fresh.execute("x = bytearray(100 << 20)")).peak_memory_bytes
    second = (await fresh.execute("del x")).peak_memory_bytes
    if first is not None:
        assert second is not None
        assert 100 << 20 < first <= second < 400 << 20


def open_to_all(folder: Path) -> None:
    """Let every user read what is in a folder of the tests."""
    for part in (folder, *folder.parents):
        if part.stat().st_uid == os.getuid() and part not in (Path("/"), Path("/tmp")):
            part.chmod(part.stat().st_mode | 0o755)
