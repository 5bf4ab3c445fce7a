# SPDX-License-Identifier: MIT
"""What a mount passes on from the file system below it, and what outlives caches and mounts."""
import mmap
import os
import time
from pathlib import Path

import posix_base as posix
import pytest
from support import errno_of, run
from test_posix_native import file_system

MANY = 100000


@pytest.fixture(params=["plain", "gocryptfs"])
def volume(request, ck):
    """A volume of each format on an ext4 of its own, which is ck.lower; -> nothing mounted yet."""
    with file_system("ext4", ck.dir / "lower") as ck.lower:
        if request.param == "plain":
            (ck.lower / "volume").mkdir()
            ck.configure("volume vol", source=ck.lower / "volume", format="plain")
        else:
            ck.volume("vol", cipher=ck.lower / "volume")
        yield request.param


def numbers(top):
    return {p.relative_to(top): (p.lstat().st_ino, p.lstat().st_mtime_ns, p.lstat().st_mode) for p in sorted(Path(top).rglob("*"))}


def test_inode_numbers_stay(ck, volume):
    """Over forgetting and over unmounting."""
    with ck.mounted("vol") as at:
        (at / "d" / "e").mkdir(parents=True)
        for n in ("f", "d/g", "d/e/" + "h" * 255):
            (at / n).write_text(n)
        os.symlink("f", at / "l")
        before = numbers(at)
        posix.sync(at)
        Path("/proc/sys/vm/drop_caches").write_text("2")
        assert numbers(at) == before
    with ck.mounted("vol") as at:
        assert numbers(at) == before


def changes_fail(at):
    calls = [(os.mkdir, at / "d"), (open, at / "new", "w"), (os.unlink, at / "f"), (os.chmod, at / "f", 0), (os.rename, at / "f", at / "g"),
             (os.symlink, "x", at / "l"), (os.setxattr, at / "f", "user.a", b""), (os.truncate, at / "f", 0), (open, at / "f", "r+")]
    assert [errno_of(*c) for c in calls] == ["EROFS"] * len(calls)
    assert (at / "f").read_text() == "there"


def test_lower_is_read_only(ck, volume):
    with ck.mounted("vol") as at:
        (at / "f").write_text("there")
    run("mount", "-o", "remount,ro", ck.lower)
    with ck.mounted("vol") as at:
        changes_fail(at)
    run("mount", "-o", "remount,rw", ck.lower)
    with ck.mounted("vol") as at:
        (at / "f").write_text("again")


def test_lower_turns_read_only_by_an_error(ck, volume):
    run("mount", "-o", "remount,errors=remount-ro", ck.lower)
    disk = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(ck.lower.stat().st_dev)}:{os.minor(ck.lower.stat().st_dev)}"))
    with ck.mounted("vol") as at:
        (at / "f").write_text("there")
        posix.sync(at)
        Path(f"/sys/fs/ext4/{disk}/trigger_fs_error").write_text("a test")
        changes_fail(at)


def test_read_only_mount(ck, volume):
    with ck.mounted("vol") as at:
        (at / "f").write_text("there")
    with ck.mounted("vol", None, "-o", "ro") as at:
        for call in ((os.mkdir, at / "d"), (open, at / "f", "a"), (os.unlink, at / "f"), (os.utime, at / "f"), (os.removexattr, at / "f", "user.a")):
            assert errno_of(*call) == "EROFS"
        assert (at / "f").read_text() == "there"


def test_lower_of_an_overlay(ck, volume):
    """As an image's layer: what is changed is copied up, the rest is read through."""
    (ck.dir / "up").mkdir()
    with ck.mounted("vol") as at, file_system("tmpfs", ck.dir / "scratch") as scratch:
        (at / "d").mkdir()
        (at / "d" / "f").write_text("below")
        (at / "gone").write_text("x")
        for n in ("upper", "work", "merged"):
            (scratch / n).mkdir()
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={at},upperdir={scratch}/upper,workdir={scratch}/work", scratch / "merged")
        try:
            merged = scratch / "merged"
            assert (merged / "d" / "f").read_text() == "below"
            with open(merged / "d" / "f", "a") as f:
                f.write(" and above")
            os.unlink(merged / "gone")
            assert (merged / "d" / "f").read_text() == "below and above" and not (merged / "gone").exists()
            assert (at / "d" / "f").read_text() == "below" and (at / "gone").exists()
        finally:
            run("umount", scratch / "merged")


