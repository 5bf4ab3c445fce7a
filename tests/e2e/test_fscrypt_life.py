# SPDX-License-Identifier: MIT
"""lower = fscrypt, the life of its key in the kernel: several mounts with one, other users of it, lock and unlock, kill -9."""
import os
import signal
import subprocess
from pathlib import Path

import pytest
from fscrypt import (ABSENT, LEAVING, PRESENT, add_key, directory, gocryptfs_inside, key_status, left_in_keys, raw_key,
                     remove_key, state_of, target)
from support import BUSY, DONE, PARTLY, WRONG_KEY, alive, as_user, child, errno_of, wait_until


# ---- several mounts with one key

@pytest.fixture
def pair(ck, fs):
    """Two mounts of two directories with one key; -> identifier"""
    _, spec = raw_key(ck)
    for name in ("one", "two"):
        _, ident = directory(ck, fs, name, spec)
        ck.mount(name, target(ck, name))
        (target(ck, name) / "f").write_text(name)
    return ident


def is_usable(ck, name):
    """Also what is not in any cache"""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    at = target(ck, name)
    (at / "new").write_text("new")
    return (at / "f").read_text() == name


@pytest.mark.parametrize("first,second", [("one", "two"), ("two", "one")])
def test_unmounting_one_does_not_lock_the_other(ck, fs, pair, first, second):
    ck.umount(first)
    assert state_of(fs, pair) == PRESENT
    assert is_usable(ck, second)
    ck.umount(second)
    assert state_of(fs, pair) == ABSENT
    assert left_in_keys(ck) == []


def test_locking_one_does_not_lock_the_other(ck, fs, pair):
    ck.run("lock", "one", status=DONE)
    assert errno_of(os.listdir, target(ck, "one")) == "ENOKEY"
    assert is_usable(ck, "two")
    ck.run("lock", "two", status=DONE)
    assert state_of(fs, pair) == ABSENT
    ck.run("unlock", "one", status=DONE)
    assert is_usable(ck, "one")
    assert errno_of(os.listdir, target(ck, "two")) == "ENOKEY"
    ck.umount("one")
    assert state_of(fs, pair) == ABSENT, "the other one is locked: it does not use the key"
    ck.run("unlock", "two", status=DONE)
    assert is_usable(ck, "two")
    ck.umount("two")
    assert state_of(fs, pair) == ABSENT
    assert left_in_keys(ck) == []


