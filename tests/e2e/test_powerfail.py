# SPDX-License-Identifier: MIT
"""The power fails: everything that a disk was sent is recorded, and played back up to any point of it."""
import contextlib
import ctypes
import os
import random
import shutil
import struct
from pathlib import Path

import pytest
from support import TOOLS, child, run, sanitized, wait_until

POINTS = int(os.environ.get("CKRFS_POWERFAIL_POINTS", "5" if sanitized() else "20"))
SIZE = 64 << 20
SECTOR, BLOCK = 512, 4096
WRITE, FLUSH, MARK = 1, 2, 3
LONG = "l" * 200


# ---- what is done: a list of changes, each made durable before the next

def changes(seed, count=120):
    rng = random.Random(seed)
    made = [("write", f"file{i}" + LONG * (i % 2), 0, 1 + i, 20000) for i in range(4)]
    directories = []
    for number in range(count):
        name = f"file{(i := rng.randrange(4))}" + LONG * (i % 2)
        kind = rng.choice(["write", "write", "append", "truncate", "mkdir", "rmdir", "rename"])
        if kind == "write":
            made.append(("write", name, rng.randrange(25000), number % 250 + 5, rng.choice([1, 100, 4096, 10000])))
        elif kind == "append":
            made.append(("append", name, number % 250 + 5, rng.choice([1, 100, 3000])))
        elif kind == "truncate":
            made.append(("truncate", name, rng.randrange(15000, 25000)))
        elif kind == "mkdir" or not directories:
            directories.append(f"dir{number}" + LONG * rng.randrange(2))
            made.append(("mkdir", directories[-1]))
        elif kind == "rmdir":
            made.append(("rmdir", directories.pop(rng.randrange(len(directories)))))
        else:
            old = directories.pop(rng.randrange(len(directories)))
            directories.append(f"moved{number}" + LONG * rng.randrange(2))
            made.append(("rename", old, directories[-1]))
    return made


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def apply_file(root, kind, name, *rest):
    fd = os.open(os.path.join(root, name), os.O_RDWR | os.O_CREAT, 0o600)
    if kind == "write":
        at, byte, size = rest
        os.pwrite(fd, bytes([byte]) * size, at)
    elif kind == "append":
        byte, size = rest
        os.pwrite(fd, bytes([byte]) * size, os.fstat(fd).st_size)
    else:
        os.ftruncate(fd, rest[0])
    os.fsync(fd)
    os.close(fd)


def apply(root, kind, *rest):
    if kind in ("write", "append", "truncate"):
        apply_file(root, kind, *rest)
        return
    if kind == "mkdir":
        os.mkdir(os.path.join(root, rest[0]))
    elif kind == "rmdir":
        os.rmdir(os.path.join(root, rest[0]))
    else:
        os.rename(os.path.join(root, rest[0]), os.path.join(root, rest[1]))
    sync(root)


def model(made):
    """The states before the first change and after each: name -> content, None for directories"""
    state = {}
    states = [dict(state)]
    for kind, name, *rest in made:
        old = state.get(name) or b""
        if kind == "write":
            at, byte, size = rest
            state[name] = old[:at].ljust(at, b"\0") + bytes([byte]) * size + old[at + size:]
        elif kind == "append":
            state[name] = old + bytes([rest[0]]) * rest[1]
        elif kind == "truncate":
            state[name] = old[:rest[0]].ljust(rest[0], b"\0")
        elif kind == "mkdir":
            state[name] = None
        else:
            del state[name]
            if kind == "rename":
                state[rest[0]] = None
        states.append(dict(state))
    return states


# ---- the disk

CLONE_NEWNS, MS_PRIVATE = 0x20000, 1 << 18 | 1 << 14
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def own_mounts():
    """Mounts that no other process copies with its namespace: an unmount is then the end of a file system."""
    back = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    cwd = os.getcwd()
    assert LIBC.unshare(CLONE_NEWNS) == 0
    assert LIBC.mount(b"none", b"/", None, MS_PRIVATE, None) == 0
    yield
    assert LIBC.setns(back, CLONE_NEWNS) == 0
    os.close(back)
    os.chdir(cwd)


@contextlib.contextmanager
def attached(path):
    device = run("losetup", "-f", "--show", path).stdout.decode().strip()
    bound = Path("/sys/block") / os.path.basename(device) / "loop"
    try:
        yield device
    finally:
        run("losetup", "-d", device)
        wait_until("the loop device to let go", lambda: not bound.exists())


@contextlib.contextmanager
def mounted_ext4(device, at):
    at.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", device, at)
    try:
        yield at
    finally:
        run("umount", at)
        gone = Path("/sys/fs/ext4") / os.path.basename(device)
        wait_until("the file system's end", lambda: not gone.exists())


