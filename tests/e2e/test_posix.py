# SPDX-License-Identifier: MIT
"""What a program may expect of a file system, through a mount of each format."""
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import threading
import time

import pytest
from support import UID, as_user, errno_of, run

LIBC = ctypes.CDLL(None, use_errno=True)


def listed(path):
    return sorted(os.listdir(path))


# ---- who owns, who may

def test_creator_owns(mounted):
    """Files, directories, links and nodes belong to the caller, and its umask counts."""
    def create():
        os.umask(0o027)
        (mounted / "file").touch()
        (mounted / "dir").mkdir()
        (mounted / "link").symlink_to("file")
        os.mkfifo(mounted / "fifo")
        s = socket.socket(socket.AF_UNIX)
        s.bind(str(mounted / "sock"))

    as_user(create)
    wanted = {"file": 0o100640, "dir": 0o040750, "link": 0o120777, "fifo": 0o010640, "sock": 0o140750}
    for name, mode in wanted.items():
        st = os.lstat(mounted / name)
        assert (st.st_uid, st.st_gid, oct(st.st_mode)) == (UID, UID, oct(mode)), name


def test_group_of_setgid_directory(mounted):
    (mounted / "team").mkdir()
    os.chown(mounted / "team", 0, 4242)
    os.chmod(mounted / "team", 0o2777)

    def create():
        (mounted / "team" / "file").touch()
        (mounted / "team" / "dir").mkdir()

    as_user(create)
    assert os.stat(mounted / "team" / "file").st_gid == 4242
    st = os.stat(mounted / "team" / "dir")
    assert st.st_gid == 4242 and st.st_mode & stat.S_ISGID


@pytest.mark.parametrize("attempt, name", [
    (lambda m: open(m / "secret").close(), "EACCES"),
    (lambda m: open(m / "readable", "w").close(), "EACCES"),
    (lambda m: os.listdir(m / "private"), "EACCES"),
    (lambda m: os.unlink(m / "private" / "x"), "EACCES"),
    (lambda m: os.unlink(m / "closed" / "x"), "EACCES"),
    (lambda m: os.chmod(m / "readable", 0o777), "EPERM"),
    (lambda m: os.chown(m / "readable", UID, UID), "EPERM"),
    (lambda m: os.utime(m / "readable", (0, 0)), "EPERM"),
    (lambda m: os.setxattr(m / "readable", "user.x", b"y"), "EACCES"),
    (lambda m: os.truncate(m / "readable", 0), "EACCES"),
    (lambda m: os.rename(m / "closed" / "x", m / "mine"), "EACCES"),
    (lambda m: os.mknod(m / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3)), "EPERM"),
    (lambda m: os.setxattr(m / "readable", "trusted.x", b"y"), "EPERM"),
], ids=["read", "write", "list", "unlink-private", "unlink", "chmod", "chown", "utime", "xattr", "truncate", "rename",
        "mknod", "trusted"])
def test_other_user_may_not(mounted, attempt, name):
    for path, mode in {"secret": 0o600, "readable": 0o644}.items():
        (mounted / path).write_text("root's")
        (mounted / path).chmod(mode)
    for path, mode in {"private": 0o700, "closed": 0o755}.items():
        (mounted / path).mkdir()
        (mounted / path / "x").write_text("x")
        (mounted / path).chmod(mode)

    def check():
        assert errno_of(attempt, mounted) == name

    as_user(check)
    assert (mounted / "readable").read_text() == "root's" and (mounted / "closed" / "x").exists()


def test_supplementary_group_opens(mounted):
    (mounted / "group").write_text("for 4242")
    os.chown(mounted / "group", 0, 4242)
    (mounted / "group").chmod(0o640)
    done = run("setpriv", "--reuid", str(UID), "--regid", str(UID), "--groups", "4242", "cat", mounted / "group")
    assert done.stdout == b"for 4242"


