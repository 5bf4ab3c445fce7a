# SPDX-License-Identifier: MIT
"""The life of keys: what a manager does to a key takes effect, sources are asked again in time, and an end is an end."""
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from locked import scan
from manager import DESCRIPTION, PASSPHRASE, SOURCE, Key, keyctl, refusal, wait_for_lock, wait_for_unlock
from support import (BINARY, BUSY, CONFIG, DONE, NO_KEY, REPO, TOOLS, UNSUPPORTED, WRONG_KEY, Gocryptfs, child, forms, run,
                     wait_until)


def mounted(ck, **options):
    """A volume with the key in the manager's ring, mounted, and a file there with an open descriptor."""
    ck.volume(key=options.pop("key", SOURCE), keyring="inherit", **options)
    mnt = ck.mount()
    (mnt / "f").write_bytes(b"content")
    return mnt / "f"


def wait_for_state(ck, state):
    return wait_until(state, lambda: (lambda s: s if s["state"] == state else None)(ck.state()))


# ---- a key of the kernel

GOES = {
    "revoke": (Key.revoke, f"the key in {SOURCE} was revoked"),
    "unlink": (Key.unlink, f"no key in {SOURCE}"),
    "clear": (lambda key: keyctl("clear", "@s"), f"no key in {SOURCE}"),
    "invalidate": (lambda key: keyctl("invalidate", key.serial), f"no key in {SOURCE}"),
    "timeout": (lambda key: key.timeout(1), f"the key in {SOURCE} has expired"),
    "setperm": (lambda key: keyctl("setperm", key.serial, "0x37000000"), f"the key in {SOURCE} does not grant Search"),
}


@pytest.mark.parametrize("how", GOES)
def test_key_goes_and_comes_back(ck, key, how):
    """The mount locks; open files too; when the key is there again, they go on without anybody doing anything."""
    go, words = GOES[how]
    f = mounted(ck)
    with f.open("r+b", buffering=0) as opened:
        go(key)
        wait_for_lock(f)
        state = wait_for_state(ck, "locked")  # then the page cache is empty too
        with pytest.raises(OSError) as e:
            opened.read(1)
        assert e.value.errno == errno.ENOKEY
        assert (state["state"], state["last_error"]) == ("locked", words)
        assert state["key_watch"] == "poll"
        assert f"last error:     {words}\n" in ck.run("status", "web").stdout
        if how == "setperm":
            key.unlink()
        key.add()
        wait_for_unlock(f)
        assert opened.read() == b"content"
        opened.write(b" goes on")
    assert (ck.state()["state"], ck.state()["last_error"]) == ("unlocked", "")
    assert f.read_bytes() == b"content goes on"
    assert f'audit: lock "web" by its key\'s life: done: {words}' in ck.log_text()
    assert 'audit: unlock "web" by its key\'s life: done' in ck.log_text()
    ck.umount()


def test_key_exchanged_in_one_moment(ck, key):
    """Unlinked and added again, with another serial, and looked at in between: it is known by its description, and not missed."""
    f = mounted(ck)
    for _ in range(50):
        old, locks = key.serial, ck.log_text().count('"web" is locked')
        began = time.monotonic()
        key.unlink()
        ck.state()
        key.add()
        # Only then it was back before it is looked for again; a slow machine tries once more.
        if time.monotonic() - began < 0.15:
            break
        wait_for_state(ck, "unlocked")
    else:
        raise AssertionError("this machine is too slow to exchange a key")
    assert key.serial != old
    assert (ck.state()["state"], refusal(f)) == ("unlocked", 0)
    key.revoke()
    wait_for_lock(f)
    wait_for_state(ck, "locked")
    assert ck.log_text().count('"web" is locked') == locks + 1
    ck.umount()


