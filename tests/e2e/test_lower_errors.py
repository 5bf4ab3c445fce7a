# SPDX-License-Identifier: MIT
"""Errors of the lower reach the program that asked, as they do without ckrfs: a disk that fails, a quota, a full disk."""
import contextlib
import mmap
import os

import posix_base as posix
import pytest
from support import TOOLS, child, errno_of, run, wait_until
from variants import configure, ext4, mounted, variant  # noqa: F401

DATA = bytes(range(256)) * 4096  # 1 MiB


# ---- a disk that fails

@contextlib.contextmanager
def failing_disk(ck):
    """-> an ext4 and a function that says what fails from now on: any of r (reads), w (writes), s (flushes)"""
    image, at = ck.dir / "image", ck.dir / "disk"
    at.mkdir()
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-O", "^has_journal", "-b", "4096", image)
    with child([TOOLS / "diskfail", image, at]):
        wait_until("the disk", (at / "disk").exists)
        try:
            (ck.dir / "lower").mkdir()
            run("mount", "-o", "loop", at / "disk", ck.dir / "lower")

            def fail(what):
                (at / "control").write_text(what or "-")
            yield ck.dir / "lower", fail
        finally:
            (at / "control").write_text("-")
            wait_until("the lower's end", lambda: run("umount", ck.dir / "lower", check=False).returncode == 0)
            run("umount", "-l", at)  # another namespace may have it still


def forget(*paths):
    """Drops what the page cache has of them."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def files(top):
    return [os.path.join(d, n) for d, _, names in os.walk(top) for n in names if os.path.isfile(os.path.join(d, n))]


def overwrite(path, byte, how):
    """What a program sees that changes a file and wants to know that it is on the disk."""
    fd = os.open(path, os.O_RDWR)
    seen = []
    try:
        if how == "write":
            seen.append(posix.attempt(os.pwrite, fd, byte * 300000, 4096))
            seen.append(posix.attempt(os.fsync, fd))
        elif how == "fdatasync":
            seen.append(posix.attempt(os.pwrite, fd, byte * 300000, 4096))
            seen.append(posix.attempt(os.fdatasync, fd))
        else:
            with mmap.mmap(fd, len(DATA)) as m:
                m[4096:304096] = byte * 300000
                seen.append(posix.attempt(m.flush))
    finally:
        seen.append(posix.attempt(os.close, fd))
    return seen


def test_disk_does_not_read(ck, variant):  # noqa: F811
    with failing_disk(ck) as (lower, fail):
        configure(ck, variant, lower)
        (lower / "native").write_bytes(DATA)
        with mounted(ck, variant) as at:
            (at / "f").write_bytes(DATA)
            posix.sync(at)
        with mounted(ck, variant) as at:
            for path in (lower / "native", at / "f"):
                forget(path, *files(lower))
                with open(path, "rb", buffering=0) as f:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                    fail("r")
                    seen = [errno_of(os.pread, f.fileno(), 4096, n) for n in (500000, 0)]
                    fail("")
                    assert seen == ["EIO", "EIO"], path
                    assert os.pread(f.fileno(), 4096, 500000) == DATA[500000:504096]
                assert path.read_bytes() == DATA


@pytest.mark.parametrize("fault", ["w", "s"])
@pytest.mark.parametrize("how", ["write", "fdatasync", "map"])
def test_disk_does_not_write(ck, variant, how, fault):  # noqa: F811
    """fsync(2) tells it, once, and the next write that succeeds is what is read after a mount anew."""
    with failing_disk(ck) as (lower, fail):
        configure(ck, variant, lower)
        (lower / "native").write_bytes(DATA)
        with mounted(ck, variant) as at:
            (at / "f").write_bytes(DATA)
            forget(lower / "native", at / "f")
            seen = []
            for path in (lower / "native", at / "f"):
                fail(fault)
                seen.append([overwrite(path, b"1", how)])
                fail("")
                seen[-1].append(overwrite(path, b"2", how))
            assert "EIO" in seen[0][0], "the disk did not fail"
            assert seen[1] == seen[0]
        with mounted(ck, variant) as at:
            forget(*files(lower))
            assert (at / "f").read_bytes() == DATA[:4096] + b"2" * 300000 + DATA[304096:]


# ---- quotas, full disks

def grow(path, blocks):
    """Appends blocks of 64 KiB, each made durable, and closes: the first error, and how much was durable before."""
    error, taken = None, 0
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(blocks):
        n = posix.attempt(os.write, fd, b"q" * 65536)
        error = n if isinstance(n, str) else errno_of(os.fsync, fd)
        if error:
            break
        taken += n
    error = errno_of(os.close, fd) or error
    return error, taken


def is_there(path, size):
    with open(path, "rb") as f:
        return f.read(size) == b"q" * size


@contextlib.contextmanager
def limited(at, limit):
    """A btrfs with two subvolumes, n and v, that may hold so many bytes each. (The quotas of ext4 know users, and root
    need not heed them; those of btrfs count for everybody, and need no format of quota files in the kernel.)"""
    image = f"/dev/shm/ckrfs-{os.getpid()}-btrfs"
    at.mkdir()
    with open(image, "wb") as f:
        f.truncate(256 << 20)
    try:
        run("mkfs.btrfs", "-q", image)
        run("mount", "-o", "loop", image, at)
        run("btrfs", "quota", "enable", at)
        for name in "nv":
            run("btrfs", "subvolume", "create", at / name)
            run("btrfs", "qgroup", "limit", str(limit), at / name)
        yield at
        run("umount", at)
    finally:
        run("umount", "-l", at, check=False)
        os.unlink(image)


def test_quota(ck, variant):  # noqa: F811
    """EDQUOT comes at the write or the fsync that goes over it, and names too; what was taken before is there."""
    with limited(ck.dir / "lower", 32 << 20) as lower:
        configure(ck, variant, lower / "v")
        with mounted(ck, variant) as at:
            seen = []
            for top in (lower / "n" / "d", at / "d"):
                posix.make_dir(top)
                error, taken = posix.user(grow, top / "f", 1000)
                seen.append([error, taken > 16 << 20, posix.opened(top / "more", os.O_CREAT | os.O_WRONLY)])
            assert seen == [["EDQUOT", True, "EDQUOT"]] * 2
        with mounted(ck, variant) as at:
            assert is_there(at / "d" / "f", taken)


def test_full_disk(ck, variant):  # noqa: F811
    with ext4(ck.dir / "lower", size=40 << 20, options=["-O", "^has_journal"]) as lower:
        configure(ck, variant, lower)
        with mounted(ck, variant) as at:
            seen = []
            for top in (lower / "native", at / "d"):
                posix.make_dir(top)
                error, taken = posix.user(grow, top / "f", 1000)
                seen.append([error, taken > 16 << 20])
                if top == lower / "native":
                    os.unlink(top / "f")
            assert seen == [["ENOSPC", True]] * 2
        with mounted(ck, variant) as at:
            assert is_there(at / "d" / "f", taken)
            os.unlink(at / "d" / "f")
            assert posix.user(grow, at / "d" / "f", 8) == [None, 8 << 16]
