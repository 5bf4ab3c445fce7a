# SPDX-License-Identifier: MIT
"""ckrfs lock and unlock as commands: who may, what they say, keys that are wrong or do not come, and what happens meanwhile."""
import errno
import os
import signal
import socket
import subprocess

import pytest
from locked import outcome
from support import BUSY, DONE, FAILED, NO_KEY, NO_VOLUME, PARTLY, UID, USAGE, WRONG_KEY, child, run, wait_until


# ---- the commands

def test_status_and_repetition(ck):
    ck.volume()
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"here")
        ck.run("unlock", "web", status=DONE)
        ck.run("lock", mnt, status=DONE)
        assert ck.state()["state"] == "locked"
        assert "state:          locked\n" in ck.run("status", "web", status=DONE).stdout
        done = ck.run("lock", "web", status=DONE)
        assert (done.stdout, done.stderr) == ("", "")
        run("df", mnt)
        ck.run("unlock", mnt, status=DONE)
        assert ck.state()["state"] == "unlocked"
        assert (mnt / "f").read_bytes() == b"here"


def test_locked_mount_is_unmounted(ck):
    volume = ck.volume()
    mnt = ck.mount()
    (mnt / "f").write_bytes(b"here")
    ck.run("lock", "web", status=DONE)
    ck.umount()
    mnt = ck.mount()
    fd = os.open(mnt / "f", os.O_RDONLY)
    ck.run("lock", "web", status=DONE)
    ck.umount(status=BUSY)
    os.close(fd)
    run("umount", mnt)
    wait_until("its end", lambda: not ck.states())
    with volume.mounted(ck.dir / "peer") as peer:
        assert (peer / "f").read_bytes() == b"here"


def test_names_and_all(ck):
    done = ck.run("lock", "nowhere", status=NO_VOLUME)
    assert done.stderr == 'ckrfs: "nowhere" is not mounted\n'
    ck.run("unlock", "nowhere", status=NO_VOLUME)
    ck.run("lock", status=USAGE)
    ck.run("unlock", status=USAGE)
    ck.run("lock", "--all", "web", status=USAGE)
    ck.run("lock", "web", "--timeout", "soon", status=USAGE)
    ck.run("lock", "--all", status=DONE)
    ck.volume("one")
    ck.volume("two", cipher=ck.dir / "cipher2")
    (ck.dir / "mnt2").mkdir()
    with ck.mounted("one"), ck.mounted("two", ck.dir / "mnt2"):
        ck.run("lock", "--all", status=DONE)
        assert [m["state"] for m in ck.states()] == ["locked", "locked"]
        ck.run("unlock", "one", "two", status=DONE)
        assert [m["state"] for m in ck.states()] == ["unlocked", "unlocked"]
        os.kill(ck.state()["server_pid"], signal.SIGKILL)
        wait_until("the failure", lambda: ck.state()["state"] == "failed")
        done = ck.run("lock", "--all", status=PARTLY)
        assert done.stderr == 'ckrfs: cannot lock "one": its server died\n'
        assert ck.state(ck.dir / "mnt2")["state"] == "locked"


def test_only_root_and_the_owner_may(ck):
    """The owner may lock and unlock, but not have the keeper read what he cannot."""
    ck.volume(owner=UID)
    with ck.mounted() as mnt:
        ck.dir.chmod(0o755)

        def as_uid(uid, *args):
            return subprocess.run(ck.argv(*args), env=ck.env, capture_output=True, text=True, user=uid, group=uid,
                                  extra_groups=[])

        assert as_uid(UID + 1, "lock", "web").returncode == FAILED
        assert ck.state()["state"] == "unlocked"
        assert as_uid(UID, "lock", "web").returncode == DONE
        assert ck.state()["state"] == "locked"
        done = as_uid(UID, "unlock", "web", "--key", f"file:{ck.dir}/key")
        assert done.returncode == FAILED
        assert done.stderr == ('ckrfs: cannot unlock "web": only who mounted it may name another key source\n'
                               "  try: ckrfs unlock web\n")
        assert as_uid(UID + 1, "unlock", "web").returncode == FAILED
        assert outcome(lambda: os.listdir(mnt), 0) == errno.ENOKEY
        assert as_uid(UID, "unlock", "web").returncode == DONE
        assert os.listdir(mnt) == []


# ---- keys

def test_wrong_key_stays_locked(ck):
    ck.volume()
    other = ck.volume("other", cipher=ck.dir / "cipher2", key=f"file:{ck.dir}/key")
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"here")
        ck.run("lock", "web", status=DONE)
        ck.key_file("not it")
        for _ in range(2):
            done = ck.run("unlock", "web", status=WRONG_KEY)
            assert done.stderr.startswith('ckrfs: cannot unlock "web": wrong passphrase')
        (ck.dir / "key").unlink()
        ck.run("unlock", "web", status=NO_KEY)
        raw = ck.key_file(other.master_key(), "raw")
        ck.run("unlock", "web", "--key", f"file:{raw}?fmt=raw", status=WRONG_KEY)
        assert ck.run("unlock", "web", "--key", "nonsense:x").returncode not in (DONE, None)
        assert ck.state()["state"] == "locked"
        assert outcome(lambda: os.listdir(mnt), 0) == errno.ENOKEY
        right = ck.key_file("correct horse", "right")
        ck.run("unlock", "web", "--key", f"file:{right}", status=DONE)
        assert ck.state()["key_source"] == f"file:{right}"
        assert (mnt / "f").read_bytes() == b"here"


