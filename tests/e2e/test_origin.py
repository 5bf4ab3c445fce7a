# SPDX-License-Identifier: MIT
"""The table "What each idea of the origin becomes" of the design: what can be read in which state, one test a row.

Rows about tickets (kAFS's token in the file, network namespaces) are tested with that lower. Where a row holds for volumes without a key too, it is tested with both formats.
"""
import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path

import containers
import pytest
from fscrypt import ABSENT, PRESENT, SET_POLICY, key_status, opened, policy
from locked import MARK, outcome, scan
from manager import PASSPHRASE, SOURCE, Key, join_session, keyctl, refusal, wait_for_lock, wait_for_unlock
from support import DONE, NO_KEY, UID, WRONG_KEY, Gocryptfs, as_user, child, errno_of, forms, run
from test_containers import PROBE, container_with_keyctl


@contextlib.contextmanager
def volume_of(ck, kind, **options):
    """A mounted volume of that format, with a file in it, that everybody may use; -> where it is mounted"""
    if kind == "plain":
        ck.plain("web", passthrough="no", **options)
    else:
        ck.volume("web", **options)
    with ck.mounted("web") as mnt:
        mnt.chmod(0o777)
        (mnt / "f").write_bytes(b"content\n")
        (mnt / "f").chmod(0o666)
        yield mnt