def test_key_exchanged_for_a_wrong_one(ck, key):
    """Not updated, but taken away: another one that does not open the volume is none."""
    f = mounted(ck)
    run("sh", "-c", f"keyctl unlink {key.serial} @s && keyctl padd user {DESCRIPTION} @s", input=b"wrong")
    wait_for_lock(f)
    assert "wrong passphrase" in ck.state()["last_error"]
    key.add()
    wait_for_unlock(f)
    ck.umount()


def test_update_with_the_same_key(ck, key):
    f = mounted(ck)
    since = ck.state()["since"]
    key.update()
    state = ck.state()
    assert (state["state"], state["since"], refusal(f)) == ("unlocked", since, 0)
    ck.umount()


@pytest.mark.parametrize("form", ["pass", "raw"])
def test_update_with_a_wrong_key(ck, key, form):
    """Told and not used; the key that the mount has stays good. A raw one of the right length is found out as well."""
    right, wrong = PASSPHRASE, b"battery staple"
    if form == "raw":
        right, wrong = ck.volume().master_key(), bytes(range(32))
        key.data = right
        key.update()
    f = mounted(ck, key=f"{SOURCE}?fmt={form}", init=form == "pass")
    key.update(wrong)
    state = wait_for_state(ck, "degraded")
    assert state["last_error"].startswith('cannot refresh "web": wrong ') and state["next_refresh"] > 0
    assert f.read_bytes() == b"content"
    (f.parent / "g").write_bytes(b"written with the right key")
    ck.run("lock", "web", status=DONE)
    done = ck.run("unlock", "web", status=WRONG_KEY)
    assert done.stderr.startswith('ckrfs: cannot unlock "web": wrong ')
    assert (ck.state()["state"], refusal(f)) == ("locked", errno.ENOKEY)
    key.update(right)
    ck.run("unlock", "web", status=DONE)
    assert (f.parent / "g").read_bytes() == b"written with the right key"
    key.update(wrong)
    wait_for_state(ck, "degraded")
    key.update(right)
    assert wait_for_state(ck, "unlocked")["last_error"] == ""
    assert f.read_bytes() == b"content"
    ck.umount()


def test_wrong_raw_key_of_an_empty_volume(ck, key):
    """Nothing there tells whether a master key is the right one, but the mount knows the one it has."""
    master = ck.volume().master_key()
    key.update(master)
    ck.volume(key=f"{SOURCE}?fmt=raw", keyring="inherit", init=False)
    with ck.mounted() as mnt:
        key.update(bytes(range(32)))
        assert "wrong key: " in wait_for_state(ck, "degraded")["last_error"]
        ck.run("lock", "web", status=DONE)
        ck.run("unlock", "web", status=WRONG_KEY)
        ck.run("unlock", "web", "--key", f"file:{ck.key_file(bytes(range(32)), 'other')}?fmt=raw", status=WRONG_KEY)
        key.update(master)
        ck.run("unlock", "web", status=DONE)
        (mnt / "f").write_bytes(b"content")
    ck.keep_secret(master)


def test_wrong_key_while_locked_by_revocation(ck, key):
    f = mounted(ck)
    key.revoke()
    wait_for_lock(f)
    key.add(b"battery staple")
    state = wait_until("the try", lambda: (lambda s: s if "wrong" in s["last_error"] else None)(ck.state()))
    assert state["state"] == "locked"
    key.update()
    wait_for_unlock(f)
    assert f.read_bytes() == b"content"
    ck.umount()


def test_timeout_cleared_by_an_update_is_set_again(ck, key):
    f = mounted(ck)
    key.timeout(3000)
    before = wait_until("the timeout", lambda: ck.state()["expires"])
    key.update()
    assert key.left() == "perm"
    state = ck.state()
    assert state["expires"] >= before and key.left() in ("49m", "50m")
    assert "its timeout is set again" in ck.log_text()
    key.timeout(1)
    wait_for_lock(f)
    ck.umount()


