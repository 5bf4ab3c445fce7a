# SPDX-License-Identifier: MIT
"""ckrfs rekey: a new generation under a new master key, whatever happens on the way."""
import contextlib
import os
import random
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from support import (BUSY, DAMAGED, DONE, FAILED, NO_VOLUME, PARTLY, UNSUPPORTED, USAGE, WRONG_KEY, Gocryptfs, alive, errno_of, run,
                     wait_until)
from test_crash import Killer, flush, rewrite
from test_interop import assert_same, make_tree, picture

STATE = "gocryptfs.longname.ckrfs-rekey.name"
OLD_PASS, NEW_PASS = "correct horse", "battery staple"


def make_rich(root):
    """What make_tree() has not: edges of names and times, ACLs, links over directories, odd modes."""
    root = Path(root)
    for n in (1, 15, 16, 175, 176, 255):
        (root / ("n" * n)).write_bytes(b"x" * n)
    deep = root / "deep"
    deep.mkdir()
    (deep / "a").write_bytes(b"linked" * 1000)
    (deep / "er").mkdir(mode=0o500)
    os.link(deep / "a", deep / "er" / "b")
    os.link(deep / "a", root / ("long link " + "l" * 200))
    with open(root / "sparse", "wb") as f:
        f.write(b"begin")
        f.seek(5 << 20)
        f.write(b"middle")
        f.truncate((12 << 20) + 77)
    (root / "empty").touch()
    (root / "odd").write_bytes(b"no bits")
    os.chmod(root / "odd", 0)
    os.chmod(root / "empty", 0o6711)
    os.chown(root / "empty", 1234, 5678)
    os.chmod(root / "empty", 0o6711)
    os.symlink("t" * 3000, root / "link")
    os.link(root / "link", root / "link again", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o604)
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    os.setxattr(root / "empty", "user.empty", b"")
    os.setxattr(root / "sparse", "user.big", b"v" * 3000)
    os.setxattr(root / "sparse", "trusted.some", b"root's")
    run("setfacl", "-m", "u:1000:rx,g:7:rwx", root / "odd")
    run("setfacl", "-m", "u:1000:rwx", "-d", "-m", "u:1000:r", deep)
    os.utime(root / "empty", ns=(-5_000_000_001, -5_000_000_001))
    os.utime(root / "odd", ns=(2**33 * 10**9 + 7, 2**33 * 10**9 + 7))
    os.utime(root / "link", ns=(1, 123456789), follow_symlinks=False)
    os.utime(deep, ns=(10**18 + 1, 10**18 + 2))


@contextlib.contextmanager
def looked_at(ck, source, passphrase, how):
    """The tree as gocryptfs or ckrfs shows it, read-only."""
    at = ck.dir / "look"
    at.mkdir(exist_ok=True)
    if how == "gocryptfs":
        with Gocryptfs(source, passphrase).mounted(at, read_only=True):
            yield at
    else:
        key = ck.key_file(passphrase, "look-key")
        done = ck.run("mount", source, at, "-k", f"file:{key}", "-o", "ro", status=DONE)
        assert not done.stderr
        ck.remember(at)
        try:
            yield at
        finally:
            ck.umount(at)


def tree_of(ck, source, passphrase=OLD_PASS, how="ckrfs"):
    with looked_at(ck, source, passphrase, how) as at:
        return picture(at)


def identifier(ck, source, passphrase=OLD_PASS):
    with looked_at(ck, source, passphrase, "ckrfs") as at:
        return ck.state(at)["key_identifier"]


def rekey_argv(ck, source, *more):
    key = ck.dir / "key"
    if not key.exists():
        ck.key_file(OLD_PASS)
    return ck.argv("rekey", source, "--key", f"file:{key}", *more)