def test_keyring_source_after_lock(ck):
    """The mount's ring is emptied by the lock, the manager's stays linked."""
    ck.volume(key="keyring:user:ckrfs-test", keyring="inherit")
    script = ('keyctl padd user ckrfs-test @s < "$1" > /dev/null && shift && "$0" "$@" && '
              '"$0" lock web && "$0" unlock web && "$0" lock web && keyctl purge user ckrfs-test > /dev/null; '
              '"$0" unlock web; echo $?; "$0" umount web')
    key = ck.key_file("correct horse")
    argv = ck.argv("mount", "web", ck.mnt)
    done = subprocess.run(["keyctl", "session", "-", "sh", "-c", script, argv[0], key, *argv[1:]], env=ck.env,
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{NO_KEY}\n", done.stderr


@pytest.fixture
def hanging(ck):
    """A mounted and locked volume whose key source hangs from now on; -> a file that is there when it does."""
    key, hang, hangs = ck.key_file("correct horse"), ck.dir / "hang", ck.dir / "hangs"
    program = ck.dir / "source"
    program.write_text(f"#!/bin/sh\ntest ! -e {hang} || {{ touch {hangs}; exec sleep 1000; }}\ncat {key}\n")
    program.chmod(0o700)
    ck.volume(key=f"exec:{program}", key_timeout="5s")
    ck.mount()
    ck.run("lock", "web", status=DONE)
    hang.touch()
    yield hangs


def test_hanging_source(ck, hanging):
    """The keeper goes on answering; the unlock ends with key-timeout; then it works."""
    with child(ck.argv("unlock", "web"), env=ck.env, stderr=subprocess.PIPE) as waiting:
        wait_until("the source", hanging.exists)
        assert ck.state()["state"] == "locked"
        done = ck.run("lock", "web", status=BUSY)
        assert done.stderr == 'ckrfs: cannot lock "web": an unlock is under way\n'
        done = ck.run("unlock", "web", status=BUSY)
        assert done.stderr == 'ckrfs: cannot unlock "web": another unlock is under way\n'
        assert waiting.wait(30) == NO_KEY
    (ck.dir / "hang").unlink()
    ck.run("unlock", "web", status=DONE)
    assert os.listdir(ck.mnt) == []
    ck.umount()


def test_unmounted_while_a_source_hangs(ck, hanging):
    with child(ck.argv("unlock", "web"), env=ck.env, stderr=subprocess.PIPE) as waiting:
        wait_until("the source", hanging.exists)
        ck.umount()
        assert waiting.wait(30) == FAILED


# ---- what can happen meanwhile

def test_two_locks_at_once(ck):
    ck.volume()
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(os.urandom(8 << 20))
        for _ in range(5):
            both = [subprocess.Popen(ck.argv("lock", "web"), env=ck.env) for _ in range(2)]
            assert [p.wait(60) for p in both] == [DONE, DONE]
            assert outcome(lambda: os.stat(mnt / "f"), 0) == errno.ENOKEY
            ck.run("unlock", "web", status=DONE)
        assert os.stat(mnt / "f").st_size == 8 << 20


def test_server_dies(ck):
    """A lock that waits for a server is told that it died; a dead one is not locked."""
    ck.volume()
    ck.mount()
    server = ck.state()["server_pid"]
    os.kill(server, signal.SIGSTOP)
    with child(ck.argv("lock", "web", "--timeout", "250ms"), env=ck.env, stderr=subprocess.PIPE) as waiting:
        keeper = ck.state()["keeper_pid"]
        wait_until("the lock", lambda: open(f"/proc/{keeper}/task/{keeper}/children").read().split() != [str(server)])
        os.kill(server, signal.SIGKILL)
        assert waiting.wait(30) == FAILED
        assert b"the server died" in waiting.stderr.read()
    for command in ("lock", "unlock"):
        done = ck.run(command, "web", status=FAILED)
        assert done.stderr == f'ckrfs: cannot {command} "web": its server died\n'
    ck.umount()
    ck.mount()
    ck.run("lock", "web", status=DONE)
    os.kill(ck.state()["server_pid"], signal.SIGKILL)
    wait_until("the failure", lambda: ck.state()["state"] == "failed")
    ck.run("unlock", "web", status=FAILED)
    ck.umount()


def test_control_messages(ck):
    """What is not from our own client."""
    ck.volume()
    with ck.mounted():
        def ask(text):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(str(ck.runtime / "mounts" / "web" / "control"))
                s.sendall(text)
                return s.makefile().readline()

        assert "timeout_ms" in ask(b'{"version":1,"command":"lock","timeout_ms":-5}\n')
        assert ask(b'{"version":1,"command":"lock"}\n') == '{"version":1,"ok":true}\n'
        assert '"status":1' in ask(b'{"version":1,"command":"unlock","key":7}\n')
        assert ask(b'{"version":1,"command":"unlock"}\n') == '{"version":1,"ok":true}\n'