def test_timeout_that_cannot_be_set_again(ck, key):
    """No Setattr: then the key has no end, as the kernel has it, and the log says so."""
    keyctl("setperm", key.serial, "0x1f000000")
    mounted(ck)
    run("keyctl", "timeout", str(key.serial), "3000", check=False)
    keyctl("unlink", key.serial, "@s")
    key.add()
    key.timeout(3000)
    wait_until("the timeout", lambda: ck.state()["expires"])
    keyctl("setperm", key.serial, "0x1f000000")
    key.update()
    assert ck.state()["expires"] == 0
    assert "its timeout cannot be set again: Permission denied" in ck.log_text()
    ck.umount()


def test_not_renewed_in_time(ck, key):
    """At half of its life a key that was not renewed makes the mount degraded; a renewal ends that."""
    f = mounted(ck)
    key.timeout(4)
    state = wait_for_state(ck, "degraded")
    assert state["last_error"] == f"{SOURCE} has not been renewed, and will expire"
    assert state["next_refresh"] <= state["expires"]
    key.timeout(3000)
    wait_for_state(ck, "unlocked")
    assert refusal(f) == 0
    ck.umount()


def test_expired_before_the_mount(ck, key):
    key.timeout(1)
    wait_until("the end", lambda: key.left() in ("expd", None))
    ck.volume(key=SOURCE, keyring="inherit")
    done = ck.run("mount", "web", ck.mnt, status=NO_KEY)
    assert done.stderr == f'ckrfs: cannot mount "web": the key in {SOURCE} has expired\n'


@pytest.mark.parametrize("on_expire", ["eio", "keep"])
def test_on_expire(ck, key, on_expire):
    f = mounted(ck, on_expire=on_expire)
    key.revoke()
    if on_expire == "eio":
        wait_for_lock(f, errno.EIO)
        wait_for_state(ck, "locked")
    else:
        state = wait_for_state(ck, "degraded")
        assert state["last_error"] == f"the key in {SOURCE} was revoked"
        assert f.read_bytes() == b"content"
    key.add()
    wait_for_state(ck, "unlocked")
    assert f.read_bytes() == b"content"
    ck.run("lock", "web", status=DONE)
    assert refusal(f) == errno.ENOKEY, "a lock that somebody asks for is one"
    ck.umount()


def test_lock_by_command_stays(ck, key):
    """Also one that the key's end has come before: only a command takes it back."""
    f = mounted(ck)
    ck.run("lock", "web", status=DONE)
    key.revoke()
    key.add()
    assert (ck.state()["state"], ck.state()["key_watch"]) == ("locked", "-")
    ck.run("unlock", "web", status=DONE)
    key.revoke()
    wait_for_lock(f)
    ck.run("lock", "web", status=DONE)
    key.add()
    assert (ck.state()["state"], ck.state()["key_watch"]) == ("locked", "-")
    ck.run("unlock", "web", status=DONE)
    assert f.read_bytes() == b"content"
    ck.umount()


def test_no_refresh_no_return(ck, key):
    f = mounted(ck, refresh="no")
    key.revoke()
    wait_for_lock(f)
    wait_for_state(ck, "locked")
    key.add()
    assert (ck.state()["state"], ck.state()["key_watch"]) == ("locked", "-")
    ck.run("unlock", "web", status=DONE)
    ck.umount()


def test_own_key_of_unlock_is_followed(ck, key):
    """After `unlock --key` it is that source whose key counts."""
    f = mounted(ck)
    ck.run("lock", "web", status=DONE)
    other = Key(description="ckrfs-other")
    ck.run("unlock", "web", "--key", "keyring:user:ckrfs-other", status=DONE)
    key.revoke()
    other.timeout(3000)
    assert wait_until("the other's timeout", lambda: ck.state()["expires"]) and refusal(f) == 0
    other.revoke()
    wait_for_lock(f)
    ck.umount()


# ---- both rings

