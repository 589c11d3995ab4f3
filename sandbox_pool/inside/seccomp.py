"""A seccomp filter, assembled here: what a sandbox's processes may not ask of the kernel.

A deny-list: everything that numpy, subprocess, multiprocessing and libzmq use stays. Denied calls give
EPERM, clone3 ENOSYS, so that the C library falls back to clone, whose flags a filter can see; socket
families give EAFNOSUPPORT, which libzmq, unlike EPERM, survives. Numbers: Linux's unistd headers.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import NamedTuple

from sandbox_pool.inside import syscalls
from sandbox_pool.inside.syscalls import Unsupported

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
FAMILIES = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
ONLY_UNIX = (AF_UNIX,)

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _AND = 0x15, 0x35, 0x45, 0x54
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*, all that fit into clone's flags
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FILE_TYPE, _CHARACTER_DEVICE, _BLOCK_DEVICE = 0o170000, 0o020000, 0o060000

_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # processes of others, and their memory
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467), "statmount": (457, 457),
    "listmount": (458, 458),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    # what programs are loaded into the kernel, and what it has much code for
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "create_module": (174, None), "query_module": (178, None), "get_kernel_syms": (177, None),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None), "uselib": (134, None),
    "_sysctl": (156, None), "ustat": (136, None), "sysfs": (139, None), "nfsservctl": (180, 42),
    "vmsplice": (278, 75), "remap_file_pages": (216, 234),
    # the machine
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89),
    "sethostname": (170, 161), "setdomainname": (171, 162), "syslog": (103, 116), "vhangup": (153, 58),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
}  # fmt: skip
_MEMORY_BEYOND_LIMITS = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "msgget": (68, 186),
}  # fmt: skip
_OUTLASTING = {
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
}  # fmt: skip
"""What makes things that outlast all processes, where there is no ipc namespace that ends with them."""

_EXAMINED = {
    "clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "socketpair": (53, 199),
    "ioctl": (16, 29), "personality": (135, 92), "mknod": (133, None), "mknodat": (259, 33),
    "prlimit64": (302, 261),
}  # fmt: skip

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables above, and AUDIT_ARCH, by machine."""


class Instruction(NamedTuple):
    """One instruction of classic BPF; jumps count instructions from the next one."""

    code: int
    if_true: int
    if_false: int
    value: int


def _fail(number: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, _ERRNO | number)


_DENY = _fail(errno.EPERM)
_PASS = Instruction(_RETURN, 0, 0, _ALLOW)


def _argument(number: int) -> Instruction:
    """Load the low half of an argument; all that are examined are ints to the kernel."""
    return Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * number)


