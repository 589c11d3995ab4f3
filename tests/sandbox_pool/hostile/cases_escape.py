"""Attempts to see or reach what is not the sandbox's: each cell prints what it could do, a line for each."""

from __future__ import annotations

from sandbox_pool import Status
from tests.sandbox_pool.hostile.case import Case, End, ends, ok, unpromised

_TRY = r"""
import errno, os, socket, sys
def attempt(name, act):
    try: result = act()
    except Exception: return
    print(name)
def others():
    try: found = [int(name) for name in os.listdir('/proc') if name.isdigit()]
    except OSError: found = [1, @RUNNER_PID@, @ZYGOTE_PID@]
    return sorted({*found, os.getppid()} - {os.getpid()})
"""

_SYSCALLS = (
    _TRY
    + r"""
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
is_x86 = platform.machine() == 'x86_64'
buffer = ctypes.create_string_buffer(4096)
at = ctypes.addressof(buffer)
REFUSED = {errno.EPERM, errno.ENOSYS, errno.EACCES, errno.EAFNOSUPPORT}
def call(name, x86, arm, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(x86 if is_x86 else arm), *map(ctypes.c_long, args))
    if result >= 0 or ctypes.get_errno() not in REFUSED: print(name, errno.errorcode.get(ctypes.get_errno(), result))
"""
)
"""`call` prints a system call that was not refused; arguments are such that it does no harm if it is not."""

_NOTHING = ok("")
_ORDINARY = "keeps what the system allows any process of its uid"
_NO_FILTER = "no system call is filtered"


def _syscalls(name: str, calls: str, *, process: End | None = None) -> Case:
    end = process or ends(Status.OK, alive=True)
    return Case(name, _SYSCALLS + calls, {"process": unpromised(_NO_FILTER, end), "": _NOTHING})


def _reach(
    name: str,
    cell: str,
    *,
    namespace: End | None = None,
    landlock: End | None = None,
    process: End | None = None,
    kernel: str | None = None,
) -> Case:
    """Return a case that prints nothing, except where another end is given, or in the tier process."""
    found = {
        "namespace": namespace or _NOTHING,
        "landlock": landlock or _NOTHING,
        "": unpromised(_ORDINARY, process or ends(Status.OK, alive=True)),
    }
    return Case(name, _TRY + cell, found, kernel=kernel)


_CONNECT = r"""
def tcp(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s: s.settimeout(0.3); s.connect(address)
def udp(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as s: s.settimeout(0.3); s.sendto(b'x', address)
"""