def rekey(ck, source, *more, status=DONE):
    done = subprocess.run(rekey_argv(ck, source, *more), capture_output=True, text=True, env=ck.env, timeout=100,
                          stdin=subprocess.DEVNULL)
    ck.transcript.append(done.stdout + done.stderr)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def objects(source):
    """rglob() trips over long symbolic links"""
    return [Path(where) / name for where, directories, files in os.walk(source) for name in directories + files]


def ciphertexts(source):
    """Contents and names as on disk."""
    seen = set()
    for where, directories, files in os.walk(source):
        for name in files:
            path = os.path.join(where, name)
            if stat.S_ISREG(os.lstat(path).st_mode) and 18 < os.lstat(path).st_size < 10 << 20:
                seen.add(Path(path).read_bytes())
        seen |= {n for n in directories + files if not n.startswith("gocryptfs.")}
    return seen


def beside(source):
    return sorted(n for n in os.listdir(source.parent) if n.startswith(source.name) and n != source.name)


def is_clean(source):
    assert beside(source) == [] and not (source / STATE).exists()
    assert not [n for _, d, f in os.walk(source) for n in d + f if "ckrfs" in n or ".mkdir." in n]


@pytest.mark.parametrize("maker", ["gocryptfs", "ckrfs"])
def test_everything_is_there_under_another_key(ck, maker):
    volume = ck.volume()
    with volume.mounted(ck.dir / "peer") if maker == "gocryptfs" else ck.mounted(ck.dir and "web") as at:
        make_tree(at, 11, 120)
        make_rich(at)
        wanted = picture(at)
    old_master, before, old_id = volume.master_key(), ciphertexts(volume.cipher), identifier(ck, volume.cipher)
    root = os.stat(volume.cipher)
    done = rekey(ck, volume.cipher)
    assert "has a new master key" in done.stdout and old_id in done.stdout and not done.stderr
    is_clean(volume.cipher)
    now = os.stat(volume.cipher)
    assert (now.st_mode, now.st_uid, now.st_mtime_ns) == (root.st_mode, root.st_uid, root.st_mtime_ns)
    volume.fsck()
    for how in ("gocryptfs", "ckrfs"):
        assert_same(tree_of(ck, volume.cipher, how=how), wanted)
    assert volume.master_key() != old_master
    ck.keep_secret(volume.master_key())
    assert identifier(ck, volume.cipher) not in (old_id, "-")
    assert not before & ciphertexts(volume.cipher)
    old = ck.key_file(old_master, "old-master")
    done = ck.run("mount", volume.cipher, ck.mnt, "-k", f"file:{old}?fmt=raw", status=WRONG_KEY)
    assert "wrong key" in done.stderr
    (sparse,) = [p.lstat() for p in volume.cipher.iterdir() if p.lstat().st_size > 12 << 20]
    assert sparse.st_blocks * 512 < 1 << 20  # holes are holes


def test_new_keys_of_each_kind(ck):
    volume = ck.volume()
    with ck.mounted():
        make_tree(ck.mnt, 12, 20)
        wanted = picture(ck.mnt)
    new = ck.key_file(NEW_PASS, "new")
    rekey(ck, volume.cipher, "--new-key", f"file:{new}")
    assert_same(tree_of(ck, volume.cipher, NEW_PASS, "gocryptfs"), wanted)
    ck.run("mount", volume.cipher, ck.mnt, "-k", f"file:{ck.dir}/key", status=WRONG_KEY)
    raw, other = os.urandom(32), os.urandom(32)
    ck.keep_secret(raw, other)
    raw_file, other_file = ck.key_file(raw, "raw"), ck.key_file(other, "other")
    rekey_raw = ck.run("rekey", volume.cipher, "-k", f"file:{new}", "--new-key", f"file:{raw_file}?fmt=raw", status=DONE)
    assert "has a new master key" in rekey_raw.stdout
    assert Gocryptfs(volume.cipher, raw.hex()).master_key() == raw
    done = ck.run("rekey", volume.cipher, "-k", f"file:{raw_file}?fmt=raw", status=USAGE)
    assert "a new one must be given" in done.stderr
    done = ck.run("rekey", volume.cipher, "-k", f"file:{raw_file}?fmt=raw", "--new-key", f"file:{raw_file}?fmt=raw",
                  status=FAILED)
    assert "the master key that the volume has" in done.stderr
    assert beside(volume.cipher) == []
    ck.run("rekey", volume.cipher, "-k", f"file:{raw_file}?fmt=raw", "--new-key", f"file:{other_file}?fmt=raw", status=DONE)
    assert_same(tree_of(ck, volume.cipher, other.hex(), "gocryptfs"), wanted)