@pytest.fixture
def keyworld(ck):
    ck.env["LD_PRELOAD"] = str(TOOLS / "keyworld.so")
    ck.env["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
    yield ck.env
    for name in ("LD_PRELOAD", "CKRFS_TEST_RING", "CKRFS_TEST_WATCH"):
        ck.env.pop(name, None)


@pytest.mark.parametrize("search, manager, mount, status", [
    ("first", b"correct horse", b"wrong", DONE), ("last", b"wrong", b"correct horse", DONE),
    ("first", b"wrong", b"correct horse", WRONG_KEY), ("last", b"correct horse", b"wrong", WRONG_KEY)])
def test_keyring_search_with_a_key_in_both_rings(ck, key, keyworld, search, manager, mount, status):
    """The mount's own ring has another key of the same description than the manager's."""
    keyworld["CKRFS_TEST_RING"] = f"{DESCRIPTION}={mount.decode()}"
    key.update(manager)
    ck.volume(key=SOURCE, keyring="inherit", keyring_search=search)
    ck.run("mount", "web", ck.mnt, status=status)
    if status == DONE:
        (ck.mnt / "f").write_bytes(b"content")
        if search == "first":
            key.revoke()
            wait_for_lock(ck.mnt / "f")
        else:
            key.revoke()
            assert ck.state()["state"] == "unlocked", "it is not the manager's key that counts"
        ck.umount()


def test_kernel_that_tells(ck, key, keyworld):
    """With watch_queue, a notification is what makes the keeper look; without one it hardly does."""
    fifo = ck.dir / "watch"
    os.mkfifo(fifo)
    keyworld["CKRFS_TEST_WATCH"] = str(fifo)
    f = mounted(ck)
    assert ck.state()["key_watch"] == "kernel"
    keeper = ck.state()["keeper_pid"]
    with fifo.open("r+b", buffering=0) as queue:
        for _ in range(3):
            # Who asks for the state has the keeper look now, and not again for longer than we wait.
            assert ck.state()["state"] == "unlocked"
            key.revoke()
            queue.write(bytes(16))
            wait_for_lock(f)
            wait_for_state(ck, "locked")
            key.add()
            queue.write(bytes(16))
            wait_for_unlock(f)
        before = len(os.listdir(f"/proc/{keeper}/fd"))
        for _ in range(20):
            key.unlink()
            key.add()
            queue.write(bytes(16))
            assert ck.state()["state"] == "unlocked"
        assert len(os.listdir(f"/proc/{keeper}/fd")) == before, "the watches of keys that are gone are closed"
    ck.umount()


# ---- other sources

class Program:
    """An exec: source that counts how often it is asked, and does what the test wants."""

    def __init__(self, ck, **options):
        self.calls, self.mode = ck.dir / "calls", ck.dir / "mode"
        self.content = ck.key_file(PASSPHRASE, name="content")
        path = ck.dir / "program"
        path.write_text(f"#!/bin/sh\necho >> {self.calls}\ntest ! -e {self.mode} || . {self.mode}\ncat {self.content}\n")
        path.chmod(0o700)
        ck.volume(key=f"exec:{path}", **options)
        self.spec = f"exec:{path}"

    def count(self):
        return len(self.calls.read_bytes())

    def does(self, script):
        temporary = self.mode.with_suffix(".new")
        temporary.write_text(script + "\n")
        temporary.rename(self.mode)

    def serves(self):
        self.mode.unlink()

    def wait_for_calls(self, n):
        wait_until(f"{n} more calls", lambda start=self.count(): self.count() >= start + n)


def test_source_is_asked_again(ck):
    program = Program(ck, refresh="1s")
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"content")
        assert ck.state()["next_refresh"] > 0
        program.wait_for_calls(2)
        assert ck.state()["state"] == "unlocked"
        program.does("exit 3")
        state = wait_for_state(ck, "degraded")
        assert state["last_error"] == f'cannot refresh "web": {program.spec} exited with status 3'
        assert (mnt / "f").read_bytes() == b"content"
        program.wait_for_calls(2)
        program.serves()
        wait_for_state(ck, "unlocked")
        program.content.write_bytes(b"wrong")
        assert "wrong passphrase" in wait_for_state(ck, "degraded")["last_error"]
        program.content.write_bytes(PASSPHRASE)
        wait_for_state(ck, "unlocked")
        assert ck.log_text().count('"web" is locked') == 0


