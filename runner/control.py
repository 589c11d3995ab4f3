"""Another shell can ask a running run how it is doing, and tell it what to do.

A unix socket, for this user alone, in a short runtime directory: the path of one is bounded to about a
hundred bytes, and run directories lie deep. `control.json` in the run directory says where. One JSON
object a line in, one out:

    {"command": "status" | "pause" | "resume" | "drain"}
    {"command": "cancel", "sample": ID}       a sample, or one attempt of it
    {"command": "set", "concurrency": N}
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson

from runner.encoding import encode_line
from runner.errors import RunnerError, write_error
from runner.telemetry.statistics import RunStatistics

POINTER = "control.json"
MAX_REQUEST_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 30.0
MAX_CONCURRENCY = 100_000
MAX_BASE_CHARS = 60


class Controllable(Protocol):
    """What a run lets another shell do."""

    def statistics(self) -> RunStatistics:
        """Return how far the run is."""
        ...

    def pause(self, reason: str) -> None:
        """Begin nothing until `resume`."""

    def resume(self) -> None:
        """End a pause."""

    def drain(self, reason: str) -> None:
        """Take no further attempts and end; a second call cancels what still runs."""

    def cancel(self, sample_id: str) -> list[str]:
        """Cancel running attempts; return which."""
        ...

    def set_concurrency(self, concurrency: int) -> int:
        """Change how many trajectories may be in flight; return what is in force."""
        ...


class ControlServer:
    """An async context manager that listens while it is open."""

    def __init__(self, run_dir: Path, run: Controllable) -> None:
        self._run = run
        self._pointer = run_dir / POINTER
        self._path = make_socket_folder() / "ctl"
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Listen, and say where. Raises JournalError when the run directory cannot be written."""
        _remove_stale(self._pointer)
        # The folder is ours alone, so that nobody connects before the mode is set.
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=MAX_REQUEST_BYTES)
        self._path.chmod(0o600)
        pointer = {"socket": str(self._path), "pid": os.getpid(), "host": socket.gethostname()}
        temporary = self._pointer.with_suffix(".tmp")
        try:
            temporary.write_bytes(orjson.dumps(pointer))
            temporary.replace(self._pointer)
        except OSError as error:
            await self._close()
            raise write_error(self._pointer, error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; nothing is left behind."""
        with suppress(OSError):
            self._pointer.unlink(missing_ok=True)
        await self._close()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            for client in list(self._clients):
                client.transport.abort()  # close() would wait for one that does not read
            await self._server.wait_closed()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._path.parent.rmdir()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            if not _is_ours(writer):
                return
            while True:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    line = await reader.readline()
                if not line:
                    return
                writer.write(encode_line(self._answer(line)))
                await writer.drain()
        except (TimeoutError, ValueError, OSError):
            pass  # too slow, too long, or gone: that is the client's loss
        finally:
            self._clients.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return {"error": f"not JSON: {error}"}
        if not isinstance(request, dict):
            return {"error": "a request is a JSON object"}
        return answer(self._run, request)


def answer(run: Controllable, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a request; return what to tell the client."""
    match request:
        case {"command": "status"}:
            return {"status": asdict(run.statistics())}
        case {"command": "pause"}:
            run.pause("asked to by ctl")
            return {"done": "paused: what is in flight goes on, nothing more is begun"}
        case {"command": "resume"}:
            run.resume()
            return {"done": "resumed"}
        case {"command": "drain"}:
            run.drain("asked to by ctl")
            return {"done": "draining: what is in flight gets the grace period; once more cancels it"}
        case {"command": "cancel", "sample": str(sample)}:
            names = run.cancel(sample)
            if not names:
                return {"error": f"no attempt of {sample!r} is running"}
            return {"done": f"cancelled {', '.join(names)}; a resume runs it again", "attempts": names}
        case {"command": "set", "concurrency": int(n)} if 1 <= n <= MAX_CONCURRENCY and n is not True:
            return {"done": f"concurrency is {run.set_concurrency(n)}"}
        case {"command": "set"}:
            return {"error": f"set concurrency=N takes a number from 1 to {MAX_CONCURRENCY}"}
    return {"error": f"no such command: {request.get('command')!r}"}


async def ask(run_dir: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the run that writes this directory, and return its answer.

    Raises:
        RunnerError: nobody runs it, or not on this machine; says what is known.
    """
    pointer = _read_pointer(run_dir)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(pointer["socket"], limit=1 << 24)
            writer.write(encode_line(request))
            line = await reader.readline()
            writer.close()
    except (OSError, TimeoutError) as error:
        raise RunnerError(
            f"{run_dir}: its runner (process {pointer['pid']}) does not answer "
            f"({str(error) or 'time-out'}); if it was killed, run the same command again to go on"
        ) from error
    if not line:
        raise RunnerError(f"{run_dir}: its runner closed the connection; are you the user who started it?")
    return dict(orjson.loads(line))


def make_socket_folder() -> Path:
    """Return a new folder that nobody else can enter, whose path is short. Raises RunnerError."""
    bases = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()]
    base = next(
        (base for base in bases if base and len(base) <= MAX_BASE_CHARS and Path(base).is_dir()), "/tmp"
    )
    try:
        return Path(tempfile.mkdtemp(prefix="kernelfleet-", dir=base))
    except OSError as error:
        raise RunnerError(f"cannot make a folder in {base} for the run's control socket: {error}") from error


def _read_pointer(run_dir: Path) -> dict[str, Any]:
    path = run_dir / POINTER
    try:
        pointer = orjson.loads(path.read_bytes())
        pointer = {"socket": str(pointer["socket"]), "pid": pointer["pid"], "host": pointer["host"]}
    except FileNotFoundError:
        where = "is not running" if run_dir.is_dir() else "does not exist"
        raise RunnerError(f"{run_dir} {where}: there is no {POINTER} in it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunnerError(f"{path}: not readable ({error})") from error
    if pointer["host"] != socket.gethostname():
        raise RunnerError(f"{run_dir} runs on {pointer['host']}, process {pointer['pid']}: ask there")
    return pointer


def _remove_stale(pointer: Path) -> None:
    """Remove the socket of an earlier process of this run, which was killed."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = Path(orjson.loads(pointer.read_bytes())["socket"])
        if path.name == "ctl" and path.parent.name.startswith("kernelfleet-") and not _is_listened_to(path):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def _is_listened_to(path: Path) -> bool:
    """Whether a process is there: that of the run of which this directory is a copy. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the process at the other end is this user's, or root's."""
    peer = writer.get_extra_info("socket")
    if peer is None or not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.getuid())