def test_the_cost_stays(ck):
    volume = ck.volume(init=False)
    volume.scryptn = 12
    volume.init()
    rekey(ck, volume.cipher)
    assert '"N": 4096' in (volume.cipher / "gocryptfs.conf").read_text()
    volume.fsck()


def test_a_configured_name_and_a_wrong_key(ck):
    volume = ck.volume()
    ck.run("rekey", "web", "--config", ck.conf, status=DONE)
    wrong = ck.key_file("not it", "wrong")
    done = ck.run("rekey", volume.cipher, "-k", f"file:{wrong}", status=WRONG_KEY)
    assert done.stderr.startswith(f'ckrfs: cannot rekey "{volume.cipher}": wrong ')
    assert beside(volume.cipher) == []


def test_deeper_than_a_path_may_be(ck):
    volume = ck.volume()
    with ck.mounted():
        fd = os.open(ck.mnt, os.O_RDONLY)
        for i in range(150):
            os.mkdir("d" * 60, dir_fd=fd)
            fd, last = os.open("d" * 60, os.O_RDONLY, dir_fd=fd), fd
            os.close(last)
        for name in ("one", "two"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)) if name == "one" else \
                os.link("one", "two", src_dir_fd=fd, dst_dir_fd=fd)
        os.close(fd)
    rekey(ck, volume.cipher)
    with ck.mounted():
        fd = os.open(ck.mnt, os.O_RDONLY)
        for i in range(150):
            fd, last = os.open("d" * 60, os.O_RDONLY, dir_fd=fd), fd
            os.close(last)
        assert sorted(os.listdir(fd)) == ["one", "two"] and os.stat("two", dir_fd=fd).st_nlink == 2
        os.close(fd)


# ---- killed ----

def killed_at(ck, source, call, number, *more):
    """Kills rekey when it makes that system call for the number-th time. False: it does not make so many."""
    done = run("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
               f"inject={call}:signal=KILL:when={number}", *rekey_argv(ck, source, *more), check=False, env=ck.env)
    assert done.returncode in (DONE, -9, 137), done.stderr
    return done.returncode != DONE


def check_state(ck, source, wanted, how):
    """What is under the volume's name is complete, for both programs; the copy is never taken for a volume."""
    assert_same(tree_of(ck, source, how=how), wanted)
    side = source.with_name(source.name + ".rekey")
    if side.exists() and (side / STATE).exists() and "complete" not in (side / STATE).read_text():
        done = ck.run("mount", side, ck.mnt, "-k", f"file:{ck.dir}/key")
        assert done.returncode == FAILED and ("ckrfs rekey" in done.stderr or "not a gocryptfs volume" in done.stderr)


POINTS = [("mkdirat", 1), ("mkdirat", 2), ("openat2", 60), ("openat2", 130), ("openat2", 220), ("pwrite64", 1), ("pwrite64", 9),
          ("linkat", 1), ("symlinkat", 1), ("mknodat", 2), ("setxattr", 1), ("utimensat", 5), ("utimensat", 20),
          ("syncfs", 1), ("syncfs", 2), *[("fsync", n) for n in (1, 2, 4, 5, 7, 8, 9, 10, 11, 12)],
          ("renameat", 1), ("renameat", 2), ("renameat", 3), ("renameat", 4), ("renameat2", 1), ("renameat2", 2), ("renameat2", 3),
          ("unlinkat", 1), ("unlinkat", 8), ("unlinkat", 50)]


