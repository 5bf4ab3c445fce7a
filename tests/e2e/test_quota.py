# SPDX-License-Identifier: MIT
"""A quota that is used up in the middle of a write: EDQUOT for the writer, and no old data lost. On btrfs, whose quota
holds for everybody, and which needs new room for what is overwritten; tests/unit/test_format_full.c has the other kinds."""
import contextlib
import errno
import os
import random
from pathlib import Path

import pytest
from support import UID, Gocryptfs, as_user, kernel_lacks, run, wait_until

BLOCK = 4096
CAP_SYS_RESOURCE = 24
OLD = random.Random(1).randbytes(1 << 20)


@contextlib.contextmanager
def limited(ck):
    """A directory that takes 24 MiB."""
    image, disk = ck.dir / "image", ck.dir / "disk"
    with image.open("wb") as f:
        f.truncate(128 << 20)
    run("mkfs.btrfs", "-q", image)
    disk.mkdir()
    if run("mount", "-o", "loop", image, disk, check=False).returncode:
        kernel_lacks("btrfs")
    try:
        run("btrfs", "quota", "enable", disk)
        run("btrfs", "subvolume", "create", disk / "limited")
        run("btrfs", "qgroup", "limit", "24M", disk / "limited")
        yield disk / "limited"
    finally:
        wait_until("the last process to let go", lambda: run("umount", disk, check=False).returncode == 0)


def store(path, content):
    with open(path, "wb") as f:
        f.write(content)
        os.fsync(f.fileno())


def fill(path):
    """Until nothing more fits, not even little."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for size in (1 << 16, BLOCK):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
            with contextlib.suppress(OSError):
                os.fsync(fd)
    finally:
        os.close(fd)


def try_write(path, data, offset):
    """-> bytes written; -EDQUOT"""
    fd = os.open(path, os.O_RDWR)
    try:
        return os.pwrite(fd, data, offset)
    except OSError as e:
        assert e.errno == errno.EDQUOT, e
        return -e.errno
    finally:
        os.close(fd)


def old_or_new(seen, old, offset, data, written):
    """Each block; what was said to be written is. -> the whole"""
    new = bytearray(max(len(old), offset + len(data)))
    new[:len(old)] = old
    new[offset:offset + len(data)] = data
    assert len(old) <= len(seen) <= len(new)
    for at in range(0, len(seen), BLOCK):
        block = seen[at:at + BLOCK]
        assert block in (old[at:at + BLOCK], bytes(new[at:at + len(block)])), at
    if written > 0:
        assert seen[offset:offset + written] == data[:written]
    return seen


def overwrite_and_append(at):
    """In the middle of blocks, more than one, until the quota says no; at the end likewise."""
    store(at / "old", OLD)
    store(at / "spare", bytes(1500000))
    fill(at / "filler")
    os.unlink(at / "spare")
    os.sync()
    rng, content, outcomes = random.Random(2), OLD, []
    for i in range(40):
        offset = len(content) if i % 3 == 2 else rng.randrange(len(content) - 200000)
        data = rng.randbytes(rng.choice([100, 9000, 130000, 200000]))
        n = try_write(at / "old", data, offset)
        outcomes.append(n < 0)
        with open(at / "old", "rb") as f:
            content = old_or_new(f.read(), content, offset, data, n)
    assert outcomes.count(True) > 2 and outcomes.count(False) > 2
    os.unlink(at / "filler")
    os.sync()
    store(at / "later", b"there is room again")
    with open(at / "old", "rb") as f:
        assert f.read() == content
    store(at / "expected", content)


def check(source, at):
    volume = Gocryptfs(source)
    volume.fsck()
    with volume.mounted(at, read_only=True) as peer:
        assert (peer / "old").read_bytes() == (peer / "expected").read_bytes()
        assert (peer / "later").read_bytes() == b"there is room again"


@pytest.mark.parametrize("uid", [0, UID], ids=["root", "user"])
def test_the_server_is_root(ck, uid):
    """It has no CAP_SYS_RESOURCE, which would put it above the quota of its callers (see quota(5) of ext4 and XFS)."""
    with limited(ck) as disk:
        ck.volume(cipher=disk / "cipher", writeback="no")
        with ck.mounted() as at:
            status = Path(f"/proc/{ck.state()['server_pid']}/status").read_text()
            for line in ("CapEff", "CapPrm", "CapBnd"):
                assert not int(status.split(f"{line}:\t")[1].split()[0], 16) & 1 << CAP_SYS_RESOURCE
            (at / "d").mkdir()
            os.chown(at / "d", uid, uid)
            if uid:
                as_user(lambda: overwrite_and_append(at / "d"))
            else:
                overwrite_and_append(at / "d")
            for name in ("old", "expected", "later"):
                os.rename(at / "d" / name, at / name)
        check(disk / "cipher", ck.dir / "peer")