def test_sticky_directory(mounted):
    (mounted / "tmp").mkdir()
    (mounted / "tmp").chmod(0o1777)
    (mounted / "tmp" / "roots").touch()

    def check():
        assert errno_of(os.unlink, mounted / "tmp" / "roots") in ("EPERM", "EACCES")
        (mounted / "tmp" / "mine").touch()
        os.unlink(mounted / "tmp" / "mine")

    as_user(check)


@pytest.mark.parametrize("change", ["write", "truncate", "chown"])
def test_setuid_is_cleared(mounted, change):
    path = mounted / "suid"
    path.write_text("program")
    os.chown(path, UID, UID)
    path.chmod(0o6777)

    def act():
        if change == "write":
            with open(path, "r+") as f:
                f.write("other")
        elif change == "truncate":
            os.truncate(path, 2)
        else:
            os.chown(path, -1, UID)

    as_user(act)
    assert oct(os.stat(path).st_mode) == "0o100777"


def test_nosuid_nodev_by_default(mounted):
    flags = os.statvfs(mounted).f_flag
    assert flags & os.ST_NOSUID and flags & os.ST_NODEV


# ---- contents

def test_append(mounted):
    """O_APPEND: every write lands at the end, also when others write."""
    path = mounted / "log"
    a = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    b = os.open(path, os.O_WRONLY | os.O_APPEND)
    for i in range(500):
        os.write(a, b"a%06d\n" % i)
        os.write(b, b"b%06d\n" % i)
    os.close(a)
    os.close(b)
    lines = path.read_bytes().split(b"\n")
    assert lines == [x for i in range(500) for x in (b"a%06d" % i, b"b%06d" % i)] + [b""]


def test_write_only_then_read_back(mounted):
    """Part of a block written through a handle that may not read."""
    path = mounted / "f"
    path.write_bytes(b"0123456789" * 1000)
    fd = os.open(path, os.O_WRONLY)
    assert os.pwrite(fd, b"ABC", 5000) == 3
    assert errno_of(os.read, fd, 1) == "EBADF"
    os.close(fd)
    assert path.read_bytes()[4998:5006] == b"89ABC345"


def test_write_only_file_of_a_user(mounted):
    """Mode 0200: its owner may write parts of blocks without being able to read."""
    path = mounted / "w"

    def act():
        path.touch()
        path.chmod(0o200)
        for offset, data in ((0, b"x" * 6000), (3, b"yyy")):
            fd = os.open(path, os.O_WRONLY)
            os.pwrite(fd, data, offset)
            os.close(fd)
        assert errno_of(open, path, "rb") == "EACCES"

    as_user(act)
    assert path.read_bytes() == b"xxxyyy" + b"x" * 5994 and oct(path.stat().st_mode) == "0o100200"


def test_read_only_file_that_its_creator_writes(mounted):
    def act():
        fd = os.open(mounted / "r", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(fd, b"first and last")
        os.close(fd)
        assert (mounted / "r").read_bytes() == b"first and last"

    as_user(act)


def test_holes_and_truncate(mounted):
    path = mounted / "f"
    with open(path, "w+b") as f:
        f.seek(10000)
        f.write(b"end")
        f.flush()
        os.truncate(path, 20000)
        os.truncate(path, 10001)
        os.truncate(path, 30000)
    assert path.read_bytes() == bytes(10000) + b"e" + bytes(19999)
    os.truncate(path, 0)
    assert path.read_bytes() == b"" and path.stat().st_blocks == 0
    assert errno_of(os.truncate, path, -1) == "EINVAL"


def test_open_truncate_and_exclusive(mounted):
    path = mounted / "f"
    path.write_text("long content")
    path.write_text("new")
    assert path.read_text() == "new"
    assert errno_of(os.open, path, os.O_CREAT | os.O_EXCL) == "EEXIST"
    assert errno_of(os.open, mounted / "none", os.O_RDONLY) == "ENOENT"
    assert errno_of(os.open, path / "below", os.O_RDONLY) == "ENOTDIR"
    assert errno_of(os.open, mounted, os.O_WRONLY) == "EISDIR"


def test_mmap_shared_is_coherent(mounted):
    path = mounted / "map"
    path.write_bytes(b"a" * 10000)
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 10000) as m:
        m[4090:4100] = b"0123456789"
        assert os.pread(f.fileno(), 10, 4090) == b"0123456789"
        os.pwrite(f.fileno(), b"written", 9000)
        assert m[9000:9007] == b"written"
        m.flush()
    assert path.read_bytes()[4090:4100] == b"0123456789"