CASES = (
    # -- network
    _reach(
        "tcp-to-this-machine",
        _CONNECT + "attempt('connected', lambda: tcp(socket.AF_INET, ('127.0.0.1', @TCP_PORT@)))",
        process=ok("connected\n"),
    ),
    _reach(
        "udp-to-this-machine",
        _CONNECT + "attempt('sent', lambda: udp(socket.AF_INET, ('127.0.0.1', @UDP_PORT@)))",
        namespace=ok("(sent\n)?"),  # to itself: it has a loopback of its own
        process=ok("sent\n"),
    ),
    _reach(
        "internet",
        _CONNECT
        + r"""
attempt('tcp', lambda: tcp(socket.AF_INET, ('1.1.1.1', 443)))
attempt('udp', lambda: udp(socket.AF_INET, ('8.8.8.8', 53)))
attempt('metadata', lambda: tcp(socket.AF_INET, ('169.254.169.254', 80)))
attempt('tcp6', lambda: tcp(socket.AF_INET6, ('2606:4700:4700::1111', 443)))
attempt('udp6', lambda: udp(socket.AF_INET6, ('ff02::1', 53)))
attempt('dns', lambda: socket.getaddrinfo('example.com', 80))
attempt('broadcast', lambda: udp(socket.AF_INET, ('255.255.255.255', 9)))
""",
    ),
    _reach(
        "odd-socket-families",
        r"""
for family in (*range(3, 10), *range(11, 16), *range(17, 46)):
    for kind in (1, 2, 3, 5):
        attempt(f'family {family} type {kind}', lambda: socket.socket(family, kind).close())
for protocol in range(0, 256, 15): attempt(f'raw {protocol}', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).close())
""",
    ),
    _reach(
        "vsock",
        "attempt('vsock', lambda: socket.socket(40, socket.SOCK_STREAM).close())",
        process=ok("(vsock\n)?"),
    ),
    _reach(
        "abstract-socket-of-this-machine",
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\nattempt('connected', lambda: s.connect('\\0@ABSTRACT@'))\ns.close()",
        process=ok("connected\n"),
    ),
    _reach(
        "socket-file-of-this-machine",
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\nattempt('connected', lambda: s.connect('@SOCKET@'))\ns.close()",
        landlock=unpromised(
            "Landlock does not govern connect() to a socket file that the uid may write", ok("(connected\n)?")
        ),
        process=ok("connected\n"),
    ),
    _reach(
        "docker-socket",
        "for path in ('/var/run/docker.sock', '/run/containerd/containerd.sock', '/run/dbus/system_bus_socket', '/run/systemd/private'):\n  s = socket.socket(socket.AF_UNIX); attempt(path, lambda: s.connect(path)); s.close()",
        landlock=unpromised("only the sockets' own rights protect them", ends(Status.OK, alive=True)),
    ),
    # -- files
    _reach(
        "file-of-this-machine", "attempt('read', lambda: open('@HOST_FILE@').read())", process=ok("read\n")
    ),
    _reach(
        "run-directory",
        "attempt('read', lambda: open('@RUN_FILE@').read())\nattempt('listed', lambda: os.listdir(os.path.dirname('@RUN_FILE@')))",
        process=ok("read\nlisted\n"),
    ),
    Case(
        "other-sandbox",
        _TRY
        + r"""
other = '@OTHER@'
attempt('read', lambda: open(os.path.join(other, 'canary')).read())
if other != os.getcwd(): attempt('listed', lambda: os.listdir(other)); attempt('wrote', lambda: open(os.path.join(other, 'x'), 'w'))
for pid in others(): attempt('by pid', lambda: open(f'/proc/{pid}/cwd/canary').read())
""",
        {
            "namespace": _NOTHING,
            "landlock": _NOTHING,
            "root": _NOTHING,
            "": unpromised("sandboxes of an ordinary user share its uid", ends(Status.OK, alive=True)),
        },
    ),
    _reach(
        "no-file-of-ours",
        r"""
import hashlib, json
ours = {(name, size): digest for name, size, digest in json.loads('@OURS@')}
for top, folders, names in os.walk('@WALK@'):
    if top == '/': folders[:] = [f for f in folders if f not in ('proc', 'sys')]
    for name in names:
        path = os.path.join(top, name)
        try:
            if (name, os.lstat(path).st_size) in ours and hashlib.sha256(open(path, 'rb').read()).hexdigest() == ours[name, os.lstat(path).st_size]: print(path)
        except OSError: pass
""",
        process=ok("(.*/runner/trajectory/rollout.py\n.*)?"),
        kernel="lean",  # a walk takes seconds, and finds the same in both
    ),
    _reach(
        "no-module-of-ours",
        r"""
for name in ('runner', 'runner.trajectory.rollout', 'scoring', 'bench_data', 'bench_data.quickstart', 'sandbox_pool', 'sandbox_pool.pool', 'sandbox_pool.inside', 'tests'):
    attempt(name, lambda: __import__(name).__file__.lower())
for name, module in sorted(sys.modules.items()):
    if name.split('.')[0] in ('runner', 'scoring', 'bench_data', 'sandbox_pool') and getattr(module, '__file__', None): print('there is', name)
""",
    ),
    _reach(
        "secrets-of-this-machine",
        r"""
import pathlib
places = {sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), *filter(None, sys.path)}
way = {part for place in places for part in pathlib.Path(place).parts}  # to the interpreter
for path in ('/etc/shadow', '/etc/gshadow', '/etc/sudoers', '/root', '/home', '/var/log', '/var/lib', '/run', '/srv', '/mnt', '/media', '/boot', '/etc/ssh', '/work', '@ROOT@'):
    attempt(path, lambda: 1 / bool(set(os.listdir(path)) - way) if os.path.isdir(path) else open(path).read())
""",
    ),
    _reach(
        "writable-places",
        r"""
import tempfile
own = [os.path.realpath(p) for p in (os.getcwd(), os.environ['HOME'], tempfile.gettempdir(), '/tmp', '/dev/shm')] if '@TIER@' == 'namespace' else [os.path.dirname(os.path.realpath(os.getcwd()))]
for folder in ('/', '/etc', '/usr', '/usr/bin', '/bin', '/lib', '/dev', '/dev/shm', '/tmp', '/var/tmp', '/run', '/var', '/proc', '/sys', '@DROP@', sys.prefix, os.path.dirname(os.__file__)):
    path = os.path.join(folder, 'kernelfleet-written')
    if not any((os.path.realpath(folder) + '/').startswith(o + '/') for o in own):
        attempt(folder, lambda: open(path, 'w').close() or os.remove(path))
""",
        process=ok("(/.*\n)+"),
    ),
    _reach(
        "interpreter-changed",
        "import numpy\nfor path in (os.__file__, numpy.__file__, sys.executable, '/etc/passwd'): attempt(path, lambda: open(path, 'r+b').close())\nattempt('renamed', lambda: os.rename(os.__file__, os.__file__ + 'x'))",
        process=ends(Status.OK, alive=True),
    ),
    _reach(
        "links-to-this-machine",
        "attempt('hard', lambda: os.link('/etc/passwd', 'hard'))\nattempt('symbolic', lambda: os.symlink('@HOST_FILE@', 'soft') or open('soft').read())",
        process=ok("(hard\n)?symbolic\n"),
    ),
    _reach(
        "through-proc",
        r"""
for pid in others():
    attempt('root', lambda: open(f'/proc/{pid}/root@HOST_FILE@').read())
    attempt('descriptors', lambda: [open(f'/proc/{pid}/fd/{n}') for n in os.listdir(f'/proc/{pid}/fd')])
    attempt('memory', lambda: os.close(os.open(f'/proc/{pid}/mem', os.O_RDONLY)))
    attempt('maps', lambda: open(f'/proc/{pid}/maps').read())
attempt('self', lambda: open('/proc/self/root@HOST_FILE@').read())
""".replace("'root/@HOST_FILE@', 'cwd/..'", "'root@HOST_FILE@',"),
        process=ok(".*self\n"),
    ),
    # -- the kernel's own settings
    _reach(
        "settings-of-this-machine",
        r"""
import glob
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hostname', '/proc/sys/kernel/sysrq', '/proc/sys/vm/drop_caches',
             '/proc/sys/vm/overcommit_memory', '/proc/sys/fs/suid_dumpable', '/proc/sys/fs/binfmt_misc/register', '/proc/sysrq-trigger', '/proc/sys/kernel/randomize_va_space',
             '/sys/kernel/uevent_helper', '/sys/kernel/mm/transparent_hugepage/enabled', '/proc/irq/default_smp_affinity', '/proc/mtrr', '/proc/kcore', '/dev/mem', '/dev/kmsg',
             *glob.glob('/sys/fs/cgroup/*/release_agent'), *glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)):
    attempt(path, lambda: os.close(os.open(path, os.O_WRONLY)))
for path in ('/proc/kcore', '/dev/mem', '/dev/kmsg', '/proc/kmsg'): attempt('read ' + path, lambda: os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 1))
""",
        process=ok(""),
    ),
    _reach(
        "more-than-its-limits",
        r"""
import resource
for name in ('NPROC', 'NOFILE', 'FSIZE', 'AS', 'CORE'):
    number = getattr(resource, 'RLIMIT_' + name); soft, hard = resource.getrlimit(number)
    if hard == resource.RLIM_INFINITY and name != 'NPROC': print(name, 'is unlimited')
    elif hard != resource.RLIM_INFINITY: attempt(name, lambda: resource.setrlimit(number, (hard + 1, hard + 1)))
attempt('nice', lambda: os.nice(-5))
attempt('realtime', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
def spare():
    with open('/proc/self/oom_score_adj', 'w') as f: f.write(str(@OOM_SCORE@ - 1))
attempt('spared before the runner', spare)
""",
        process=ok(".*"),
    ),
    # -- privileges
    _reach(
        "status",
        r"""
seen = dict(line.split(':\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\t' in line)
for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
    if int(seen[name], 16): print(name, seen[name])
if seen['NoNewPrivs'] != '1' or seen['Seccomp'] != '2': print('NoNewPrivs', seen['NoNewPrivs'], 'Seccomp', seen['Seccomp'])
if 0 in os.getresuid() + os.getresgid() or 0 in os.getgroups(): print('root')
""",
    ),
    _reach(
        "become-root",
        r"""
import subprocess
for name in ('setuid', 'setgid', 'seteuid', 'setegid'): attempt(name, lambda: getattr(os, name)(0))
attempt('setresuid', lambda: os.setresuid(0, 0, 0))
attempt('setgroups', lambda: os.setgroups([0]))
for command in (['su', '-c', 'id'], ['sudo', '-n', 'id'], ['mount', '-t', 'tmpfs', 'x', '/mnt'], ['unshare', '-Ur', 'id'], ['unshare', '-n', 'true'], ['newgrp'], ['chsh', '-s', '/bin/sh', 'root']):
    try: done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=5)
    except (OSError, subprocess.TimeoutExpired): continue
    if done.returncode == 0 and (b'uid=0' in done.stdout or command[0] in ('mount', 'unshare', 'chsh')): print(*command)
""",
        process=ok("(unshare -Ur id\n)?(unshare -n true\n)?"),
    ),
    _reach(
        "setuid-files",
        "os.close(os.open('own', os.O_CREAT | os.O_WRONLY)); os.chmod('own', 0o6755)\nif not os.statvfs('/usr/bin').f_flag & os.ST_NOSUID or not os.statvfs('.').f_flag & os.ST_NOSUID: print('not nosuid')",
        landlock=unpromised(
            "mounts are this machine's; no_new_privs makes setuid files harmless", ok("not nosuid\n|")
        ),
    ),
    _syscalls(
        "namespaces",
        r"""
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000, 0x80):
    call(f'unshare {flag:x}', 272, 97, flag)
for name in ('pid', 'mnt', 'net', 'user'):
    fd = os.open(f'/proc/self/ns/{name}', os.O_RDONLY) if os.access(f'/proc/self/ns/{name}', os.R_OK) else -1
    call(f'setns {name}', 308, 268, fd, 0)
call('clone3', 435, 435, at, 0)
""",
    ),
    _syscalls(
        "clone-into-a-namespace",
        r"""
ctypes.set_errno(0)
result = libc.syscall(ctypes.c_long(56 if is_x86 else 220), ctypes.c_long(0x10000000 | 17), *[ctypes.c_long(0)] * 4)
if result == 0: os._exit(0)
if result > 0: os.waitpid(result, 0); print('cloned')
""",
        process=ok("(cloned\n)?"),
    ),
    _syscalls(
        "mounts",
        r"""
tmp = ctypes.create_string_buffer(os.path.abspath('.').encode()); kind = ctypes.create_string_buffer(b'tmpfs')
a, k = ctypes.addressof(tmp), ctypes.addressof(kind)
call('mount', 165, 40, k, a, k, 0, 0); call('umount2', 166, 39, a, 2); call('pivot_root', 155, 41, a, a); call('chroot', 161, 51, a)
call('fsopen', 430, 430, k, 0); call('fsmount', 432, 432, -1, 0, 0); call('move_mount', 429, 429, -1, a, -1, a, 0)
call('open_tree', 428, 428, -100, a, 1); call('mount_setattr', 442, 442, -100, a, 0, at, 32); call('fspick', 433, 433, -100, a, 0)
call('swapon', 167, 224, a, 0); call('quotactl', 179, 60, 0, 0, 0, 0); call('acct', 163, 89, 0)
""",
    ),
    _syscalls(
        "other-processes",
        r"""
parent = os.getppid()
call('ptrace attach', 101, 117, 16, parent, 0, 0); call('ptrace seize', 101, 117, 0x4206, parent, 0, 0); call('ptrace traceme', 101, 117, 0, 0, 0, 0)
iov = (ctypes.c_long * 2)(at, 8); i = ctypes.addressof(iov)
call('process_vm_readv', 310, 270, parent, i, 1, i, 1, 0); call('process_vm_writev', 311, 271, parent, i, 1, i, 1, 0)
call('kcmp', 312, 272, os.getpid(), parent, 0, 0, 0)
pidfd = libc.syscall(ctypes.c_long(434), ctypes.c_long(parent), ctypes.c_long(0))
call('pidfd_getfd', 438, 438, pidfd, 0, 0)
""",
    ),
    _syscalls(
        "kernel-surface",
        r"""
call('io_uring_setup', 425, 425, 1, at); call('io_uring_enter', 426, 426, -1, 0, 0, 0, 0, 0); call('io_uring_register', 427, 427, -1, 0, 0, 0)
call('bpf', 321, 280, 0, at, 8); call('userfaultfd', 323, 282, 0); call('perf_event_open', 298, 241, at, 0, -1, -1, 0)
call('add_key', 248, 217, 0, 0, 0, 0, 0); call('request_key', 249, 218, 0, 0, 0, 0); call('keyctl', 250, 219, 0, -3, 1)
call('init_module', 175, 105, 0, 0, 0); call('finit_module', 313, 273, -1, at, 0); call('delete_module', 176, 106, at, 0)
call('kexec_load', 246, 104, 0, 0, 0, 0); call('reboot', 169, 142, 0, 0, 0, 0); call('syslog', 103, 116, 3, at, 1)
call('open_by_handle_at', 304, 265, -100, at, 0); call('fanotify_init', 300, 262, 0, 0); call('lookup_dcookie', 212, 18, 0, at, 1)
call('settimeofday', 164, 170, at, 0); call('clock_settime', 227, 112, 0, at); call('adjtimex', 159, 171, 0) if False else None
call('sethostname', 170, 161, at, 1); call('setdomainname', 171, 162, at, 1); call('personality', 135, 92, 0x0400000)
if is_x86: call('iopl', 172, 0, 3); call('ioperm', 173, 0, 0, 1, 1)
""".replace("; call('adjtimex', 159, 171, 0) if False else None", ""),
    ),
    _syscalls(
        "terminal-input",
        "import fcntl\nbuffer.value = b'x'\nfor request in (0x5412, 0x541C):\n  call(f'ioctl {request:x}', 16, 29, 0, request, at); call(f'ioctl high {request:x}', 16, 29, 0, request | 1 << 32, at)",
    ),
    Case(
        "i386-system-calls",
        _SYSCALLS
        + r"""
import mmap
if is_x86:
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b'\x53\xb8\x36\x01\x00\x00\xbb\x00\x00\x00\x10\xcd\x80\x5b\xc3')  # unshare(CLONE_NEWUSER) by int 0x80
    pid = os.fork()
    if pid == 0:
        f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        os._exit(1 if f() == 0 else 0)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1: print('unshared')
    call('x32 unshare', 0x40000000 + 272, 97, 0x10000000)
""",
        {"process": unpromised(_NO_FILTER, ok(r"(unshared\n)?(x32 unshare.*)?")), "": _NOTHING},
    ),
    _reach(
        "device-nodes",
        r"""
import stat
for kind, major, minor in ((stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 1, 3), (stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0)):
    attempt(f'made {major}:{minor}', lambda: os.mknod(f'node{major}-{minor}', kind | 0o666, os.makedev(major, minor)))
for path in ('/dev/sda', '/dev/vda', '/dev/kvm', '/dev/fuse', '/dev/net/tun', '/dev/vhost-net', '/dev/loop-control', '/dev/uinput', '/dev/tty', '/dev/console', '/dev/vsock', '/dev/hpet', '/dev/rtc0'):
    attempt(path, lambda: os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK)))
""",
        process=ends(Status.OK, alive=True),
    ),
    # -- what is left lying about in its own process
    _reach(
        "inherited-descriptors",
        r"""
for name in os.listdir('/proc/self/fd'):
    try: target = os.readlink(f'/proc/self/fd/{name}')
    except OSError: continue
    if target.startswith('/') and target not in ('/dev/null', '/dev/urandom') and not target.startswith(f'/proc/{os.getpid()}/') and 'memfd' not in target: print(name, target)
""",
        landlock=ok(r"(\d+ /dev/null\n)*"),
        process=ok(r"(\d+ /.*\n)*"),
    ),
    Case(
        "secrets-in-environments",
        r"""
import glob, os, re
texts = [repr(dict(os.environ)).encode()]
for path in glob.glob('/proc/*/environ'):
    try: texts.append(open(path, 'rb').read())
    except OSError: pass
print(*re.findall(rb'KFCANARY-[0-9a-f]{32}', b''.join(texts)), sep='\n', end='')
""",
        {
            "namespace": _NOTHING,
            "landlock": _NOTHING,
            "root": _NOTHING,
            "": unpromised("the runner's environment belongs to the same uid", ends(Status.OK, alive=True)),
        },
    ),
    Case(
        "secrets-in-own-memory",
        r"""
import re
found = set()
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        span, rights, *_ = line.split()
        if not rights.startswith('rw'): continue
        start, end = (int(x, 16) for x in span.split('-'))
        while start < end:
            try: memory.seek(start); part = memory.read(min(end - start, 1 << 22))
            except (OSError, OverflowError): break
            found.update(re.findall(rb'KFCANARY-[0-9a-f]{32}', part)); start += len(part) or end
print(*found, sep='\n', end='')
""",
        _NOTHING,
    ),
    _reach(
        "init-out-of-reach",
        r"""
guard = 1 if '@TIER@' == 'namespace' else os.getppid()
attempt('memory written', lambda: os.close(os.open(f'/proc/{guard}/mem', os.O_RDWR)))
attempt('memory read', lambda: os.close(os.open(f'/proc/{guard}/mem', os.O_RDONLY)))
attempt('descriptors', lambda: os.listdir(f'/proc/{guard}/fd'))
attempt('syscall', lambda: open(f'/proc/{guard}/syscall').read())
attempt('limits', lambda: __import__('resource').prlimit(guard, 7))
""",
        process=ends(Status.OK, alive=True),
    ),
    Case(
        "init-starved",
        r"""
import os, resource
guard = 1 if '@TIER@' == 'namespace' else os.getppid()
acts = [lambda: os.sched_setscheduler(guard, os.SCHED_IDLE, os.sched_param(0)), lambda: os.setpriority(os.PRIO_PROCESS, guard, 19)]
for name in ('CPU', 'NOFILE', 'AS', 'DATA', 'STACK', 'FSIZE', 'SIGPENDING', 'NPROC'):
    acts.append(lambda number=getattr(resource, 'RLIMIT_' + name): resource.prlimit(guard, number, (1, 1)))
for act in acts:
    try: act()
    except OSError: pass
for _ in range(10):  # orphans, which it has to collect
    if os.fork() == 0:
        for _ in range(10):
            if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
print('alive')
""",
        {
            "namespace": ok("alive\n"),
            "landlock": ok("alive\n"),
            "root": ok("alive\n"),
            "": unpromised("shares its uid with the sandbox's guardian", ends(*Status)),
        },
    ),
    _reach(
        "pids-of-this-machine",
        "own = {os.getpid(), os.getppid(), 1}\nattempt('listed', lambda: 1 / bool({int(p) for p in os.listdir('/proc') if p.isdigit()} - own))\nattempt('runner', lambda: open('/proc/@RUNNER_PID@/cmdline').read())",
        process=ok("listed\nrunner\n"),
    ),
    _reach(
        "name-of-this-machine",
        "if socket.gethostname() == '@HOSTNAME@': print('same')\nattempt('mounts', lambda: 1 / ('@DROP@' in open('/proc/self/mountinfo').read()))",
        landlock=unpromised("has no uts namespace", ok("(same\n)?")),
        process=ok("same\n"),
    ),
)