@contextlib.contextmanager
def memory(ck, size):
    """A file system on which nothing waits for a disk that others use."""
    at = ck.dir / "memory"
    at.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at)
    try:
        yield at
    finally:
        wait_until("the last process to let go", lambda: run("umount", at, check=False).returncode == 0)


def has_xattrs(where):
    (where / "probe").touch()
    return errno_of(os.setxattr, where / "probe", "user.some", b"") is None


def small_volume(ck, where=None):
    volume = ck.volume(cipher=(where or ck.dir) / "cipher")
    with ck.mounted():
        make_tree(ck.mnt, 14, 16)
        (Path(ck.mnt) / ("long " + "n" * 200)).write_bytes(b"z" * 10000)
        wanted = picture(ck.mnt)
    return volume, wanted


def test_killed_anywhere_it_goes_on(ck):
    with memory(ck, "64m") as where:
        kill_everywhere(ck, *small_volume(ck, where if has_xattrs(where) else None))  # tmpfs has them since Linux 6.6


def kill_everywhere(ck, volume, wanted):
    pristine = ck.dir / "pristine"
    run("cp", "-a", volume.cipher, pristine)
    killed = 0
    for i, (call, number) in enumerate(POINTS):
        shutil.rmtree(volume.cipher)
        run("cp", "-a", pristine, volume.cipher)
        old = (volume.cipher / "gocryptfs.conf").read_bytes()
        if killed_at(ck, volume.cipher, call, number):
            killed += 1
            check_state(ck, volume.cipher, wanted, ("gocryptfs", "ckrfs")[i % 2])
            rekey(ck, volume.cipher)
        is_clean(volume.cipher)
        assert (volume.cipher / "gocryptfs.conf").read_bytes() != old
        if i % 8 == 0:
            volume.fsck()
        assert_same(tree_of(ck, volume.cipher, how=("ckrfs", "gocryptfs")[i % 2]), wanted)
    assert killed > len(POINTS) - 4


def test_killed_again_and_again(ck):
    """Every run gets a little further; each time both generations are what they should be."""
    volume, wanted = small_volume(ck)
    rng, runs = random.Random(15), 0
    while killed_at(ck, volume.cipher, "openat2", 50 + 25 * runs + rng.randrange(10)):
        runs += 1
        check_state(ck, volume.cipher, wanted, rng.choice(["gocryptfs", "ckrfs"]))
    assert runs > 4
    is_clean(volume.cipher)
    volume.fsck()
    assert_same(tree_of(ck, volume.cipher), wanted)


def unfinished(ck, source, files=10):
    """A volume with a copy that was begun."""
    assert killed_at(ck, source, "utimensat", files)
    assert beside(source) == [source.name + ".rekey"]
    return source.with_name(source.name + ".rekey")


def test_changed_between_a_kill_and_the_next_run(ck):
    volume, _ = small_volume(ck)
    with ck.mounted():
        at = Path(ck.mnt)
        for name in ("same size", "gone", "becomes a directory", "linked"):
            (at / name).write_bytes(b"before")
        (at / "goes").mkdir()
        (at / "goes" / "with").write_bytes(b"it")
    assert killed_at(ck, volume.cipher, "syncfs", 1)
    with ck.mounted():
        st = os.stat(at / "same size")
        (at / "same size").write_bytes(b"after!")
        os.utime(at / "same size", ns=(st.st_atime_ns, st.st_mtime_ns))
        (at / "gone").unlink()
        shutil.rmtree(at / "goes")
        (at / "becomes a directory").unlink()
        (at / "becomes a directory").mkdir()
        os.link(at / "linked", at / ("again " + "x" * 190))
        (at / ("new " + "y" * 190)).write_bytes(b"new")
        wanted = picture(ck.mnt)
    rekey(ck, volume.cipher)
    is_clean(volume.cipher)
    volume.fsck()
    assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)