def test_execute(mounted):
    program = mounted / "prog"
    program.write_bytes(open("/bin/true", "rb").read())
    program.chmod(0o755)
    run(program)
    script = mounted / "script"
    script.write_text("#!/bin/sh\necho ran $1\n")
    script.chmod(0o755)
    assert run(script, "it").stdout == b"ran it\n"


def test_unlinked_but_open(mounted):
    path = mounted / "gone"
    f = open(path, "w+b")
    f.write(b"before")
    f.flush()
    os.unlink(path)
    assert not path.exists() and listed(mounted) == []
    assert os.fstat(f.fileno()).st_nlink == 0
    f.write(b" after" * 2000)
    f.flush()
    os.ftruncate(f.fileno(), 9000)
    os.fchmod(f.fileno(), 0o600)
    f.seek(0)
    assert f.read() == (b"before" + b" after" * 2000)[:9000]
    path.write_text("another")
    f.close()
    assert path.read_text() == "another"


def test_replaced_by_rename_but_open(mounted):
    (mounted / "a").write_text("old")
    (mounted / "b").write_text("new")
    with open(mounted / "a") as f:
        os.rename(mounted / "b", mounted / "a")
        assert f.read() == "old" and (mounted / "a").read_text() == "new"
    assert listed(mounted) == ["a"]


def test_copy_file_range_and_sendfile(mounted):
    (mounted / "from").write_bytes(os.urandom(300000))
    with open(mounted / "from", "rb") as f, open(mounted / "to", "wb") as t:
        left = 300000
        while left:
            left -= os.copy_file_range(f.fileno(), t.fileno(), left)
    assert (mounted / "to").read_bytes() == (mounted / "from").read_bytes()


def test_direct_io_flag(mounted):
    path = mounted / "f"
    path.write_bytes(b"x" * 8192)
    page = mmap.mmap(-1, 4096)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as e:
        assert e.errno == errno.EINVAL  # an honest answer too
        return
    assert os.preadv(fd, [page], 4096) == 4096 and page[:3] == b"xxx"
    os.close(fd)


def test_parallel_appends_and_reads(mounted):
    """Eight threads, each with files of its own, in one directory."""
    failures = []

    def work(n):
        for i in range(60):
            path = mounted / f"t{n}-{i}"
            data = bytes([n]) * (i * 211)
            path.write_bytes(data)
            if path.read_bytes() != data:
                failures.append(path)
            if i % 3 == 0:
                os.rename(path, mounted / f"r{n}-{i}")
            elif i % 3 == 1:
                os.unlink(path)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures and len(listed(mounted)) == 8 * 40


# ---- names and links

def test_hard_links(mounted):
    a, b = mounted / "a", mounted / ("b" * 200)
    a.write_text("one")
    os.link(a, b)
    assert os.stat(a).st_nlink == 2 and os.path.samefile(a, b)
    with open(b, "a") as f:
        f.write(" two")
    assert a.read_text() == "one two"
    os.unlink(a)
    assert os.stat(b).st_nlink == 1 and b.read_text() == "one two"
    assert errno_of(os.link, b, b) == "EEXIST"
    assert errno_of(os.link, mounted, mounted / "d") == "EPERM"