def test_nobody_is_asked_without_an_end(ck):
    program = Program(ck)
    with ck.mounted():
        state = ck.state()
        assert (state["expires"], state["next_refresh"], state["key_watch"]) == (0, 0, "-")
        assert program.count() == 1


def test_lifetime_without_a_source(ck):
    """The source fails for all of the key's life: the mount locks, and comes back when the source does."""
    program = Program(ck, key_lifetime="2s")
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"content")
        program.does("exit 1")
        wait_for_lock(mnt / "f")
        assert wait_for_state(ck, "locked")["expires"] > 0
        program.serves()
        wait_for_unlock(mnt / "f")
        program.wait_for_calls(2)
        assert ck.state()["state"] == "unlocked", "refreshed at half of its life"


def test_lifetime_that_nobody_prolongs(ck):
    """refresh = no: it locks itself, and a command unlocks it for as long again."""
    program = Program(ck, key_lifetime="1s", refresh="no")
    with ck.mounted() as mnt:
        (mnt / "f").touch()
        wait_for_lock(mnt / "f")
        wait_for_state(ck, "locked")
        assert ck.state()["last_error"] == f"the key in {program.spec} has expired"
        assert program.count() == 1
        ck.run("unlock", "web", status=DONE)
        wait_for_lock(mnt / "f")
        assert program.count() == 2


def test_life_of_a_moment(ck):
    """Over before the mount is there: it is locked at once, and nothing runs in circles."""
    Program(ck, key_lifetime="1ms", refresh="no")
    with ck.mounted():
        wait_until("the lock", lambda: ck.state()["state"] == "locked")
        assert ck.log_text().count('"web" is locked') == 1


def test_clock_of_another_time(ck):
    """A machine that has been up for years, with another clock than everybody else (time_namespaces(7))."""
    program = Program(ck, key_lifetime="2s")
    mount = ck.argv("mount", "web", ck.mnt)
    run("unshare", "--time", "--boottime", "500000000", "--monotonic", "400000000", "--fork", *mount, env=ck.env)
    ck.remember(ck.mnt)
    (ck.mnt / "f").touch()
    program.wait_for_calls(2)
    assert ck.state()["state"] == "unlocked"
    program.does("exit 1")
    wait_for_lock(ck.mnt / "f")
    program.serves()
    wait_for_unlock(ck.mnt / "f")
    ck.umount()


@pytest.mark.parametrize("script, words", [
    ("exec sleep 1000", "did not answer within 1 s"),
    ("exec head -c 50000000 /dev/zero", "is longer than 1048576 bytes"),
    ("exec yes", "is longer than 1048576 bytes"),
    ("kill -KILL $$", "was killed by SIGKILL"),
])
def test_source_that_misbehaves(ck, script, words):
    """When it is asked again: the mount goes on serving, and the keeper answering."""
    program = Program(ck, refresh="1s", key_timeout="1s")
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"content")
        program.does(script)
        state = wait_for_state(ck, "degraded")
        assert words in state["last_error"]
        assert (mnt / "f").read_bytes() == b"content"
        program.serves()
        wait_for_state(ck, "unlocked")


