"""Machines that lack something, configs that cannot be met, paths and globs that must not be believed.

Each is a clear error, which names what to change, or a marked file: never a hang, a crash or a silent downgrade.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sandbox_pool import (
    PoolConfig,
    Sandbox,
    SandboxError,
    SandboxPathError,
    SandboxPool,
    SandboxSetupError,
    SandboxSpec,
    SandboxStartError,
    Status,
    UnknownProfile,
    UnsupportedHost,
)
from tests.sandbox_pool import adverse
from tests.sandbox_pool.hostile.setups import why_not
from tests.sandbox_pool.hostile.world import below

pytestmark = pytest.mark.kernel
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make such a machine")
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls are refused by number")

_TRY = """
import asyncio, json, logging, sys
logging.basicConfig(level=logging.INFO)
from sandbox_pool import PoolConfig, SandboxError, SandboxPool

async def work(pool):
    async with pool.acquire() as sandbox:
        return (await sandbox.execute('6 * 7', timeout_s=20)).result

async def main():
    options = json.loads(sys.argv[1])
    n = options.pop('n', 1)
    try:
        async with SandboxPool(PoolConfig(preload=(), **options)) as pool:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work(pool)) for _ in range(n)]
            said = {'results': [task.result() for task in tasks], 'tier': pool.statistics().tier, 'max': pool.statistics().max_sandboxes}
    except* SandboxError as errors:
        said = {'error': type(errors.exceptions[0]).__name__, 'text': str(errors.exceptions[0])}
    print(json.dumps(said))

