"""One engine as a process: ready, refused, late, stopped, started again; the fake engine stands for vLLM."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from runner.engines import keeper, process
from runner.engines.host import EngineSpec
from runner.engines.process import EngineProcess
from runner.errors import EngineStartError
from tests.fake_engine import COMMAND, ENVIRONMENT, N_SEGMENTS
from tests.processes import processes_below, wait_until_gone

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])


def engine(
    folder: Path, *options: str, command: tuple[str, ...] = COMMAND, timeout_s: float = 50.0
) -> EngineProcess:
    """Return an engine whose processes are known by the folder, which stands in their environment."""
    spec = EngineSpec((*command, "--model", "m", *options), {**ENVIRONMENT, "FOLDER": str(folder)}, timeout_s)
    return EngineProcess(spec, folder / "logs" / "engine.log")


def n_descriptors() -> int:
    """Return how many this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until_there(folder: Path, n_processes: int) -> None:
    """Wait until so many processes are known by the folder: keeper, engine, core."""
    deadline = time.monotonic() + 20.0
    while len(processes_below(folder)) < n_processes:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_a_ready_engine_says_where_and_what_it_is(tmp_path: Path) -> None:
    """It answers at once, and nothing is left after it was stopped; then it can be started again."""
    host = engine(tmp_path, "--max-model-len", "4096")
    try:
        first = await host.start()
        assert (first.model, first.max_model_len) == ("m", 4096)
        async with aiohttp.ClientSession() as http, http.get(f"{first.url}/models") as response:
            assert response.status == 200
        await host.stop(5.0)
        assert await host.ended() == "exit code 0"
        assert not wait_until_gone(tmp_path, 0.0)
        assert await host.start()
    finally:
        await host.close()
        await host.close()
    assert not wait_until_gone(tmp_path, 0.0)


async def test_memory_that_is_too_small_is_named(tmp_path: Path) -> None:
    """With the remedy and the end of the log; its core is gone."""
    with pytest.raises(EngineStartError) as caught:
        await engine(tmp_path, "--start-fault", "oom").start()
    message = str(caught.value)
    assert "it ended (exit code 1); the model does not fit: raise engines.tensor_parallel" in message
    assert "torch.OutOfMemoryError" in message
    assert not wait_until_gone(tmp_path, 0.0)


async def test_a_start_has_a_limit(tmp_path: Path) -> None:
    """What hangs is killed."""
    with pytest.raises(EngineStartError, match=r"not ready in 3 s \(engines.start_timeout_s\)"):
        await engine(tmp_path, "--start-fault", "never", timeout_s=3.0).start()
    assert not wait_until_gone(tmp_path, 0.0)


async def test_how_an_earlier_start_ended_is_no_reason(tmp_path: Path) -> None:
    """One that was killed, and then one that is late: nobody killed that."""
    script = f'mkdir "{tmp_path}/second" && kill -9 $$; exec sleep 60'
    host = engine(tmp_path, command=("/bin/sh", "-c", script), timeout_s=2.0)
    with pytest.raises(EngineStartError, match=r"it ended \(signal 9\); it was killed from outside"):
        await host.start()
    with pytest.raises(
        EngineStartError, match=r"not ready in 2 s \(engines.start_timeout_s\); the log says why"
    ):
        await host.start()


async def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """The log names it."""
    with pytest.raises(EngineStartError, match="cannot execute /no/such/python: No such file"):
        await engine(tmp_path, command=("/no/such/python",)).start()


async def test_the_port_is_held_for_the_engine(tmp_path: Path) -> None:
    """While it starts, nothing else can listen there; the engine can, and has it as long as it lives."""
    holder = process.reserve_port("127.0.0.1")
    address = holder.getsockname()
    with holder, socket.socket() as other, socket.socket() as server:
        with pytest.raises(OSError, match="in use"):
            other.bind(address)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen()


async def test_a_port_that_is_taken_all_the_same(tmp_path: Path) -> None:
    """Such as one that `engines.args` names: the error says what to do, and no other server is taken for ours."""
    host = engine(tmp_path, "--start-fault", "port")
    with pytest.raises(EngineStartError, match="a port is taken"):
        await host.start()


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    """Whoever cancels has nothing to clean up."""
    host = engine(tmp_path, "--start-s", "60")
    starting = asyncio.create_task(host.start())
    await asyncio.to_thread(wait_until_there, tmp_path, 3)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not wait_until_gone(tmp_path, 0.0)