def test_commands_go_before_a_refresh_that_hangs(ck):
    """Nobody waits for what the key's life has begun."""
    program = Program(ck, refresh="1s", key_timeout="1h")
    hangs = ck.dir / "hangs"

    def hang():
        program.does(f"touch {hangs}; exec sleep 1000")
        wait_until("the source to hang", hangs.exists)

    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"content")
        hang()
        ck.run("lock", "web", status=DONE)
        assert refusal(mnt / "f") == errno.ENOKEY
        program.serves()
        ck.run("unlock", "web", status=DONE)
        hangs.unlink()
        hang()
        program.serves()
        ck.run("refresh", "web", status=DONE)
        assert ck.state()["state"] == "unlocked"
        hangs.unlink()
        hang()
        hangs.unlink()
        with child(ck.argv("refresh", "web"), env=ck.env, stderr=subprocess.PIPE) as waiting:
            wait_until("the source to hang anew", hangs.exists)
            done = ck.run("refresh", "web", status=BUSY)
            assert done.stderr == 'ckrfs: cannot refresh "web": another refresh is under way\n'
            ck.run("lock", "web", status=DONE)
            assert waiting.wait(30) == BUSY
            assert b"it had to make way for another command" in waiting.stderr.read()


def test_refresh_command(ck, key):
    f = mounted(ck)
    assert ck.run("refresh", "web", status=DONE).stderr == ""
    key.update(b"wrong")
    done = ck.run("refresh", ck.mnt, status=WRONG_KEY)
    assert done.stderr.startswith('ckrfs: cannot refresh "web": wrong passphrase')
    assert ck.state()["state"] == "degraded"
    key.update()
    ck.run("refresh", "web", status=DONE)
    assert ck.state()["state"] == "unlocked"
    ck.run("lock", "web", status=DONE)
    done = ck.run("refresh", "web", status=NO_KEY)
    assert done.stderr == 'ckrfs: cannot refresh "web": it is locked\n  try: ckrfs unlock web\n'
    assert refusal(f) == errno.ENOKEY
    ck.umount()
    ck.plain()
    with ck.mounted("plain"):
        done = ck.run("refresh", "plain", status=UNSUPPORTED)
        assert done.stderr == 'ckrfs: cannot refresh "plain": it has no key\n'


@pytest.mark.parametrize("line", ["refresh = 10ms", "refresh = soon", "on-expire = panic", "key-lifetime = -1", "key-lifetime = 400d"])
def test_wrong_options(ck, line):
    name, _, value = line.partition(" = ")
    ck.volume(**{name.replace("-", "_"): value})
    done = ck.run("mount", "web", ck.mnt, status=CONFIG)
    assert f'{name} = "{value}": must be ' in done.stderr


def test_a_lock_that_cannot_be_is_tried_again(ck, key):
    """The server hangs when the key ends: nothing is lost of it, the lock comes when it goes on."""
    f = mounted(ck)
    server = ck.state()["server_pid"]
    os.kill(server, signal.SIGSTOP)
    key.revoke()
    wait_until("the lock to begin", lambda: "was revoked" in ck.log_text())
    os.kill(server, signal.SIGCONT)
    wait_for_lock(f)
    ck.umount()


def test_unmounted_when_the_key_ends(ck, key):
    mounted(ck)
    key.revoke()
    ck.umount()


# ---- what is told

def test_service_manager_is_told(ck, key):
    """STATUS= for systemctl(1)."""
    ck.volume(key=SOURCE, keyring="inherit")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(ck.dir / "notify"))
    notify.settimeout(30)
    said = []

    def wait_for(words):
        while not any(words in line for line in said):
            said.append(notify.recv(4096).decode())

    with child(ck.argv("mount", "web", ck.mnt, "-f"), env=dict(ck.env, NOTIFY_SOCKET=str(ck.dir / "notify"))) as process:
        wait_for("READY=1")
        ck.remember(ck.mnt)
        (ck.mnt / "f").touch()
        key.update(b"wrong")
        wait_for(f"STATUS=mounted on {ck.mnt}, but: cannot refresh")
        key.update()
        wait_for(f"STATUS=mounted on {ck.mnt}")
        key.revoke()
        wait_for(f"STATUS=locked: the key in {SOURCE} was revoked")
        ck.umount()
        process.wait(30)
    notify.close()