def test_symlinks(mounted):
    targets = ["x", "../up", "/etc/passwd", "t" * 1000, "dangling/" * 100]
    for i, target in enumerate(targets):
        path = mounted / f"l{i}"
        path.symlink_to(target)
        assert os.readlink(path) == target and os.lstat(path).st_size == len(target)
    assert errno_of(os.open, mounted / "l2", os.O_RDONLY | os.O_NOFOLLOW) == "ELOOP"
    (mounted / "x").write_text("through the link")
    assert (mounted / "l0").read_text() == "through the link"
    (mounted / "self").symlink_to("self")
    assert errno_of(os.stat, mounted / "self") == "ELOOP"


def test_rename_basics(mounted):
    (mounted / "d1" / "sub").mkdir(parents=True)
    (mounted / "d2").mkdir()
    (mounted / "d1" / "sub" / "f").write_text("deep")
    os.rename(mounted / "d1" / "sub", mounted / "d2" / "moved")
    assert (mounted / "d2" / "moved" / "f").read_text() == "deep"
    assert (mounted / "d2" / "moved" / ".." / "moved").exists()
    assert errno_of(os.rename, mounted / "d2", mounted / "d2" / "moved" / "in") == "EINVAL"
    os.rename(mounted / "d2", mounted / "d1")
    assert listed(mounted) == ["d1"]


def test_open_directory_survives_rename(mounted):
    (mounted / "d").mkdir()
    fd = os.open(mounted / "d", os.O_RDONLY)
    os.rename(mounted / "d", mounted / "e")
    os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    assert listed(mounted / "e") == ["new"]
    os.unlink("new", dir_fd=fd)
    os.rmdir(mounted / "e")
    assert errno_of(os.open, "late", os.O_CREAT, dir_fd=fd) == "ENOENT"
    os.close(fd)


@pytest.mark.parametrize("size, name", [(255, None), (256, "ENAMETOOLONG")])
@pytest.mark.parametrize("make", ["open", "mkdir", "symlink", "link", "mkfifo", "rename"])
def test_name_limit(mounted, make, size, name):
    (mounted / "x").touch()
    path = str(mounted / ("y" * size))
    calls = {"open": lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)), "mkdir": lambda: os.mkdir(path),
             "symlink": lambda: os.symlink("t", path), "link": lambda: os.link(mounted / "x", path),
             "mkfifo": lambda: os.mkfifo(path), "rename": lambda: os.rename(mounted / "x", path)}
    assert errno_of(calls[make]) == name
    assert os.path.lexists(path) == (name is None)


def test_names_that_look_like_ours(mounted):
    """Names the format uses on disk are ordinary names inside the mount."""
    names = ["gocryptfs.conf", "gocryptfs.diriv", "gocryptfs.longname.abc", "gocryptfs.longname.abc.name", ".hidden"]
    for name in names:
        (mounted / name).write_text(name)
    assert set(os.listdir(mounted)) == set(names)
    for name in names:
        assert (mounted / name).read_text() == name
        os.rename(mounted / name, mounted / "moved")
        os.rename(mounted / "moved", mounted / name)
    for name in names:
        os.unlink(mounted / name)
    assert os.listdir(mounted) == []


def test_readdir_of_20000(mounted):
    """Every entry exactly once, in one pass; also when read in pieces with telldir and seekdir."""
    names = {f"entry-{i:05d}" for i in range(20000)}
    for name in names:
        os.close(os.open(mounted / name, os.O_CREAT | os.O_WRONLY))
    found = os.listdir(mounted)
    assert len(found) == 20000 and set(found) == names
    assert sum(e.is_file(follow_symlinks=False) for e in os.scandir(mounted)) == 20000
    assert seek_around(mounted) == names


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort), ("type", ctypes.c_ubyte),
                ("name", ctypes.c_char * 256)]


