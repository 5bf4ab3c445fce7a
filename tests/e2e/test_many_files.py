# SPDX-License-Identifier: MIT
"""More files than the server may have open: none fails for it, whether or not the lower has file handles."""
import contextlib
import os
import resource

import pytest
from support import run, sanitized
from variants import check, configure, tmpfs

LIMIT = 20000
FILES, OPEN, DIRECTORIES = (12000, 3000, 600) if sanitized() else (60000, 12000, 3000)
if sanitized():
    LIMIT = 5000


@contextlib.contextmanager
def overlay(at):
    """A lower without file handles."""
    with tmpfs(at.parent / f"{at.name}-below", 512 << 20) as below:
        for name in ("lower", "upper", "work"):
            (below / name).mkdir()
        at.mkdir()
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work,index=off", at)
        try:
            yield at
        finally:
            run("umount", "-l", at)


@contextlib.contextmanager
def tmpfs_large(at):
    with tmpfs(at, 512 << 20) as there:
        yield there


@pytest.fixture
def many_fds():
    """This process may have more open than the server."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN + 2000, max(before[1], OPEN + 2000)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def mount_limited(ck):
    """A server with that limit, which it cannot raise: it has no CAP_SYS_RESOURCE."""
    run("setpriv", "--bounding-set", "-sys_resource", "prlimit", f"--nofile={LIMIT}:{LIMIT}", *ck.argv("mount", "vol", ck.mnt), env=ck.env)
    pid = ck.remember(ck.mnt)["server_pid"]
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[1] == LIMIT
    return pid


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def name_of(i):
    return f"d{i % DIRECTORIES}/f{i}"


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


@pytest.mark.parametrize("variant, lower", [("plain", tmpfs_large), ("gocryptfs", tmpfs_large), ("passthrough", overlay), ("gocryptfs", overlay)])
def test_more_files_than_fds(ck, many_fds, variant, lower):
    with lower(ck.dir / "lower") as below:
        configure(ck, variant, below)
        pid = mount_limited(ck)
        check(ck, variant)
        assert ("file-handles" in ck.state()["missing"]) == (lower is overlay)
        for i in range(DIRECTORIES):
            os.mkdir(ck.mnt / f"d{i}")
        for i in range(FILES):
            write(ck.mnt / name_of(i), str(i).encode())
        inodes = {name_of(i): os.stat(ck.mnt / name_of(i)).st_ino for i in range(FILES)}
        assert len(set(inodes.values())) == FILES
        assert fds_of(pid) < LIMIT / 2, "with nothing open there is room for what will be"
        fds = [os.open(ck.mnt / name_of(i), os.O_RDWR) for i in range(OPEN)]
        for where, directories, files in os.walk(ck.mnt):
            for n in files:
                assert os.stat(os.path.join(where, n)).st_ino == inodes[os.path.relpath(os.path.join(where, n), ck.mnt)]
        for i, fd in enumerate(fds):
            if i % 3 == 0:
                os.unlink(ck.mnt / name_of(i))
            os.pwrite(fd, b"!", 20)
            assert os.pread(fd, len(str(i)), 0) == str(i).encode()
            os.close(fd)
        for i in range(OPEN, FILES, 7):
            os.rename(ck.mnt / name_of(i), ck.mnt / f"moved{i}")
        for i in range(OPEN, FILES, 5):
            moved = (i - OPEN) % 7 == 0
            assert read(ck.mnt / (f"moved{i}" if moved else name_of(i))) == str(i).encode()
        assert fds_of(pid) < LIMIT / 2
        ck.umount()
