# SPDX-License-Identifier: MIT
"""What programs do to a file system, as functions of an empty directory. Each returns what it saw, in a form that is
the same on every file system that behaves alike: no inode numbers, no times that were not set.

Here: names, contents and times of files."""
import ctypes
import hashlib
import mmap
import os
import stat

from posix_base import (CHANGES, EXCHANGE, FALLOC, NOREPLACE, SYS_statx, USER, WHITEOUT, attempt, change_write, content, fallocate,
                        libc, look, make, make_dir, opened, rename, scenario, sync, user)


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
    _fields_ = [("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32), ("attributes", ctypes.c_uint64), ("nlink", ctypes.c_uint32), ("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32),
                ("mode", ctypes.c_uint16), ("skip", ctypes.c_uint8 * 34),
                ("atime", ctypes.c_int64 * 2), ("btime_s", ctypes.c_int64), ("btime_ns", ctypes.c_uint32), ("pad", ctypes.c_int32),
                ("rest", ctypes.c_uint8 * 160)]


def statx(path, mask=0xfff):
    st = Statx()
    libc("syscall", SYS_statx, -100, os.fsencode(path), 0x100, mask, ctypes.byref(st))
    return st


@scenario
def suid_alone_after_change(d):
    """The mode and nothing else is asked for, before and after: nobody may answer with what was."""
    make(d / "source", b"abc")
    seen = []
    for name in ("write", "append", "ftruncate", "open-trunc", "allocate", "punch", "copy"):
        path = make(d / name, b"program", 0o6777, (USER, USER))
        before = oct(statx(path, 3).mode)
        user(CHANGES[name], path)
        seen.append((name, before, oct(statx(path, 3).mode)))
    return seen


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
