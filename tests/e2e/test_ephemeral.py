# SPDX-License-Identifier: MIT
"""ephemeral = yes: a new volume with each mount, whose key is nowhere, and of whose files nothing is left; what lies beside
them, or only looks like them, is left alone."""
import concurrent.futures
import contextlib
import errno
import hashlib
import os
import shutil
import signal
import socket
import stat
from pathlib import Path

import containers
import pytest
from plugin import Plugin
from support import (CONFIG, DONE, FAILED, NO_VOLUME, PARTLY, TOOLS, UID, UNSUPPORTED, alive, as_user, child, errno_of, forms,
                     run, wait_until)
from test_leaks import Hunt, hkdf

PREFIX = "ckrfs-ephemeral-"


@pytest.fixture
def pool(ck):
    """The source of the volume `scratch`."""
    source = ck.dir / "pool"
    source.mkdir(mode=0o755)
    ck.configure("volume scratch", source=source, ephemeral="yes")
    return source


def own(pool):
    """Directories of mounts, and what is left of them."""
    return sorted(p for p in pool.iterdir() if p.name.startswith(PREFIX))


def machine():
    machine_id = Path("/etc/machine-id")
    known = machine_id.exists() and len(machine_id.read_text().strip()) == 32
    return machine_id.read_text()[:32] if known else Path("/proc/sys/kernel/random/boot_id").read_text()[:32]


def mark_of(name, on=None):
    """What says that a directory of that name was made by a mount on that machine."""
    digest = hashlib.sha256(f"ckrfs ephemeral volume\n{name}\n{on or machine()}\n".encode()).hexdigest()
    return f'The key of this volume is nowhere but in its mount: ckrfs-volumes(7), "Ephemeral volumes"\n{digest}\n'


def tree(top):
    return sorted(str(p.relative_to(top)) for p in top.rglob("*"))


def fill(at):
    (at / "secret words").write_bytes(b"what nobody shall read " * 4000)
    (at / "d" / "e").mkdir(parents=True)
    (at / "d" / "e" / ("n" * 200)).write_text("long")
    (at / "link").symlink_to("secret words")
    os.mkfifo(at / "d" / "fifo")
    (at / "d" / "closed").mkdir(mode=0)
    for name in ("d", "secret words"):
        os.chown(at / name, UID, UID)


