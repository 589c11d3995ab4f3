"""Jupyter's own managers and nbclient on kernels of ours. Where a test has no tier, it is the machine's best."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from jupyter_client import AsyncKernelManager, AsyncMultiKernelManager, BlockingKernelClient, KernelManager
from jupyter_client.ioloop import AsyncIOLoopKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from sandbox_pool import UnsupportedHost
from sandbox_pool.errors import SandboxStartError
from sandbox_pool.jupyter import kernelspec
from sandbox_pool.jupyter.fleet import close_fleet

pytestmark = pytest.mark.kernel
ROOT = Path(__file__).parents[2]
BUSY = "print('on', flush=True)\nwhile True: pass"
GROUP = "jupyter_client.kernel_provisioners"


class Jupyter:
    """A Jupyter of its own: kernelspecs, connection files, and a scratch folder for our sandboxes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "s"
        self.metadata = folder / "meta"
        for path in (self.scratch, self.metadata / "kernelfleet-0.dist-info", folder / "runtime"):
            path.mkdir(parents=True)
        declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
        points = "".join(f"{name} = {value}\n" for name, value in declared[GROUP].items())
        info = self.metadata / "kernelfleet-0.dist-info"
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernelfleet\nVersion: 0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}")

    @property
    def environment(self) -> dict[str, str]:
        return {"JUPYTER_PATH": str(self.folder), "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime")}

    def install(self, name: str = "kernelfleet", *, env: dict[str, str] | None = None, **sandbox: Any) -> str:
        """Write a kernelspec as the command does, with other settings for its sandboxes; return its name.

        Its zygote loads nothing but what a kernel needs, which takes less time.
        """
        spec = kernelspec.kernelspec(name)
        config = spec["metadata"]["kernel_provisioner"]["config"]
        config["sandbox"] |= {"scratch": str(self.scratch), "preload": []} | sandbox
        return self.write(name, spec | {"env": env or {}})

    def write(self, name: str, spec: dict[str, Any]) -> str:
        file = self.folder / "kernels" / name / "kernel.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(spec))
        return name

    def sockets(self) -> list[Path]:
        """Return what is there of any kernel's sockets and files."""
        return [path for path in self.scratch.glob("kf-*/*") if path.name.isdigit()]


