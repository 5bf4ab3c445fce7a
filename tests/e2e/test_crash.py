# SPDX-License-Identifier: MIT
"""The server is killed at each step of everything it does in several steps, and at random; docs/crash-safety.md."""
import contextlib
import ctypes
import mmap
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys

import pytest
from support import DONE, TOOLS, alive, child, run, sanitized, wait_until

ROUNDS = int(os.environ.get("CKRFS_CRASH_ROUNDS", "4" if sanitized() else "40"))
LIBC = ctypes.CDLL(None, use_errno=True)
LONG, LONG2 = "l" * 200, "m" * 220
BLOCK = 4096


class Control:
    """What tests/tools/crashpoint.c shares with us."""

    def __init__(self, ck):
        path = ck.dir / "control"
        path.write_bytes(bytes(4096))
        ck.env.update(LD_PRELOAD=str(TOOLS / "crashpoint.so"), CKRFS_CRASH_CONTROL=str(path))
        ck.env["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
        with path.open("r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)

    def __getitem__(self, name):
        return struct.unpack_from("q", self.map, 8 * ("countdown", "seen", "tear", "syncs").index(name))[0]

    def __setitem__(self, name, value):
        struct.pack_into("q", self.map, 8 * ("countdown", "seen", "tear", "syncs").index(name), value)


def flush(path):
    """Writes what the kernel holds for the mount to the server."""
    fd = os.open(path, os.O_RDONLY)
    try:
        assert LIBC.syncfs(fd) == 0
    finally:
        os.close(fd)


def look(root):
    """What is in a directory: name -> kind and content"""
    seen = {}
    for where, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            what = b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as f:
                    what = f.read()
            elif stat.S_ISLNK(mode):
                what = os.readlink(path)
            seen[os.path.relpath(path, root)] = (stat.filemode(mode), what)
    return seen


def put(path, content=b"content"):
    with open(path, "wb") as f:
        f.write(content)


def rewrite(path, offset, content):
    fd = os.open(path, os.O_RDWR)
    try:
        assert os.pwrite(fd, content, offset) == len(content)
        os.fsync(fd)
    finally:
        os.close(fd)


def nothing(d):
    pass


def file_at(name):
    return lambda d: put(d / name)


def directory_at(*names):
    return lambda d: [(d / name).mkdir(0o750) for name in names]


def directory_and_file(name, inside):
    def make(d):
        (d / name).mkdir()
        put(d / name / inside)
        (d / "empty").mkdir()
        (d / LONG).mkdir()
    return make


OPERATIONS = {
    "create": (nothing, lambda d: os.close(os.open(d / "f", os.O_CREAT | os.O_EXCL))),
    "create-long": (nothing, lambda d: os.close(os.open(d / LONG, os.O_CREAT | os.O_EXCL))),
    "mkdir": (nothing, lambda d: (d / "n").mkdir()),
    "mkdir-closed": (nothing, lambda d: (d / "n").mkdir(0o055)),
    "mkdir-long": (nothing, lambda d: (d / LONG).mkdir()),
    "mknod-long": (nothing, lambda d: os.mkfifo(d / LONG)),
    "symlink": (nothing, lambda d: os.symlink("target", d / "s")),
    "symlink-long": (nothing, lambda d: os.symlink("target", d / LONG)),
    "link-long": (file_at("f"), lambda d: os.link(d / "f", d / LONG)),
    "unlink": (file_at("f"), lambda d: os.unlink(d / "f")),
    "unlink-long": (file_at(LONG), lambda d: os.unlink(d / LONG)),
    "rmdir": (directory_at("n"), lambda d: (d / "n").rmdir()),
    "rmdir-long": (directory_at(LONG), lambda d: (d / LONG).rmdir()),
    "rename": (file_at("f"), lambda d: os.rename(d / "f", d / "g")),
    "rename-to-long": (file_at("f"), lambda d: os.rename(d / "f", d / LONG)),
    "rename-from-long": (file_at(LONG), lambda d: os.rename(d / LONG, d / "f")),
    "rename-long-over-long": (lambda d: (put(d / LONG, b"1"), put(d / LONG2, b"2")),
                              lambda d: os.rename(d / LONG, d / LONG2)),
    "rename-over-directory": (directory_and_file("full", "f"), lambda d: os.rename(d / "full", d / "empty")),
    "rename-over-long-directory": (directory_and_file(LONG2, LONG), lambda d: os.rename(d / LONG2, d / LONG)),
    "truncate-0": (lambda d: put(d / "f", b"a" * 9000), lambda d: os.truncate(d / "f", 0)),
    "truncate-block": (lambda d: put(d / "f", b"a" * 9000), lambda d: os.truncate(d / "f", 4096)),
    "truncate": (lambda d: put(d / "f", b"a" * 9000), lambda d: os.truncate(d / "f", 5000)),
    "truncate-in-last": (lambda d: put(d / "f", b"a" * 9000), lambda d: os.truncate(d / "f", 8500)),
    "grow": (lambda d: put(d / "f", b"a" * 9000), lambda d: os.truncate(d / "f", 10000)),
    "first-write": (lambda d: put(d / "f", b""), lambda d: rewrite(d / "f", 0, b"b" * 3000)),
    "write-one-block": (lambda d: put(d / "f", b"a" * 12000), lambda d: rewrite(d / "f", 4096, b"b" * 4096)),
    "append-in-last-block": (lambda d: put(d / "f", b"a" * 9000), lambda d: rewrite(d / "f", 9000, b"b" * 50)),
}

# Changes of several blocks: each block is old or new.
BLOCKWISE = {
    "write-blocks": (b"a" * 50000, lambda d: rewrite(d / "f", 100, b"b" * 40000)),
    "append-blocks": (b"a" * 9000, lambda d: rewrite(d / "f", 9000, b"b" * 50000)),
    "write-behind-end": (b"a" * 9000, lambda d: rewrite(d / "f", 50000, b"b" * 50000)),
    "grow-far": (b"a" * 9000, lambda d: os.truncate(d / "f", 100000)),
}


def old_or_new(seen, old, new):
    assert seen in (old, new)


def each_block_old_or_new(seen, old, new):
    (_, seen), (_, old), (_, new) = seen["f"], old["f"], new["f"]
    assert len(old) <= len(seen) <= len(new)
    for at in range(0, len(seen), BLOCK):
        block = seen[at:at + BLOCK]
        # A block behind the end that is not written yet reads as zeros.
        wanted = [old[at:at + BLOCK], new[at:at + BLOCK], new[at:at + len(block)],
                  old[at:at + BLOCK].ljust(len(block), b"\0")]
        assert block in wanted, at


class Killer:
    """A volume whose server dies, again and again."""

    def __init__(self, ck):
        self.ck = ck
        self.volume = ck.volume()
        self.control = Control(ck)
        self.count = 0
        self.live = False

    def mount(self):
        if not self.live:
            self.ck.mount()
            self.server = self.ck.state()["server_pid"]
            self.live = True

    def umount(self):
        self.ck.umount()
        self.live = False

    def one(self, n, tear, prepare, act):
        """-> the directory, and whether the server died before its n-th change"""
        self.mount()
        self.count += 1
        d = self.ck.mnt / f"d{self.count}"
        d.mkdir()
        prepare(d)
        flush(d)
        self.control["seen"] = 0
        self.control["tear"] = tear
        self.control["countdown"] = n
        with contextlib.suppress(OSError):
            act(d)
        died = n > 0 and self.control["countdown"] <= 0
        self.control["countdown"] = 0
        if died:
            wait_until("the server to end", lambda: not alive(self.server))
            self.umount()
            self.mount()
        return d, died

    def every_step(self, prepare, act, check, tear):
        """-> after each of them the directory is as check() wants it; how many steps there were"""
        d, _ = self.one(0, False, prepare, nothing)
        old = look(d)
        d, _ = self.one(0, False, prepare, act)
        new = look(d)
        assert new != old
        for n in range(1, 100):
            d, died = self.one(n, tear, prepare, act)
            seen = look(d)
            check(seen, old, new)
            if not died:
                assert seen == new
                return n - 1
        raise AssertionError("no end of steps")

    def finish(self):
        """gocryptfs sees what ckrfs sees and finds no fault; all can be removed, and nothing is left."""
        self.mount()
        seen = look(self.ck.mnt)
        self.umount()
        self.volume.fsck()
        with self.volume.mounted(self.ck.dir / "peer", read_only=True) as peer:
            assert look(peer) == seen
        self.mount()
        for name in os.listdir(self.ck.mnt):
            shutil.rmtree(self.ck.mnt / name)
        self.umount()
        left = set(os.listdir(self.volume.cipher)) - {"gocryptfs.conf", "gocryptfs.diriv"}
        assert not left


@pytest.fixture
def killer(ck):
    return Killer(ck)


@pytest.mark.parametrize("tear", [False, True], ids=["between", "within"])
@pytest.mark.parametrize("name", [*OPERATIONS, *BLOCKWISE])
def test_killed_at_each_step(killer, name, tear):
    if name in OPERATIONS:
        prepare, act = OPERATIONS[name]
        check = old_or_new
    else:
        content, act = BLOCKWISE[name]
        check = each_block_old_or_new

        def prepare(d):
            put(d / "f", content)
    if tear and check is old_or_new and not any(word in name for word in ("write", "append", "truncate", "grow")):
        return
    assert killer.every_step(prepare, act, check, tear) > 0
    killer.finish()


# ---- at random

WRITER = r"""
import os, random, sys
root, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
out = sys.stdout.buffer

def say(*words):
    out.write(" ".join(map(str, words)).encode() + b"\n")
    out.flush()

# Each file belongs to one name; block n of version v is bytes of v. A line is written once fsync has returned.
version = dict.fromkeys(range(8), 0)
say("go")
while True:
    i = rng.randrange(8)
    version[i] += 1
    path = os.path.join(root, f"file{i}" + "x" * (i % 2 * 200))
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    say("begin", i, version[i])
    at = rng.randrange(60) * 1000
    os.pwrite(fd, bytes([version[i] % 250 + 1]) * rng.choice([10, 4096, 9000, 300000]), at)
    if rng.random() < 0.2:
        os.ftruncate(fd, 70001)
    os.fsync(fd)
    size = os.fstat(fd).st_size
    with open(path, "rb") as f:
        content = f.read()
    say("synced", i, version[i], size, content.hex() if len(content) < 500000 else "")
    os.close(fd)
    d = os.path.join(root, f"dir{rng.randrange(6)}" + "y" * rng.choice([0, 200]))
    try:
        if rng.random() < 0.5:
            os.mkdir(d)
            os.mkdir(os.path.join(d, "z" * rng.choice([3, 230])))
        else:
            for name in os.listdir(d):
                os.rmdir(os.path.join(d, name))
            os.rmdir(d)
        os.rename(d, d + "-moved")
        os.rmdir(d + "-moved")
    except OSError as e:
        if e.errno not in (2, 17, 39):
            raise
"""


def check_files(root, said):
    """Every block of a file is as it was synced last, or as the write that came after it would have it."""
    synced, begun = {}, {}
    for line in said:
        words = line.split()
        if words[0] == "synced":
            synced[int(words[1])] = (int(words[2]), bytes.fromhex(words[4]))
        elif words[0] == "begin":
            begun[int(words[1])] = int(words[2])
    for i, (version, content) in synced.items():
        with open(root / (f"file{i}" + "x" * (i % 2 * 200)), "rb") as f:
            seen = f.read()
        if begun[i] == version:
            assert seen == content, f"file {i}"
            continue
        later = begun[i] % 250 + 1
        assert len(seen) >= min(len(content), 70001)
        for at, byte in enumerate(seen):
            old = content[at] if at < len(content) else 0
            if byte != old:
                assert byte == later, (i, at)


def test_killed_at_random(ck):
    """Nothing that was synced is lost or mixed up, however often the server dies."""
    volume = ck.volume()
    rng = random.Random(os.environ.get("CKRFS_CRASH_SEED", "1"))
    for turn in range(ROUNDS):
        ck.mount()
        root = ck.mnt / "r"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        victim = ck.state()[rng.choice(["server_pid", "keeper_pid"])]
        with child([sys.executable, "-c", WRITER, str(root), str(turn)], stdout=subprocess.PIPE) as writer:
            lines = rng.randrange(2, 40)
            said = [writer.stdout.readline().decode() for _ in range(lines)]
            os.kill(victim, signal.SIGKILL)
            said += writer.stdout.read().decode().splitlines()
        said = [line for line in said if line.count(" ") >= 2]
        wait_until("the server to end", lambda: not ck.processes() or ck.state()["state"] in ("failed", "dead"))
        ck.umount()
        with ck.mounted():
            check_files(root, said)
            seen = look(ck.mnt)
        if turn % 10 == 0:
            volume.fsck()
            with volume.mounted(ck.dir / "peer", read_only=True) as peer:
                assert look(peer) == seen
    with ck.mounted():
        shutil.rmtree(root)
    assert set(os.listdir(volume.cipher)) <= {"gocryptfs.conf", "gocryptfs.diriv"}


# ---- interrupted init; a full disk without fallocate

def test_init_killed_at_each_step(ck):
    """No volume or a whole one; what is left does not block the next init."""
    control = Control(ck)
    raw = os.urandom(32)  # no costly stretching
    ck.keep_secret(raw)
    key = f"file:{ck.key_file(raw.hex())}?fmt=hex"
    for n in range(1, 60):
        d = ck.dir / f"init{n}"
        d.mkdir()
        control["countdown"] = n
        done = ck.run("init", d, "--key", key)
        control["countdown"] = 0
        if done.returncode == DONE:
            assert n > 4
            break
        assert done.returncode == -signal.SIGKILL, done
        if not (d / "gocryptfs.conf").exists():
            ck.run("init", d, "--key", key, status=DONE)
        ck.configure("volume web", source=d, key=key)
        with ck.mounted():
            put(ck.mnt / "f")
            assert look(ck.mnt)["f"][1] == b"content"
    else:
        raise AssertionError("no end of steps")


@pytest.mark.parametrize("system", [["ext4"], ["ext4", "-O", "^extent,^64bit"]], ids=["ext4", "ext4-without-fallocate"])
def test_growing_last_block_on_a_full_disk(ck, system):
    """The old end of the file stays readable when its last block cannot grow."""
    image, disk = ck.dir / "image", ck.dir / "disk"
    with image.open("wb") as f:
        f.truncate(8 << 20)
    run(f"mkfs.{system[0]}", "-q", "-F", "-b", "1024", *system[1:], image)
    disk.mkdir()
    run("mount", "-o", "loop", image, disk)
    try:
        volume = ck.volume(cipher=disk / "cipher")
        with ck.mounted("web", ck.mnt, "-o", "writeback=no"):
            put(ck.mnt / "f", b"a" * 4500)
            flush(ck.mnt)
            with open(disk / "filler", "wb", buffering=0) as f, contextlib.suppress(OSError):
                while True:
                    f.write(bytes(1024))
            fd = os.open(ck.mnt / "f", os.O_RDWR)
            with pytest.raises(OSError, match="No space left"):
                os.pwrite(fd, b"b" * 3000, 4500)
            os.close(fd)
            assert (ck.mnt / "f").read_bytes() == b"a" * 4500
            os.unlink(disk / "filler")
        volume.fsck()
        with ck.mounted():
            assert (ck.mnt / "f").read_bytes() == b"a" * 4500
    finally:
        run("umount", disk)
