# SPDX-License-Identifier: MIT
"""What programs do to a file system, as functions of an empty directory. Each returns what it saw, in a form that is
the same on every file system that behaves alike: no inode numbers, no times that were not set."""
import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import signal
import stat
import struct
import subprocess
import threading
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


# ---- who owns, who may

@scenario
def creator(d):
    def act():
        os.umask(0o027)
        make_all(d)
    os.chmod(d, 0o777)
    return user(act), [(n, look(d / n)) for n in sorted(os.listdir(d))]


def make_all(d):
    os.close(os.open(d / "file", os.O_CREAT | os.O_WRONLY, 0o6777))
    os.mkdir(d / "dir", 0o3777)
    os.symlink("x", d / "link")
    os.mkfifo(d / "fifo", 0o666)
    os.mknod(d / "node", 0o666 | stat.S_IFREG)
    os.mknod(d / "sock", 0o777 | stat.S_IFSOCK)


@scenario
def setgid_directory(d):
    """By a member of its group and by others: the group is inherited, the bit on files only for members."""
    seen = []
    for name, groups in (("member", [TEAM]), ("stranger", [])):
        make_dir(d / name, 0o2777, (0, TEAM))
        seen.append(user(make_all, d / name, groups=groups))
        seen += [(n, look(d / name / n)) for n in sorted(os.listdir(d / name))]
    return seen


@scenario
def chmod_keeps_setgid_for_members_only(d):
    seen = []
    for n, groups in (("member", [TEAM]), ("stranger", [])):
        for m in (0o2755, 0o2644, 0o6711):
            path = make(d / f"{n}{m:o}", b"", 0o600, (USER, TEAM))
            seen.append((user(os.chmod, path, m, groups=groups), mode(path)))
        path = make_dir(d / f"{n}-dir", 0o755, (USER, TEAM))
        seen.append((user(os.chmod, path, 0o2755, groups=groups), mode(path)))
    return seen


@scenario
def chgrp(d):
    seen = []
    for group, groups in ((TEAM, [TEAM]), (TEAM, []), (USER, []), (0, [])):
        path = make(d / f"f{group}{len(groups)}", b"x", 0o6755, (USER, USER))
        seen.append((user(os.chown, path, -1, group, groups=groups), look(path)))
    path = make(d / "giveaway", b"x", 0o755, (USER, USER))
    return seen, user(os.chown, path, OTHER, -1), user(os.chown, path, USER, -1), look(path)


@scenario
def sticky(d):
    make_dir(d / "tmp", 0o1777)
    for n, owner in (("roots", 0), ("users", USER), ("others", OTHER)):
        make(d / "tmp" / n, b"", 0o666, (owner, owner))
    t = d / "tmp"
    make(t / "mine", b"", 0o666, (USER, USER))
    return [user(os.unlink, t / "roots"), user(os.unlink, t / "others"), user(os.rename, t / "mine", t / "others"),
            user(os.rename, t / "others", t / "x"), user(os.unlink, t / "users"), sorted(os.listdir(t))]


@scenario
def permissions(d):
    modes = (0o000, 0o400, 0o040, 0o004, 0o200, 0o020, 0o002, 0o750, 0o705)
    paths = [make(d / f"{m:o}", b"x", m, (USER, TEAM)) for m in modes]

    def act():
        return [([opened(p, f) for f in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)], os.access(p, os.X_OK)) for p in paths]
    return [user(act, uid=uid, groups=groups) for uid, groups in ((USER, ()), (OTHER, (TEAM,)), (OTHER, ()), (OTHER, (5, 6, 7, TEAM)))]