async def test_a_start_that_is_cancelled_at_once_loses_no_descriptor(tmp_path: Path) -> None:
    """Such as the log's."""
    before = n_descriptors()
    for n_ticks in (1, 2):
        starting = asyncio.create_task(engine(tmp_path, command=("/bin/sleep", "60")).start())
        for _ in range(n_ticks):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
    await asyncio.to_thread(wait_until_gone, tmp_path)
    assert n_descriptors() <= before + 1  # uvloop keeps one for its children


async def test_what_left_the_engines_session_is_killed_too(tmp_path: Path) -> None:
    """A daemon, by the book: another session, another parent, no mark in its environment."""
    daemon = f"import os; os.setsid(); os.fork() or os.execve('/bin/sleep', ['sleep', '300'], {{'D': {str(tmp_path)!r}}})"
    command = (sys.executable, "-c", f"{daemon}; os._exit(3)")
    with pytest.raises(EngineStartError, match="exit code 3"):
        await engine(tmp_path, command=("/bin/sh", "-c", '"$0" "$@"; sleep 0.2; exit 3', *command)).start()
    assert not wait_until_gone(tmp_path, 0.0)


async def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the grace: a frozen server handles no signal."""
    host = engine(tmp_path)
    address = await host.start()
    root = address.url.removesuffix("/v1")
    timeout = aiohttp.ClientTimeout(total=0.5)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        with pytest.raises(TimeoutError):
            await http.post(f"{root}/admin/die?how=freeze")
    await host.stop(0.5)
    assert await host.ended() == "signal 9"
    assert not wait_until_gone(tmp_path, 0.0)


async def test_a_killed_engine_leaves_no_shared_memory(tmp_path: Path) -> None:
    """Python's own tracker removes it, when it is left alive for that: each start of vLLM takes some 400 MB."""
    name = f"kernelfleet-test-{secrets.token_hex(8)}"
    host = engine(tmp_path, "--shared-memory", name)

    def segments() -> list[Path]:
        return list(Path("/dev/shm").glob(f"{name}-*"))

    try:
        await host.start()
        assert len(segments()) == N_SEGMENTS
        await host.stop(0.0)
        assert not segments()
        assert not wait_until_gone(tmp_path, 0.0)
    finally:
        await host.close()
        for segment in segments():
            segment.unlink()


async def test_the_log_tail_is_of_this_start(tmp_path: Path) -> None:
    """And bounded, however much an engine writes."""
    host = engine(tmp_path, command=("/bin/sh", "-c", "yes noise | head -c 200000; echo the end; exit 3"))
    for _ in range(2):
        with pytest.raises(EngineStartError, match="exit code 3"):
            await host.start()
        tail = await host.log_tail()
        assert tail.endswith("the end")
        assert len(tail) <= process.MAX_TAIL_BYTES
    host = engine(tmp_path, command=("/bin/sh", "-c", "exit 4"))
    with pytest.raises(EngineStartError, match="ends:\n\\(empty\\)"):
        await host.start()


async def test_a_log_that_cannot_be_written_keeps_no_engine_from_working() -> None:
    """The disk is full, and the engine may be all that is left of a run: it is begun, and says how it ends."""
    spec = EngineSpec(("/bin/sh", "-c", "exit 4"), {}, 50.0)
    with pytest.raises(EngineStartError, match="exit code 4"):
        await EngineProcess(spec, Path("/dev/full")).start()


async def test_a_machine_that_can_start_nothing_is_no_end_of_the_run(tmp_path: Path) -> None:
    """No folder for the log, no process, no descriptor: an error of this start, as any other."""
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(
        EngineStartError, match=r"could not be started: .*(File exists|Not a directory).*df -h"
    ):
        await engine(tmp_path).start()


async def test_a_log_does_not_grow_without_end(tmp_path: Path) -> None:
    """What is too long is cut to its end, while the engine goes on writing to it."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(keeper.__file__).parent)!r}); import keeper; "
        "keeper.MAX_LOG_BYTES, keeper.KEPT_LOG_BYTES, keeper.LOG_LOOK_S = 20_000, 1_000, 0.01; "
        "sys.exit(keeper.main(sys.argv[1:]))"
    )
    flood = "import time\nfor i in range(1000): print('line', i, 'x' * 90, flush=True), time.sleep(1e-4)"
    log = tmp_path / "engine.log"
    with log.open("ab") as stderr:
        keeping = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, "--own-group", str(os.getpid()), sys.executable, "-c", flood,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    await keeping.communicate()
    text = log.read_text()
    assert len(text) < 60_000
    assert "bytes were cut here; the end follows" in text
    assert text.splitlines()[-1].startswith("line 999 ")
