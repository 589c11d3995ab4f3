"""The pool beside cold kernels and beside Jupyter Kernel Gateway, in one run.

    python -m tests.bench.sandbox_pool [--full | --quick] [--json [FILE]] [--tier ...] [--kernel ...]

The same as `python -m sandbox_pool bench`, with one peer more and about two minutes longer. The gateway
is installed once, with the versions of `kernel_gateway.txt`, into a virtual environment of its own in the
user's cache folder (--gateway-venv names another place). Its kernels run under the same interpreter as
all others, with the same imports; it is spoken to as its users do, by HTTP and a websocket to each kernel.
Of a cell's time there some 40 ms are no work: the server leaves Nagle's algorithm on for its websockets, so
that a cell's second message waits for the acknowledgement of its first, which this system delays. With
acknowledgements sent at once (TCP_QUICKACK, which no client of it sets) a trivial cell took 4.3 to 7 ms
instead of 48.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp

from sandbox_pool import SandboxError, SandboxStartError
from sandbox_pool.bench import add_arguments, present
from sandbox_pool.bench.contenders import CELL_TIMEOUT_S, IMPORTS, START_TIMEOUT_S, peer_environment
from sandbox_pool.config import n_cores
from tests.bench.peers import installed

REQUIREMENTS = Path(__file__).with_name("kernel_gateway.txt")
KERNEL_NAME = "bench"
# Ends with its standard input, so that it does not outlive this process, whatever ends that.
LAUNCH = """
import os, signal, sys, threading
def end():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
from kernel_gateway import launch_instance
launch_instance(argv=[])
"""
END_TIMEOUT_S = 30.0


class GatewayKernel:
    """A kernel of the gateway, at the other end of a websocket."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def run(self, code: str, timeout_s: float = CELL_TIMEOUT_S) -> str | None:
        """See `Kernel`. Done when both the reply and iopub's idle are there."""
        msg_id = uuid4().hex
        await self._websocket.send_str(execute_request(msg_id, code))
        value, is_idle, reply = None, False, None
        async with asyncio.timeout(timeout_s):
            while not (is_idle and reply):
                message = await self._websocket.receive_json()
                if message["parent_header"].get("msg_id") != msg_id:
                    continue
                content = message["content"]
                match message["msg_type"]:
                    case "execute_result":
                        value = content["data"]["text/plain"]
                    case "execute_reply":
                        reply = content
                    case "status":
                        is_idle = content["execution_state"] == "idle"
        if reply["status"] != "ok":
            raise SandboxError(f"the cell {code!r} failed: {reply.get('evalue')}")
        return value


def execute_request(msg_id: str, code: str) -> str:
    """Return a request as the gateway's websocket takes it."""
    header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "bench", "username": "bench",
              "version": "5.4", "date": "2000-01-01T00:00:00Z"}  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {},
               "allow_stdin": False, "stop_on_error": False}  # fmt: skip
    return json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content,
                       "channel": "shell", "buffers": []})  # fmt: skip


class GatewayKernels:
    """Kernels of a Jupyter Kernel Gateway on the loopback interface."""

    name = "kernel gateway"

    def __init__(self, python: Path, folder: Path) -> None:
        """`python` has the gateway installed; `folder` takes its logs, and its kernels' caches."""
        self._python = python
        self._folder = folder
        self._session: aiohttp.ClientSession | None = None

    @property
    def max_starting(self) -> int:
        """See `Contender`."""
        return max(2, n_cores())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See `Contender`."""
        port, token = free_port(), secrets.token_hex(16)
        environment = self._environment(port, token)
        log = self._folder / "gateway.log"
        with log.open("wb") as log_file:
            gateway = subprocess.Popen(
                [str(self._python), "-c", LAUNCH],
                stdin=subprocess.PIPE, stdout=log_file, stderr=log_file, env=environment, cwd=self._folder,
                start_new_session=True,
            )  # fmt: skip
        try:
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{port}", headers={"Authorization": f"token {token}"}
            ) as self._session:
                await self._until_up(gateway, log)
                async with self.kernel():  # bytecode and caches
                    pass
                yield
        finally:
            assert gateway.stdin is not None
            gateway.stdin.close()
            try:
                await asyncio.to_thread(gateway.wait, END_TIMEOUT_S)
            finally:
                gateway.kill()
                gateway.wait()

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[GatewayKernel]:
        """See `Contender`."""
        assert self._session is not None
        async with self._session.post("/api/kernels", json={"name": KERNEL_NAME}) as response:
            if response.status != 201:
                raise SandboxStartError(f"the gateway answered {response.status}: {await response.text()}")
            path = f"/api/kernels/{(await response.json())['id']}"
        try:
            async with self._session.ws_connect(f"{path}/channels", max_msg_size=0) as websocket:
                kernel = GatewayKernel(websocket)
                try:
                    await kernel.run(IMPORTS, START_TIMEOUT_S)
                except (TimeoutError, SandboxError) as error:
                    raise SandboxStartError(f"a kernel of the gateway cannot {IMPORTS}: {error}") from error
                yield kernel
        finally:
            async with self._session.delete(path) as response:
                response.raise_for_status()

    async def _until_up(self, gateway: subprocess.Popen[bytes], log: Path) -> None:
        assert self._session is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and gateway.poll() is None:
            try:
                async with self._session.get("/api") as response:
                    response.raise_for_status()
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
        raise SandboxStartError(
            f"Jupyter Kernel Gateway did not come up; it wrote: {log.read_text()[-2000:]}"
        )

    def _environment(self, port: int, token: str) -> dict[str, str]:
        data = self._folder / "data"
        spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": KERNEL_NAME, "language": "python"}  # fmt: skip
        spec_file = data / "kernels" / KERNEL_NAME / "kernel.json"
        spec_file.parent.mkdir(parents=True, exist_ok=True)
        spec_file.write_text(json.dumps(spec))
        return {
            **peer_environment(self._folder),
            "JUPYTER_PATH": str(data),
            "JUPYTER_DATA_DIR": str(data),
            "JUPYTER_CONFIG_DIR": str(self._folder / "config"),
            "KG_IP": "127.0.0.1",
            "KG_PORT": str(port),
            "KG_PORT_RETRIES": "0",
            "KG_AUTH_TOKEN": token,
        }


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    """Install the peer, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--gateway-venv", type=Path, metavar="DIR", help="where the gateway is installed")
    options = parser.parse_args()
    python = installed(REQUIREMENTS, options.gateway_venv)
    with tempfile.TemporaryDirectory(prefix="kernelfleet-gateway-") as folder:
        sys.exit(present(options, peers=[GatewayKernels(python, Path(folder))]))


if __name__ == "__main__":
    main()