asyncio.run(main())
"""


def on(change: adverse.Change, **options: Any) -> dict[str, Any]:
    """Return what a pool with these options says on such a machine."""
    try:
        done = adverse.run_on(change, _TRY, json.dumps(options))
    except OSError as error:
        pytest.skip(str(error))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said | {"log": done.stderr}


def needs(tier: str) -> None:
    """Skip where this machine has no such tier."""
    if reason := why_not(tier):
        pytest.skip(reason)


# -- machines


def test_no_user_namespaces() -> None:
    """The tier namespace is refused with what to set; nothing takes its place unasked."""
    said = on(adverse.no_user_namespaces, tier="namespace")
    assert said["error"] == "UnsupportedHost", said
    assert "user namespaces" in said["text"]
    assert "sysctl" in said["text"] or "max_user_namespaces" in said["text"]


def test_no_user_namespaces_auto() -> None:
    """`auto` takes landlock where there are no user namespaces, and says so."""
    needs("landlock")
    said = on(adverse.no_user_namespaces, tier="auto")
    assert (said.get("tier"), said.get("results")) == ("landlock", ["42"]), said


@needs_x86
@pytest.mark.parametrize("numbers", [(165,), (272,), (165, 272, 308, 155)], ids=["mount", "unshare", "all"])
def test_filtered_as_in_a_container(numbers: tuple[int, ...]) -> None:
    """Where mounts or namespaces are filtered, as in containers, the tier namespace is refused, and auto goes on."""
    needs("landlock")
    change = adverse.both(adverse.ordinary_user, adverse.refuse(*numbers))
    said = on(change, tier="namespace")
    assert said.get("error") == "UnsupportedHost", said
    assert "landlock" in said["text"] or "seccomp" in said["text"]
    assert on(change, tier="auto").get("tier") == "landlock"


@needs_root
@needs_x86
def test_interpreter_out_of_reach() -> None:
    """Where root may neither mount nor let another uid reach the interpreter, the error says where to put it."""
    needs("landlock")
    said = on(adverse.refuse(165, 272), tier="landlock")
    if "error" in said:  # else the interpreter can be reached by everybody
        assert said["error"] == "UnsupportedHost"
        assert "chmod" in said["text"]
    else:
        assert said["results"] == ["42"]


@needs_x86
def test_neither_namespaces_nor_landlock() -> None:
    """`auto` never takes the tier process: it is an error that names every remedy."""
    change = adverse.both(adverse.ordinary_user, adverse.refuse(165, 272, 444, 445, 446))
    said = on(change, tier="auto")
    assert said.get("error") == "UnsupportedHost", said
    assert "namespace" in said["text"]
    assert "landlock" in said["text"]
    assert on(change, tier="process", allow_unsafe=True).get("results") == ["42"]


def test_process_is_not_taken_without_consent() -> None:
    """The tier process is refused unless it is asked for by both of its words."""
    said = on(lambda: None, tier="process")
    assert said.get("error") == "UnsupportedHost", said
    assert "allow_unsafe" in said["text"]


@needs_root
@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_no_cgroups(tier: str) -> None:
    """Without control groups sandboxes run, held by the next best bound."""
    needs(tier)
    said = on(adverse.no_cgroups, tier=tier)
    assert said.get("results") == ["42"], said


@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_few_descriptors(tier: str) -> None:
    """With 256 descriptors fewer sandboxes exist at a time, which the log says, and all callers are served."""
    needs(tier)
    said = on(adverse.few_descriptors, tier=tier, max_sandboxes=200, max_starting=50, n=60)
    assert said.get("results") == ["42"] * 60, said
    assert said["max"] < 200
    assert "descriptors" in said["log"]


@needs_root
def test_little_memory(tmp_path: Path) -> None:
    """With 64 MB free, few sandboxes exist at a time, which the log says; or none, which is an error."""
    needs("landlock")  # a /proc with something mounted in it makes the kernel refuse other ones
    said = on(adverse.little_memory(tmp_path), tier="landlock", max_sandboxes=200, n=20)
    if "error" in said:
        assert said["error"] in ("UnsupportedHost", "SandboxStartError")
        assert "memory" in said["text"]
    else:
        assert said["results"] == ["42"] * 20
        assert said["max"] < 20
        assert "memory" in said["log"]


@needs_root
@pytest.mark.parametrize("tier", ["namespace", "landlock"])
def test_full_scratch(tier: str, tmp_path: Path) -> None:
    """A scratch folder on a full disk is an error that names it."""
    needs(tier)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/tmp"):
            folder.chmod(0o755)
    said = on(adverse.full_disk(tmp_path), tier=tier, scratch=str(tmp_path))
    assert said.get("error") in ("UnsupportedHost", "SandboxStartError"), said
    assert str(tmp_path) in said["text"]
    assert "full" in said["text"] or "space" in said["text"]


# -- configs and what samples ask for


async def refusal(config: PoolConfig, spec: SandboxSpec | None = None) -> SandboxError:
    """Return the error of opening a pool and leasing from it; check that it leaves no process."""
    before = below(os.getpid())
    with pytest.raises(SandboxError) as caught:
        async with SandboxPool(config) as pool, pool.acquire(spec or SandboxSpec()):
            pass
    assert below(os.getpid()).keys() <= before.keys()
    return caught.value


def best() -> str:
    """Return the best tier of this machine."""
    return next(tier for tier in ("namespace", "landlock", "process") if why_not(tier) is None)


def config(**more: Any) -> PoolConfig:
    """Return a config of this machine's best tier."""
    return PoolConfig.model_validate(
        {"tier": best(), "allow_unsafe": best() == "process", "preload": (), "max_idle": 0, **more}
    )


async def test_unknown_profile() -> None:
    """A profile that the config does not have is an error that lists those that it has."""
    error = await refusal(
        config(profiles={"upstream": {"kernel": "ipykernel"}}), SandboxSpec(profile="upsteam")
    )
    assert isinstance(error, UnknownProfile)
    for word in ("upsteam", "upstream", "default"):
        assert word in str(error)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise ValueError('not today')", "not today"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("import os; os._exit(4)", ""),
        ("import ctypes; ctypes.string_at(0)", ""),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
            "thread",
        ),
        ("import broken_inside_that_is_not_there", "broken_inside_that_is_not_there"),
    ],
    ids=["raises", "exits", "dies", "crashes", "starts a thread", "imports what is missing"],
)
async def test_preload_breaks(tmp_path: Path, source: str, word: str) -> None:
    """A module that cannot be imported ahead is named, with what it did, and no zygote stays."""
    open_to_all(tmp_path)
    (tmp_path / "bad_module.py").write_text(source)
    error = await refusal(config(preload=("bad_module",), extra_paths=(tmp_path,), start_timeout_s=20))
    assert isinstance(error, UnsupportedHost | SandboxStartError)
    assert "bad_module" in str(error)
    assert word in str(error)


