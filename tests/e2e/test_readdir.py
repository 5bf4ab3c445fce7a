# SPDX-License-Identifier: MIT
"""What the server reads of a directory before it is asked must not be seen: whoever changes something between two
reads sees it changed, and a lock leaves no name behind."""
import ctypes
import errno
import mmap
import os
import struct

import pytest
from locked import scan
from support import DONE

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_getdents64 = 217 if os.uname().machine == "x86_64" else 61
FILES, LATE = 500, 450
ROOM = 32768


def name_of(i):
    return f"{i:04d}-" + "n" * 20


class Stream:
    """A directory that is read as far as one system call reads."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.buf = ctypes.create_string_buffer(ROOM)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        os.close(self.fd)

    def read(self):
        n = LIBC.syscall(SYS_getdents64, self.fd, self.buf, ROOM)
        if n < 0:
            raise OSError(ctypes.get_errno(), "getdents64")
        names, at = [], 0
        while at < n:
            length = struct.unpack_from("<H", self.buf, at + 16)[0]
            names.append(self.buf.raw[at + 19:at + length].split(b"\0")[0].decode())
            at += length
        return names

    def rest(self):
        names = []
        while more := self.read():
            names += more
        return names


@pytest.fixture(params=["gocryptfs", "plain", "plain-cached"])
def directory(request, ck):
    """A directory of files that a fresh mount knows nothing of."""
    if request.param == "gocryptfs":
        ck.volume()
    else:
        (ck.dir / "plain").mkdir()
        ck.configure("volume web", source=ck.dir / "plain", format="plain", passthrough="auto" if request.param == "plain" else "no")
    with ck.mounted() as mnt:
        (mnt / "d").mkdir()
        for i in range(FILES):
            (mnt / "d" / name_of(i)).write_bytes(b"x" * i)
    with ck.mounted() as mnt:
        yield mnt / "d"


# Each changes a file; what is seen of it after.

def chmod(path):
    path.chmod(0o4711)
    return {"st_mode": 0o104711}


def chown(path):
    os.chown(path, 4711, 4712)
    return {"st_uid": 4711, "st_gid": 4712}


def truncate(path):
    os.truncate(path, 123456)
    return {"st_size": 123456}


def append(path):
    size = path.stat().st_size
    with open(path, "ab") as f:
        f.write(b"y" * 1000)
    return {"st_size": size + 1000}


def utime(path):
    os.utime(path, ns=(1, 2))
    return {"st_mtime_ns": 2}


def link(path):
    os.link(path, path.parent.parent / "other")
    return {"st_nlink": 2}


def replace(path):
    new = path.parent.parent / "new"
    new.write_bytes(b"another file")
    os.rename(new, path)
    return {"st_size": 12}


def symlink(path):
    path.unlink()
    path.symlink_to("/nowhere")
    return {"st_size": 8, "st_nlink": 1}


@pytest.mark.parametrize("change", [chmod, chown, truncate, append, utime, link, replace, symlink])
def test_changes_between_two_reads(ck, directory, change):
    with Stream(directory) as stream:
        early = set(stream.read())
        ck.state()  # takes longer than the server needs to look ahead
        late = [directory / name_of(i) for i in range(FILES) if name_of(i) not in early]
        assert len(late) > FILES // 4
        wanted = {path: change(path) for path in late[::41]} if change is not link else {late[0]: link(late[0])}
        names = stream.rest()
        for path, seen in wanted.items():
            st = os.lstat(path)
            assert {k: getattr(st, k) for k in seen} == seen
    assert len(names) == len(set(names))
    assert {p.name for p in late} - {p.name for p in wanted} <= set(names)


def test_open_files_change_meanwhile(ck, directory):
    """By write and by a mapping, which the kernel may do without asking. With passthrough the time of what is written
    through a mapping is seen when attr-timeout is over (docs/posix.md)."""
    paths = [directory / name_of(i) for i in range(LATE, LATE + 20)]
    files = [os.open(p, os.O_RDWR) for p in paths]
    for fd in files[10:]:
        os.ftruncate(fd, 8192)
    maps = [mmap.mmap(fd, 8192) for fd in files[10:]]
    with Stream(directory) as stream:
        stream.read()
        ck.state()
        before = [os.fstat(fd).st_mtime_ns for fd in files]
        for fd in files[:10]:
            os.pwrite(fd, b"z", 70000)
        for m in maps:
            m[0:4096] = b"m" * 4096
            m.flush()
        stream.rest()
        for path, fd, was in zip(paths, files, before):
            st = os.lstat(path)
            assert st.st_size == (70001 if fd in files[:10] else 8192)
            assert st.st_mtime_ns > was or (fd in files[10:] and ck.state()["passthrough"] == "active")
    for m in maps:
        m.close()
    for fd in files:
        os.close(fd)


def test_names_come_and_go(ck, directory):
    with Stream(directory) as stream:
        early = set(stream.read())
        ck.state()
        late = [name_of(i) for i in range(FILES) if name_of(i) not in early]
        gone, moved = late[::3], late[1::3]
        for name in gone:
            os.unlink(directory / name)
        for name in moved:
            os.rename(directory / name, directory.parent / name)
        names = set(stream.rest())
        for name in gone + moved:
            with pytest.raises(FileNotFoundError):
                os.lstat(directory / name)
        assert set(late[2::3]) <= names
    assert {n for n in os.listdir(directory)} == set(early) - {".", ".."} | set(late[2::3])


def test_closed_before_the_end(ck, directory):
    """What was looked up ahead is forgotten again."""
    for _ in range(30):
        with Stream(directory) as stream:
            stream.read()
    os.sync()
    with Stream(directory) as stream:
        names = stream.rest()
    assert len(names) == FILES + 2
    assert sum(os.lstat(directory / n).st_size for n in names if n[0] != ".") == sum(range(FILES))


def test_seek(ck, directory):
    with Stream(directory) as stream:
        first = stream.read()
        ck.state()
        os.lseek(stream.fd, 0, os.SEEK_SET)
        assert stream.read() == first
        assert len(first) + len(stream.rest()) == FILES + 2


def test_locked_between_two_reads(ck):
    ck.volume()
    with ck.mounted() as mnt:
        for i in range(FILES):
            (mnt / name_of(i)).touch()
    with ck.mounted() as mnt, Stream(mnt) as stream:
        early = stream.read()
        pids = [ck.state()["server_pid"]]
        late = [name_of(i).encode() for i in range(FILES) if name_of(i) not in early]
        ck.run("lock", "web", status=DONE)
        assert scan(ck, late[::20], pids) == []
        with pytest.raises(OSError) as e:
            stream.rest()
        assert e.value.errno == errno.ENOKEY
        ck.run("unlock", "web", status=DONE)
        assert sorted(early + stream.rest()) == sorted([".", ".."] + [name_of(i) for i in range(FILES)])
