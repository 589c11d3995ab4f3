"""What a cell leaves for collect() to find: nothing of it may be followed, waited for, or believed."""

from __future__ import annotations

import asyncio

from sandbox_pool import Observation, Sandbox, SandboxPathError, Status
from tests.sandbox_pool.hostile.case import Case, Check, ends, ok


def _collects(expected: dict[str, str | None]) -> Check:
    """Return a check that collect() takes the files with None, and refuses the others with these words."""

    async def check(sandbox: Sandbox, seen: Observation) -> None:
        async with asyncio.timeout(10):
            files = {file.path: file for file in await sandbox.collect(["out/**"])}
        for path, problem in expected.items():
            assert path in files, (path, sorted(files)[:20])
            found = files[path].problem
            assert found is None if problem is None else problem in (found or ""), (path, found)
        for file in files.values():
            file.path.encode()
            assert b"root:" not in (file.data or b""), f"{file.path} is a file of this machine"

    return check


async def _races(sandbox: Sandbox, seen: Observation) -> None:
    """A file that changes into a link while it is read gives its own content or an error."""
    async with asyncio.timeout(20):
        for _ in range(150):
            try:
                data = await sandbox.read("out/flip")
            except SandboxPathError:
                continue
            assert data in (b"own", b""), data[:100]
        files = await sandbox.collect(["out/**"])
    assert all(b"root:" not in (file.data or b"") for file in files)


async def _put_races(sandbox: Sandbox, seen: Observation) -> None:
    """A folder that changes into a link to one of this machine never gets a file that is put."""
    async with asyncio.timeout(20):
        for n in range(100):
            try:
                await sandbox.put(f"flip/{n}", b"x")
            except (SandboxPathError, OSError):
                continue


def _files(name: str, cell: str, expected: dict[str, str | None]) -> Case:
    return Case(name, "import os\nos.mkdir('out')\n" + cell, ends(Status.OK), check=_collects(expected))


CASES = (
    _files(
        "collect-links",
        "os.symlink('/etc/passwd', 'out/file'); os.symlink('/etc', 'out/folder'); os.symlink('loop', 'out/loop'); os.symlink('/proc/self/fd/0', 'out/fd'); open('out/good', 'w').write('x')",
        {
            "out/file": "symbolic link",
            "out/folder": "symbolic link",
            "out/loop": "symbolic link",
            "out/fd": "symbolic link",
            "out/good": None,
        },
    ),
    _files(
        "collect-special-files",
        "import socket\nos.mkfifo('out/fifo'); s = socket.socket(socket.AF_UNIX); os.chdir('out'); s.bind('socket'); os.chdir('..')\ntry: os.mknod('out/device', 0o20666, os.makedev(1, 5))\nexcept OSError: pass",
        {"out/fifo": "fifo", "out/socket": "socket"},
    ),
    _files(
        "collect-sparse",
        "f = open('out/sparse', 'wb'); f.truncate(7 << 20); f.close(); open('out/small', 'w').write('x')",
        {"out/sparse": "max_collect_bytes", "out/small": None},
    ),
    _files(
        "collect-many",
        "for n in range(300): open(f'out/{n:03}', 'w').close()",
        {"out/000": None, "out/099": None, "out/100": "max_collect_files"},
    ),
    _files(
        "collect-odd-names",
        "open(b'out/\\xff', 'w').close(); open('out/' + 'n' * 255, 'w').close(); open('out/new\\nline', 'w').close(); open('out/\u202e', 'w').close(); open('out/-rf', 'w').close()",
        {"out/\\xff": "UTF-8", "out/" + "n" * 255: None, "out/new\nline": None, "out/-rf": None},
    ),
    _files(
        "collect-deep",
        "os.chdir('out')\nfor _ in range(100): os.mkdir('d'); os.chdir('d')\nopen('x', 'w').close()",
        {"out/d/d/d": "max_collect_depth"},
    ),
    _files(
        "collect-hard-links",
        "open('out/a', 'w').write('x')\nfor n in range(50): os.link('out/a', f'out/l{n}')\ntry: os.link('/etc/passwd', 'out/stolen')\nexcept OSError: pass",
        {"out/a": None, "out/l7": None},
    ),
    _files(
        "collect-unreadable",
        "os.mkdir('out/closed'); open('out/closed/x', 'w').close(); os.chmod('out/closed', 0); open('out/zero', 'w').write('x'); os.chmod('out/zero', 0)",
        {},
    ),
    Case("collect-nothing", "import os\nos.symlink('/etc', 'out')", ok(), check=_collects({})),
    Case(
        "file-flips-while-read",
        """
import os, threading
os.mkdir('out'); os.symlink('/etc/passwd', 'out/link'); open('out/plain', 'w').write('own')
def flip():
    while True:
        for source in ('link', 'plain'):
            try: os.unlink('out/new')
            except OSError: pass
            os.symlink('/etc/passwd', 'out/new') if source == 'link' else os.link('out/plain', 'out/new')
            os.rename('out/new', 'out/flip')
if os.fork() == 0: flip()
import time; time.sleep(0.05)
""",
        ends(Status.OK),
        stays_usable=False,
        check=_races,
    ),
    Case(
        "folder-flips-while-put",
        """
import os
os.mkdir('folder'); os.symlink('@DROP@', 'link')
if os.fork() == 0:
    while True:
        for name in ('folder', 'link'):
            try: os.rename(name, 'flip'); os.rename('flip', name)
            except OSError: pass
""",
        ends(Status.OK),
        stays_usable=False,
        check=_put_races,
    ),
    Case(
        "file-grows-while-collected",
        "import os\nos.mkdir('out')\nif os.fork() == 0:\n  f = open('out/grows', 'ab')\n  while True:\n    try: f.write(b'x' * 1000); f.flush()\n    except OSError: f.truncate(0)",
        ends(Status.OK),
        stays_usable=False,
        check=_collects({}),
    ),
)
