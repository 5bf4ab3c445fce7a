# SPDX-License-Identifier: MIT
"""Kernel passthrough of plain volumes: that it is used where it can be, and that files are the same with it."""
import contextlib
import mmap
import os
import subprocess

import pytest
from support import DONE, UID, UNSUPPORTED, as_user, kernel_lacks, run, wait_until

MIB = 1 << 20


def offered():
    return tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 9)


@pytest.fixture
def plain(ck):
    """A plain volume on a file system of its own: passthrough, if there is any."""
    source = ck.plain()
    run("mount", "-t", "tmpfs", "-o", "mode=755,size=256m", "ckrfs-test", source)
    yield source
    run("umount", "-l", source)


@contextlib.contextmanager
def passing(ck, *options):
    with ck.mounted("plain", ck.mnt, *options):
        state = ck.state()["passthrough"]
        if state.startswith("the kernel does not offer it") and not offered():
            kernel_lacks("FUSE passthrough")
        assert state == "active"
        yield ck.mnt


def bytes_seen(ck):
    state = ck.state()
    return state["read_bytes"], state["written_bytes"]


def test_contents_go_past_the_server(ck, plain):
    data = os.urandom(3 * MIB + 17)
    with passing(ck) as mnt:
        (mnt / "f").write_bytes(data)
        assert (mnt / "f").read_bytes() == data == (plain / "f").read_bytes()
        with open(mnt / "f", "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            m[MIB:MIB + 4] = b"mmap"
            assert os.pread(f.fileno(), 4, MIB) == b"mmap"
            os.pwrite(f.fileno(), b"pwrite", 2 * MIB)
            assert m[2 * MIB:2 * MIB + 6] == b"pwrite"
            os.ftruncate(f.fileno(), 2 * MIB)
            assert os.fstat(f.fileno()).st_size == 2 * MIB
        with open(mnt / "f", "ab") as f:
            f.write(b"end")
        assert (mnt / "f").stat().st_size == 2 * MIB + 3
        assert bytes_seen(ck) == (0, 0), "the server has not seen contents"
    assert (plain / "f").read_bytes()[-3:] == b"end"


def test_off(ck, plain):
    with ck.mounted("plain", ck.mnt, "-o", "passthrough=no"):
        assert ck.state()["passthrough"] == "off"
        (ck.mnt / "f").write_bytes(b"x" * MIB)
        assert bytes_seen(ck)[1] == MIB


def test_not_with_an_encrypted_format(ck):
    ck.volume()
    with ck.mounted():
        assert ck.state()["passthrough"] == "not with this format"
    done = ck.run("mount", "web", ck.mnt, "-o", "passthrough=yes", status=UNSUPPORTED)
    assert done.stderr == ('ckrfs: cannot mount "web": passthrough = yes cannot be done: not with this format\n'
                           "  try: ckrfs mount web -o passthrough=auto\n")
    assert not os.path.ismount(ck.mnt)


def test_not_on_an_unknown_file_system(ck, plain):
    """Another mount of ckrfs is one that may want a key at each open."""
    below = ck.dir / "below"
    below.mkdir()
    above = ck.dir / "above"
    above.mkdir()
    with ck.mounted("plain", below):
        ck.configure("volume above", source=below, format="plain")
        with ck.mounted("above", above):
            assert ck.state(above)["passthrough"] == "not on this type of file system"
            (above / "f").write_text("x")
            assert (plain / "f").read_text() == "x"
        ck.run("mount", "above", above, "-o", "passthrough=yes", status=UNSUPPORTED)


def test_on_overlayfs(ck, plain):
    for name in ("lower", "upper", "work", "merged"):
        (plain / name).mkdir()
    (plain / "lower" / "f").write_text("below")
    merged = plain / "merged"
    run("mount", "-t", "overlay", "-o", f"lowerdir={plain}/lower,upperdir={plain}/upper,workdir={plain}/work", "o", merged)
    try:
        ck.configure("volume plain", source=merged, format="plain")
        with passing(ck) as mnt:
            assert (mnt / "f").read_text() == "below"
            (mnt / "f").write_text("above")
            assert (mnt / "f").read_text() == "above"
            assert bytes_seen(ck) == (0, 0)
    finally:
        run("umount", merged)
    assert (plain / "upper" / "f").read_text() == "above"


@pytest.mark.parametrize("mode", [0o4777, 0o2777])
def test_setuid_is_cleared(ck, plain, mode):
    def write(path):
        with open(path, "ab") as f:
            f.write(b"x")

    with passing(ck) as mnt:
        f = mnt / "f"
        f.write_text("x")
        os.chmod(f, mode)
        write(f)
        assert (plain / "f").stat().st_mode & 0o7777 == mode, "root may write"
        as_user(lambda: write(f))
        assert (plain / "f").stat().st_mode & 0o7777 == 0o777
        with open(f, "ab", buffering=0) as opened:
            os.chmod(f, mode)
            as_user(lambda: opened.write(b"x"))
        assert (plain / "f").stat().st_mode & 0o7777 == 0o777, "set while it was open"


def test_space_of_removed_files_is_free(ck, plain):
    with passing(ck) as mnt:
        before = os.statvfs(plain).f_bfree
        for i in range(4):
            (mnt / f"f{i}").write_bytes(b"x" * 8 * MIB)
        assert os.statvfs(plain).f_bfree < before - 7000
        for i in range(4):
            os.unlink(mnt / f"f{i}")
        wait_until("the space to be free", lambda: os.statvfs(plain).f_bfree == before)


def test_many_files_open_and_closed(ck, plain):
    """Backing ids live as long as the kernel's inode: more files than the server may have fds."""
    with passing(ck) as mnt:
        for i in range(3000):
            (mnt / f"f{i}").write_text(str(i))
        for i in range(3000):
            assert (mnt / f"f{i}").read_text() == str(i)
        assert bytes_seen(ck) == (0, 0)


def test_two_kinds_of_open_at_once(ck, plain):
    """The kernel refuses opens of another kind while a file is open: all must be of the first one's."""
    with passing(ck) as mnt:
        f = mnt / "f"
        f.write_text("old")
        os.chmod(f, 0o4755)
        with open(f, "r+b", buffering=0) as a:
            os.chmod(f, 0o755)
            with open(f, "r+b", buffering=0) as b:
                b.write(b"new")
            assert a.read() == b"new"
        with open(f, "rb") as c:
            assert c.read() == b"new"


def test_space_of_sqlite(ck, plain):
    with passing(ck) as mnt:
        script = ("import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('pragma journal_mode=wal');"
                  "c.execute('create table t(a)'); c.executemany('insert into t values(?)', [(i,) for i in range(5000)]);"
                  "c.commit(); print(c.execute('select sum(a) from t').fetchone()[0], c.execute('pragma integrity_check').fetchone()[0])")
        done = subprocess.run(["/usr/bin/python3", "-c", script, mnt / "db"], capture_output=True, text=True, check=True)
        assert done.stdout == "12497500 ok\n"