def test_a_copy_that_went_bad_is_made_again(ck):
    """As after a power failure: size and time are right, the blocks never got to the disk."""
    volume, wanted = small_volume(ck)
    assert killed_at(ck, volume.cipher, "syncfs", 1)
    side = volume.cipher.with_name(volume.cipher.name + ".rekey")
    bad = 0
    for path in objects(side):
        st = path.lstat()
        if path.name.startswith("gocryptfs.longname.") and path.name.endswith(".name") and path.name != STATE:
            path.unlink()
            bad += 1
        elif stat.S_ISREG(st.st_mode) and st.st_size > 5000:
            with open(path, "r+b") as f:
                f.seek(100)
                f.write(b"\0" * 50)
            os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
            bad += 1
    assert bad > 3
    rekey(ck, volume.cipher)
    volume.fsck()
    assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)


def test_given_up(ck):
    volume, wanted = small_volume(ck)
    before = ciphertexts(volume.cipher)
    unfinished(ck, volume.cipher)
    done = ck.run("rekey", "--abort", volume.cipher, status=DONE)
    assert "the volume is as it was" in done.stdout
    is_clean(volume.cipher)
    assert ciphertexts(volume.cipher) == before
    done = ck.run("rekey", "--abort", volume.cipher, status=NO_VOLUME)
    assert "is no unfinished rekey of this volume" in done.stderr


def test_an_abort_that_is_killed(ck):
    volume, wanted = small_volume(ck)
    side = unfinished(ck, volume.cipher)
    run("strace", "-qq", "-o", "/dev/null", "-e", "inject=unlinkat:signal=KILL:when=6", *ck.argv("rekey", "--abort", volume.cipher),
        check=False, env=ck.env)
    assert side.exists() and "retired" in (side / STATE).read_text()
    rekey(ck, volume.cipher)
    is_clean(volume.cipher)
    assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)


def test_another_new_key_cannot_go_on(ck):
    volume, _ = small_volume(ck)
    one, two = ck.key_file(NEW_PASS, "one"), ck.key_file("something else", "two")
    assert killed_at(ck, volume.cipher, "utimensat", 10, "--new-key", f"file:{one}")
    done = rekey(ck, volume.cipher, "--new-key", f"file:{two}", status=WRONG_KEY)
    assert "new generation cipher.rekey: wrong " in done.stderr
    rekey(ck, volume.cipher, "--new-key", f"file:{one}")
    is_clean(volume.cipher)


# ---- others ----

def test_which_mounts_go_together(ck):
    ck.volume()
    kinds = {"rw": "defaults", "ro": "ro", "shared": "shared=yes", "shared ro": "shared=yes,ro"}
    together = {("ro", "ro"), ("ro", "shared ro"), ("shared ro", "ro"), ("shared", "shared"), ("shared", "shared ro"),
                ("shared ro", "shared"), ("shared ro", "shared ro")}
    second = ck.dir / "second"
    second.mkdir()
    for one in kinds:
        with ck.mounted("web", None, "-o", kinds[one]):
            for two in kinds:
                done = ck.run("mount", ck.dir / "cipher", second, "-k", f"file:{ck.dir}/key", "-o", kinds[two])
                assert done.returncode == (DONE if (one, two) in together else BUSY), (one, two, done.stderr)
                if done.returncode == DONE:
                    ck.umount(second)



def test_beside_mounts(ck):
    volume, wanted = small_volume(ck)
    with ck.mounted():
        done = rekey(ck, volume.cipher, status=BUSY)
        assert "is in use by another mount that is not read-only" in done.stderr
    with ck.mounted("web", None, "-o", "shared=yes"):
        rekey(ck, volume.cipher, status=BUSY)
    assert beside(volume.cipher) == []
    with ck.mounted("web", None, "-o", "ro"):
        done = rekey(ck, volume.cipher, status=PARTLY)
        assert "still mounted read-only" in done.stdout
        assert_same(picture(ck.mnt), wanted)
        assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)
        done = ck.run("rekey", volume.cipher, status=BUSY)
        assert beside(volume.cipher) == ["cipher.rekey"]
    done = ck.run("rekey", volume.cipher, status=DONE)
    assert "finished what an earlier rekey" in done.stdout
    is_clean(volume.cipher)
    assert_same(tree_of(ck, volume.cipher), wanted)