@pytest.fixture(name="jupyter", scope="module")
def _jupyter() -> Iterator[Jupyter]:
    folder = Path("/tmp") / f"kfp-{os.getpid()}-{os.urandom(3).hex()}"  # a socket's path must be short
    folder.mkdir(mode=0o755)
    jupyter = Jupyter(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in jupyter.environment.items():
            patch.setenv(name, value)
        patch.syspath_prepend(str(jupyter.metadata))
        jupyter.install(preload=None)
        jupyter.install("light")
        yield jupyter
        close_fleet()
    shutil.rmtree(folder)


@contextmanager
def running(
    name: str = "kernelfleet", **options: Any
) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A blocking manager with a kernel, and a client that is ready."""
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(**options)
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=30)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str) -> str:
    """Run a cell; return what it prints, the text of its result, or its error's name and value."""
    shown: list[str] = []

    def see(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "error":
            shown.append(f"{content['ename']}: {content['evalue']}")
        shown.append(content.get("text") or content.get("data", {}).get("text/plain") or "")

    client.execute_interactive(code, timeout=20, output_hook=see)
    return "".join(shown).strip()


def interrupt(manager: KernelManager, client: BlockingKernelClient) -> str:
    """Interrupt a cell that would run for ever, once it does; return the name of the error that ends it."""
    msg_id = client.execute(BUSY, stop_on_error=False)
    while True:
        message = client.get_iopub_msg(timeout=20)
        if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
            break
    manager.interrupt_kernel()
    return str(client.get_shell_msg(timeout=20)["content"]["ename"])


def wait_until(condition: Callable[[], bool], within_s: float = 10) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def descendants() -> set[int]:
    """Return the processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def listening(jupyter: Jupyter) -> bool:
    """Whether a kernel that is being started has bound all its sockets."""
    return len([*jupyter.scratch.glob("kf-*/*/s/*")]) == 5


# -- one kernel, as Jupyter's managers see it


@pytest.mark.parametrize("tier", ["namespace", "landlock", "process"])
def test_life_of_a_kernel(jupyter: Jupyter, tier: str) -> None:
    """Start, cell, restart, shutdown; afterwards neither process, socket nor file of it is there."""
    name = jupyter.install(tier, tier=tier, allow_unsafe=True)
    manager = KernelManager(kernel_name=name)
    try:
        manager.start_kernel()
    except UnsupportedHost as error:
        pytest.skip(str(error))
    before = descendants()
    info = manager.get_connection_info()
    assert (info["transport"], len(list(Path(info["ip"]).parent.iterdir()))) == ("ipc", 5)
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=20)
    assert run(client, "kept = 20\nkept + 1") == "21"
    assert manager.is_alive()
    assert client.is_alive()
    manager.restart_kernel()
    assert manager.get_connection_info() == info
    client.wait_for_ready(timeout=20)  # the same client, without being told
    assert run(client, "kept") == "NameError: name 'kept' is not defined"
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=20)
    assert run(client, "6 * 7") == "42"
    client.stop_channels()
    manager.shutdown_kernel()
    assert (manager.is_alive(), manager.has_kernel) == (False, False)
    assert descendants() < before
    assert jupyter.sockets() == []
    assert not Path(manager.connection_file).exists()


def test_shutdown_is_polite(jupyter: Jupyter) -> None:
    """A kernel that is asked to end does so by itself, and is not killed."""
    with running() as (manager, client):
        provisioner = manager.provisioner
        assert provisioner is not None
        client.stop_channels()
        statuses: list[int | None] = []
        kernel = provisioner._kernel  # type: ignore[attr-defined]
        manager.request_shutdown()
        wait_until(lambda: kernel.exit_status is not None)
        statuses.append(kernel.exit_status)
        manager.finish_shutdown()
    assert statuses == [0]


def test_interrupt(jupyter: Jupyter) -> None:
    """A busy cell ends with KeyboardInterrupt, and so do the programs it waits for; the kernel stays."""
    with running() as (manager, client):
        run(client, "import subprocess\nchild = subprocess.Popen(['sleep', '60'])")
        assert interrupt(manager, client) == "KeyboardInterrupt"
        assert run(client, "child.wait(10)") == str(-signal.SIGINT)
        manager.interrupt_kernel()  # between cells it does nothing
        assert run(client, "1 + 1") == "2"


@pytest.mark.parametrize(("code", "status"), [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)])
def test_death_is_noticed(jupyter: Jupyter, code: str, status: int) -> None:
    """A kernel that ends by itself is not alive, its manager knows how it ended, and can restart it."""
    with running() as (manager, client):
        client.execute(f"import os; {code}")
        wait_until(lambda: not manager.is_alive())
        assert manager.provisioner is not None
        assert asyncio.run(manager.provisioner.poll()) == status
        assert manager.has_kernel  # until it is waited for
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=20)
        assert run(client, "1 + 1") == "2"


def test_dead_zygote(jupyter: Jupyter) -> None:
    """Kernels whose zygote is killed are dead to their managers; the next start has another zygote."""
    with running("light") as (manager, client), running("light") as (other, _):
        for child in psutil.Process().children():
            child.kill()
        wait_until(lambda: not (manager.is_alive() or other.is_alive()))
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=20)
        assert run(client, "1 + 1") == "2"


async def test_dead_kernel_is_restarted(jupyter: Jupyter) -> None:
    """The restarter that JupyterLab has starts a kernel anew that has died."""
    often = Config({"KernelRestarter": {"time_to_dead": 0.05}})
    manager = AsyncIOLoopKernelManager(kernel_name="kernelfleet", config=often)
    await manager.start_kernel()
    restarted = asyncio.Event()
    manager.add_restart_callback(restarted.set)
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=20)
    client.execute("import os; os._exit(1)")
    async with asyncio.timeout(20):
        await restarted.wait()
    await client.wait_for_ready(timeout=20)
    client.stop_channels()
    await manager.shutdown_kernel()


def test_signals(jupyter: Jupyter) -> None:
    """SIGTERM and SIGKILL end a kernel, 0 asks nothing of it, and others are refused by name."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with running() as (manager, _):
            manager.signal_kernel(0)
            with pytest.raises(ValueError, match="signal 10 does not reach into a sandbox"):
                manager.signal_kernel(signal.SIGUSR1)
            assert manager.is_alive()
            manager.signal_kernel(number)
            assert not manager.is_alive()


async def test_everything_twice(jupyter: Jupyter) -> None:
    """Each way to end a kernel may be used again, in any order, and by a kernel that was never started."""
    manager = AsyncKernelManager(kernel_name="kernelfleet")
    await manager.start_kernel()
    provisioner = manager.provisioner
    assert provisioner is not None
    for _ in range(2):
        await provisioner.send_signal(signal.SIGINT)
        await provisioner.kill()
        await provisioner.terminate()
        assert await provisioner.wait() in (-9, 0)
        assert (provisioner.has_process, await provisioner.poll()) == (False, 0)
        await provisioner.cleanup()
    await manager.shutdown_kernel(now=True)
    fresh = type(provisioner)(parent=manager, kernel_spec=manager.kernel_spec)
    assert (fresh.has_process, await fresh.poll(), await fresh.wait()) == (False, 0, 0)
    await fresh.kill()
    await fresh.cleanup()


async def test_async_manager(jupyter: Jupyter) -> None:
    """AsyncKernelManager: start, cell, interrupt, restart, shutdown."""
    manager = AsyncKernelManager(kernel_name="kernelfleet")
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=20)
    client.execute(f"kept = 1\n{BUSY}")
    while (await client.get_iopub_msg(timeout=20))["msg_type"] != "stream":
        pass
    await manager.interrupt_kernel()
    while (reply := await client.get_shell_msg(timeout=20))["msg_type"] != "execute_reply":
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert (await client.execute("kept", reply=True, timeout=20))["content"]["status"] == "ok"
    await manager.restart_kernel()
    await client.wait_for_ready(timeout=20)
    assert (await client.execute("kept", reply=True, timeout=20))["content"]["ename"] == "NameError"
    client.stop_channels()
    await manager.shutdown_kernel()
    assert not await manager.is_alive()
    assert jupyter.sockets() == []


async def test_cancelled_start(jupyter: Jupyter) -> None:
    """A start that is cancelled leaves no kernel: before the fork, during it, or when it has just come up."""
    moments: list[Callable[[], object]] = [lambda: True, jupyter.sockets, lambda: listening(jupyter)]
    for has_come in moments:
        manager = AsyncKernelManager(kernel_name="light")
        start = asyncio.create_task(manager.start_kernel())
        await asyncio.sleep(0)
        while not (has_come() or start.done()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        start.cancel()
        with suppress(asyncio.CancelledError):
            await start
        assert not manager.has_kernel
        manager.context.destroy(linger=0)
        async with asyncio.timeout(10):
            while jupyter.sockets():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)


# -- many kernels


async def test_many_kernels(jupyter: Jupyter) -> None:
    """AsyncMultiKernelManager: kernels of one process come from one zygote and do not know of each other."""
    kernels = AsyncMultiKernelManager(default_kernel_name="kernelfleet")
    first = await kernels.start_kernel()
    keepers = {child.pid for child in psutil.Process().children()}
    ids = [first, *[await kernels.start_kernel() for _ in range(3)]]
    assert {child.pid for child in psutil.Process().children()} == keepers
    assert kernels.list_kernel_ids() == ids
    for number, kernel_id in enumerate(ids):
        client = kernels.get_kernel(kernel_id).client()
        client.start_channels()
        await client.wait_for_ready(timeout=20)
        reply = await client.execute(
            f"assert 'mine' not in globals(); mine = {number}", reply=True, timeout=20
        )
        assert reply["content"]["status"] == "ok"
        client.stop_channels()
    await kernels.interrupt_kernel(first)
    await kernels.restart_kernel(first)
    await kernels.shutdown_kernel(first)
    assert await asyncio.gather(*(kernels.is_alive(kernel_id) for kernel_id in ids[1:])) == [True] * 3
    await kernels.shutdown_all(now=True)
    assert kernels.list_kernel_ids() == []
    assert jupyter.sockets() == []
    kernels.context.destroy(linger=0)


def _one_kernel(name: str) -> str:
    with running(name) as (_, client):
        return run(client, "6 * 7")


def test_threads_and_forks(jupyter: Jupyter) -> None:
    """Managers in several threads share the zygote; a forked process gets one of its own."""
    with running() as (_, client):
        with ThreadPoolExecutor(3) as threads:
            assert [*threads.map(_one_kernel, ["kernelfleet"] * 3)] == ["42"] * 3
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as forks:
            assert forks.submit(_one_kernel, "light").result(40) == "42"
        assert run(client, "1 + 1") == "2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the loops that jupyter_client made in the threads
        gc.collect()


def test_number_of_kernels_is_bounded(jupyter: Jupyter) -> None:
    """One kernel too many is refused with the setting to change; one that ends makes room."""
    name = jupyter.install("bounded", max_sandboxes=1)
    with running(name) as (manager, _):
        with pytest.raises(SandboxStartError, match=r"sandbox\.max_sandboxes: 1\)"):
            KernelManager(kernel_name=name).start_kernel()
        manager.restart_kernel(now=True)  # is not one more
    with running(name) as (_, client):
        assert run(client, "1") == "1"


# -- what the code finds


def test_kernel_is_isolated(jupyter: Jupyter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own processes, no network, an ordinary user; of our environment what kernel.json names."""
    monkeypatch.setenv("KFP_SECRET", "xyzzy")
    monkeypatch.setenv("KFP_GIVEN", "plugh")
    name = jupyter.install(
        "isolated", tier="namespace", env={"GIVEN": "${KFP_GIVEN}!"}, environment={"ONE": "1"}
    )
    code = (
        "import os, socket\n"
        "print(os.getpid() < 10, os.getuid(), os.getcwd(), os.environ.get('GIVEN'), os.environ.get('ONE'))\n"
        "print('xyzzy' in str(os.environ), sorted(p for p in os.listdir('/proc') if p.isdigit()))\n"
        "socket.create_connection(('192.0.2.1', 80), timeout=5)"
    )
    try:
        with running(name) as (_, client):
            shown = run(client, code)
    except UnsupportedHost as error:
        pytest.skip(str(error))
    assert shown.splitlines()[0] == "True 1000 /sandbox/work plugh! 1"
    assert shown.splitlines()[1] == "False ['1', '2']"
    assert shown.splitlines()[2].startswith("OSError: [Errno 101]")


def test_ipykernel(jupyter: Jupyter) -> None:
    """`kernel: ipykernel` works the same way, and its output that bypasses Python is shown."""
    with running(jupyter.install("reference", kernel="ipykernel")) as (manager, client):
        assert (
            run(client, "import os; os.system('echo raw'); print(get_ipython().kernel.implementation)")
            == "raw\nipython"
        )
        assert "ipykernel" in run(client, "type(get_ipython()).__module__")
        assert interrupt(manager, client) == "KeyboardInterrupt"
        assert run(client, "1 + 1") == "2"
        manager.restart_kernel()
        client.wait_for_ready(timeout=20)
        assert run(client, "2 + 2") == "4"


def test_folder_is_shown(jupyter: Jupyter) -> None:
    """The folder that a kernel starts in is read-only beside its own; one that is none is an error."""
    folder = jupyter.folder / "project"
    folder.mkdir(mode=0o755)
    (folder / "data.csv").write_text("a\n1\n")
    code = "import os\nprint(open('workspace/data.csv').read().split(), os.listdir())\nopen('workspace/new', 'w')"
    with running("light", cwd=str(folder)) as (_, client):
        shown = run(client, code)
    assert shown.splitlines()[0] == "['a', '1'] ['workspace']"
    assert shown.splitlines()[1].startswith("OSError: [Errno 30]")
    with pytest.raises(NotADirectoryError, match="no folder"):
        KernelManager(kernel_name="kernelfleet").start_kernel(cwd=str(folder / "data.csv"))


def test_private_folder_is_not_shown(jupyter: Jupyter, caplog: pytest.LogCaptureFixture) -> None:
    """A home, or what holds other kernels' sockets, is not shown, which is said; the kernel starts."""
    for folder in (Path.home(), jupyter.folder, jupyter.folder / "runtime"):
        caplog.clear()
        with running(cwd=str(folder)) as (_, client):
            assert run(client, "import os; os.listdir()") == "[]"
        assert f"the kernel does not see {folder}" in caplog.text


# -- nbclient


def notebook(*cells: str) -> nbformat.NotebookNode:
    """Return a notebook of code cells."""
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    return book


def test_notebook(jupyter: Jupyter) -> None:
    """A notebook that nbclient executes: text, state from cell to cell, a figure, the folder's files, an error."""
    folder = jupyter.folder / "notebooks"
    folder.mkdir(mode=0o755)
    (folder / "numbers.txt").write_text("1 2 39")
    book = notebook(
        "numbers = [int(n) for n in open('workspace/numbers.txt').read().split()]\nprint(sum(numbers))",
        "import matplotlib.pyplot as plt\nplt.plot(numbers)\nplt.show()",
        "sum(numbers) / 0",
        "raise AssertionError('is not reached')",
    )
    client = NotebookClient(
        book, kernel_name="kernelfleet", timeout=20, resources={"metadata": {"path": str(folder)}}
    )
    with pytest.raises(CellExecutionError, match="ZeroDivisionError: division by zero"):
        client.execute()
    assert book.cells[0].outputs == [{"output_type": "stream", "name": "stdout", "text": "42\n"}]
    assert "image/png" in book.cells[1].outputs[-1].data
    assert book.cells[2].outputs[-1].ename == "ZeroDivisionError"
    assert [cell.execution_count for cell in book.cells] == [1, 2, 3, None]
    nbformat.validate(book)
    assert jupyter.sockets() == []


async def test_notebook_whose_kernel_dies(jupyter: Jupyter) -> None:
    """The death of a kernel in a cell is noticed, and a cell that takes too long is an error."""
    client = NotebookClient(notebook("import os; os._exit(1)"), kernel_name="kernelfleet", timeout=20)
    with pytest.raises(DeadKernelError):
        await client.async_execute()
    late = NotebookClient(notebook("while True: pass", "1"), kernel_name="kernelfleet", timeout=1)
    with pytest.raises(CellTimeoutError):
        await late.async_execute()
    assert jupyter.sockets() == []


# -- wrong settings


@pytest.mark.parametrize(
    ("sandbox", "said"),
    [
        ({"max_sandboxs": 1}, r"broken/kernel\.json: metadata\.kernel_provisioner\.config\.sandbox\.max_sandboxs: there is no such key; there are .*max_sandboxes"),
        ({"memory_bytes": -1}, r"sandbox\.memory_bytes: Input should be greater than 0, got -1"),
        ({"profile": "fast"}, r"sandbox\.profile: no sandbox profile 'fast': known are default"),
        ({"profiles": {"a": {"kernal": 1}}}, r"sandbox\.profiles\.a\.kernal: there is no such key"),
    ],
)  # fmt: skip
def test_wrong_settings(jupyter: Jupyter, sandbox: dict[str, Any], said: str) -> None:
    """A mistake in kernel.json is an error that names the file and the key, before anything starts."""
    name = jupyter.install("broken", **sandbox)
    with pytest.raises(ValueError, match=said):
        KernelManager(kernel_name=name).start_kernel()


def test_settings_at_the_wrong_place(jupyter: Jupyter) -> None:
    """Keys beside `sandbox` are named; nothing is silently without effect."""
    spec = kernelspec.kernelspec("misplaced")
    spec["metadata"]["kernel_provisioner"]["config"] = {"sandbox": {}, "memory_bytes": 1}
    name = jupyter.write("misplaced", spec)
    with pytest.raises(ValueError, match="unknown keys: memory_bytes; put the settings of sandboxes under"):
        KernelManager(kernel_name=name).start_kernel()


def test_unsafe_tier_is_refused(jupyter: Jupyter) -> None:
    """The tier without protection takes its own consent here too."""
    name = jupyter.install("unsafe", tier="process")
    with pytest.raises(UnsupportedHost, match="allow_unsafe"):
        KernelManager(kernel_name=name).start_kernel()


def test_other_signatures_are_refused(jupyter: Jupyter) -> None:
    """A manager that signs otherwise than kernels can is told so, instead of waiting for answers."""
    manager = KernelManager(kernel_name="kernelfleet")
    manager.session.signature_scheme = "hmac-sha512"
    with pytest.raises(ValueError, match="hmac-sha512"):
        manager.start_kernel()


def test_failed_start_leaves_nothing(jupyter: Jupyter) -> None:
    """A preload module that cannot be imported is named, and the next kernel of that kind is tried anew."""
    name = jupyter.install("modules", preload=["no_such_module"])
    for _ in range(2):
        manager = KernelManager(kernel_name=name)
        with pytest.raises(UnsupportedHost, match="no_such_module"):
            manager.start_kernel()
        assert not manager.has_kernel
    assert jupyter.sockets() == []


# -- the process that has the kernels


_SCRIPT = """
import os, signal, sys
from jupyter_client import KernelManager
manager = KernelManager(kernel_name="light")
manager.start_kernel()
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_end_of_the_process(jupyter: Jupyter, is_killed: bool) -> None:
    """A kernel that nobody shut down ends with its process, by itself or by SIGKILL, and leaves nothing."""
    before = set(jupyter.scratch.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _SCRIPT],
        env=os.environ | jupyter.environment | {"PYTHONPATH": f"{ROOT}:{jupyter.metadata}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline()
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3  # keeper, zygote, init, kernel
    if is_killed:
        process.kill()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (-9 if is_killed else 0)
    # warnings of what this machine cannot bound are no complaints of the end
    assert [line for line in errors.splitlines() if not line.startswith(b"sandboxes: ")] == []
    wait_until(lambda: not any(child.is_running() for child in below), within_s=5)
    wait_until(lambda: set(jupyter.scratch.iterdir()) == before, within_s=5)


def test_fleet_can_be_closed(jupyter: Jupyter) -> None:
    """Closing ends kernels in use, leaves no process and no file; their managers find them dead."""
    with running("light") as (manager, client):
        client.stop_channels()
        close_fleet()
        close_fleet()
        assert not manager.is_alive()
        assert list(jupyter.scratch.iterdir()) == []
        assert descendants() == set()
        manager.restart_kernel(now=True)  # with a fleet of its own
        assert manager.is_alive()


# -- the command


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m sandbox_pool kernelspec`."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox_pool", "kernelspec", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_kernelspec_command(tmp_path: Path) -> None:
    """It writes a kernel.json that Jupyter finds, is content with its own, and overwrites no other."""
    seen = command("--prefix", str(tmp_path))
    file = tmp_path / "share/jupyter/kernels/kernelfleet/kernel.json"
    assert (seen.returncode, seen.stdout.splitlines()[0]) == (0, f"written: {file}")
    assert f"JUPYTER_PATH={tmp_path}/share/jupyter" in seen.stdout
    found = json.loads(file.read_text())
    assert found["metadata"]["kernel_provisioner"]["provisioner_name"] == "kernelfleet"
    assert found["argv"] == []  # nothing that could be started without a sandbox
    assert command("--prefix", str(tmp_path)).returncode == 0
    file.write_text("{}")
    seen = command("--prefix", str(tmp_path))
    assert (seen.returncode, file.read_text()) == (1, "{}")
    assert "is there already" in seen.stderr
    seen = command("--prefix", str(tmp_path), "--name", "No Name")
    assert (seen.returncode, "cannot name a kernelspec" in seen.stderr) == (2, True)
    seen = command("--user", "--name", "mine", JUPYTER_DATA_DIR=str(tmp_path / "user"))
    assert (seen.returncode, seen.stdout) == (0, f"written: {tmp_path}/user/kernels/mine/kernel.json\n")
