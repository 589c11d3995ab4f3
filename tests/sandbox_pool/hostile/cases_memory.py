"""Attacks on memory and on the disk."""

from __future__ import annotations

from contextlib import suppress

from sandbox_pool import Observation, Sandbox, SandboxPathError, Status
from tests.sandbox_pool.hostile.case import ANYHOW, Case, ends, ok, raises, unpromised

_ONLY_AS = "without a cgroup each process has its own bound (RLIMIT_AS), and shared memory none"
_NO_QUOTA = "without a file system of its own, only the size of each file is bounded"
_MEMORY = "MemoryError|_ArrayMemoryError|OSError"
_HELD = ends(Status.MEMORY, Status.ERROR, Status.OK, stdout="(?!.*everything).*")

CASES: tuple[Case, ...] = (
    Case("bytearray", "x = bytearray(8 << 30)", raises("MemoryError", "memory")),
    Case("numpy-huge", "import numpy\nnumpy.zeros((1 << 20, 1 << 20))", raises(_MEMORY, "memory")),
    Case("list-of-lists", "x = [0] * (10 ** 12)", raises("MemoryError", "memory")),
    Case("string-doubling", "x = 'x'\nwhile True: x += x", raises("MemoryError", "memory")),
    Case(
        "small-objects",
        "x = []\nwhile True: x.append(bytes(100_000))",
        ends(Status.ERROR, Status.MEMORY, Status.DIED),
        stays_usable=False,
    ),
    Case(
        "caught-memory-errors",
        """
kept = []
for size in (1 << 26, 1 << 20, 1 << 14):
    while True:
        try: kept.append(bytearray(size))
        except MemoryError: break
del kept
print('ok')
""",
        {"cgroup": ends(Status.OK, Status.MEMORY, Status.ERROR), "": ends(Status.OK, Status.ERROR)},
        stays_usable=False,
    ),
    Case(
        "map-shared",
        """
import mmap
kept = []
for _ in range(40):
    kept.append(mmap.mmap(-1, 50 << 20)); kept[-1][:] = bytes(50 << 20)
print('everything')
""",
        _HELD,
        stays_usable=False,
    ),
    Case(
        "map-shared-by-many",
        """
import mmap, os, time
pids = []
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        try:
            m = mmap.mmap(-1, 150 << 20)
            for at in range(0, 150 << 20, 4096): m[at] = 1
            time.sleep(0.4)
        except BaseException: os._exit(1)
        os._exit(0)
    pids.append(pid)
good = [os.waitpid(pid, 0)[1] for pid in pids].count(0)
print('everything' if good == 10 else 'some')
""",
        {"cgroup": _HELD, "": unpromised(_ONLY_AS, ends(Status.OK))},
        stays_usable=False,
    ),
    Case(
        "memfd",
        """
import os
kept = []
for _ in range(64):
    fd = os.memfd_create('x'); kept.append(fd)
    for _ in range(16): os.write(fd, bytes(1 << 20))
print('everything')
""",
        {
            "cgroup": _HELD,
            "namespace": _HELD,
            "landlock": _HELD,
            "": unpromised(_ONLY_AS, ends(Status.OK, Status.ERROR)),
        },
        stays_usable=False,
    ),
    Case(
        "dev-shm",
        """
import os
names = []
try:
    for n in range(16):
        names.append(f'/dev/shm/kernelfleet-test-@TIER@-{n}')
        with open(names[-1], 'wb') as f: f.write(bytes(4 << 20))
    print('everything')
finally:
    if '@TIER@' == 'process':
        for name in names: os.remove(name)
""",
        {
            "namespace": raises("OSError", "disk", stdout=""),
            "landlock": raises("PermissionError|FileNotFoundError|OSError", stdout=""),
            "": unpromised("shares the machine's /dev/shm", ok("everything\n")),
        },
    ),
    Case(
        "sysv-shared-memory",
        """
import ctypes
libc = ctypes.CDLL(None)
made = [libc.shmget(0, 1 << 20, 0o600 | 0o1000) for _ in range(4)]
if '@TIER@' != 'namespace': [libc.shmctl(n, 0, None) for n in made if n >= 0]
print('made' if any(n >= 0 for n in made) else 'none')
""",
        {
            "namespace": ok("(made|none)\n"),  # its own, gone with it
            "landlock": ok("none\n"),
            "": unpromised("shares the machine's System V segments", ok("made\n")),
        },
    ),
    Case(
        "message-queues",
        """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
made = [libc.msgget(0, 0o600 | 0o1000), libc.semget(0, 1, 0o600 | 0o1000)]
if '@TIER@' != 'namespace':
    if made[0] >= 0: libc.msgctl(made[0], 0, None)
    if made[1] >= 0: libc.semctl(made[1], 0, 0)
print('made' if any(n >= 0 for n in made) else 'none')
""",
        {
            "namespace": ok("(made|none)\n"),
            "landlock": ok("none\n"),
            "": unpromised("shares the machine's System V queues", ok("made\n")),
        },
    ),
    Case(
        "disk-fill",
        """
import os
for n in range(12):
    with open(f'fill-{n}', 'wb') as f:
        for _ in range(4): f.write(bytes(1 << 20))
print('everything')
""",
        {
            "namespace": raises("OSError", "disk", stdout=""),
            "": unpromised(_NO_QUOTA, ok("everything\n")),
        },
    ),
    Case(
        "full-disk-then-work",
        "import os\nos.remove('fill')\nopen('new', 'w').write('works')\nprint(open('new').read())",
        ok("works\n"),
        before=(
            """
try:
    with open('fill', 'wb') as f:
        while True: f.write(bytes(1 << 20))
except OSError: pass
""",
        ),
    ),
    Case(
        "home-and-tmp-fill",
        """
import os, tempfile
n, made = 0, []
for folder in (os.environ['HOME'], tempfile.gettempdir(), '/tmp', '/dev/shm', '.'):
    made.append(os.path.join(folder, f'kernelfleet-{len(made)}'))
    try:
        with open(made[-1], 'wb', 0) as f:
            for _ in range(12): n += f.write(bytes(1 << 20))
    except OSError: pass
if '@TIER@' != 'namespace':
    for path in made:
        try: os.remove(path)
        except OSError: pass
print('bounded' if n <= 16 << 20 else n)
""",
        {
            "namespace": ok("bounded\n"),
            "landlock": unpromised(_NO_QUOTA, ok(r"\d+\n|bounded\n")),
            "": unpromised(_NO_QUOTA, ok(r"\d+\n")),
        },
    ),
    Case(
        "inode-fill",
        "for n in range(5000): open(f'n{n}', 'w').close()\nprint('everything')",
        {"namespace": raises("OSError", "disk", stdout=""), "": unpromised(_NO_QUOTA, ok("everything\n"))},
    ),
    Case("sparse-terabyte", "open('sparse', 'wb').truncate(1 << 40)", raises("OSError", "disk")),
    Case(
        "one-file-too-large",
        "f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        raises("OSError", "disk"),
    ),
    Case(
        "fallocate",
        "import os\nos.posix_fallocate(os.open('big', os.O_RDWR | os.O_CREAT), 0, 1 << 30)",
        raises("OSError", "disk"),
    ),
    Case(
        "many-descriptors",
        "kept = []\nwhile True: kept.append(open('/dev/null'))",
        {"lean": raises("OSError", stdout=""), "": ANYHOW},  # ipykernel needs some to answer
        timeout_s=3,
        stays_usable=False,
    ),
    Case(
        "deep-folders",
        "import os\nfor _ in range(900): os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)",
        ends(Status.OK, alive=True),
        stays_usable=False,
    ),
    Case(
        "folder-without-rights",
        "import os\nos.makedirs('a/b'); open('a/b/c', 'w').close(); os.chmod('a/b', 0); os.chmod('.', 0)",
        ok(),
    ),
    Case(
        "work-folder-removed",
        "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.chdir('/')",
        ok(),
    ),
)


async def _swapped(sandbox: Sandbox, seen: Observation) -> None:
    """Neither reading nor writing follows the link that stands where the working directory was."""
    for path in ("passwd", "hostname", "bait"):
        try:
            data = await sandbox.read(path)
        except SandboxPathError:
            continue
        assert data == b"own", f"read {path} of this machine"
    with suppress(SandboxPathError):
        await sandbox.put("written", b"x")
    files = await sandbox.collect(["**"])
    assert not [
        file for file in files if file.path in ("passwd", "hostname", "bait") and file.data is not None
    ]


CASES += tuple(
    Case(
        f"work-folder-swapped-for-{name}",
        f"""
import os
here = os.getcwd()
try:
    os.rename(here, here + '-moved'); os.symlink({target!r}, here)
except OSError as error: print('refused')
""",
        ends(Status.OK),
        stays_usable=False,
        check=_swapped,
    )
    for name, target in (("etc", "/etc"), ("a-folder-of-ours", "@DROP@"))
)