class Inside:
    """A shell in a container, which is told commands."""

    def __init__(self, stack, ck, mnt):
        argv = containers.runtime("crun", ck.dir).argv(
            mnt, 'exec 3<>/vol/f; while read c; do eval "$c" 2>&1; echo "status $?"; done')
        self.process = stack.enter_context(child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        lines = []
        while not lines or not lines[-1].startswith("status "):
            lines.append(self.process.stdout.readline().decode().rstrip("\n"))
            assert lines[-1], "it lives"
        return lines

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


both_formats = pytest.mark.parametrize("kind", ["gocryptfs", "plain"])


def test_the_manager_attaches_a_keyring_to_a_container(ck, key):
    """Its own ring by serial: the container reads by a key that is neither its own nor in a ring it has."""
    ring = keyctl("newring", "handed", "@s")
    keyctl("move", key.serial, "@s", ring)
    with volume_of(ck, "gocryptfs", key=SOURCE, keyring=ring) as mnt, contextlib.ExitStack() as stack:
        inside = Inside(stack, ck, mnt)
        assert inside.tell("cat /vol/f") == ["content", "status 0"]
        state = ck.state()
        assert state["keyring"] not in (0, int(ring)) and state["key_source"] == SOURCE
        assert keyctl("describe", state["keyring"], check=False) == "", "anonymous, and for possessors only: not even root sees it"
        keyctl("clear", ring)
        wait_for_lock(mnt / "f")
        assert inside.tell("cat /vol/f")[-1] == "status 1"
        inside.end()


def test_request_key_in_the_kernel_finds_those_keys_when_a_file_system_needs_them(ck, key, fs):
    """ext4 looks for the key of a policy of version 1 in the session keyring of whoever opens a file: that is the mount's."""
    source, descriptor, raw = fs.make(), os.urandom(8), os.urandom(64)
    with opened(source) as fd:
        fcntl.ioctl(fd, SET_POLICY, struct.pack("<BBBB8s", 0, 1, 4, 0, descriptor))
    keyctl("padd", "logon", f"fscrypt:{descriptor.hex()}", "@s", data=struct.pack("<I64sI", 1, raw, 64))
    ck.configure("volume web", source=source, format="plain", passthrough="no", keyring="inherit")
    with ck.mounted("web") as mnt:
        join_session()
        assert errno_of(open, source / "f", "x") == "ENOKEY", "the file system has no key, and who tests has none any more"
        (mnt / "f").write_text("by the mount's key")
        run("sync")
        Path("/proc/sys/vm/drop_caches").write_text("3")
        assert (mnt / "f").read_text() == "by the mount's key"


def test_ext4_f2fs_ubifs_encryption_claims_counted_across_mounts(ck, fs):
    """The kernel has the key as long as one of the mounts uses it, and not longer."""
    spec = f"file:{ck.key_file(os.urandom(64), name='raw')}?fmt=raw"
    names = ("one", "two")
    for name in names:
        ck.run("init", "--lower", "fscrypt", fs.make(name), "--key", spec, status=DONE)
        ck.configure(f"volume {name}", source=fs.dir / name, lower="fscrypt", key=spec)
        (ck.dir / f"mnt-{name}").mkdir()
    ident = policy(fs.dir / "one")[4]
    assert key_status(fs.dir, ident)[0] == ABSENT
    for name in names:
        ck.mount(name, ck.dir / f"mnt-{name}")
        (ck.dir / f"mnt-{name}" / "f").write_text(name)
    ck.umount("one")
    assert key_status(fs.dir, ident)[0] == PRESENT and (ck.dir / "mnt-two" / "f").read_text() == "two"
    ck.run("lock", "two", status=DONE)
    assert key_status(fs.dir, ident)[0] == ABSENT and errno_of(os.listdir, ck.dir / "mnt-two") == "ENOKEY"
    ck.umount("two")


@both_formats
def test_no_active_role_for_processes_in_the_container(ck, kind):
    """It reads and writes as ever; when it is locked it is refused, and after that the same descriptor goes on."""
    with volume_of(ck, kind) as mnt, contextlib.ExitStack() as stack:
        inside = Inside(stack, ck, mnt)
        assert inside.tell("cat /vol/f; echo more >> /vol/f") == ["content", "status 0"]
        ck.run("lock", "web", status=DONE)
        assert inside.tell("cat <&3")[-1] == inside.tell("cat /vol/f")[-1] == "status 1"
        ck.run("unlock", "web", status=DONE)
        assert inside.tell("cat <&3") == ["content", "more", "status 0"]
        inside.end()


def test_the_manager_keeps_control_and_can_update_keys(ck, key):
    """Renewed in time, the container never notices; taken away, it does; given back, it goes on."""
    with volume_of(ck, "gocryptfs", key=SOURCE, keyring="inherit") as mnt, contextlib.ExitStack() as stack:
        inside = Inside(stack, ck, mnt)
        key.timeout(2)
        first = ck.state()["expires"]
        for _ in range(3):
            key.update()
            key.timeout(100)
            assert inside.tell("cat /vol/f") == ["content", "status 0"]
        assert ck.state()["expires"] > first and ck.state()["state"] == "unlocked"
        key.revoke()
        wait_for_lock(mnt / "f")
        assert inside.tell("cat /vol/f")[-1] == "status 1"
        key.add()
        wait_for_unlock(mnt / "f")
        assert inside.tell("cat <&3") == ["content", "status 0"]
        inside.end()


def test_keys_must_grant_search_to_the_container(ck, key):
    """Here: to the mount. It is told when it is mounted, and when it is taken away later."""
    ck.volume(key=SOURCE, keyring="inherit")
    keyctl("setperm", key.serial, "0x37000000")
    done = ck.run("mount", "web", ck.mnt, status=NO_KEY)
    assert done.stderr == f'ckrfs: cannot mount "web": the key in {SOURCE} does not grant Search\n'
    keyctl("unlink", key.serial, "@s")
    key.add()
    with ck.mounted() as mnt:
        (mnt / "f").touch()
        keyctl("setperm", key.serial, "0x37000000")
        wait_for_lock(mnt / "f")


def test_userspace_request_key_does_not_see_the_container_keyring(ck, key):
    """keyctl in the container finds, reads, links and changes nothing of the manager's or the mount's."""
    key.unlink()
    key.description = "ckrfs-e2e-web"
    ring = keyctl("newring", "handed", "@s")
    serial = keyctl("padd", "user", key.description, ring, data=PASSPHRASE)
    for s in (serial, ring):
        keyctl("setperm", s, "0x3f000000")
    with volume_of(ck, "gocryptfs", key=f"keyring:user:{key.description}", keyring=ring) as mnt:
        inside = container_with_keyctl("crun", ck)
        said = containers.run_in(inside, mnt, f"SERIALS='{ring} {serial} {ck.state()['keyring']}'\n" + PROBE)
        assert said.split() == ["looked"]


@pytest.mark.parametrize("search", ["first", "last"])
def test_flag_to_search_the_container_keyring_first_or_last(ck, key, search):
    """What is in the manager's ring alone is found either way; with both: test_life.py."""
    with volume_of(ck, "gocryptfs", key=SOURCE, keyring="inherit", keyring_search=search) as mnt:
        assert (mnt / "f").read_bytes() == b"content\n"


@both_formats
def test_ability_to_use_keys_is_the_locked_state_of_the_files(ck, kind):
    """One state, one answer: root, a user, who has it open, who has keys of his own, a container."""
    with volume_of(ck, kind) as mnt, contextlib.ExitStack() as stack:
        inside = Inside(stack, ck, mnt)
        opened = stack.enter_context((mnt / "f").open("rb", buffering=0))
        readers = {
            "root": lambda: outcome(lambda: (mnt / "f").read_bytes(), 0),
            "user": lambda: outcome(lambda: (mnt / "f").read_bytes(), UID),
            "descriptor": lambda: outcome(lambda: os.pread(opened.fileno(), 10, 0), 0),
            "who has the key": lambda: outcome(lambda: (join_session(), Key(), (mnt / "f").read_bytes()), 0),
        }
        for command, expected, status in ((None, 0, 0), ("lock", errno.ENOKEY, 1), ("unlock", 0, 0), ("lock", errno.ENOKEY, 1),
                                          ("unlock", 0, 0)):
            if command:
                ck.run(command, "web", status=DONE)
            assert {who: read() for who, read in readers.items()} == {who: expected for who in readers}
            assert inside.tell("cat /vol/f")[-1] == f"status {status}"
        inside.end()


@both_formats
def test_a_removed_key_is_wiped_and_the_files_locked_efficiently(ck, kind):
    """After the lock neither contents nor key are in the mount's processes (in depth: test_lock.py), nor in the page cache."""
    with volume_of(ck, kind) as mnt:
        (mnt / "g").write_bytes(MARK * 1000)
        assert (mnt / "g").read_bytes() == MARK * 1000
        secrets = [MARK]
        if kind == "gocryptfs":
            secrets += [PASSPHRASE, *sorted(forms(Gocryptfs(ck.dir / "cipher").master_key()))]
        state = ck.state()
        ck.run("lock", "web", status=DONE)
        assert scan(ck, secrets, [state["server_pid"], state["keeper_pid"]]) == []
        assert outcome(lambda: (mnt / "g").read_bytes(), 0) == errno.ENOKEY
        ck.run("unlock", "web", status=DONE)
        assert (mnt / "g").read_bytes() == MARK * 1000


def test_non_root_use_with_limits_keys_identified_by_hash_proof_of_knowledge(ck):
    """The owner locks, others cannot; the identifier is the same for the same key only; a key must open the volume to count."""
    other = ck.dir / "mnt2"
    other.mkdir()
    ck.volume("two", cipher=ck.dir / "cipher2")
    with volume_of(ck, "gocryptfs", owner=UID) as mnt, ck.mounted("two", other):
        first, second = ck.state()["key_identifier"], ck.state(other)["key_identifier"]
        assert first != second and len(first) == len(second) == 32
        control = ck.runtime / "mounts" / "web" / "control"

        def refused():
            with socket.socket(socket.AF_UNIX) as s:
                with pytest.raises(PermissionError):
                    s.connect(str(control))

        as_user(refused, uid=UID + 1)
        as_user(lambda: ck.run("lock", "web", status=DONE))
        assert refusal(mnt / "f") == errno.ENOKEY
        ck.run("unlock", "web", "--key", f"file:{ck.key_file('guess', 'guess')}", status=WRONG_KEY)
        assert refusal(mnt / "f") == errno.ENOKEY
        as_user(lambda: ck.run("unlock", "web", status=DONE))
        assert ck.state()["key_identifier"] == first
    with ck.mounted("web"):
        assert ck.state()["key_identifier"] == first