def test_claim_of_a_killed_keeper_is_not_counted(ck, fs, pair):
    keeper = ck.state(target(ck, "one"))["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    wait_until("the keeper's end", lambda: not alive(keeper))
    assert is_usable(ck, "two")
    ck.umount("two")
    assert state_of(fs, pair) == ABSENT
    ck.umount("one")
    assert left_in_keys(ck) == []


def test_dead_mount_does_not_take_the_key_of_a_living_one(ck, fs, pair):
    keeper = ck.state(target(ck, "one"))["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    wait_until("the keeper's end", lambda: not alive(keeper))
    ck.umount("one")
    assert is_usable(ck, "two")
    ck.umount("two")
    assert state_of(fs, pair) == ABSENT


# ---- what is left after kill -9

def test_killed_server_leaves_no_key(ck, fs):
    _, ident = directory(ck, fs)
    at = ck.mount("enc")
    (at / "f").write_text("x")
    with open(at / "f"):
        os.kill(ck.state()["server_pid"], signal.SIGKILL)
        wait_until("the state failed", lambda: ck.state()["state"] == "failed")
        assert state_of(fs, ident) == ABSENT
    ck.umount()
    assert left_in_keys(ck) == []


def test_killed_keeper_leaves_the_key_until_umount(ck, fs):
    path, ident = directory(ck, fs)
    ck.mount("enc")
    keeper = ck.state()["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    wait_until("the keeper's end", lambda: not alive(keeper))
    assert state_of(fs, ident) == PRESENT
    ck.umount("enc")
    assert state_of(fs, ident) == ABSENT
    assert left_in_keys(ck) == []
    with ck.mounted("enc") as at:
        (at / "f").write_text("x")
    assert state_of(fs, ident) == ABSENT


# ---- keys of others

def test_key_that_was_there_before_stays(ck, fs):
    key, spec = raw_key(ck)
    path, ident = directory(ck, fs, spec=spec)
    add_key(fs.dir, key)
    with ck.mounted("enc") as at:
        done = ck.run("lock", "enc", status=PARTLY)
        assert done.stderr == ('ckrfs: "enc" is locked, but its key stays in the kernel: it was given to the kernel before it '
                               "was mounted, not by ckrfs\n")
        assert errno_of(os.listdir, at) == "ENOKEY"
        ck.run("unlock", "enc", status=DONE)
        assert os.listdir(at) == []
    assert state_of(fs, ident) == PRESENT
    assert remove_key(fs.dir, ident) == 0
    assert left_in_keys(ck) == []


def test_key_of_another_user_stays(ck, fs):
    key, spec = raw_key(ck)
    path, ident = directory(ck, fs, spec=spec)
    with ck.mounted("enc"):
        as_user(lambda: add_key(fs.dir, key))
        done = ck.run("lock", "enc", status=PARTLY)
        assert "other users of the file system have given it to the kernel too" in done.stderr
        ck.run("unlock", "enc", status=DONE)
    assert key_status(fs.dir, ident) == (PRESENT, 1)
    as_user(lambda: remove_key(fs.dir, ident))
    assert state_of(fs, ident) == ABSENT


# ---- lock and unlock

def test_lock_takes_the_key_and_unlock_brings_open_files_back(ck, fs):
    path, ident = directory(ck, fs)
    with ck.mounted("enc") as at:
        (at / "sub").mkdir()
        for i in range(40):
            (at / "sub" / f"name{i}").write_text(str(i))
        fd = os.open(at / "sub" / "name7", os.O_RDWR)
        os.write(fd, b"before")
        names = os.scandir(at / "sub")
        next(names)
        ck.run("lock", "enc", status=DONE)
        assert state_of(fs, ident) == ABSENT
        assert all("name" not in name and "sub" not in name for name in os.listdir(path)), "locked below, too"
        assert errno_of(os.pread, fd, 10, 0) == "ENOKEY"
        assert errno_of(os.write, fd, b"x") == "ENOKEY"
        assert errno_of(os.listdir, at) == "ENOKEY"
        assert errno_of(os.stat, at / "sub") == "ENOKEY"
        assert os.stat(at).st_mode == os.stat(path).st_mode, "the root is still answered for"
        assert os.statvfs(at).f_blocks == os.statvfs(path).f_blocks
        ck.run("unlock", "enc", status=DONE)
        assert os.pread(fd, 10, 0) == b"before"
        os.write(fd, b" and after")
        assert len(list(names)) == 39
        assert sorted(os.listdir(at / "sub")) == sorted(f"name{i}" for i in range(40))
        os.close(fd)
        assert (at / "sub" / "name7").read_text() == "before and after"
    assert state_of(fs, ident) == ABSENT


def test_lock_of_what_is_mapped_and_dirty(ck, fs):
    """Nothing that was written is lost, and a mapping faults."""
    import faulthandler
    import mmap
    _, ident = directory(ck, fs)
    with ck.mounted("enc") as at:
        (at / "f").write_bytes(bytes(1 << 20))
        with open(at / "f", "r+b") as f, mmap.mmap(f.fileno(), 1 << 20) as m:
            m[4096:4102] = b"mapped"
            ck.run("lock", "enc", status=DONE)
            assert state_of(fs, ident) == ABSENT
            pid = os.fork()
            if pid == 0:
                faulthandler.disable()
                os._exit(m[4096] and 0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGBUS
            ck.run("unlock", "enc", status=DONE)
            assert m[4096:4102] == b"mapped"


USER = r"""
import os, sys
at, number = sys.argv[1], sys.argv[2]
def insist(call, *args):
    while True:
        try:
            return call(*args)
        except OSError as e:
            if e.errno != 126:  # ENOKEY
                raise
fd = insist(os.open, f"{at}/{number}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
for i in range(1000000):
    line = b"%d\n" % i
    n = insist(os.write, fd, line)
    insist(os.fsync, fd)
    assert n == len(line)
    names = insist(os.listdir, at)
    assert number in names, names
    insist(os.rename, f"{at}/{number}", f"{at}/{number}")
    assert insist(os.fstat, fd).st_size > 0
    print(i, flush=True)
"""


@pytest.mark.parametrize("name", ["enc", "inner"])
def test_locks_under_load_lose_nothing(ck, fs, name):
    """Whoever was told by fsync that it is stored finds it; and no lock leaves the key."""
    _, ident = directory(ck, fs) if name == "enc" else gocryptfs_inside(ck, fs)
    with ck.mounted(name) as at:
        users = [subprocess.Popen(["/usr/bin/python3", "-c", USER, at, str(i)], stdout=open(ck.dir / f"said{i}", "wb"))
                 for i in range(3)]
        try:
            said = [ck.dir / f"said{i}" for i in range(3)]
            for _ in range(12):
                sizes = [p.stat().st_size for p in said]
                wait_until("the users to go on", lambda: all(p.stat().st_size > s + 20 for p, s in zip(said, sizes)))
                ck.run("lock", name, status=DONE)
                assert state_of(fs, ident) == ABSENT
                ck.run("unlock", name, status=DONE)
            assert [u.poll() for u in users] == [None] * 3
        finally:
            for user in users:
                user.kill()
                user.wait()
        for i in range(3):
            told = [int(line) for line in said[i].read_text().splitlines()[1:-1]]
            lines = (at / str(i)).read_text().splitlines()
            assert told and lines[:len(told)] == [str(n) for n in told]


def test_file_without_a_name_survives_a_lock(ck, fs):
    """It could not be opened again, so that it stays open; and the kernel says that it is in use."""
    _, ident = directory(ck, fs)
    with ck.mounted("enc") as at:
        with open(at / "f", "w+") as f:
            f.write("still here")
            f.flush()
            os.unlink(at / "f")
            done = ck.run("lock", "enc", status=PARTLY)
            assert "are in use, and stay readable until they are closed" in done.stderr
            assert state_of(fs, ident) == LEAVING
            assert errno_of(os.pread, f.fileno(), 5, 0) == "ENOKEY"
            ck.run("unlock", "enc", status=DONE)
            assert os.pread(f.fileno(), 20, 0) == b"still here"
    assert state_of(fs, ident) == ABSENT


def test_lock_reports_files_that_others_have_open(ck, fs):
    path, ident = directory(ck, fs)
    with ck.mounted("enc") as at:
        (at / "f").write_text("x")
        with open(path / "f"):
            done = ck.run("lock", "enc", status=PARTLY)
            assert done.stderr == ('ckrfs: "enc" is locked, but its key stays in the kernel: files below the source are in use, '
                                   f"and stay readable until they are closed\n  try: fuser -vm {path}\n")
            assert state_of(fs, ident) == LEAVING
        ck.run("unlock", "enc", status=DONE)
        ck.run("lock", "enc", status=DONE)
        assert state_of(fs, ident) == ABSENT
        ck.run("unlock", "enc", status=DONE)
        assert (at / "f").read_text() == "x"


def test_umount_reports_files_that_others_have_open(ck, fs):
    path, ident = directory(ck, fs)
    ck.mount("enc")
    (ck.mnt / "f").write_text("x")
    with open(path / "f"):
        done = ck.umount(status=PARTLY)
        assert done.stderr == ('ckrfs: "enc" is unmounted, but its key stays in the kernel: files below the source are in use, '
                               f"and stay readable until they are closed\n  try: fuser -vm {path}\n")
        assert state_of(fs, ident) == LEAVING
    wait_until("the files to be dropped", lambda: state_of(fs, ident) == ABSENT)


def test_files_in_use_are_dropped_when_they_are_closed(ck, fs):
    path, ident = directory(ck, fs)
    with ck.mounted("enc") as at:
        (at / "f").write_text("x")
        with open(path / "f"):
            ck.run("lock", "enc", status=PARTLY)
            assert state_of(fs, ident) == LEAVING
        wait_until("the files to be dropped", lambda: state_of(fs, ident) == ABSENT)
        ck.run("unlock", "enc", status=DONE)
        assert (at / "f").read_text() == "x"


def test_lock_waits_for_files_that_are_closed_soon(ck, fs):
    path, ident = directory(ck, fs)
    with ck.mounted("enc") as at:
        (at / "f").write_text("x")
        with child(["sh", "-c", 'exec 3<"$1"; echo open; sleep 0.3', "sh", path / "f"], stdout=subprocess.PIPE) as holder:
            assert holder.stdout.readline() == b"open\n"
            ck.run("lock", "enc", status=DONE)
        assert state_of(fs, ident) == ABSENT


def test_unlock_with_a_wrong_key_stays_locked(ck, fs):
    _, ident = directory(ck, fs)
    _, spec = raw_key(ck, "other")
    with ck.mounted("enc") as at:
        ck.run("lock", "enc", status=DONE)
        done = ck.run("unlock", "enc", "--key", spec, status=WRONG_KEY)
        assert 'cannot unlock "enc": wrong key: source' in done.stderr
        assert state_of(fs, ident) == ABSENT
        assert errno_of(os.listdir, at) == "ENOKEY"
        ck.run("unlock", "enc", status=DONE)
        assert os.listdir(at) == []


def test_locked_mount_unmounts(ck, fs):
    _, ident = directory(ck, fs)
    with ck.mounted("enc"):
        ck.run("lock", "enc", status=DONE)
    assert state_of(fs, ident) == ABSENT
    assert left_in_keys(ck) == []


def test_locked_mount_keeps_the_volume(ck, fs):
    _, ident = directory(ck, fs)
    with ck.mounted("enc"):
        ck.run("lock", "enc", status=DONE)
        ck.configure("volume again", **ck.sections["volume enc"])
        done = ck.run("mount", "again", target(ck, "again"), status=BUSY)
        assert "is in use" in done.stderr