def stopped(ck):
    """The pid of a ckrfs that a signal has stopped."""
    states = {p: Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[0] for p in ck.processes()}
    return next((p for p, state in states.items() if state in "Tt"), None)


def test_a_writer_waits_for_rekey(ck):
    """While it copies nobody can mount it for writing, or begin a second rekey."""
    volume, _ = small_volume(ck)
    with subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-e", "inject=syncfs:signal=STOP:when=1", *rekey_argv(ck, volume.cipher)],
                          env=ck.env, stdout=subprocess.DEVNULL) as process:
        side = volume.cipher.with_name("cipher.rekey")
        child = wait_until("rekey to stop", lambda: stopped(ck) if (side / STATE).exists() else None)
        ck.mount("web", status=BUSY)
        ck.mount("web", None, "-o", "shared=yes", status=BUSY)
        rekey(ck, volume.cipher, status=BUSY)
        with ck.mounted("web", None, "-o", "ro"):
            pass
        os.kill(child, 18)
        os.kill(child, 9)


def test_a_damaged_block_stops_it(ck):
    volume, _ = small_volume(ck)
    with ck.mounted():
        (Path(ck.mnt) / "sub").mkdir()
        (Path(ck.mnt) / "sub" / "broken").write_bytes(os.urandom(9000))
        inode = os.stat(Path(ck.mnt) / "sub" / "broken").st_ino
    path = next(p for p in objects(volume.cipher) if p.lstat().st_ino == inode)
    with open(path, "r+b") as f:
        f.seek(5000)
        f.write(b"damage")
    done = rekey(ck, volume.cipher, status=FAILED)
    assert re.fullmatch(rf'ckrfs: cannot rekey "{volume.cipher}": cannot copy "sub/broken": it is damaged\n'
                        rf'  try: ckrfs check {volume.cipher}\n', done.stderr)
    path.unlink()
    rekey(ck, volume.cipher)
    is_clean(volume.cipher)


def test_a_name_that_cannot_be_read_stops_it(ck):
    volume, _ = small_volume(ck)
    (volume.cipher / "somebodys.notes").write_text("x")
    done = rekey(ck, volume.cipher, status=FAILED)
    assert 'cannot read the name "somebodys.notes"' in done.stderr
    (volume.cipher / "somebodys.notes").unlink()
    (volume.cipher / "gocryptfs.conf.bak").write_text("x")
    rekey(ck, volume.cipher)


@pytest.mark.parametrize("what", ["directory", "file", "link"])
def test_what_others_made_is_not_touched(ck, what):
    volume, _ = small_volume(ck)
    side = volume.cipher.with_name("cipher.rekey")
    if what == "directory":
        side.mkdir()
        (side / "mine").write_text("mine")
    elif what == "file":
        side.write_text("mine")
    else:
        (ck.dir / "elsewhere").mkdir()
        side.symlink_to(ck.dir / "elsewhere")
    done = rekey(ck, volume.cipher, status=FAILED)
    assert "nothing that rekey of this volume has made" in done.stderr
    ck.run("rekey", "--abort", volume.cipher)
    assert os.path.lexists(side) and (what != "directory" or (side / "mine").read_text() == "mine")


def test_the_copy_of_another_volume_is_not_touched(ck):
    volume, _ = small_volume(ck)
    other = Gocryptfs(ck.dir / "other").init()
    ck.keep_secret(other.master_key())
    unfinished(ck, volume.cipher)
    (ck.dir / "cipher.rekey").rename(ck.dir / "other.rekey")
    done = rekey(ck, other.cipher, status=FAILED)
    assert "nothing that rekey of this volume has made" in done.stderr