async def test_preload_missing() -> None:
    """A module of the preload list that is not there is named."""
    assert "no_such_module_at_all" in str(await refusal(config(preload=("json", "no_such_module_at_all"))))


async def test_preload_hangs(tmp_path: Path) -> None:
    """An import that does not end is given up after start_timeout_s, which the error names."""
    open_to_all(tmp_path)
    (tmp_path / "bad_module.py").write_text("import time\ntime.sleep(1000)")
    began_at = time.monotonic()
    error = await refusal(config(preload=("bad_module",), extra_paths=(tmp_path,), start_timeout_s=1))
    assert "start_timeout_s" in str(error)
    assert time.monotonic() - began_at < 10


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true", "/bin/cat", "/etc/passwd", "/tmp"])
async def test_no_python(python: str) -> None:
    """An interpreter that is none is named, at once."""
    began_at = time.monotonic()
    error = await refusal(config(python=python, start_timeout_s=5))
    assert python in str(error)
    assert time.monotonic() - began_at < 10


async def test_python_without_ipython(tmp_path: Path) -> None:
    """An interpreter that lacks IPython is an error that says what to install, and where."""
    open_to_all(tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")
    )
    assert await process.wait() == 0
    error = await refusal(config(python=tmp_path / "bare" / "bin" / "python"))
    assert "IPython" in str(error) or "ipython" in str(error)
    assert "bare" in str(error)


@pytest.mark.parametrize("key", ["mounts", "extra_paths"])
async def test_missing_folder(key: str) -> None:
    """A folder to show that is not there is named, with the key."""
    missing = "/nowhere/at/all"
    error = await refusal(config(**{key: {"/data": missing} if key == "mounts" else (missing,)}))
    assert missing in str(error)


async def test_missing_workspace(tmp_path: Path) -> None:
    """A workspace that is not there, or is a file, is named."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        assert str(path) in str(await refusal(config(), SandboxSpec(workspace=path)))


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(1)", ""),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit", "SystemExit"),
    ],
)
async def test_setup_fails(code: str, word: str) -> None:
    """A setup cell that fails, however it does, is an error of its own with the end of what it said."""
    error = await refusal(config(), SandboxSpec(setup=code))
    assert isinstance(error, SandboxSetupError)
    assert word in str(error)


@pytest.mark.parametrize("uid", [-1, 0, 2**32])
def test_wrong_uid(uid: int) -> None:
    """A uid that no sandbox may have is refused when the config is read."""
    with pytest.raises(ValueError, match="uid"):
        PoolConfig(uid=uid)


@needs_root
async def test_odd_uids() -> None:
    """A uid that nobody has, very high ones included, is as good as another."""
    needs("namespace")
    for uid in (1, 54_321, 4_294_967_294):
        async with SandboxPool(config(uid=uid)) as pool, pool.acquire() as sandbox:
            assert (await sandbox.execute("6 * 7")).result == "42"


def open_to_all(folder: Path) -> None:
    """Let every user read what is in a folder of the tests."""
    for part in (folder, *folder.parents):
        if part.stat().st_uid == os.getuid() and part not in (Path("/"), Path("/tmp")):
            part.chmod(part.stat().st_mode | 0o755)


# -- paths, globs and files


@pytest_asyncio.fixture(name="small")
async def _small() -> AsyncIterator[Sandbox]:
    """A sandbox with little room."""
    async with (
        SandboxPool(
            config(disk_bytes=8 << 20, max_files=200, max_collect_bytes=4 << 20, max_collect_s=5)
        ) as pool,
        pool.acquire() as sandbox,
    ):
        yield sandbox


async def test_put_outside(small: Sandbox) -> None:
    """A path that leaves the working directory, by itself or by a link, is refused and nothing is written."""
    await small.execute("import os; os.symlink('/tmp', 'way'); os.symlink('/etc/passwd', 'file')")
    for path in (
        "/etc/x",
        "../x",
        "a/../../x",
        "",
        ".",
        "a\0b",
        "\udcff",
        "way/x",
        "x" * 300,
    ):
        with pytest.raises((SandboxPathError, OSError)):
            await small.put(path, b"x")
    assert (await small.execute("sorted(os.listdir('.'))")).result == "['file', 'way']"


async def _put_many(sandbox: Sandbox) -> None:
    for n in range(1000):
        await sandbox.put(f"many/{n}", b"")


async def test_put_on_a_full_disk(small: Sandbox) -> None:
    """More than fits is an OSError that says so; the sandbox goes on."""
    needs("namespace")
    with pytest.raises(OSError, match=r"disk is full.*disk_bytes"):
        await small.put("big", bytes(20 << 20))
    assert (
        await small.execute("import os; os.remove('big') if os.path.exists('big') else 0; 6 * 7")
    ).result is not None
    with pytest.raises(OSError, match=r"disk is full.*max_files"):
        await _put_many(small)
    assert (await small.execute("6 * 7")).result == "42"


async def test_globs_match_what_is_no_file(small: Sandbox) -> None:
    """A fifo, a device, a socket, links out, a sparse terabyte and undecodable names come back marked, quickly."""
    code = """