def one_of(
    number: int, values: tuple[int, ...], *, then: Instruction, otherwise: Instruction
) -> list[Instruction]:
    """Compare an argument to values."""
    tests = [Instruction(_IF_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_argument(number), *tests, otherwise, then]


def families(allowed: tuple[int, ...]) -> list[Instruction]:
    """Let only these socket families through, and of netlink only routes, which libc asks for addresses."""
    refuse = _fail(errno.EAFNOSUPPORT)
    simple = tuple(family for family in allowed if family != AF_NETLINK)
    if AF_NETLINK not in allowed:
        return one_of(0, simple, then=_PASS, otherwise=refuse)
    routes = one_of(2, (0,), then=_PASS, otherwise=refuse)
    is_netlink = [_argument(0), Instruction(_IF_EQUAL, 0, len(routes), AF_NETLINK), *routes]
    return [*is_netlink, *one_of(0, simple, then=_PASS, otherwise=refuse)]


def rules(
    column: int, allowed: tuple[int, ...], *, deny_memfd: bool, deny_outlasting: bool = False
) -> dict[int, list[Instruction]]:
    """Return what to do, once its number is known, with each system call that is not simply allowed."""
    names = {
        **_NUMBERS,
        **(_MEMORY_BEYOND_LIMITS if deny_memfd else {}),
        **(_OUTLASTING if deny_outlasting else {}),
    }
    found = {numbers[column]: [_DENY] for numbers in names.values()}
    device = [
        Instruction(_AND, 0, 0, _FILE_TYPE),
        Instruction(_IF_EQUAL, 1, 0, _CHARACTER_DEVICE),
        Instruction(_IF_EQUAL, 0, 1, _BLOCK_DEVICE),
        _DENY,
        _PASS,
    ]
    examined = {
        "clone": [_argument(0), Instruction(_IF_ANY_BIT, 0, 1, _NEW_NAMESPACES), _DENY, _PASS],
        "clone3": [_fail(errno.ENOSYS)],
        "socket": families(allowed),
        "socketpair": families(allowed),
        "ioctl": one_of(1, (_TIOCSTI, _TIOCLINUX), then=_DENY, otherwise=_PASS),
        "personality": one_of(0, (0, 0xFFFFFFFF), then=_PASS, otherwise=_DENY),
        "mknod": [_argument(1), *device],
        "mknodat": [_argument(2), *device],
    }
    # a process may limit itself, and not the init that has its uid
    examined["prlimit64"] = one_of(0, (0,), then=_PASS, otherwise=_DENY)
    found.update({_EXAMINED[name][column]: code for name, code in examined.items()})
    return {number: code for number, code in found.items() if number is not None}


def search(entries: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Return code that finds the number in the accumulator among sorted entries by halving them.

    The kernel runs a filter once per system call number when it is installed, to learn which it need not
    be asked about again: a search keeps that, and so a sandbox's start, short.
    """
    if len(entries) == 1:
        number, code = entries[0]
        return [Instruction(_IF_EQUAL, 1, 0, number), _PASS, *code]
    middle = len(entries) // 2
    low, high = search(entries[:middle]), search(entries[middle:])
    # a jump of BPF reaches 255 instructions forward, an unconditional one any number
    return [
        Instruction(_IF_AT_LEAST, 0, 1, entries[middle][0]),
        Instruction(_JUMP, 0, 0, len(low)),
        *low,
        *high,
    ]


def assemble(
    machine: str, allowed: tuple[int, ...], *, deny_memfd: bool, deny_outlasting: bool = False
) -> list[Instruction]:
    """Return the filter's program for a machine. Raises Unsupported for one that it is not written for."""
    if machine not in _MACHINES:
        raise Unsupported(
            f"no system call filter for {machine}, only for {', '.join(_MACHINES)}: choose tier: process for "
            "code that you trust"
        )
    column, architecture = _MACHINES[machine]
    entries = sorted(rules(column, allowed, deny_memfd=deny_memfd, deny_outlasting=deny_outlasting).items())
    return [
        Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        Instruction(_IF_EQUAL, 1, 0, architecture),
        Instruction(_RETURN, 0, 0, _KILL),
        Instruction(_LOAD, 0, 0, _NUMBER),
        Instruction(_IF_AT_LEAST, 0, 1, _X32),  # on x86_64 the same calls under other numbers
        _fail(errno.ENOSYS),
        *search(entries),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("n_instructions", ctypes.c_ushort), ("code", ctypes.c_void_p)]


class Filter:
    """A filter that is ready to be installed, any number of times.

    Args:
        families: socket families that can be had.
        deny_memfd: also deny memory that no resource limit counts, for want of a memory cgroup.
        deny_outlasting: also deny what would be left behind for want of an ipc namespace.
        machine: for which instruction set; this one's if not said.

    Raises:
        Unsupported: there is none for this machine.
    """

    def __init__(
        self,
        *,
        families: tuple[int, ...],
        deny_memfd: bool,
        deny_outlasting: bool = False,
        machine: str | None = None,
    ) -> None:
        program = assemble(
            machine or platform.machine(), families, deny_memfd=deny_memfd, deny_outlasting=deny_outlasting
        )
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(program), ctypes.addressof(self._code))

    def install(self) -> None:
        """Put this process and all its children under the filter for good; needs no_new_privs."""
        try:
            result = syscalls.libc.prctl(syscalls.PR_SET_SECCOMP, 2, ctypes.addressof(self._program), 0, 0)
            syscalls.check(result, "prctl(PR_SET_SECCOMP)")
        except OSError as error:
            raise Unsupported(
                f"this kernel takes no seccomp filter ({error}): it needs CONFIG_SECCOMP_FILTER"
            ) from error