def test_a_mount_point_cannot_change_places(ck):
    volume, _ = small_volume(ck)
    point = ck.dir / "point"
    point.mkdir()
    run("mount", "--bind", volume.cipher, point)
    try:
        done = rekey(ck, point, status=UNSUPPORTED)
        assert "is a mount point" in done.stderr and beside(point) == []
    finally:
        run("umount", point)


def test_a_copy_in_somebodys_hands(ck):
    """Root does not go on in a directory that another user can change; a whole one that has its owner is made anew."""
    volume, _ = small_volume(ck)
    assert killed_at(ck, volume.cipher, "syncfs", 1)  # all is copied
    side = ck.dir / "cipher.rekey"
    os.chown(side, 1000, 1000)
    done = rekey(ck, volume.cipher, status=FAILED)
    assert "nothing that rekey of this volume has made" in done.stderr and (side / STATE).exists()
    os.chown(side, 0, 0)
    os.chown(volume.cipher, 1000, 1000)
    wanted = tree_of(ck, volume.cipher)
    assert killed_at(ck, volume.cipher, "renameat2", 2)
    assert "complete" in (side / STATE).read_text() and side.stat().st_uid == 1000
    assert killed_at(ck, volume.cipher, "utimensat", 8)
    assert "unfinished" in (side / STATE).read_text() and side.stat().st_uid == 0
    rekey(ck, volume.cipher)
    is_clean(volume.cipher)
    assert volume.cipher.stat().st_uid == 1000
    assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)


def test_keeping_needs_the_right_one(ck):
    volume, _ = small_volume(ck)
    assert killed_at(ck, volume.cipher, "renameat2", 4, "--keep-old")  # after the exchange, before the last name
    (ck.dir / "cipher.rekey").rename(ck.dir / "away")
    (ck.dir / "cipher.rekey").mkdir()
    done = rekey(ck, volume.cipher, "--keep-old", status=FAILED)
    assert "nothing that rekey of this volume has made" in done.stderr
    (ck.dir / "cipher.rekey").rmdir()
    (ck.dir / "away").rename(ck.dir / "cipher.rekey")
    rekey(ck, volume.cipher, "--keep-old")
    assert len(beside(volume.cipher)) == 1 and ".old-" in beside(volume.cipher)[0]


def test_old_generation_kept(ck):
    volume, wanted = small_volume(ck)
    before = ciphertexts(volume.cipher)
    rekey(ck, volume.cipher, "--keep-old")
    (kept,) = beside(volume.cipher)
    assert re.fullmatch(r"cipher\.old-\d{8}T\d{6}Z", kept)
    assert ciphertexts(ck.dir / kept) == before and not (volume.cipher / STATE).exists()
    assert_same(tree_of(ck, ck.dir / kept, how="gocryptfs"), wanted)
    assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)


def add_slot(ck, source, name):
    new = ck.key_file(f"passphrase of {name}", "slot")
    ck.run("key", "add", source, name, "--key", f"file:{ck.dir}/key", "--new-key", f"file:{new}", "--scrypt-n", "10", status=DONE)