import os, socket
os.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('socket')
os.symlink('/etc/passwd', 'link'); os.symlink('/dev/zero', 'zero'); os.symlink('/etc', 'folder'); os.symlink('loop', 'loop')
try: os.truncate(os.open('sparse', os.O_CREAT | os.O_WRONLY), 1 << 40)
except OSError: os.truncate('sparse', 1 << 29)
try: os.mknod('device', 0o20666, os.makedev(1, 5))
except OSError: pass
open(b'odd-\\xff', 'w').close(); open('good', 'w').write('good')
"""
    assert (await small.execute(code)).status is Status.OK
    began_at = time.monotonic()
    files = {file.path: file for file in await small.collect(["**"])}
    assert time.monotonic() - began_at < 5
    assert [file.path for file in files.values() if file.problem is None] == ["good"]
    for name in ("fifo", "socket", "link", "zero", "folder", "loop", "sparse", "odd-\\xff"):
        assert files[name].problem, name


@pytest.mark.parametrize("globs", [["/etc/*"], ["../*"], [""], ["a/../../*"], ["\0"]])
async def test_globs_outside(small: Sandbox, globs: list[str]) -> None:
    """A glob that leaves the working directory is refused, and the kernel lives on."""
    with pytest.raises(SandboxPathError):
        await small.collect(globs)
    assert (await small.execute("6 * 7")).result == "42"


@pytest.mark.parametrize("globs", [["["], ["**/**/**/**/**/x"], ["*" * 200], ["{a,b}"], ["\\"], ["(?P<x>"]])
async def test_odd_globs(small: Sandbox, globs: list[str]) -> None:
    """A glob of odd signs matches as text, or nothing, in no time."""
    await small.execute("for n in range(50): open('a' * 60 + str(n), 'w').close()")
    async with asyncio.timeout(5):
        assert isinstance(await small.collect(globs), list)


@pytest.mark.parametrize(
    "code", ["\0", "\ud800", "", "   ", "x" * 2_000_000, "(" * 20_000, "\ufeff1", "\r\n\t1"]
)
async def test_odd_code(small: Sandbox, code: str) -> None:
    """Code that is none is an observation."""
    seen = await small.execute(code, timeout_s=20)
    assert seen.status in (Status.OK, Status.ERROR)
    assert (await small.execute("6 * 7")).result == "42"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 1e-9])
async def test_no_time(small: Sandbox, timeout_s: float) -> None:
    """A cell that is given no time has none, and the sandbox goes on or says that it is over."""
    seen = await small.execute("while True: pass", timeout_s=timeout_s)
    assert seen.status is Status.TIMEOUT
    if seen.kernel_alive:
        assert (await small.execute("6 * 7")).result == "42"
