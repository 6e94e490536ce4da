"""A system call filter (Linux on x86-64 and aarch64): what no worker needs is answered EPERM by the kernel.

Landlock leaves doors open: datagrams, chmod, limits and priorities of the supervisor, and the listening sockets that all workers
share, which one `shutdown` would close for good. The list says what is denied, not what is allowed, so that a newer C library or
runtime still starts. Source: the kernel's Documentation/userspace-api/seccomp_filter.rst.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator

# name: number on x86-64, on aarch64 (None: the call does not exist there)
DENIED: dict[str, tuple[int | None, int | None]] = {
    # other processes: to start them, to look into them, to signal them
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "kcmp": (312, 272), "tkill": (200, 130),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # sockets of one's own, and what would spoil those that are shared
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    # files: what Landlock does not see
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "truncate": (76, 45), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "open_by_handle_at": (304, 265),
    # memory that no limit counts or that outlives the process
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # ways around this list, and the machine itself
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "personality": (135, 92), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fspick": (433, 433), "open_tree": (428, 428),
    "move_mount": (429, 429), "mount_setattr": (442, 442),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "reboot": (169, 142), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "sethostname": (170, 161), "setdomainname": (171, 162), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "quotactl": (179, 60), "syslog": (103, 116), "fanotify_init": (300, 262),
}  # fmt: skip
_THREAD = 0x10000  # CLONE_THREAD
_OWNERS = (8, 10, 15, 1024, 1026)  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY: signals by way of a file
_TERMINALS = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
_TCP, _NODELAY, _SHUT_WR, _PDEATHSIG = 6, 1, 1, 1

_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}  # column above, audit architecture, seccomp()
CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine(), -1)
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
_NR, _ARCH, _ARGS = 0, 4, 16
_X32 = 0x40000000
Step = tuple[int, int, int, int]


def deny_calls() -> str:
    """Install the filter in every thread of this process; why it does not hold, else "". Needs no privilege, cannot be undone."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"no system call filter is known for {sys.platform} on {platform.machine()}"
    column, arch, number = machine
    steps = program(column, arch, os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    filter_ = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 1, 1, filter_):  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
        return f"the kernel takes no system call filter: {os.strerror(ctypes.get_errno())}"
    return ""


def program(column: int, arch: int, own: int) -> list[Step]:
    """The filter as BPF steps (code, jump if true, jump if false, value) for the process `own`."""
    steps: list[Step] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _EPERM), (_LOAD, 0, 0, _NR)]
    if column == 0:  # the same calls under other numbers
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _EPERM)]
    for numbers in DENIED.values():
        if numbers[column] is not None:
            steps += [(_EQUAL, 0, 1, numbers[column] or 0), (_RETURN, 0, 0, _EPERM)]
    for number, block in _conditional(column, own):
        steps += [(_EQUAL, 0, len(block), number), *block]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _conditional(column: int, own: int) -> Iterator[tuple[int, list[Step]]]:
    """(number, what its arguments decide)."""
    yield 435, [(_RETURN, 0, 0, _ENOSYS)]  # clone3 hides its flags: the C library then uses clone
    yield (56, 220)[column], [_arg(0), (_ANY_BIT, 1, 0, _THREAD), *_ENDS]
    for number in ((62, 129), (234, 131), (129, 138), (297, 240)):  # kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
        yield number[column], _only(0, own)
    for number in ((302, 261), (203, 122), (144, 119), (142, 118), (314, 274)):  # prlimit64, sched_set*
        yield number[column], _only(0, 0, own)
    yield (48, 210)[column], _only(1, _SHUT_WR)
    yield (54, 208)[column], [_arg(1), (_EQUAL, 1, 0, _TCP), (_RETURN, 0, 0, _EPERM), *_only(2, _NODELAY)]
    yield (157, 167)[column], _all_but(0, _PDEATHSIG)
    yield (72, 25)[column], _all_but(1, *_OWNERS)
    yield (16, 29)[column], _all_but(1, *_TERMINALS)


_ENDS: list[Step] = [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]


def _arg(index: int) -> Step:
    """Load the low half of an argument: all of these are 32 bits wide."""
    return (_LOAD, 0, 0, _ARGS + 8 * index)


def _only(index: int, *values: int) -> list[Step]:
    tests = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [_arg(index), *tests, *_ENDS]


def _all_but(index: int, *values: int) -> list[Step]:
    tests = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [_arg(index), *tests, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