def test_slots_are_not_lost_in_silence(ck):
    """They are named, before and after."""
    volume, _ = small_volume(ck)
    slots = volume.cipher / "gocryptfs.longname.ckrfs-keys.name"
    for name in ("laptop", "paper"):
        add_slot(ck, volume.cipher, name)
    done = rekey(ck, volume.cipher, status=FAILED)
    assert done.stderr == (f'ckrfs: cannot rekey "{volume.cipher}": the volume has further keys (slots) that cannot be carried '
                           "over and would be lost: laptop, paper\n"
                           f"  try: ckrfs rekey {volume.cipher} --drop-slots ...   (and add them anew)\n")
    assert beside(volume.cipher) == [] and slots.exists()
    done = rekey(ck, volume.cipher, "--drop-slots")
    assert "lost with the old master key: the keys (slots) laptop, paper\nadd them anew with: ckrfs key add\n" in done.stdout
    assert not slots.exists()
    add_slot(ck, volume.cipher, "laptop")
    ck.run("key", "remove", volume.cipher, "laptop", "--key", f"file:{ck.dir}/key", status=DONE)
    assert "slots" not in rekey(ck, volume.cipher).stdout  # there is none any more
    slots.write_text("{}")
    done = rekey(ck, volume.cipher, status=FAILED)
    assert "would be lost: whose names cannot be read" in done.stderr
    rekey(ck, volume.cipher, "--drop-slots")


def test_many_slots_are_named_as_far_as_there_is_room(ck):
    volume, _ = small_volume(ck)
    key = ck.key_file(os.urandom(32), "raw")
    for i in range(12):
        ck.run("key", "add", volume.cipher, f"{i:02}" + "n" * 62, "--key", f"file:{ck.dir}/key", "--new-key", f"file:{key}?fmt=raw",
               status=DONE)
    done = rekey(ck, volume.cipher, status=FAILED)
    assert re.search("would be lost: (0[0-6]n{62}, ){7}and 5 more\n", done.stderr)


def test_the_log_of_a_killed_mount_is_played_back(ck):
    """Blocks that a kill tore are in the log: rekey mends them, as the next mount would have."""
    killer = Killer(ck)
    old, new, torn = b"a" * 50000, b"a" * 100 + b"b" * 40000 + b"a" * 9900, 0
    for n in range(1, 12):
        killer.mount()
        (Path(ck.mnt) / "f").write_bytes(old)
        flush(ck.mnt)
        killer.control["tear"] = 1
        killer.control["countdown"] = n
        with contextlib.suppress(OSError):
            rewrite(Path(ck.mnt) / "f", 100, b"b" * 40000)
        died = killer.control["countdown"] <= 0
        killer.control["countdown"] = 0
        if died:
            wait_until("the server to end", lambda: not alive(killer.server))
        killer.umount()
        if not died:
            break
        damaged = ck.run("check", killer.volume.cipher, "--key", f"file:{ck.dir}/key").returncode == DAMAGED
        torn += damaged
        if damaged:
            rekey(ck, killer.volume.cipher)
            is_clean(killer.volume.cipher)
            with killer.volume.mounted(ck.dir / "peer", read_only=True) as peer:
                seen = (peer / "f").read_bytes()
            assert len(seen) == len(old)
            for at in range(0, len(seen), 4096):
                assert seen[at:at + 4096] in (old[at:at + 4096], new[at:at + 4096])
    assert torn and not died


def test_a_full_disk(ck):
    with memory(ck, "8m") as disk:
        volume = ck.volume(cipher=disk / "volume")
        with ck.mounted():
            for i in range(20):
                (Path(ck.mnt) / ("file %d " % i + "n" * i * 10)).write_bytes(os.urandom(1000 * i))
            (Path(ck.mnt) / "large").write_bytes(os.urandom(3 << 20))
            wanted = picture(ck.mnt)
        (disk / "ballast").write_bytes(b"b" * (3 << 20))
        before = ciphertexts(volume.cipher)
        done = rekey(ck, volume.cipher, status=FAILED)
        assert "No space left on device" in done.stderr and "rekey goes on once there is space" in done.stderr
        assert ciphertexts(volume.cipher) == before
        (disk / "ballast").unlink()
        rekey(ck, volume.cipher)
        is_clean(volume.cipher)
        assert_same(tree_of(ck, volume.cipher, how="gocryptfs"), wanted)


def test_plain_volumes_have_no_master_key(ck):
    ck.plain("vol")
    done = ck.run("rekey", "vol", "--config", ck.conf, status=UNSUPPORTED)
    assert "master key" in done.stderr