@contextlib.contextmanager
def recorded(ck, image, log):
    """-> the path of a disk whose writes are recorded, and a function that puts a mark between them"""
    at = ck.dir / "disklog"
    at.mkdir()
    with child([TOOLS / "disklog", image, log, at]):
        wait_until("the disk", (at / "disk").exists)
        mark = os.open(at / "mark", os.O_WRONLY)
        try:
            yield at / "disk", lambda text: os.write(mark, text.encode())
        finally:
            os.close(mark)
            run("umount", at)


def read_log(path):
    records = []
    data = path.read_bytes()
    at = 0
    while at < len(data):
        kind, size, offset = struct.unpack_from("IIQ", data, at)
        records.append((kind, offset, data[at + 16:at + 16 + size]))
        at += 16 + size
    return records


def torn(rng, offset, data):
    """The sectors of a write that came to the disk before the power was gone; any of them"""
    return [(offset + at, data[at:at + SECTOR]) for at in range(0, len(data), SECTOR) if rng.random() < 0.5]


def play(base, image, records, end, rng):
    """What the disk holds when the power fails at a point: all up to the last flush, and anything after it."""
    shutil.copyfile(base, image)
    durable = max((i for i in range(end) if records[i][0] == FLUSH), default=0)
    with open(image, "r+b") as f:
        for i in range(end):
            kind, offset, data = records[i]
            fate = 0 if i < durable else rng.random()
            if kind != WRITE or fate > 0.7:
                continue
            for at, piece in [(offset, data)] if fate < 0.4 else torn(rng, offset, data):
                f.seek(at)
                f.write(piece)


# ---- checking

def check_file(seen, old, new, where):
    """Each block is old or new; bytes that were in both are there."""
    assert len(old) <= len(seen) <= len(new) or len(new) <= len(seen) <= len(old), where
    size = max(len(old), len(new), len(seen))
    old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
    for at in range(0, len(seen), BLOCK):
        n = min(BLOCK, len(seen) - at)
        assert seen[at:at + n] in (old[at:at + n], new[at:at + n]), (where, at)


def check(root, old, new):
    """old: acknowledged; new: with the change that was under way"""
    names = set(os.listdir(root))
    assert names >= old.keys() & new.keys(), "lost"
    assert names <= old.keys() | new.keys(), "came back"
    assert names in (set(old), set(new))
    for name in names:
        before, after = old.get(name, b""), new.get(name, b"")
        if before is None or after is None:
            assert os.listdir(root / name) == []
            (root / name / "f").write_text("usable")
            continue
        check_file((root / name).read_bytes(), before, after, name)


def check_point(ck, volume, records, end, states, base, rng):
    image = ck.dir / "image"
    play(base, image, records, end, rng)
    marks = [int(data) for kind, _, data in records[:end] if kind == MARK]
    done = marks[-1] if marks else 0
    with attached(image) as device, mounted_ext4(device, ck.dir / "lower"):
        with ck.mounted():
            check(ck.mnt / "r", states[done], states[min(done + 1, len(states) - 1)])
        volume.fsck()
        with ck.mounted():
            shutil.rmtree(ck.mnt / "r")
        assert set(os.listdir(volume.cipher)) == {"gocryptfs.conf", "gocryptfs.diriv"}


def record_workload(ck, made, image, log):
    """-> the volume; marks: how many changes are durable"""
    lower = ck.dir / "lower"
    with attached(image) as device, mounted_ext4(device, lower):
        volume = ck.volume(cipher=lower / "cipher")
        with ck.mounted():
            (ck.mnt / "r").mkdir()
    base = ck.dir / "base"
    shutil.copyfile(image, base)
    with recorded(ck, image, log) as (disk, mark), attached(disk) as device, mounted_ext4(device, lower):
        with ck.mounted():
            for number, change in enumerate(made):
                apply(ck.mnt / "r", *change)
                mark(str(number + 1))
    return volume, base


@pytest.mark.parametrize("seed", [1])
def test_power_fails(own_mounts, ck, seed):
    seed = int(os.environ.get("CKRFS_CRASH_SEED", seed))
    image, log = ck.dir / "disk", ck.dir / "disk.log"
    with image.open("wb") as f:
        f.truncate(SIZE)
    run("mkfs.ext4", "-q", "-F", "-J", "size=4", image)
    made = changes(seed)
    volume, base = record_workload(ck, made, image, log)
    records = read_log(log)
    marks = [i for i, r in enumerate(records) if r[0] == MARK]
    assert len(marks) == len(made)
    assert sum(r[0] == FLUSH for r in records) > len(made) // 2, "fsync does not reach the disk"
    rng = random.Random(seed)
    for _ in range(POINTS):
        check_point(ck, volume, records, rng.randrange(marks[-1]), model(made), base, rng)
