# SPDX-License-Identifier: MIT
"""What programs do to a file system, as functions of an empty directory. Each returns what it saw, in a form that is
the same on every file system that behaves alike: no inode numbers, no times that were not set.

Here: owners, permissions, attributes and what is not about one file; the rest is in posix_files.py."""
import ctypes
import fcntl
import os
import signal
import stat
import struct
import subprocess
import threading

from posix_base import (ACL_ACCESS, ACL_DEFAULT, CAP, CHANGES, OTHER, TEAM, USER, acl, attempt, content, fallocate,
                        libc, look, make, make_dir, mode, opened, scenario, user)


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