def kill_mount(ck, name="scratch"):
    """As a machine does that runs out of memory: no process of the mount gets to do anything."""
    state = ck.state()
    for pid in (state["keeper_pid"], state["server_pid"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in (state["keeper_pid"], state["server_pid"]):
        wait_until("its end", lambda: not alive(pid))


def leftover(ck, pool):
    """What a killed mount leaves; its name is free again."""
    before = set(own(pool))
    ck.mount("scratch")
    fill(ck.mnt)
    kill_mount(ck)
    run("umount", ck.mnt)
    left = set(own(pool)) - before
    assert len(left) == 1
    return left.pop()


# ---- one after the other, and side by side

def test_mounts_see_nothing_of_each_other(ck, pool):
    identifiers = set()
    for _ in range(2):
        with ck.mounted("scratch") as at:
            assert os.listdir(at) == []
            fill(at)
            assert (at / "secret words").read_bytes().startswith(b"what nobody")
            assert len(own(pool)) == 1
            identifiers.add(ck.state()["key_identifier"])
        assert list(pool.iterdir()) == []
    assert len(identifiers) == 2


def test_side_by_side(ck, pool):
    other = ck.dir / "other"
    other.mkdir()
    with ck.mounted("scratch") as at:
        (at / "mine").write_text("1")
        with ck.mounted(pool, other, "-o", "ephemeral"):
            assert os.listdir(other) == []
            (other / "yours").write_text("2")
            assert len(own(pool)) == 2
            assert os.listdir(at) == ["mine"]
        # What the other mount removed was its own.
        assert (at / "mine").read_text() == "1" and len(own(pool)) == 1


def test_begun_and_ended_all_at_once(ck, pool):
    """Each looks for leftovers while others make their directories, and while they remove them."""
    targets = [ck.dir / f"at{i}" for i in range(8)]
    for t in targets:
        t.mkdir()

    def use(target):
        for _ in range(3):
            with ck.mounted(pool, target, "-o", "ephemeral"):
                assert os.listdir(target) == []
                (target / "f").write_text(target.name)
                assert (target / "f").read_text() == target.name

    with concurrent.futures.ThreadPoolExecutor(len(targets)) as threads:
        for done in [threads.submit(use, t) for t in targets]:
            done.result()
    assert list(pool.iterdir()) == []


def test_root_is_as_the_source(ck, pool):
    """Mode, owner and group; and nobody else gets into the directory of the mount."""
    os.chown(pool, UID, 7)
    pool.chmod(0o3770)
    with ck.mounted("scratch") as at:
        st = os.stat(at)
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (UID, 7, 0o3770)
        st = os.stat(own(pool)[0])
        assert (st.st_uid, stat.S_IMODE(st.st_mode) & 0o777) == (0, 0o700)
        as_user(lambda: (at / "f").write_text("mine"))
        at.chmod(0o1777)
        assert stat.S_IMODE(os.stat(at).st_mode) == 0o1777
    assert list(pool.iterdir()) == []


def test_status(ck, pool):
    with ck.mounted("scratch"):
        state = ck.state()
        assert state["ephemeral"] is True and state["key_source"] == "ephemeral" and len(state["key_identifier"]) == 32
        assert "ephemeral:      yes\n" in ck.run("status", "scratch", status=DONE).stdout
        table = ck.run("status", status=DONE).stdout.splitlines()
        assert table[1].split()[5] == "ephemeral"
    ck.volume("web")
    with ck.mounted("web"):
        assert ck.state()["ephemeral"] is False
        assert "ephemeral:      no\n" in ck.run("status", "web", status=DONE).stdout


# ---- the key

def test_key_is_nowhere(ck, pool):
    """Not below the source, not in the log or the runtime directory, not in memory that can be read."""
    ck.env.update(LD_PRELOAD=str(TOOLS / "randlog.so"), CKRFS_TEST_RANDOM=str(ck.dir / "random"))
    ck.env["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
    ck.mount("scratch")
    del ck.env["LD_PRELOAD"]
    random = (ck.dir / "random").read_bytes()
    keys = [random[i:i + 32] for i in range(0, len(random), 32)]
    identifiers = [hkdf(key, b"ckrfs key identifier")[:16].hex() for key in keys]
    master = keys[identifiers.index(ck.state()["key_identifier"])]
    secrets = [master, hkdf(master, b"AES-GCM file content encryption"), hkdf(master, b"EME filename encryption")]
    hunt = Hunt(ck, sorted(form for key in secrets for form in forms(key)))
    fill(ck.mnt)
    run("sync", "-f", ck.mnt)
    state = ck.state()
    assert hunt.all([state["keeper_pid"], state["server_pid"]]) == []
    files = [p for top in (pool, ck.runtime) for p in top.rglob("*") if p.is_file() and not p.is_symlink()]
    assert any(p.name.endswith(".name") for p in files) and any(p.name == "mark" for p in files)
    assert not any(p.name in ("gocryptfs.conf", "ckrfs.keys") for p in files)
    assert hunt.files([*files, ck.log, ck.conf]) == []
    assert hunt.files([ck.dir / "random"]), "the hunt finds what is there"
    names = "".join(tree(pool))
    assert "secret" not in names and "nnnn" not in names
    ck.umount()


def test_what_is_left_opens_for_nobody(ck, pool):
    """Keeper and server killed: nothing mounts what is there."""
    left = leftover(ck, pool)
    files = left / "volume"
    key = ck.key_file(os.urandom(32), "raw")
    for directory in (left, files):
        said = ck.run("mount", directory, ck.mnt, "--key", f"file:{key}?fmt=raw", status=FAILED).stderr
        assert "not a gocryptfs volume: it has no gocryptfs.conf" in said
    assert ck.run("key", "list", files).returncode == FAILED
    # Not even with a configuration of somebody's own.
    other = ck.volume("web")
    shutil.copy(other.cipher / "gocryptfs.conf", files / "gocryptfs.conf")
    at = ck.dir / "at"
    at.mkdir()
    with ck.mounted(files, at, "--key", f"file:{ck.key_file('correct horse')}"):
        assert "secret words" not in os.listdir(at)
    ck.umount("scratch")
    assert list(pool.iterdir()) == []


# ---- what is left is removed

def test_next_mount_removes_what_killed_ones_left(ck, pool):
    left = leftover(ck, pool)
    copy = pool / f"{PREFIX}{'0' * 16}"
    run("cp", "-a", left, copy)
    with ck.mounted("scratch") as at:
        assert os.listdir(at) == []
        assert not left.exists()
        assert len(own(pool)) == 2
    assert own(pool) == [copy], "it is marked for another name"


def test_umount_of_a_dead_mount_removes(ck, pool):
    ck.mount("scratch")
    fill(ck.mnt)
    kill_mount(ck)
    assert len(own(pool)) == 1 and ck.state()["ephemeral"] is True
    ck.umount()
    assert list(pool.iterdir()) == []


def test_removal_goes_on_where_it_was_killed(ck, pool):
    """Files gone, mark or empty directory still there."""
    for steps in ("files", "mark"):
        left = leftover(ck, pool)
        shutil.rmtree(left / "volume")
        if steps == "mark":
            (left / "mark").unlink()
        with ck.mounted("scratch"):
            assert not left.exists()


def test_server_killed(ck, pool):
    with ck.mounted("scratch"):
        os.kill(ck.state()["server_pid"], signal.SIGKILL)
        wait_until("failed", lambda: ck.state()["state"] == "failed")
    assert list(pool.iterdir()) == []


def test_umount_waits_for_the_end_of_the_files(ck, pool):
    with ck.mounted("scratch") as at:
        for i in range(300):
            (at / f"d{i}").mkdir()
            (at / f"d{i}" / "f").write_bytes(b"x")
        deep = at
        for i in range(150):
            deep = deep / "d"
            deep.mkdir()
    assert list(pool.iterdir()) == []


def test_open_files_and_stop(ck, pool):
    """SIGTERM, and a file that is open: served until stop-timeout, then all is removed."""
    ck.configure("volume scratch", source=pool, ephemeral="yes", stop_timeout="1s")
    ck.mount("scratch")
    keeper = ck.state()["keeper_pid"]
    with open(ck.mnt / "f", "wb") as f:
        f.write(b"x")
        f.flush()
        os.kill(keeper, signal.SIGTERM)
        wait_until("the keeper's end", lambda: not alive(keeper))
        assert list(pool.iterdir()) == []
        with contextlib.suppress(OSError):
            f.close()


def test_service_manager_is_told(ck, pool):
    """Who waits for the beginning or the end of the service waits as long as files are removed."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(ck.dir / "notify"))
    notify.settimeout(30)
    leftover(ck, pool)
    said = []
    with child(ck.argv("mount", "scratch", ck.mnt, "-f"), env=dict(ck.env, NOTIFY_SOCKET=str(ck.dir / "notify"))) as process:
        while not said or "READY=1" not in said[-1]:
            said.append(notify.recv(4096).decode())
        assert said[:2] == ["STATUS=removing what killed mounts have left", "EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1"]
        ck.remember(ck.mnt)
        fill(ck.mnt)
        ck.umount()
        assert process.wait(30) == DONE
    assert list(pool.iterdir()) == []
    said = []
    while not said or "EXTEND_TIMEOUT_USEC" not in said[-1]:
        said.append(notify.recv(4096).decode())
    assert said[-2:] == ["STATUS=removing the files", "EXTEND_TIMEOUT_USEC=30000000\nWATCHDOG=1"]
    notify.close()


def test_failed_start_leaves_nothing(ck, pool):
    said = ck.run("mount", pool, ck.mnt, "-o", "ephemeral,passthrough=yes", status=UNSUPPORTED).stderr
    assert "passthrough" in said
    assert list(pool.iterdir()) == []


# ---- what is not ours

def test_strangers_survive(ck, pool):
    """Things that look like ours, by whomever they were put there."""
    precious = ck.dir / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    left = leftover(ck, pool)
    assert (left / "mark").read_text() == mark_of(left.name)

    def plant(digit, how):
        path = pool / (PREFIX + digit * 16)
        how(path)
        return path

    def directory(path, mode=0o700, uid=0, marked=None):
        path.mkdir()
        (path / "volume").mkdir()
        (path / "volume" / "file").write_text("mine")
        (path / "mark").write_text(mark_of(path.name) if marked is None else marked)
        path.chmod(mode)
        os.chown(path, uid, uid)

    shutil.rmtree(left / "volume")
    (left / "volume").symlink_to(precious)
    (left / "direct").symlink_to(precious / "file")
    planted = [
        plant("1", lambda p: p.symlink_to(precious)),
        plant("2", lambda p: p.write_text("file")),
        plant("3", lambda p: directory(p, uid=UID)),
        plant("4", lambda p: directory(p, mode=0o755)),
        plant("5", lambda p: directory(p, marked="")),
        plant("6", lambda p: directory(p, marked=mark_of(left.name))),
        plant("7", lambda p: directory(p, marked=mark_of(p.name, on="0" * 32))),
        plant("9", lambda p: directory(p, marked=mark_of(p.name) + "and more")),
    ]
    ours = plant("a", directory)
    foreign = [pool / "file", pool / "directory", pool / (PREFIX + "8" * 15), pool / (PREFIX + "8" * 16 + ".old")]
    foreign[0].write_text("mine")
    for path in foreign[1:]:
        directory(path)
    before = {p.name: tree(p) for p in [*planted, *foreign]}
    with ck.mounted("scratch"):
        pass
    assert {p.name: tree(p) for p in [*planted, *foreign]} == before
    assert (planted[0] / "file").read_text() == "mine" and planted[1].read_text() == "file"
    assert (precious / "file").read_text() == "mine"
    assert not left.exists() and not ours.exists(), "ours went, with the links in it"
    assert sorted(pool.iterdir()) == sorted([*planted, *foreign])


def test_mounts_below_are_not_entered(ck, pool):
    """A bind mount of the same file system has the same device number."""
    precious = ck.dir / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    left = leftover(ck, pool)
    (left / "volume" / "on").mkdir()
    run("mount", "--bind", precious, left / "volume" / "on")
    try:
        with ck.mounted("scratch"):
            assert (precious / "file").read_text() == "mine"
            assert f'"scratch": what a killed mount left in {pool} cannot be removed: ' in ck.log_text()
            assert tree(left) == ["mark", "volume", "volume/on", "volume/on/file"], "the rest is gone"
    finally:
        run("umount", left / "volume" / "on")
    with ck.mounted("scratch"):
        assert not left.exists()


def test_in_a_directory_for_everybody(ck, pool):
    """As in /tmp: what somebody else plants is his."""
    pool.chmod(0o1777)
    left = leftover(ck, pool)

    def try_it():
        with pytest.raises(PermissionError):
            left.rename(pool / "mine")
        with pytest.raises(PermissionError):
            os.listdir(left)
        planted = pool / (PREFIX + "a" * 16)
        planted.mkdir(mode=0o700)
        (planted / "mark").write_text(mark_of(planted.name))
        (planted / "volume").symlink_to("/etc")
    as_user(try_it)
    with ck.mounted("scratch") as at:
        assert not left.exists()
        assert stat.S_IMODE(os.stat(at).st_mode) == 0o1777
    assert tree(pool) == [PREFIX + "a" * 16, PREFIX + "a" * 16 + "/mark", PREFIX + "a" * 16 + "/volume"]


# ---- containers

def test_container(ck, pool):
    """Two containers one after the other; the second has nothing of the first, not even as root."""
    runtime = containers.runtime("crun", ck.dir)
    for script, seen in (("echo one > /vol/f; mkdir -p /vol/a/b; ls /vol", ["a", "f"]), ("ls -A /vol", [])):
        with ck.mounted("scratch") as at:
            done = run(*runtime.argv(at, script))
            assert done.stdout.decode().split() == seen
    assert list(pool.iterdir()) == []


def test_volume_plugin(ck, pool):
    """A volume of the configuration, and an option that plugin-allow has to have."""
    p = Plugin(ck)
    with p.running():
        p.create("s", volume="scratch")
        for _ in range(2):
            at = p.mount("s")
            assert os.listdir(at) == []
            (at / "f").write_text("x")
            p.unmount("s")
            assert list(pool.iterdir()) == []
        p.remove("s")
    ck.configure("defaults", plugin_allow=f"volume source={pool}")
    with p.running():
        assert "option ephemeral is not allowed" in p.create("t", status=500, source=str(pool), ephemeral="yes")
    ck.configure("defaults", plugin_allow=f"volume source={pool} ephemeral=yes")
    with p.running():
        p.create("t", source=str(pool), ephemeral="yes")
        (p.mount("t") / "f").write_text("x")
        assert len(own(pool)) == 1
        p.unmount("t")
        assert list(pool.iterdir()) == []
        p.remove("t")
    for directory in (p.counts, p.mounts):
        for entry in directory.iterdir() if directory.exists() else []:
            entry.unlink() if entry.is_file() else entry.rmdir()


# ---- a disk that is full

def test_full_disk(ck, pool):
    run("mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs", pool)
    try:
        with ck.mounted("scratch") as at:
            with open(at / "f", "wb", buffering=0) as f:
                with pytest.raises(OSError) as e:
                    while True:
                        f.write(bytes(1 << 20))
                        os.fsync(f.fileno())
                assert e.value.errno == errno.ENOSPC
        assert list(pool.iterdir()) == []
        with open(pool / "full", "wb", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))
        said = ck.run("mount", "scratch", ck.mnt, status=FAILED).stderr
        assert said == (f'ckrfs: cannot mount "scratch": source {pool}: cannot make a volume in it: '
                        'No space left on device\n')
        assert [p.name for p in pool.iterdir()] == ["full"]
        (pool / "full").unlink()
        with ck.mounted("scratch") as at:
            (at / "f").write_text("x")
    finally:
        wait_until("the last process to let go", lambda: run("umount", pool, check=False).returncode == 0)


# ---- commands

def test_lock(ck, pool):
    """It would be the end of the data: no. And who locks all of them is told that a key is still there."""
    web = ck.dir / "web"
    web.mkdir()
    ck.volume("web")
    refusal = ('ckrfs: cannot lock "scratch": it is ephemeral, and its data would be lost with its key\n'
               '  try: ckrfs umount scratch\n')
    with ck.mounted("scratch") as at, ck.mounted("web", web):
        (at / "f").write_text("x")
        assert ck.run("lock", "scratch", status=UNSUPPORTED).stderr == refusal
        done = ck.run("lock", "--all", status=PARTLY)
        assert done.stderr == refusal
        assert errno_of(os.listdir, web) == "ENOKEY"
        assert (at / "f").read_text() == "x"
        assert ck.run("unlock", "scratch", status=DONE).stderr == ""
        assert ck.run("refresh", "scratch", status=UNSUPPORTED).stderr == \
            'ckrfs: cannot refresh "scratch": it is ephemeral, and its key has no source\n'


def test_key_life_of_the_defaults_is_not_for_it(ck, pool):
    """A key-lifetime for all volumes would lock it."""
    ck.configure("defaults", key_lifetime="1s", refresh="no")
    ck.volume("web")
    web = ck.dir / "web"
    web.mkdir()
    with ck.mounted("scratch") as at, ck.mounted("web", web):
        wait_until("the end of the other's key", lambda: errno_of(os.listdir, web) == "ENOKEY")
        assert os.listdir(at) == []
        assert ck.state()["expires"] == 0


def test_other_commands(ck, pool):
    config = ["--config", ck.conf]
    has = "it is ephemeral, and nothing but its mount has its key\n"
    for args, words in {
        ("check", *config, "scratch"): f'ckrfs: cannot check "scratch": {has}  try: ckrfs check --online scratch\n',
        ("key", *config, "list", "scratch"): f'ckrfs: cannot change or list the keys of "scratch": {has}',
        ("rekey", *config, "scratch"): f'ckrfs: cannot rekey "scratch": {has}',
        ("init", pool, "-o", "ephemeral"): "ckrfs: an ephemeral volume needs no init: it is made when it is mounted\n",
    }.items():
        assert ck.run(*args, status=UNSUPPORTED).stderr == words
    with ck.mounted("scratch") as at:
        fill(at)
        assert ": no damage\n" in ck.run("check", "--online", "scratch", status=DONE).stdout
    found = ck.run("doctor", "--all", *config, "scratch").stdout
    assert f"source scratch    {pool} is there\n" in found


def test_what_does_not_go_together(ck, pool):
    key = f"file:{ck.key_file('x')}"
    made = "its key is made when it is mounted, and no source (key, lower-key) can give it"
    for options, words in {
        f"key={key}": made,
        "format=plain": 'the format "plain" has no key that could be gone',
        f"lower=fscrypt,lower-key={key}": "lower = fscrypt has keys of its own",
        f"lower-key={key}": made,
        "shared": "no other mount can share it (shared = yes)",
        "ro": "it is empty at first, and read-only it would stay empty",
        "hide-lower": "it takes a directory, and there is nothing worth hiding (hide-lower, subtree)",
    }.items():
        done = ck.run("mount", "scratch", ck.mnt, "-o", options, status=CONFIG)
        assert done.stderr == f"ckrfs: ephemeral = yes cannot be done: {words}\n"
    assert ck.run("mount", "scratch", ck.mnt, "--key", key, status=CONFIG).stderr.endswith(f"{made}\n")
    assert list(pool.iterdir()) == []


def test_source(ck, pool):
    web = ck.volume("web")
    done = ck.run("mount", web.cipher, ck.mnt, "-o", "ephemeral", status=CONFIG)
    assert done.stderr == (
        f'ckrfs: cannot mount "{str(ck.mnt)[1:].replace("/", "-")}": source {web.cipher} is a volume, of which '
        'ephemeral = yes would show nothing: it takes a directory that new volumes can be made in\n')
    with ck.mounted("web"):  # and is not in use
        pass
    pool.rmdir()
    done = ck.run("mount", "scratch", ck.mnt, status=NO_VOLUME)
    assert done.stderr == f'ckrfs: cannot mount "scratch": source {pool} does not exist\n'


def test_mount_helper(ck, pool):
    """As from fstab(5): mount.ckrfs SOURCE TARGET -o OPTIONS"""
    helper = ck.dir / "mount.ckrfs"
    helper.symlink_to(ck.argv("mount")[0])
    run(helper, pool, ck.mnt, "-o", f"rw,ephemeral,noauto,nodev,log={ck.log}", env=ck.env)
    ck.remember(ck.mnt)
    (ck.mnt / "f").write_text("x")
    assert len(own(pool)) == 1
    run("umount", "-i", ck.mnt)
    wait_until("the keeper's end", lambda: list(pool.iterdir()) == [])