def test_upper_of_an_overlay(ck, volume):
    """As a container's own layer: whiteouts, opaque directories, renames and what a second mount finds of them."""
    with ck.mounted("vol") as at, file_system("tmpfs", ck.dir / "scratch") as scratch:
        for n in (at / "upper", at / "work", scratch / "lower", scratch / "merged"):
            n.mkdir()
        (scratch / "lower" / "d").mkdir()
        for n in ("d/f", "gone", "kept"):
            (scratch / "lower" / n).write_text(n)
        merged = scratch / "merged"
        for turn in range(2):
            run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={scratch}/lower,upperdir={at}/upper,workdir={at}/work", merged)
            try:
                if turn == 0:
                    posix.change_append(merged / "kept")
                    os.unlink(merged / "gone")
                    os.unlink(merged / "d" / "f")
                    os.rmdir(merged / "d")
                    (merged / "d").mkdir()
                    os.rename(merged / "kept", merged / "d" / ("n" * 255))
                assert sorted(os.listdir(merged)) == ["d"] and os.listdir(merged / "d") == ["n" * 255]
                assert (merged / "d" / ("n" * 255)).read_text() == "keptz"
            finally:
                run("umount", merged)


@pytest.mark.parametrize("name", ["punch", "zero", "zero-keep"])
def test_gocryptfs_reads_what_was_punched(ck, name):
    g = ck.volume("vol")
    data = os.urandom(70001)
    ranges = [(0, 4096), (0, 1), (4095, 2), (5000, 20000), (8192, 8192), (60000, 10001), (65536, 4465), (69999, 50000), (70001, 10), (0, 90000)]
    with ck.mounted("vol") as at:
        for i, (start, length) in enumerate(ranges):
            with open(at / str(i), "w+b") as f:
                f.write(data)
                f.flush()
                posix.fallocate(f.fileno(), posix.FALLOC[name], start, length)
    g.fsck()
    with g.mounted(ck.dir / "peer", read_only=True) as peer:
        for i, (start, length) in enumerate(ranges):
            end = start + length
            size = max(len(data), end) if name == "zero" else len(data)
            wanted = data[:start] + bytes(end - start) + data[end:]
            assert (peer / str(i)).read_bytes() == wanted[:size], (start, length)


def test_huge_directory_that_changes(ck):
    """Every entry that stays is met exactly once, whatever comes and goes meanwhile."""
    with file_system("tmpfs", ck.dir / "lower") as lower:
        (lower / "volume").mkdir()
        ck.configure("volume vol", source=lower / "volume", format="plain")
        for i in range(MANY):
            os.mknod(lower / "volume" / f"e{i}")
        with ck.mounted("vol") as at, os.scandir(at) as entries:
            seen = []
            for entry in entries:
                seen.append(entry.name)
                if len(seen) % 1000 == 0:
                    os.unlink(at / seen[-1])
                    os.mknod(at / f"new{len(seen)}")
            assert len(seen) == len(set(seen)) and {f"e{i}" for i in range(MANY)} <= set(seen)
            assert len(os.listdir(at)) == MANY


@pytest.mark.parametrize("options", ["writeback=yes", "writeback=no", "passthrough=no", "shared=yes"])
def test_write_through_a_mapping_moves_the_time(ck, volume, options):
    with ck.mounted("vol") as at:
        (at / "f").write_bytes(bytes(8192))
        os.utime(at / "f", ns=(10**18, 10**18))
    before = time.time_ns() - 10**9
    with ck.mounted("vol", None, "-o", f"{options},attr-timeout=0") as at:
        with open(at / "f", "r+b") as f, mmap.mmap(f.fileno(), 8192) as m:
            m[5000:5004] = b"text"
            m.flush()
            assert os.fstat(f.fileno()).st_mtime_ns > before
        seen = (at / "f").stat().st_mtime_ns
        assert seen > before
    with ck.mounted("vol") as at:
        assert (at / "f").stat().st_mtime_ns == seen