def seek_around(path):
    """Reads a directory remembering positions, goes back to each remembered one, and checks what follows."""
    LIBC.opendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
    LIBC.telldir.restype = ctypes.c_long
    d = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))
    order, marks = [], {}
    while True:
        if len(order) % 3001 == 0:
            marks[len(order)] = LIBC.telldir(d)
        p = LIBC.readdir64(d)
        if not p:
            break
        order.append(Dirent.from_address(p).name)
    for index, position in reversed(marks.items()):
        LIBC.seekdir(d, ctypes.c_long(position))
        for want in order[index:index + 3]:
            assert Dirent.from_address(LIBC.readdir64(d)).name == want
    LIBC.rewinddir(d)
    assert Dirent.from_address(LIBC.readdir64(d)).name == order[0]
    LIBC.closedir(d)
    return {n.decode() for n in order} - {".", ".."}


def test_remove_while_reading(mounted):
    """What `rm -r` does: entries removed while the directory is being read are all met."""
    for i in range(3000):
        (mounted / f"f{i}").touch()
    with os.scandir(mounted) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(mounted) == []


# ---- attributes

def test_times_to_the_nanosecond(mounted):
    path = mounted / "f"
    path.touch()
    before = path.stat().st_ctime_ns
    stamps = (1234567890123456789, 987654321987654321)
    os.utime(path, ns=stamps)
    st = path.stat()
    assert (st.st_atime_ns, st.st_mtime_ns) == stamps and st.st_ctime_ns >= before
    os.symlink("f", mounted / "l")
    os.utime(mounted / "l", ns=stamps, follow_symlinks=False)
    assert os.lstat(mounted / "l").st_mtime_ns == stamps[1]


def test_write_changes_mtime(mounted):
    path = mounted / "f"
    path.write_text("x")
    os.utime(path, ns=(0, 0))
    with open(path, "a") as f:
        f.write("y")
    assert abs(path.stat().st_mtime - time.time()) < 60
    directory = mounted / "d"
    directory.mkdir()
    os.utime(directory, ns=(0, 0))
    (directory / "new").touch()
    assert directory.stat().st_mtime > 1


def test_times_of_a_new_file_are_those_on_disk(mounted, ck):
    """What stat shows right after creating is what stays: nothing touches the file behind the reply."""
    before = set(os.listdir(ck.backing))
    time.sleep(0.01)  # file systems' clocks tick every few milliseconds
    with open(mounted / "new", "wb"):
        shown = (mounted / "new").stat().st_mtime_ns
    name, = set(os.listdir(ck.backing)) - before
    assert (ck.backing / name).stat().st_mtime_ns == shown


def test_times_survive_writeback_behind_them(ck):
    """sync(2) sends the times of files while writes of theirs are under way."""
    ck.volume()
    with ck.mounted() as mnt:
        fds = []
        for i in range(300):
            fds.append(os.open(mnt / f"f{i}", os.O_CREAT | os.O_RDWR))
            os.pwrite(fds[-1], bytes(400_000), 0)
        os.sync()
        shown = [os.fstat(fd).st_mtime_ns for fd in fds]
        for fd in fds:
            os.close(fd)
    with ck.mounted() as mnt:
        assert [i for i, mtime in enumerate(shown) if os.stat(mnt / f"f{i}").st_mtime_ns != mtime] == []


def test_utime_survives_writeback(mounted):
    """What tar and cp -p do: write, set the time, close. The time stays."""
    path = mounted / "f"
    with open(path, "wb") as f:
        f.write(b"x" * 100000)
        f.flush()
        os.utime(f.fileno(), ns=(5 * 10**9 + 1, 7 * 10**9 + 3))
    assert path.stat().st_mtime_ns == 7 * 10**9 + 3
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    assert path.stat().st_mtime_ns == 7 * 10**9 + 3


