# SPDX-License-Identifier: MIT
"""What the scenarios (posix_*.py) are written with: calls that Python lacks, other users, one line of what was seen."""
import ctypes
import errno
import json
import mmap
import os
import stat
import struct
import subprocess
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
USER, OTHER, TEAM = 1000, 1001, 4242
SCENARIOS = {}

FALLOC = {"keep": 1, "punch": 3, "collapse": 8, "zero": 0x10, "zero-keep": 0x11, "insert": 0x20}
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = 0x1000, 0x400
SYS_statx = 332 if os.uname().machine == "x86_64" else 291
CAP = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, revision 2, effective
ACL_ACCESS, ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def attempt(call, *args, **kw):
    """What the call returns (if that can be compared), or the name of its errno."""
    try:
        value = call(*args, **kw)
    except OSError as e:
        return "EOPNOTSUPP" if e.errno == errno.EOPNOTSUPP else errno.errorcode[e.errno]
    return value.decode("latin1") if isinstance(value, bytes) else value


def libc(name, *args):
    r = getattr(LIBC, name)(*args)
    if r < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r


def rename(a, b, flags):
    return libc("renameat2", -100, os.fsencode(a), -100, os.fsencode(b), flags)


def fallocate(fd, mode, offset, length):
    return libc("fallocate", fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def user(call, *args, uid=USER, gid=None, groups=()):
    """call(*args) by another user without capabilities: its value, or the name of its errno."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(r)
            os.setgroups(groups)
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            data = json.dumps(attempt(call, *args)).encode()
            status = 0
        except BaseException:
            data = traceback.format_exc().encode()
        os.write(w, data)
        os._exit(status)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        data = f.read()
    if os.waitpid(pid, 0)[1]:
        raise AssertionError(data.decode())
    return json.loads(data)


def make(path, content=b"", mode=0o644, owner=(0, 0)):
    with open(path, "wb") as f:
        f.write(content)
    os.chown(path, *owner)
    os.chmod(path, mode)
    return path


def make_dir(path, mode=0o777, owner=(0, 0)):
    os.mkdir(path)
    os.chown(path, *owner)
    os.chmod(path, mode)
    return path


def look(path, follow=False):
    st = os.stat(path, follow_symlinks=follow)
    size = st.st_size if not stat.S_ISDIR(st.st_mode) else None
    return oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, size


def mode(path):
    return oct(os.stat(path).st_mode)


def content(path):
    with open(path, "rb") as f:
        return f.read().decode("latin1")


def acl(*entries):
    """(tag, permissions, id) -> the value of the extended attribute. 1 owner 2 user 4 group-owner 8 group 16 mask 32 other"""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, p, i & 0xffffffff) for t, p, i in entries)


def opened(path, flags, permissions=0o666):
    """Opens and closes: None or the errno."""
    def act():
        os.close(os.open(path, flags, permissions))
    return attempt(act)


# ---- changes of a file

def change_write(path):
    with open(path, "r+b", buffering=0) as f:
        f.write(b"y")


def change_map(path):
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[0] = 7


def change_allocate(path):
    with open(path, "r+b") as f:
        fallocate(f.fileno(), 0, 0, 100)


def change_punch(path):
    with open(path, "r+b") as f:
        fallocate(f.fileno(), FALLOC["punch"], 0, 100)


def change_copy(path):
    with open(path, "r+b") as f, open(path.parent / "source", "rb") as s:
        os.copy_file_range(s.fileno(), f.fileno(), 3)


def change_ftruncate(path):
    with open(path, "r+b") as f:
        f.truncate(2)


def change_append(path):
    with open(path, "ab") as f:
        f.write(b"z")


CHANGES = {"write": change_write, "truncate": lambda p: os.truncate(p, 1), "grow": lambda p: os.truncate(p, 5000),
           "ftruncate": change_ftruncate, "open-trunc": lambda p: opened(p, os.O_WRONLY | os.O_TRUNC),
           "chown": lambda p: os.chown(p, -1, USER), "chown-nothing": lambda p: os.chown(p, -1, -1),
           "map": change_map, "allocate": change_allocate, "punch": change_punch, "copy": change_copy,
           "read": lambda p: content(p), "append": change_append,
           "utime": lambda p: os.utime(p, (1, 2)), "chmod": lambda p: os.chmod(p, 0o4711)}


def sync(d):
    fd = os.open(d, os.O_RDONLY)
    try:
        libc("syncfs", fd)
    finally:
        os.close(fd)


# ---- all of them


def in_process(function, d):
    """function(d) in a process of its own, so that nothing it leaves open outlives it; its value, or the traceback."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        os.umask(0o022)
        try:
            data = json.dumps(function(d))
        except BaseException:
            data = json.dumps(traceback.format_exc())
        with os.fdopen(w, "w") as f:
            f.write(data)
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        data = f.read()
    os.waitpid(pid, 0)
    return json.loads(data)


def run_all(at):
    """Every scenario in a directory of its own below `at`: name -> what it saw."""
    seen = {}
    for name, function in SCENARIOS.items():
        d = at / name
        d.mkdir()
        d.chmod(0o777)
        seen[name] = in_process(function, d)
        subprocess.run(["rm", "-rf", str(d)], check=True)
    return seen