def test_two_mounts_of_one_key(ck, key):
    """What happens to it happens to both."""
    other = ck.dir / "mnt2"
    other.mkdir()
    ck.volume("web", key=SOURCE, keyring="inherit", init=True)
    ck.volume("two", cipher=ck.dir / "cipher2", key=SOURCE, keyring="inherit")
    with ck.mounted("web"), ck.mounted("two", other):
        for at in (ck.mnt, other):
            (at / "f").touch()
        key.revoke()
        for at in (ck.mnt, other):
            wait_for_lock(at / "f")
        key.add()
        for at in (ck.mnt, other):
            wait_for_unlock(at / "f")


def test_looking_leaves_nothing(ck, key):
    """Whoever looks at a key twice a second has neither it nor the master key in his memory."""
    f = mounted(ck)
    for _ in range(5):
        key.update(b"battery staple")
        wait_for_state(ck, "degraded")
        key.update()
        wait_for_state(ck, "unlocked")
    keeper = ck.state()["keeper_pid"]
    secrets = {form for secret in (PASSPHRASE, b"battery staple", Gocryptfs(ck.dir / "cipher").master_key()) for form in forms(secret)}
    assert scan(ck, sorted(secrets), [keeper]) == []
    key.revoke()
    wait_for_lock(f)
    wait_for_state(ck, "locked")
    assert scan(ck, sorted(secrets), [keeper]) == []
    ck.umount()


# ---- many

@pytest.fixture
def many(ck, key):
    """CKRFS_VOLUMES volumes (500 is what it was made for), in memory, all of one key; mounted, with a file each. -> their files"""
    n = int(os.environ.get("CKRFS_VOLUMES", "12"))
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ckrfs-e2e-") as at:
        first = Gocryptfs(Path(at) / "v0").init("-plaintextnames")
        key.data = first.master_key()
        ck.keep_secret(key.data)
        key.update()
        for i in range(n):
            if i:
                shutil.copytree(first.cipher, Path(at) / f"v{i}")
            (ck.dir / f"m{i}").mkdir()
            ck.sections[f"volume v{i}"] = {"source": f"{at}/v{i}", "target": ck.dir / f"m{i}", "key": f"{SOURCE}?fmt=raw",
                                           "keyring": "inherit", "log-level": "warning"}
        ck.configure("volume unused", source=at)
        for i in range(n):
            ck.run("mount", f"v{i}", status=DONE)
            (ck.dir / f"m{i}" / "f").write_bytes(b"content %d" % i)
        yield [ck.dir / f"m{i}" / "f" for i in range(n)]
        ck.run("umount", "--all", status=DONE)
        wait_until("their ends", lambda: not ck.processes(), 120)


def test_many_volumes_locked_at_once(ck, key, many):
    def all_are(error):
        wait_until(f"all to answer {error}", lambda: all(refusal(f) == error for f in many), 120)

    key.revoke()
    all_are(errno.ENOKEY)
    key.add()
    all_are(0)
    assert [f.read_bytes() for f in many] == [b"content %d" % i for i in range(len(many))]
    ck.run("lock", "--all", status=DONE, timeout=600)
    assert {m["state"] for m in ck.states()} == {"locked"} and len(ck.states()) == len(many)
    with_each = [subprocess.Popen(ck.argv("unlock", f.parent), env=ck.env) for f in many]
    assert {p.wait(600) for p in with_each} == {DONE}
    assert [f.read_bytes() for f in many] == [b"content %d" % i for i in range(len(many))]


def test_soak(ck):
    """Twenty seconds of it; `tests/soak/lock_soak.py --seconds 3600` is the long one."""
    done = run(sys.executable, REPO / "tests" / "soak" / "lock_soak.py", "--seconds", "20", "--binary", BINARY, check=False, timeout=600)
    assert done.returncode == 0, f"{done.stdout.decode()}\n{done.stderr.decode()}"
    report = json.loads(done.stdout)
    assert all(n > 0 for n in report["acknowledged"]) and report["read"] > 0 and report["locked"] > 0, report