def test_chmod_chown(mounted):
    path = mounted / "f"
    path.touch()
    for mode in (0o000, 0o777, 0o1644, 0o4755):
        path.chmod(mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    os.chown(path, 123, 456)
    os.chown(path, -1, 457)
    assert (path.stat().st_uid, path.stat().st_gid) == (123, 457)
    os.symlink("f", mounted / "l")
    os.lchown(mounted / "l", 9, 9)
    assert os.lstat(mounted / "l").st_uid == 9 and path.stat().st_uid == 123


def test_directory_link_count_and_inode(mounted):
    (mounted / "d").mkdir()
    inode = (mounted / "d").stat().st_ino
    (mounted / "d" / "e").mkdir()
    assert (mounted / "d").stat().st_ino == inode
    by_list = {e.name: e.inode() for e in os.scandir(mounted)}
    assert by_list["d"] == inode


def test_statvfs(mounted, ck):
    st, back = os.statvfs(mounted), os.statvfs(ck.backing)
    assert st.f_namemax == 255 and st.f_blocks * st.f_frsize == back.f_blocks * back.f_frsize
    assert run("df", mounted).returncode == 0


def test_xattrs(mounted):
    path = mounted / "f"
    path.touch()
    os.setxattr(path, "user.a", b"value")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.big", b"x" * 2000)
    assert set(os.listxattr(path)) == {"user.a", "user.empty", "user.big"}
    assert os.getxattr(path, "user.a") == b"value" and os.getxattr(path, "user.empty") == b""
    assert os.getxattr(path, "user.big") == b"x" * 2000
    assert errno_of(os.setxattr, path, "user.a", b"", os.XATTR_CREATE) == "EEXIST"
    assert errno_of(os.setxattr, path, "user.none", b"", os.XATTR_REPLACE) == "ENODATA"
    os.setxattr(path, "user.a", b"other", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"other"
    os.removexattr(path, "user.a")
    assert errno_of(os.getxattr, path, "user.a") == "ENODATA"
    assert errno_of(os.removexattr, path, "user.a") == "ENODATA"


def test_fifo_works(mounted):
    os.mkfifo(mounted / "p")
    pid = os.fork()
    if pid == 0:
        with open(mounted / "p", "w") as f:
            f.write("through")
        os._exit(0)
    with open(mounted / "p") as f:
        assert f.read() == "through"
    os.waitpid(pid, 0)


def test_locks_between_processes(mounted):
    path = mounted / "f"
    path.touch()
    with open(path, "r+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        fcntl.lockf(f, fcntl.LOCK_EX, 10)

        def check():
            with open(path, "r+") as g:
                assert errno_of(fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN"
                assert errno_of(fcntl.lockf, g, fcntl.LOCK_EX | fcntl.LOCK_NB, 5) in ("EAGAIN", "EACCES")

        as_user(check, uid=0)


def test_sync_calls(mounted):
    with open(mounted / "f", "w") as f:
        f.write("x")
        f.flush()
        os.fsync(f.fileno())
        os.fdatasync(f.fileno())
    fd = os.open(mounted, os.O_RDONLY)
    os.fsync(fd)
    assert LIBC.syncfs(fd) == 0
    os.close(fd)


def test_removal_errors(mounted):
    (mounted / "d" / "e").mkdir(parents=True)
    (mounted / "f").touch()
    assert errno_of(os.rmdir, mounted / "d") == "ENOTEMPTY"
    assert errno_of(os.rmdir, mounted / "f") == "ENOTDIR"
    assert errno_of(os.unlink, mounted / "d") == "EISDIR"
    assert errno_of(os.unlink, mounted / "none") == "ENOENT"
    assert errno_of(os.mkdir, mounted / "f") == "EEXIST"
    assert errno_of(os.rmdir, mounted) == "EBUSY"


def test_key_ioctls_go_nowhere(mounted):
    """FS_IOC_ADD_ENCRYPTION_KEY and its kin are not forwarded to the backing file system."""
    fd = os.open(mounted, os.O_RDONLY)
    for request in (0xC0506617, 0xC0406618, 0x800C6613, 0xC080661A):
        assert errno_of(fcntl.ioctl, fd, request, bytes(128)) in ("ENOTTY", "ENOSYS", "EOPNOTSUPP")
    os.close(fd)
