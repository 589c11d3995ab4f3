"""What this machine has that no sandbox may see or reach, and whether one has."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.processes import ROOT

CANARY = "KFCANARY-"
"""What all secrets begin with; 32 hexadecimal digits follow."""

_PACKAGES = ("runner", "scoring", "bench_data", "sandbox_pool", "tests")


def new_canary() -> str:
    """Return a secret."""
    return CANARY + secrets.token_hex(16)


def our_files(root: Path = ROOT) -> list[tuple[str, int, str]]:
    """Return name, size and digest of every file of ours that no sandbox may read."""
    found = []
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "inside" not in path.parts and "__pycache__" not in path.parts:
                data = path.read_bytes()
                if len(data) > 200:  # shorter ones may be anybody's
                    found.append((path.name, len(data), hashlib.sha256(data).hexdigest()))
    return found


class Bait:
    """Files, sockets and a variable, open to every user of this machine. Use it as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kfh-", dir="/tmp"))
        self.folder.chmod(0o755)
        self._stack = ExitStack()
        self._variable = new_canary()

    def __enter__(self) -> Bait:
        os.environ["KERNELFLEET_TEST_SECRET"] = self._variable
        self.drop = self._folder("drop", 0o777)
        self.scratch = self._folder("s", 0o755)
        self.host_file = self._file(self.folder / "host.txt")
        self.run_file = self._file(self._folder("runs", 0o755) / "trajectories.jsonl")
        self._tcp = self._socket(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._udp = self._socket(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._name = f"kernelfleet-{secrets.token_hex(8)}"
        self._abstract = self._socket(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self._name)
        self._path = self._socket(socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        del os.environ["KERNELFLEET_TEST_SECRET"]
        shutil.rmtree(self.folder)

    def _folder(self, name: str, mode: int) -> Path:
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(mode)
        return folder

    def _file(self, path: Path) -> Path:
        path.write_text(new_canary())
        path.chmod(0o644)
        return path

    def _socket(self, family: int, kind: int, address: str | tuple[str, int]) -> socket.socket:
        made = self._stack.enter_context(socket.socket(family, kind))
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.setblocking(False)
        return made

    def facts(self) -> dict[str, str]:
        """Return what the names in cells stand for."""
        return {
            "DROP": str(self.drop),
            "HOST_FILE": str(self.host_file),
            "RUN_FILE": str(self.run_file),
            "TCP_PORT": str(self._tcp.getsockname()[1]),
            "UDP_PORT": str(self._udp.getsockname()[1]),
            "ABSTRACT": self._name,
            "SOCKET": str(self.folder / "socket"),
            "HOSTNAME": socket.gethostname(),
            "OOM_SCORE": Path("/proc/self/oom_score_adj").read_text().strip(),
            "RUNNER_PID": str(os.getpid()),
            "OURS": json.dumps(our_files()),
            "ROOT": str(ROOT),
        }

    def take(self) -> list[str]:
        """Return which of it was touched since the last call, and restore it."""
        touched = []
        for name, listening in (("tcp", self._tcp), ("abstract", self._abstract), ("path", self._path)):
            try:
                while True:
                    listening.accept()[0].close()
                    touched.append(name)
            except BlockingIOError:
                pass
        try:
            while self._udp.recv(100):
                touched.append("udp")
        except BlockingIOError:
            pass
        for path in self.drop.iterdir():
            touched.append(f"file {path.name}")
            path.unlink()
        return touched
