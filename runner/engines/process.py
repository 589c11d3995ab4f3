"""One engine as a process of this machine, under a keeper (keeper.py), with its log in a file."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson

from runner.engines import keeper
from runner.engines.diagnosis import describe_status, excerpt, remedy
from runner.engines.host import EngineAddress, EngineSpec
from runner.engines.orphans import marked, sweep_marked
from runner.errors import EngineStartError

LOOK_INTERVAL_S = 0.25
LOOK_TIMEOUT_S = 5.0
MAX_TAIL_BYTES = 1 << 16
STOP_MARGIN_S = 5.0
"""For the keeper's last word, behind the grace and the sweep."""


class EngineProcess:
    """An EngineHost. `start` may be called again after the engine has ended.

    Args:
        spec: what to start.
        log_path: appended to; its folder is made.
        host: the address of this machine to listen on, and to be asked at.
        own_group: keep the terminal's Ctrl-C from the engine. False leaves it in the process group of its
            owner, as Ray wants: the raylet kills an actor's group.
    """

    def __init__(
        self, spec: EngineSpec, log_path: Path, *, host: str = "127.0.0.1", own_group: bool = False
    ) -> None:
        self._spec = spec
        self._log_path = log_path
        self._host = host
        self._own_group = own_group
        self._log_begin = 0
        self._keeper: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._port: socket.socket | None = None
        self._mark = ""
        self._how = ""
        self._ended = asyncio.Event()

    async def start(self) -> EngineAddress:
        """See EngineHost."""
        try:
            address = await self._start_once()
        except TimeoutError:
            limit = f"{self._spec.start_timeout_s:g} s (engines.start_timeout_s)"
            error = await self._start_error(f"it was not ready in {limit}")
        except OSError as cause:
            error = EngineStartError(
                f"an engine could not be started: {cause}; see what this machine has left: disk (df -h), "
                f"memory (free), processes and open files (ulimit -a)"
            )
        except BaseException:
            await asyncio.shield(self.stop(0.0))
            raise
        else:
            if address is not None:
                return address
            error = await self._start_error(f"it ended ({self._how})")
        await self.stop(0.0)
        raise error

    async def ended(self) -> str:
        """See EngineHost."""
        await self._ended.wait()
        return self._how

    async def stop(self, grace_s: float) -> None:
        """See EngineHost."""
        process, listener = self._keeper, self._listener
        if process is None or listener is None:
            self._release_port()
            return
        assert process.stdin is not None
        with suppress(OSError, RuntimeError):  # RuntimeError: uvloop's word for a pipe that is closed
            process.stdin.write(b"stop %g\n" % grace_s)
            await process.stdin.drain()
        await asyncio.wait([listener], timeout=grace_s + keeper.SWEEP_S + STOP_MARGIN_S)
        if not listener.done():
            await asyncio.to_thread(sweep_marked, self._mark)  # the keeper as well
            await asyncio.wait([listener])
        self._keeper = self._listener = None
        self._release_port()

    async def log_tail(self) -> str:
        """See EngineHost. Of the present start, or the last one."""
        return await asyncio.to_thread(self._read_tail)

    async def close(self) -> None:
        """See EngineHost."""
        await self.stop(0.0)

    async def _start_once(self) -> EngineAddress | None:
        """Return the address once the engine answers, or None when it has ended. Raises TimeoutError."""
        self._port = reserve_port(self._host)
        port = self._port.getsockname()[1]
        async with asyncio.timeout(self._spec.start_timeout_s):
            await self._launch(port)
            return await self._wait_ready(f"http://{self._host}:{port}")

    async def _launch(self, port: int) -> None:
        spec = self._spec
        self._mark = secrets.token_hex(16)
        self._how = ""
        self._ended.clear()
        argv = [*spec.argv, "--host", self._host, "--port", str(port)]
        options = ["--own-group"] if self._own_group else []
        log = self._open_log(argv)  # here: a thread's descriptor would be lost to a cancellation
        try:
            self._keeper = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(Path(keeper.__file__)), *options, str(os.getpid()), *argv,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env={**os.environ, **spec.env, **marked(self._mark)},
            )  # fmt: skip
        finally:
            os.close(log)
        self._listener = asyncio.create_task(self._listen(self._keeper))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Read what the keeper says until it ends; then nothing of the engine is left."""
        assert process.stdout is not None
        assert process.stdin is not None
        how = ""
        async for line in process.stdout:
            said = orjson.loads(line)
            if "status" in said:
                how = describe_status(said["status"])
        if not how:
            how = "its keeper was killed"
            await asyncio.to_thread(sweep_marked, self._mark)
        process.stdin.close()
        await process.wait()
        self._how = how
        self._ended.set()

    async def _wait_ready(self, root: str) -> EngineAddress | None:
        looking = asyncio.create_task(_look_until_ready(root, self._api_key()))
        ended = asyncio.create_task(self._ended.wait())
        try:
            done, _ = await asyncio.wait({looking, ended}, return_when=asyncio.FIRST_COMPLETED)
            return looking.result() if looking in done else None
        finally:
            looking.cancel()
            ended.cancel()
            await asyncio.wait({looking, ended})

    def _api_key(self) -> str | None:
        return self._spec.env.get("VLLM_API_KEY") or os.environ.get("VLLM_API_KEY")

    async def _start_error(self, what: str) -> EngineStartError:
        tail = await self.log_tail()
        return EngineStartError(
            f"an engine did not start: {what}; {remedy(tail, self._how)}. "
            f"Its log, {self._log_path}, ends:\n{excerpt(tail) or '(empty)'}"
        )

    def _release_port(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _open_log(self, argv: list[str]) -> int:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk: the engine works without a log, and may be all there is
            os.write(log, f"--- {now} {' '.join(argv)}\n".encode())
        self._log_begin = os.fstat(log).st_size
        return log

    def _read_tail(self) -> str:
        try:
            with self._log_path.open("rb") as log:
                n_bytes = log.seek(0, os.SEEK_END)
                begin = self._log_begin if self._log_begin <= n_bytes else 0  # the keeper has cut it
                log.seek(max(begin, n_bytes - MAX_TAIL_BYTES))
                return log.read(MAX_TAIL_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            return ""


async def _look_until_ready(root: str, api_key: str | None) -> EngineAddress:
    timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            if (address := await _look(http, root, api_key)) is not None:
                return address
            await asyncio.sleep(LOOK_INTERVAL_S)


async def _look(http: aiohttp.ClientSession, root: str, api_key: str | None) -> EngineAddress | None:
    """Return what an engine says of itself, or None while it is not ready."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with http.get(f"{root}/health") as response:
            if response.status != 200:
                return None
        async with http.get(f"{root}/v1/models", headers=headers) as response:
            row = orjson.loads(await response.read())["data"][0]
            return EngineAddress(f"{root}/v1", str(row["id"]), int(row.get("max_model_len") or 0))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError):
        return None


def reserve_port(host: str) -> socket.socket:
    """Return a socket that holds a free port of an address as long as it is open.

    It does not listen, so that a server which sets SO_REUSEADDR or SO_REUSEPORT, as vLLM does, may take the
    port, and nothing else can: two engines that shared one would not notice.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, 0))
    except OSError:
        holder.close()
        raise
    return holder