@scenario
def foreign_changes(d):
    path = make(d / "f", b"x", 0o644)
    calls = [(os.chmod, path, 0o777), (os.chown, path, USER, USER), (os.utime, path), (os.utime, path, (1, 1)),
             (os.setxattr, path, "user.x", b"y"), (os.truncate, path, 0), (os.link, path, d / "l"),
             (os.unlink, path), (os.mknod, d / "n", 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
             (os.setxattr, path, "trusted.x", b"y"), (os.getxattr, path, "trusted.x"),
             (os.setxattr, path, "security.capability", CAP)]
    os.chmod(d, 0o755)
    return [user(*c) for c in calls], look(path)


# ---- set-user-ID, set-group-ID, capabilities

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


@scenario
def suid_after_change(d):
    make(d / "source", b"abc")
    seen = []
    for name, change in CHANGES.items():
        for who in ("user", "root"):
            for m in (0o6777, 0o4755, 0o2755):
                path = make(d / f"{name}-{who}-{m:o}", b"program", m, (USER, USER))
                if who == "user":
                    user(change, path)
                else:
                    change(path)
                seen.append((name, who, oct(m), mode(path)))
    return seen


@scenario
def setgid_without_execute_after_change(d):
    """Killed only when the caller is not in the group: asked here for one who is."""
    make(d / "source", b"abc")
    seen = []
    for name, change in CHANGES.items():
        path = make(d / name, b"program", 0o2664, (USER, USER))
        user(change, path)
        seen.append((name, mode(path)))
    return seen


@scenario
def capability_after_change(d):
    make(d / "source", b"abc")
    seen = []
    for name, change in CHANGES.items():
        for who in ("user", "root"):
            path = make(d / f"{name}-{who}", b"program", 0o755, (USER, USER))
            set_ = attempt(os.setxattr, path, "security.capability", CAP)
            if who == "user":
                user(change, path)
            else:
                change(path)
            seen.append((name, who, set_, attempt(os.getxattr, path, "security.capability"), os.listxattr(path)))
    return seen


# ---- ACLs and extended attributes

@scenario
def acl_decides(d):
    path = make(d / "f", b"x", 0o600)
    os.setxattr(path, ACL_ACCESS, acl((1, 6, -1), (2, 4, USER), (2, 0, OTHER), (4, 0, -1), (8, 6, TEAM), (16, 6, -1), (32, 4, -1)))
    seen = [mode(path), attempt(os.getxattr, path, ACL_ACCESS), sorted(os.listxattr(path))]
    for uid, groups in ((USER, ()), (OTHER, ()), (OTHER, (TEAM,)), (1002, (TEAM,)), (1002, ())):
        seen.append([user(opened, path, f, uid=uid, groups=groups) for f in (os.O_RDONLY, os.O_WRONLY)])
    os.chmod(path, 0o640)
    seen += [user(opened, path, os.O_WRONLY, uid=1002, groups=(TEAM,)), attempt(os.getxattr, path, ACL_ACCESS)]
    os.removexattr(path, ACL_ACCESS)
    return seen, mode(path), user(opened, path, os.O_RDONLY), user(os.setxattr, path, ACL_ACCESS, acl((1, 7, -1), (4, 7, -1), (32, 7, -1)))


@scenario
def acl_default_inherits(d):
    top = make_dir(d / "top", 0o2777, (0, TEAM))
    os.setxattr(top, ACL_DEFAULT, acl((1, 7, -1), (2, 7, OTHER), (4, 5, -1), (16, 7, -1), (32, 0, -1)))

    def act():
        os.umask(0o077)
        make_all(top)
        os.mkdir(top / "narrow", 0o500)
    seen = [user(act)]
    for n in sorted(os.listdir(top)):
        seen.append((n, look(top / n), [attempt(os.getxattr, top / n, a, follow_symlinks=False) for a in (ACL_ACCESS, ACL_DEFAULT)]))
    return seen, user(opened, top / "file", os.O_RDWR, uid=OTHER), user(opened, top / "file", os.O_RDONLY, uid=1003)


@scenario
def acl_errors(d):
    make(d / "f")
    os.symlink("f", d / "l")
    bad = [b"", b"x", acl((2, 7, USER)), acl((1, 7, -1), (2, 7, USER), (4, 7, -1), (32, 7, -1)), acl((1, 9, -1), (4, 7, -1), (32, 7, -1))]
    return [[attempt(os.setxattr, d / "f", a, b) for b in bad] for a in (ACL_ACCESS, ACL_DEFAULT)] + [
        attempt(os.getxattr, d / "f", ACL_ACCESS), attempt(os.removexattr, d / "f", ACL_ACCESS),
        attempt(os.setxattr, d / "l", ACL_ACCESS, acl((1, 6, -1), (4, 6, -1), (32, 6, -1)), follow_symlinks=False)]


@scenario
def acl_kills_setgid_of_strangers(d):
    """Setting an ACL that is only a mode is like chmod(2)."""
    seen = []
    for n, groups in (("member", (TEAM,)), ("stranger", ())):
        path = make(d / n, b"", 0o2755, (USER, TEAM))
        value = acl((1, 7, -1), (2, 5, OTHER), (4, 5, -1), (16, 5, -1), (32, 5, -1))
        seen += [user(os.setxattr, path, ACL_ACCESS, value, groups=groups), mode(path)]
    return seen


@scenario
def xattrs(d):
    path, names = make(d / "f"), ["user.a", "trusted.a", "security.a"]
    seen = []
    for n in names:
        seen += [attempt(os.getxattr, path, n), attempt(os.setxattr, path, n, b"v", os.XATTR_REPLACE),
                 attempt(os.setxattr, path, n, b"one", os.XATTR_CREATE), attempt(os.setxattr, path, n, b"x", os.XATTR_CREATE),
                 attempt(os.setxattr, path, n, b"two\0", os.XATTR_REPLACE), attempt(os.getxattr, path, n),
                 attempt(os.setxattr, path, n, b""), attempt(os.getxattr, path, n)]
    seen += [sorted(os.listxattr(path)), user(lambda: sorted(os.listxattr(path))), user(os.getxattr, path, "trusted.a"),
             user(os.getxattr, path, "security.a")]
    seen += [attempt(os.setxattr, path, n, b"") for n in ("user.", "user", "other.a", "system.a", "user." + "n" * 250, "user." + "n" * 251, "")]
    seen += [attempt(os.removexattr, path, n) for n in names * 2] + [os.listxattr(path)]
    return seen


@scenario
def xattr_sizes(d):
    path = make(d / "f")
    os.setxattr(path, "user.a", b"x" * 1000)

    def get(size):
        buf = ctypes.create_string_buffer(size or 1)
        return libc("getxattr", os.fsencode(path), b"user.a", buf, ctypes.c_size_t(size))

    def names(size):
        buf = ctypes.create_string_buffer(size or 1)
        return libc("listxattr", os.fsencode(path), buf, ctypes.c_size_t(size))
    return [attempt(get, n) for n in (0, 1, 999, 1000, 70000)], [attempt(names, n) for n in (0, 1, 6, 7, 70000)], \
        attempt(os.setxattr, path, "user.b", b"x" * 65537)


@scenario
def xattrs_of_other_types(d):
    make_dir(d / "dir")
    os.symlink("nowhere", d / "link")
    os.mkfifo(d / "fifo")
    os.mknod(d / "dev", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    seen = []
    for n in ("dir", "link", "fifo", "dev"):
        for a in ("user.a", "trusted.a", "security.a"):
            seen.append((n, a, attempt(os.setxattr, d / n, a, b"v", follow_symlinks=False), attempt(os.getxattr, d / n, a, follow_symlinks=False)))
    return seen


# ---- names

@scenario
def rename_flags(d):
    seen = []
    make(d / "a", b"A"), make(d / "b", b"B")
    seen += [attempt(rename, d / "a", d / "b", NOREPLACE), attempt(rename, d / "a", d / "none", EXCHANGE),
             attempt(rename, d / "a", d / "b", EXCHANGE), content(d / "a"), content(d / "b"),
             attempt(rename, d / "a", d / "c", NOREPLACE), attempt(rename, d / "c", d / "x", NOREPLACE | EXCHANGE),
             attempt(rename, d / "c", d / "x", 64)]
    make_dir(d / "dir"), make(d / "dir" / "in", b"I"), make_dir(d / "empty")
    long = d / ("l" * 255)
    seen += [attempt(rename, d / "b", d / "dir", EXCHANGE), sorted(os.listdir(d / "b")), content(d / "dir"),
             attempt(rename, d / "b", d / "empty", 0), sorted(os.listdir(d)), attempt(rename, d / "c", long, NOREPLACE),
             attempt(rename, long, d / "dir", EXCHANGE), content(long), content(d / "dir"),
             attempt(rename, d / "empty", d / "empty" / "in" / "x", 0), attempt(rename, d / "empty", d / "empty" / "x", EXCHANGE)]
    return seen, sorted(os.listdir(d))


@scenario
def whiteout(d):
    make(d / "a", b"A"), make(d / ("w" * 250), b"W")
    seen = [attempt(rename, d / "a", d / "b", WHITEOUT), attempt(rename, d / ("w" * 250), d / "v", WHITEOUT)]
    return seen, [(n, look(d / n), os.lstat(d / n).st_rdev) for n in sorted(os.listdir(d))], user(rename, d / "b", d / "c", WHITEOUT)


@scenario
def rename_over(d):
    """Every type over every other, and over names in use."""
    def fresh(at):
        make_dir(at)
        make(at / "file", b"f"), make_dir(at / "empty"), make_dir(at / "full"), make(at / "full" / "x")
        os.symlink("file", at / "link")
        os.link(at / "file", at / "hard")
    seen, i = [], 0
    for a in ("file", "hard", "empty", "full", "link"):
        for b in ("file", "hard", "empty", "full", "link", "new", "full/x"):
            i += 1
            fresh(d / str(i))
            seen.append((a, b, attempt(os.rename, d / str(i) / a, d / str(i) / b), sorted(os.listdir(d / str(i)))))
    return seen


@scenario
def tmpfile(d):
    def act():
        fd = os.open(d, os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, b"unnamed" * 1000)
        seen = [look(f"/proc/self/fd/{fd}", follow=True), os.listdir(d), os.pread(fd, 9, 4090).decode()]
        os.fchmod(fd, 0o600)
        os.setxattr(fd, "user.a", b"v")
        os.link(f"/proc/self/fd/{fd}", d / "named", src_dir_fd=fd, follow_symlinks=True)
        os.write(fd, b"more")
        seen += [look(d / "named"), os.getxattr(d / "named", "user.a").decode(), os.path.sameopenfile(fd, os.open(d / "named", os.O_RDONLY))]
        only = os.open(d, os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600)
        seen.append(attempt(os.link, f"/proc/self/fd/{only}", d / "never", src_dir_fd=only, follow_symlinks=True))
        return seen
    os.chmod(d, 0o777)
    return user(act), attempt(content, d / "named"), sorted(os.listdir(d)), opened(d, os.O_TMPFILE | os.O_RDONLY)


@scenario
def hard_links(d):
    make(d / "a", b"1")
    os.link(d / "a", d / "b"), os.link(d / "a", d / ("c" * 255))
    with open(d / "b", "ab") as f:
        f.write(b"2")
    seen = [look(d / n) for n in sorted(os.listdir(d))] + [len({os.stat(d / n).st_ino for n in os.listdir(d)})]
    os.symlink("a", d / "l")
    os.link(d / "l", d / "l2", follow_symlinks=False)
    os.unlink(d / "a")
    return seen, look(d / "b"), look(d / "l"), content(d / ("c" * 255)), attempt(os.link, d, d / "x"), attempt(os.link, d / "b", d / "b")


@scenario
def long_names(d):
    n = "n" * 255
    calls = [lambda p: opened(p, os.O_CREAT), os.mkdir, lambda p: os.symlink("t", p), os.mkfifo, look, os.unlink]
    seen = [[attempt(c, d / ("x" * size)) for c in calls] for size in (255, 256, 5000)]
    os.symlink("t" * 1000, d / "sym")
    make_dir(d / n)
    here = os.getcwd()
    try:  # deeper than PATH_MAX, by relative steps
        os.chdir(d / n)
        for _ in range(20):
            os.mkdir(n)
            os.chdir(n)
        make("deep", b"found")
        seen += [content("deep"), os.listdir("."), oct(os.stat("deep").st_mode)]
        for _ in range(20):
            os.unlink("deep") if os.path.exists("deep") else None
            os.chdir("..")
            os.rmdir(n)
    finally:
        os.chdir(here)
    seen.append([attempt(os.stat, str(d) + "/." * 3000), attempt(os.symlink, "t" * 5000, d / "s"), len(os.readlink(d / "sym"))])
    return seen


@scenario
def odd_names(d):
    names = [b"\xff\xfe", b"new\nline", b"\x01", b"-rf", b" ", b"...", b"gocryptfs.conf", b"gocryptfs.diriv", b"caf\xc3\xa9"]
    for n in names:
        make(os.fsencode(d) + b"/" + n, n)
    seen = sorted(os.listdir(os.fsencode(d)))
    return [n.hex() for n in seen], [content(os.fsencode(d) + b"/" + n) for n in seen]


# ---- contents

@scenario
def append_from_many(d):
    pids = []
    for p in range(4):
        pids.append(os.fork())
        if pids[-1] == 0:
            fd = os.open(d / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            for i in range(250):
                os.write(fd, b"%d:%04d:%s\n" % (p, i, b"x" * 93))
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)
    lines = content(d / "log").split("\n")
    return len(lines), sorted(lines) == sorted([f"{p}:{i:04d}:{'x' * 93}" for p in range(4) for i in range(250)] + [""])


@scenario
def direct_io(d):
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    try:
        fd = os.open(d / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError as e:
        return e.errno
    seen = [os.pwritev(fd, [page], 4096), os.pwritev(fd, [page], 0)]
    back = mmap.mmap(-1, 4096)
    seen += [os.preadv(fd, [back], 8192), back[:] == b"d" * 4096, os.fstat(fd).st_size, os.preadv(fd, [back], 12288)]
    with open(d / "f", "r+b") as f:  # what went past the cache is seen through it, and the other way round
        f.write(b"buffered")
        f.flush()
        seen += [os.preadv(fd, [back], 0), back[:8].decode()]
    return seen


@scenario
def allocate(d):
    seen = []
    for name, m in (("plain", 0), *FALLOC.items()):
        for offset, length in ((0, 4096), (4096, 8192), (100, 5000), (20000, 4096), (0, 0), (-1, 5), (4096, 40960)):
            path = make(d / "f", bytes(range(1, 251)) * 80)
            with open(path, "r+b") as f:
                seen.append((name, offset, length, attempt(fallocate, f.fileno(), m, offset, length), os.fstat(f.fileno()).st_size,
                             hash_of(path)))
    with open(path, "rb") as f:
        seen.append(attempt(fallocate, f.fileno(), 0, 0, 100))
    return seen


def sync(d):
    fd = os.open(d, os.O_RDONLY)
    try:
        libc("syncfs", fd)
    finally:
        os.close(fd)


def hash_of(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


@scenario
def punched_space_is_free(d):
    """Whole blocks that are punched are really given back, and later writes into them work."""
    path = make(d / "f", os.urandom(1 << 20))
    sync(d)
    before = os.stat(path).st_blocks
    with open(path, "r+b") as f:
        r = attempt(fallocate, f.fileno(), FALLOC["punch"], 65536, 1 << 19)
        freed = (before - os.stat(path).st_blocks) * 512
        f.seek(100000)
        f.write(b"again")
    data = content(path)
    return r, freed >= (1 << 19) - 3 * 8192, data[65536:100000] == "\0" * 34464, data[100000:100006], len(data)


@scenario
def seek_holes(d):
    with open(d / "f", "wb") as f:
        f.write(b"x" * 4096)
        f.truncate(1 << 20)
        f.seek(1 << 19)
        f.write(b"y" * 4096)
    fd = os.open(d / "f", os.O_RDONLY)
    os.fsync(fd)
    return [os.lseek(fd, 0, os.SEEK_DATA), attempt(os.lseek, fd, 1 << 20, os.SEEK_DATA), attempt(os.lseek, fd, 1 << 20, os.SEEK_HOLE),
        os.lseek(fd, 1 << 19, os.SEEK_DATA), attempt(os.lseek, fd, -1, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE) <= 1 << 19]


@scenario
def copy_range(d):
    make(d / "a", os.urandom(300001))
    seen = []
    for offset, to, length in ((0, 0, 400000), (5, 9, 100000), (300000, 0, 10), (300001, 0, 10), (4096, 8192, 4096)):
        make(d / "b", b"old" * 1000)
        with open(d / "a", "rb") as a, open(d / "b", "r+b") as b:
            done = attempt(os.copy_file_range, a.fileno(), b.fileno(), length, offset, to)
        with open(d / "a", "rb") as a, open(d / "b", "rb") as b:
            data, wanted = b.read(), a.read()[offset:offset + length]
        seen.append((done, len(data), data[to:to + len(wanted)] == wanted, data[:to] == (b"old" * 1000)[:to]))
    with open(d / "a", "r+b") as a, open(d / "b", "ab") as app, open(d / "b", "rb") as ro:
        seen += [attempt(os.copy_file_range, a.fileno(), a.fileno(), 100, 0, 50), attempt(os.copy_file_range, a.fileno(), app.fileno(), 10),
                 attempt(os.copy_file_range, a.fileno(), ro.fileno(), 10), attempt(os.copy_file_range, a.fileno(), a.fileno(), 4096, 0, 8192)]
    return seen


@scenario
def map_shared(d):
    """Writes through a mapping, by write(2) and in another process are one."""
    path = make(d / "f", b"a" * 20000)
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 20000) as m:
        m[4090:4100] = b"0123456789"
        seen = [os.pread(f.fileno(), 10, 4090).decode()]
        os.pwrite(f.fileno(), b"written", 9000)
        seen.append(m[9000:9007].decode())
        pid = os.fork()
        if pid == 0:
            with open(path, "r+b") as g, mmap.mmap(g.fileno(), 20000) as n:
                n[0:5] = b"child" if n[4090:4100] == b"0123456789" else b"wrong"
            os._exit(0)
        os.waitpid(pid, 0)
        seen.append(m[0:5].decode())
        os.truncate(path, 5000)
        os.truncate(path, 20000)
        seen += [m[5000:5010] == bytes(10), m[4090:4100].decode()]
    return seen, content(path)[:10]


@scenario
def sizes(d):
    make(d / "f", b"12345")
    seen = [attempt(os.truncate, d / "f", n) for n in (-1, 3, 10)]
    os.truncate(d / "f", 10)
    seen += [attempt(os.truncate, d / "f", 1 << 50) in (None, "EFBIG"), os.truncate(d / "f", 10)]
    with open(d / "f", "r+b") as f:
        seen += [attempt(os.pwrite, f.fileno(), b"", 1 << 40), f.seek(0, 2)]
    return seen, content(d / "f"), attempt(os.truncate, d, 0), opened(d, os.O_WRONLY), opened(d / "f" / "x", os.O_RDONLY)


@scenario
def synced_after_unlink(d):
    """Files that are gone cannot be written, and syncfs(2) has nothing to say about them."""
    make(d / "f", b"x" * 5000), make(d / "g", b"y"), make(d / "h")
    os.unlink(d / "f"), os.rename(d / "g", d / "h")
    seen = [attempt(sync, d)]
    fd = os.open(d / "h", os.O_RDWR)
    os.write(fd, b"dirty")
    os.unlink(d / "h")
    os.close(fd)
    return seen + [attempt(sync, d)]


@scenario
def open_flags(d):
    make(d / "f", b"content"), make_dir(d / "dir"), os.symlink("f", d / "l"), os.symlink("l2", d / "l2")
    f = [os.O_CREAT | os.O_EXCL, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_PATH, os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_SYNC,
         os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_NOATIME]
    return [(n, [opened(d / n, x) for x in f]) for n in ("f", "dir", "l", "l2", "new")], os.stat(d / "f").st_size


# ---- open, but without a name

def use_file(fd):
    seen = [os.fstat(fd).st_nlink]
    seen += [attempt(os.fsync, fd), attempt(os.fdatasync, fd), attempt(os.fchmod, fd, 0o640), attempt(os.fchown, fd, 5, 6),
             attempt(os.utime, fd, ns=(10**9 + 1, 2 * 10**9 + 3)), os.fstat(fd).st_mtime_ns, attempt(os.ftruncate, fd, 3),
             attempt(os.setxattr, fd, "user.a", b"v"), attempt(os.getxattr, fd, "user.a"), os.listxattr(fd), attempt(os.removexattr, fd, "user.a"),
             attempt(fallocate, fd, 0, 0, 9000), attempt(os.pwrite, fd, b"late", 5000), attempt(os.pread, fd, 4, 5000)]
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    st = os.fstat(again)
    seen += [os.pread(again, 3, 0).decode(), st.st_nlink, oct(st.st_mode), st.st_uid, st.st_gid, st.st_size]
    os.truncate(f"/proc/self/fd/{fd}", 1)
    seen += [os.fstat(again).st_size, attempt(os.link, f"/proc/self/fd/{fd}", "/proc/nowhere", follow_symlinks=True) is not None]
    os.close(again)
    return seen


@scenario
def unlinked_file(d):
    fd = os.open(make(d / "f", b"hello"), os.O_RDWR)
    os.unlink(d / "f")
    seen = use_file(fd)
    ro = os.open(make(d / "r", b"hello"), os.O_RDONLY)
    os.unlink(d / "r")
    make(d / "r", b"another")
    again = os.open(f"/proc/self/fd/{ro}", os.O_RDWR)
    os.write(again, b"J")
    return seen, os.pread(ro, 9, 0).decode(), content(d / "r"), os.listdir(d)


@scenario
def replaced_file(d):
    fd = os.open(make(d / "f", b"hello"), os.O_RDWR)
    os.rename(make(d / "g", b"new"), d / "f")
    return use_file(fd), content(d / "f"), os.listdir(d)


@scenario
def removed_directory(d):
    make_dir(d / "dir"), make(d / "dir" / "x"), os.unlink(d / "dir" / "x"), make_dir(d / "fresh")
    seen = []
    for n in ("dir", "fresh"):
        fd = os.open(d / n, os.O_RDONLY)
        os.rmdir(d / n)
        seen += [os.fstat(fd).st_nlink, attempt(os.fsync, fd), attempt(os.fchmod, fd, 0o700), attempt(os.fchown, fd, 1, 2),
                 attempt(os.utime, fd, ns=(5, 6)), os.fstat(fd).st_mtime_ns, attempt(os.setxattr, fd, "user.a", b"v"), attempt(os.getxattr, fd, "user.a"),
                 attempt(os.listdir, fd), attempt(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd), attempt(os.mkdir, "y", dir_fd=fd),
                 attempt(os.stat, "z", dir_fd=fd), attempt(os.listdir, f"/proc/self/fd/{fd}"), attempt(os.rename, d / "none", "x", dst_dir_fd=fd),
                 attempt(lambda: oct(os.stat(".", dir_fd=fd).st_mode))]
        os.close(fd)
    return seen


# ---- attributes

@scenario
def times(d):
    path, seen = make(d / "f"), []
    os.symlink("f", d / "l")
    for a, m in ((0, 0), (1234567890123456789, 987654321987654321), (-1, -(10**9)), (-86400 * 10**9 * 300 + 7, 5), (2**31 * 10**9 + 1, 2**32 * 10**9 + 9),
                 (5 * 10**18, 9 * 10**18)):
        for p in (path, d, d / "l"):
            os.utime(p, ns=(a, m), follow_symlinks=False)
            st = os.lstat(p)
            seen.append((st.st_atime_ns, st.st_mtime_ns))
    before = os.stat(path).st_ctime_ns
    os.chmod(path, 0o600)
    seen.append(os.stat(path).st_ctime_ns >= before)
    return seen


@scenario
def times_of_changes(d):
    """What sets which time: told by setting all to old ones first."""
    old, seen = (10**18, 10**18), []
    calls = {"write": change_write, "chmod": lambda p: os.chmod(p, 0o600), "link": lambda p: os.link(p, d / "l"),
             "truncate": lambda p: os.truncate(p, 3), "truncate-same": lambda p: os.truncate(p, 3), "xattr": lambda p: os.setxattr(p, "user.a", b""),
             "rename": lambda p: os.rename(p, d / "f")}
    for name, call in calls.items():
        path = make(d / f"f-{name}", b"12345")
        os.utime(path, ns=old), os.utime(d, ns=old)
        ctime = os.stat(path).st_ctime_ns
        call(path)
        path = d / "f" if name == "rename" else path
        seen.append((name, os.stat(path).st_mtime_ns == old[1], os.stat(path).st_ctime_ns >= ctime, os.stat(d).st_mtime_ns == old[1]))
    return seen


class Statx(ctypes.Structure):
    _fields_ = [("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32), ("attributes", ctypes.c_uint64), ("skip", ctypes.c_uint8 * 64),
                ("atime", ctypes.c_int64 * 2), ("btime_s", ctypes.c_int64), ("btime_ns", ctypes.c_uint32), ("pad", ctypes.c_int32),
                ("rest", ctypes.c_uint8 * 160)]


def statx(path):
    st = Statx()
    libc("syscall", SYS_statx, -100, os.fsencode(path), 0x100, 0xfff, ctypes.byref(st))
    return st


@scenario
def birth_time(d):
    start = os.stat(make(d / "before")).st_mtime_ns
    path = make(d / "f", b"x")
    end = os.stat(make(d / "after")).st_mtime_ns
    os.utime(path, ns=(5, 5))
    st = statx(path)
    born = st.btime_s * 10**9 + st.btime_ns
    return bool(st.mask & 0x800), start <= born <= end, statx(path).btime_ns == st.btime_ns, bool(statx(d).mask & 0x800)


@scenario
def stat_fields(d):
    make(d / "f", b"x" * 10000), make_dir(d / "dir"), make_dir(d / "dir" / "sub"), os.symlink("target", d / "l")
    os.mknod(d / "dev", 0o600 | stat.S_IFBLK, os.makedev(259, 7))
    sync(d)
    return [(n, look(d / n), os.lstat(d / n).st_rdev, os.lstat(d / n).st_blksize) for n in sorted(os.listdir(d))], \
        os.stat(d / "f").st_blocks * 512 >= 10000, len({os.lstat(d / n).st_dev for n in os.listdir(d)}), \
        [e.inode() == os.lstat(e.path).st_ino for e in os.scandir(d)], [e.is_dir(follow_symlinks=False) for e in sorted(os.scandir(d), key=lambda e: e.name)]


@scenario
def statfs(d):
    st = os.statvfs(d)
    return st.f_namemax, st.f_frsize, st.f_blocks, st.f_files


# ---- directories

@scenario
def directory_stream(d):
    for i in range(3000):
        os.close(os.open(d / f"e{i}", os.O_CREAT | os.O_WRONLY))
    with os.scandir(d) as it:
        seen = [next(it).name for _ in range(1500)]
        for i in range(0, 3000, 2):
            os.unlink(d / f"e{i}")
        for i in range(500):
            os.close(os.open(d / f"new{i}", os.O_CREAT | os.O_WRONLY))
        rest = [e.name for e in it]
    whole = seen + rest
    return len(whole) == len(set(whole)), {f"e{i}" for i in range(1, 3000, 2)} <= set(whole), len(os.listdir(d)), attempt(os.rmdir, d)


@scenario
def link_counts(d):
    for i in range(5):
        make_dir(d / f"d{i}"), make(d / f"f{i}")
    seen = [os.stat(d).st_nlink, os.stat(d / "d1").st_nlink]
    os.rename(d / "d0", d / "d1" / "moved")
    os.rmdir(d / "d2")
    return seen, os.stat(d).st_nlink, os.stat(d / "d1").st_nlink


# ---- locks and events

@scenario
def locks(d):
    path, seen = make(d / "f"), []
    with open(path, "r+b") as a, open(path, "r+b") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        seen.append(attempt(fcntl.flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB))
        fcntl.flock(a, fcntl.LOCK_UN)
        ofd = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)
        fcntl.fcntl(a, 37, ofd)  # F_OFD_SETLK
        seen.append(attempt(lambda: fcntl.fcntl(b, 37, ofd) and None))
        fcntl.fcntl(a, 37, struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 0, 10, 0))
        fcntl.lockf(a, fcntl.LOCK_EX, 10)
        seen.append(user_child(lambda: attempt(fcntl.lockf, open(path, "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)))
        seen.append(user_child(lambda: attempt(fcntl.lockf, open(path, "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)))
        seen.append(interrupted(lambda f: fcntl.lockf(f, fcntl.LOCK_EX), path))
        fcntl.flock(b, fcntl.LOCK_EX)
        seen.append(interrupted(lambda f: fcntl.flock(f, fcntl.LOCK_EX), path))
    return seen


class Alarm(Exception):
    pass


def ring(number, frame):
    raise Alarm


def interrupted(lock, path):
    def act():
        signal.signal(signal.SIGALRM, ring)
        with open(path, "r+b") as f:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                lock(f)
            except Alarm:
                return "interrupted"
        return "locked"
    return user_child(act)


def user_child(call):
    return user(call, uid=0)


@scenario
def events(d):
    fd = libc("inotify_init1", os.O_NONBLOCK)
    make_dir(d / "dir")
    watches = {libc("inotify_add_watch", fd, os.fsencode(d / n), 0xfff): n for n in ("dir", ".")}
    path = d / "dir" / "f"
    make(path, b"x")
    content(path)
    os.rename(path, d / "g")
    os.link(d / "g", d / "h")
    os.unlink(d / "h")
    os.truncate(d / "g", 0)
    os.setxattr(d / "g", "user.a", b"")
    os.mkdir(d / "dir" / "sub"), os.rmdir(d / "dir" / "sub"), os.symlink("x", d / "l"), os.rmdir(d / "dir")
    data, seen, at = os.read(fd, 65536), [], 0
    os.close(fd)
    while at < len(data):
        wd, mask, _, size = struct.unpack_from("iIII", data, at)
        seen.append((watches[wd], hex(mask), data[at + 16:at + 16 + size].rstrip(b"\0").decode()))
        at += 16 + size
    return seen


@scenario
def handles(d):
    """name_to_handle_at(2) and open_by_handle_at(2), over renaming."""
    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint32), ("type", ctypes.c_int32), ("data", ctypes.c_uint8 * 128)]
    make(d / "f", b"by handle"), make_dir(d / "dir"), make_dir(d / "dir" / "sub")
    top, seen = os.open(d, os.O_RDONLY), []
    keep = [os.open(d / n, os.O_RDONLY) for n in ("f", "dir", "dir/sub")]
    for n in ("f", "dir", "dir/sub"):
        h, mount = Handle(128), ctypes.c_int()
        seen.append(attempt(libc, "name_to_handle_at", -100, os.fsencode(d / n), ctypes.byref(h), ctypes.byref(mount), 0))
        os.rename(d / n, d / "moved")
        fd = attempt(libc, "open_by_handle_at", top, ctypes.byref(h), os.O_RDONLY)
        seen.append(look(f"/proc/self/fd/{fd}", follow=True) if isinstance(fd, int) else fd)
        if isinstance(fd, int):
            seen.append(os.path.samestat(os.fstat(fd), os.stat(d / "moved")))
            os.close(fd)
        os.rename(d / "moved", d / n)
    for fd in keep + [top]:
        os.close(fd)
    return seen


@scenario
def synced(d):
    make(d / "f", b"x")
    fd, top = os.open(d / "f", os.O_RDONLY), os.open(d, os.O_RDONLY)
    return [attempt(os.fsync, fd), attempt(os.fdatasync, fd), attempt(os.fsync, top), attempt(os.fdatasync, top), attempt(libc, "syncfs", fd)]


@scenario
def ioctls(d):
    make(d / "a", b"x" * 4096), make(d / "b")
    with open(d / "a", "rb") as a, open(d / "b", "r+b") as b:
        return attempt(fcntl.ioctl, b.fileno(), 0x40049409, a.fileno()), attempt(fcntl.ioctl, a.fileno(), 0x5401, b"\0" * 64)


@scenario
def no_space(d):
    """A full disk: how much was written is told, what was there stays."""
    make(d / "old", b"o" * 100000)
    written = 0
    fd = os.open(d / "big", os.O_WRONLY | os.O_CREAT)
    result = None
    while written < 1 << 28:
        result = attempt(os.write, fd, b"z" * 65536)
        if isinstance(result, str):
            break
        written += result
    synced_ = attempt(os.fsync, fd)
    r = attempt(fallocate, fd, 0, 1 << 27, 1 << 27)
    os.close(fd)
    os.unlink(d / "big")
    return result if isinstance(result, str) else synced_, r, content(d / "old") == "o" * 100000, attempt(make, d / "again", b"n" * 5000) is not None


@scenario
def device_and_fifo(d):
    os.mknod(d / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(d / "p")
    with open(d / "null", "wb", buffering=0) as f:
        seen = [f.write(b"x")]
    t = threading.Thread(target=lambda: open(d / "p", "wb").write(b"through"))
    t.start()
    seen.append(content(d / "p"))
    t.join()
    return seen


@scenario
def shell_tools(d):
    """What tar, cp and rsync would notice: a tree copied with everything, compared."""
    src = make_dir(d / "src")
    make(src / "f", b"data" * 5000, 0o4711, (USER, TEAM)), make_dir(src / "dir", 0o2750, (OTHER, TEAM)), os.symlink("f", src / "l")
    os.link(src / "f", src / "dir" / "hard")
    os.setxattr(src / "f", "user.note", b"n")
    os.utime(src / "f", ns=(10**18 + 1, 10**18 + 999999999))
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=auto", str(src), str(d / "dst")], check=True)
    seen = []
    for where, dirs, files in os.walk(d / "dst"):
        for n in sorted(dirs + files):
            seen.append((n, look(os.path.join(where, n)), os.listxattr(os.path.join(where, n), follow_symlinks=False)))
    return sorted(seen), os.stat(d / "dst" / "f").st_mtime_ns


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
