# SPDX-License-Identifier: MIT
"""ckrfs key: every action against real mounts and the real gocryptfs, crashes and hostile files."""
import json
import os
import random
import signal
import stat
import subprocess
import threading
import time

import pytest
from support import (DONE, FAILED, NO_KEY, NO_VOLUME, UNSUPPORTED, USAGE, WRONG_KEY, child, errno_of, forms,
                     run)

OLD, NEW, THIRD = "correct horse", "battery staple", "a third passphrase"
SLOTS, SLOTS_TMP = "gocryptfs.longname.ckrfs-keys.name", "gocryptfs.longname.ckrfs-keys.tmp.name"
CONF, CONF_TMP = "gocryptfs.conf", "gocryptfs.conf.tmp"


class Keys:
    """One volume and the commands on its keys. options: those of gocryptfs -init"""

    def __init__(self, ck, *options):
        self.ck = ck
        self.volume = ck.volume(passphrase=OLD, init=False).init(*options)
        ck.keep_secret(self.volume.master_key())
        self.cipher = self.volume.cipher
        self.specs = {}
        for text in (OLD, NEW, THIRD):
            self.specs[text] = f"file:{ck.key_file(text, name=text.split()[0])}"
        ck.keep_secret(OLD, NEW, THIRD)

    def raw(self, name="raw", content=None):
        """A random key of 32 bytes; -> its specification"""
        key = content or os.urandom(32)
        self.ck.keep_secret(key)
        return f"file:{self.ck.key_file(key, name=name)}?fmt=raw"

    def spec(self, key):
        return self.specs.get(key, key)

    def argv(self, action, *args, key=None, new=None):
        more = (["--key", self.spec(key)] if key else []) + (["--new-key", self.spec(new)] if new else [])
        more += ["--scrypt-n", "10"] if new else []
        return ["--config", self.ck.conf, action, self.cipher, *args, *more]

    def __call__(self, action, *args, key=None, new=None, status=DONE, **kw):
        return self.ck.run("key", *self.argv(action, *args, key=key, new=new), status=status, **kw)

    def change(self, key, new, **kw):
        return self("change", key=key, new=new, **kw)

    def add(self, name, new, key=OLD, **kw):
        return self("add", name, key=key, new=new, **kw)

    def remove(self, name, key=OLD, **kw):
        return self("remove", name, key=key, **kw)

    def list(self):
        return json.loads(self("list", "--json").stdout)

    def names(self):
        return sorted(k["name"] for k in self.list()["keys"])

    def opens(self, key):
        """Does the key open the volume? By the exit status of verify: anything else is a failure of the test."""
        done = self("verify", key=key, status=None)
        assert done.returncode in (DONE, WRONG_KEY), done.stderr
        return done.returncode == DONE

    def mount(self, key, **kw):
        self.ck.volume(passphrase=OLD, init=False, key=self.spec(key))
        return self.ck.mounted(**kw)

    def mount_fails(self, key, status=WRONG_KEY):
        self.ck.volume(passphrase=OLD, init=False, key=self.spec(key))
        return self.ck.run("mount", "web", self.ck.mnt, status=status).stderr

    def entries(self):
        return sorted(p.name for p in self.cipher.iterdir())


@pytest.fixture
def keys(ck):
    return Keys(ck)


def gocryptfs_opens(keys, passphrase):
    """Does the real gocryptfs take this passphrase?"""
    done = run("gocryptfs", "-q", "-fsck", "-extpass", "echo " + passphrase, keys.cipher, check=False)
    assert done.returncode in (0, 12), done.stderr
    assert passphrase.encode() not in done.stdout + done.stderr
    return done.returncode == 0


# ---- change

def test_change(keys):
    with keys.mount(OLD) as at:
        (at / "f").write_text("kept")
    before = keys.list()
    mode = (keys.cipher / CONF).stat().st_mode
    done = keys.change(OLD, NEW)
    assert "copies of the old gocryptfs.conf" in done.stdout
    assert not gocryptfs_opens(keys, OLD) and gocryptfs_opens(keys, NEW)
    keys.mount_fails(OLD)
    with keys.mount(NEW) as at:
        assert (at / "f").read_text() == "kept"
    assert (keys.cipher / CONF).stat().st_mode == mode == stat.S_IFREG | 0o400
    assert not {CONF_TMP, SLOTS, SLOTS_TMP} & set(keys.entries())
    assert keys.list() == before


def test_change_keeps_master_key_flags_and_cost(keys):
    def public():
        conf = json.loads((keys.cipher / CONF).read_text())
        return conf["FeatureFlags"], conf["Version"], conf["Creator"], conf["ScryptObject"]["N"]

    master, before, salt = keys.volume.master_key(), public(), (keys.cipher / CONF).read_text()
    keys("change", key=OLD, new=NEW)
    keys.volume.passphrase = NEW
    assert keys.volume.master_key() == master
    assert public() == before
    assert json.loads(salt)["ScryptObject"]["Salt"] not in (keys.cipher / CONF).read_text()
    keys.ck.run("key", "change", "--scrypt-n=12", keys.cipher, "--key", keys.spec(NEW), "--new-key", keys.spec(OLD),
                status=DONE)
    assert public()[3] == 1 << 12


def test_change_with_wrong_key_changes_nothing(keys):
    before = (keys.cipher / CONF).read_bytes()
    done = keys.change(NEW, THIRD, status=WRONG_KEY)
    assert done.stderr == f'ckrfs: cannot change the passphrase of "{keys.cipher}": wrong passphrase\n'
    keys.change(OLD, "file:/nonexistent", status=NO_KEY)
    assert (keys.cipher / CONF).read_bytes() == before and CONF_TMP not in keys.entries()


def test_change_of_a_mounted_volume(keys):
    with keys.mount(OLD) as at:
        keys.change(OLD, NEW)
        keys.add("third", THIRD, key=NEW)
        (at / "f").write_text("written after it")
    with keys.mount(THIRD) as at:
        assert (at / "f").read_text() == "written after it"


KINDS = {"plaintextnames": ["-plaintextnames"], "aessiv": ["-aessiv"], "xchacha": ["-xchacha"],
         "deterministic": ["-deterministic-names"], "longnamemax": ["-longnamemax", "100"]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_volume(ck, kind):
    """Nothing but the wrapped key changes in gocryptfs.conf; slots where gocryptfs hides their file."""
    keys = Keys(ck, *KINDS[kind])
    with keys.mount(OLD) as at:
        (at / ("n" * 150)).write_text("kept")
    before = json.loads((keys.cipher / CONF).read_text())
    keys.change(OLD, NEW)
    after = json.loads((keys.cipher / CONF).read_text())
    assert before.pop("EncryptedKey") != after.pop("EncryptedKey")
    assert before["ScryptObject"].pop("Salt") != after["ScryptObject"].pop("Salt")
    before["FeatureFlags"].sort(), after["FeatureFlags"].sort()
    assert before == after
    assert gocryptfs_opens(keys, NEW) and not gocryptfs_opens(keys, OLD)
    if kind == "plaintextnames":
        assert "a volume with plain names has one key" in keys.add("third", THIRD, key=NEW, status=UNSUPPORTED).stderr
        (keys.cipher / SLOTS).write_text("somebody's own file: no slots are read here")
        assert keys.list()["keys"] == []
        with keys.mount(NEW) as at:
            assert sorted(p.name for p in at.iterdir()) == sorted([SLOTS, "n" * 150])
        return
    keys.add("third", THIRD, key=NEW)
    assert gocryptfs_opens(keys, NEW)
    with keys.mount(THIRD) as at:
        assert [p.name for p in at.iterdir()] == ["n" * 150]
        assert (at / ("n" * 150)).read_text() == "kept"


def test_fido2_volume_keeps_its_token_and_takes_slots(keys):
    """What a token gives is a raw key for gocryptfs.conf; the bytes are the passphrase here."""
    secret = b"s" * 40
    spec = keys.raw(content=secret)
    keys.specs[secret.decode()] = f"file:{keys.ck.key_file(secret, name='text')}"
    keys.change(OLD, secret.decode())
    conf = json.loads((keys.cipher / CONF).read_text())
    conf["FeatureFlags"].append("FIDO2")
    conf["FIDO2"] = {"CredentialID": "AAAA", "HMACSalt": "A" * 43 + "=", "AssertOptions": ["pin=true"]}
    (keys.cipher / CONF).chmod(0o600)
    (keys.cipher / CONF).write_text(json.dumps(conf))
    before = (keys.cipher / CONF).read_bytes()
    assert "has no passphrase to change" in keys.change(spec, NEW, status=UNSUPPORTED).stderr
    keys.add("without token", THIRD, key=spec, status=USAGE)
    keys.add("spare", THIRD, key=spec)
    assert keys.opens(THIRD) and keys.opens(spec)
    keys.remove("spare", key=spec)
    assert (keys.cipher / CONF).read_bytes() == before


def test_change_refuses_a_raw_key(keys):
    done = keys.change(OLD, keys.raw(), status=UNSUPPORTED)
    assert "gocryptfs.conf takes a passphrase only" in done.stderr


def test_change_with_the_master_key_says_that_it_stays(keys):
    spec = keys.raw(content=keys.volume.master_key())
    with keys.mount(OLD) as at:
        (at / "f").write_text("x")
    assert "is the master key itself" in keys.change(spec, NEW).stdout
    assert keys.opens(NEW) and keys.opens(spec) and not keys.opens(OLD)


def test_change_of_a_volume_made_with_a_raw_key(ck):
    key = os.urandom(32)
    ck.keep_secret(key)
    cipher = ck.dir / "made"
    cipher.mkdir()
    raw = f"file:{ck.key_file(key, name='raw')}?fmt=raw"
    digits = f"file:{ck.key_file(key.hex(), name='digits')}"
    new = f"file:{ck.key_file(NEW, name='new')}"
    ck.run("init", cipher, "--key", raw, status=DONE)
    done = ck.run("key", "change", cipher, "--key", digits, "--new-key", new, status=DONE)
    assert "is the master key itself" in done.stdout
    for spec, status in ((raw, DONE), (new, DONE), (digits, WRONG_KEY)):
        ck.run("key", "verify", cipher, "--key", spec, status=status)


def test_leftover_of_a_crash_does_not_block(keys):
    (keys.cipher / CONF_TMP).write_text("half a conf")
    (keys.cipher / SLOTS_TMP).symlink_to("/etc/passwd")
    keys.change(OLD, NEW)
    keys.add("third", THIRD, key=NEW)
    assert not {CONF_TMP, SLOTS_TMP} & set(keys.entries())
    (keys.cipher / CONF_TMP).mkdir()
    keys.change(NEW, OLD)
    (keys.cipher / CONF_TMP).mkdir()
    (keys.cipher / CONF_TMP / "x").mkdir()
    done = keys.change(OLD, NEW, status=FAILED)
    assert 'cannot remove the leftover "gocryptfs.conf.tmp"' in done.stderr
    assert keys.opens(OLD) and keys.opens(THIRD)


# ---- slots

def test_slots_open_mounts(keys):
    raw = keys.raw()
    keys.add("third", THIRD)
    keys.add("hsm.1", raw, key=THIRD)
    assert keys.names() == ["hsm.1", "third"]
    with keys.mount(OLD) as at:
        (at / "f").write_text("the same files")
        identifier = keys.ck.state()["key_identifier"]
    for key in (THIRD, raw, OLD):
        with keys.mount(key) as at:
            assert (at / "f").read_text() == "the same files"
            assert keys.ck.state()["key_identifier"] == identifier
    assert keys.list()["key_identifier"] == identifier


def test_removed_slot_opens_nothing(keys):
    raw = keys.raw()
    keys.add("third", THIRD)
    keys.add("raw", raw)
    keys.remove("third", key=raw)
    keys.mount_fails(THIRD)
    keys.remove("raw", key=raw)
    # An empty volume takes any master key, but not this one.
    assert "neither in a key slot nor the master key" in keys.mount_fails(raw)
    assert keys.names() == []
    with keys.mount(OLD):
        pass
    done = keys.remove("raw", status=FAILED)
    assert done.stderr == f'ckrfs: cannot remove a key of "{keys.cipher}": there is no key "raw"\n'


def test_removing_needs_a_key(keys):
    keys.add("third", THIRD)
    keys.remove("third", key=NEW, status=WRONG_KEY)
    keys.ck.run("key", "remove", keys.cipher, "third", status=NO_KEY)
    assert keys.names() == ["third"]


def test_the_config_is_no_slot(keys):
    keys.remove("(gocryptfs.conf)", status=USAGE)
    keys.remove("gocryptfs.conf", status=FAILED)
    assert keys.opens(OLD)


def test_slot_survives_a_change(keys):
    keys.add("third", THIRD)
    keys.change(THIRD, NEW)
    assert [keys.opens(k) for k in (OLD, NEW, THIRD)] == [False, True, True]


def test_same_name_twice(keys):
    keys.add("third", THIRD)
    done = keys.add("third", NEW, status=FAILED)
    assert 'there is a key "third" already' in done.stderr
    assert not keys.opens(NEW)


def test_list(keys):
    assert keys.list() == {"key_identifier": "-", "keys": []}
    keys.add("third", THIRD)
    keys.add("raw", keys.raw())
    third, raw = keys.list()["keys"]
    assert (third["name"], third["kind"], third["scrypt_n"]) == ("third", "passphrase", 10)
    assert (raw["name"], raw["kind"], raw["scrypt_n"]) == ("raw", "key", 0)
    assert len({third["identifier"], raw["identifier"]}) == 2 and len(raw["identifier"]) == 32
    assert abs(third["created"] - time.time()) < 3600
    lines = keys("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "(gocryptfs.conf)", "third", "raw"]


def test_verify(keys):
    raw = keys.raw()
    keys.add("third", THIRD)
    keys.add("raw", raw)
    identifier = keys.list()["key_identifier"]
    for key, way in ((OLD, "passphrase of gocryptfs.conf"), (THIRD, 'key slot "third"'), (raw, 'key slot "raw"')):
        assert keys("verify", key=key).stdout == f"the key opens the volume: {way}\nkey identifier: {identifier}\n"
    keys("verify", key=NEW, status=WRONG_KEY)
    keys("verify", key="file:/nonexistent", status=NO_KEY)


def test_volume_of_the_configuration(keys):
    config = ["--config", keys.ck.conf]
    keys.ck.run("key", *config, "verify", "web", status=DONE)
    keys.ck.run("key", *config, "add", "web", "third", "--new-key", keys.spec(THIRD), status=DONE)
    assert keys.names() == ["third"]
    keys.ck.run("key", *config, "verify", "nothing", status=NO_VOLUME)
    keys.ck.run("key", "list", "/nonexistent/volume", status=NO_VOLUME)


def test_plain_volume_has_no_keys(ck):
    ck.plain()
    done = ck.run("key", "--config", ck.conf, "list", "plain", status=UNSUPPORTED)
    assert 'a volume of the format "plain" has no key' in done.stderr


@pytest.mark.parametrize("args, words", [
    ([], "an action is needed"), (["eat"], 'unknown action "eat"'), (["list"], "list needs one volume"),
    (["add", "/x"], "add needs a volume and the name"), (["change", "/x"], "change needs --new-key"),
    (["list", "/x", "--key", "file:/k"], "list takes no --key"),
    (["verify", "/x", "--new-key", "file:/k"], "verify takes no --new-key"),
    (["add", "/x", "a b", "--new-key", "file:/k"], '"a b" is not a name'),
    (["add", "/x", "y" * 65, "--new-key", "file:/k"], "is not a name"),
    (["verify", "/x", "--json"], "verify takes no --json"),
    (["add", "/x", "y", "--new-key", "file:/k", "--scrypt-n", "9"], "--scrypt-n must be 10 to 28")])
def test_usage(ck, args, words):
    done = ck.run("key", *args, status=USAGE)
    assert words in done.stderr and "try: ckrfs key --help" in done.stderr


# ---- the slots file is nobody's file

def test_gocryptfs_ignores_the_slots(keys):
    keys.add("third", THIRD)
    keys.volume.fsck()
    with keys.volume.mounted(keys.ck.dir / "peer") as peer:
        assert list(peer.iterdir()) == []
        (peer / "f").write_text("x")
    keys.volume.fsck()
    assert keys.opens(THIRD)


def test_nobody_in_the_mount_reaches_the_slots(keys):
    keys.add("third", THIRD)
    before = (keys.cipher / SLOTS).read_bytes()
    with keys.mount(OLD) as at:
        assert list(at.iterdir()) == []
        for name in (SLOTS, SLOTS_TMP):
            assert errno_of(os.stat, at / name) == "ENOENT"
            assert errno_of(os.unlink, at / name) == "ENOENT"
            (at / name).write_text("a file of this name is an ordinary one")
            assert sorted(p.name for p in at.iterdir()) == [name]
            os.rename(at / name, at / "other")
            os.unlink(at / "other")
        assert (keys.cipher / SLOTS).read_bytes() == before
        assert SLOTS_TMP not in keys.entries()


# ---- damage and hostile files

def plant(path, kind):
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    elif path.exists() or path.is_symlink():
        path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 1 << 30)
    elif kind == "depth bomb":
        path.write_text("[" * 60000)
    elif kind == "objects":
        path.write_text('{"a":' * 10000)
    else:
        path.write_text(kind)


HOSTILE = ["fifo", "symlink", "directory", "sparse", "depth bomb", "objects", "not JSON at all", "", "{}",
           '{"Version": 1, "Volume": "' + "0" * 32 + '", "Slots": ' + json.dumps(list(range(33))) + "}"]


def test_hostile_slots_file(keys):
    raw = keys.raw()
    for kind in HOSTILE:
        plant(keys.cipher / SLOTS, kind)
        with keys.mount(OLD):
            pass
        for key in (NEW, raw):
            assert "the key slots cannot be read" in keys.mount_fails(key, status=FAILED), kind
        assert SLOTS in keys("list", status=FAILED).stderr
        assert SLOTS in keys.add("third", THIRD, status=FAILED).stderr
    assert SLOTS in keys.remove("third", status=FAILED).stderr
    keys.change(OLD, NEW)
    assert keys.opens(NEW)


def test_hostile_config(keys):
    for kind in HOSTILE[:7]:
        plant(keys.cipher / CONF, kind)
        for done in (keys("verify", key=OLD, status=FAILED), keys.change(OLD, NEW, status=FAILED)):
            assert CONF in done.stderr, kind


def test_slots_of_another_volume(keys, tmp_path):
    keys.add("third", THIRD)
    foreign = (keys.cipher / SLOTS).read_bytes()
    for p in keys.cipher.iterdir():
        p.unlink()
    keys.volume.init()
    keys.ck.keep_secret(keys.volume.master_key())
    with keys.mount(OLD) as at:
        (at / "f").write_text("x")
    (keys.cipher / SLOTS).write_bytes(foreign)
    assert "decrypts none of the volume's files" in keys.mount_fails(THIRD)
    assert "belongs to another master key" in keys.add("new", NEW, status=FAILED).stderr
    assert keys.opens(OLD)


def test_slots_that_cost_too_much_are_left_out(keys):
    keys.add("third", THIRD)
    text = (keys.cipher / SLOTS).read_text()
    (keys.cipher / SLOTS).chmod(0o600)
    (keys.cipher / SLOTS).write_text(text.replace('"N": 1024', f'"N": {1 << 28}'))
    done = keys("verify", key=NEW, status=UNSUPPORTED)
    assert "1 were not" in done.stderr and "scrypt-memory" in done.stderr
    assert keys.opens(OLD)


# ---- crashes and others at the same time

@pytest.mark.parametrize("call, times", [("openat2", 7), ("write", 3), ("fsync", 4), ("renameat2", 2), ("unlinkat", 3),
                                         ("flock", 3)])
def test_kill_leaves_one_key_that_opens(keys, call, times):
    """Killed before each of these system calls: the volume opens with the old passphrase, or with the new one."""
    keys.add("third", THIRD)
    held, other, died = OLD, NEW, 0
    for when in range(1, times + 1):
        done = run("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                   f"inject={call}:signal=KILL:when={when}",
                   *keys.ck.argv("key", *keys.argv("change", key=held, new=other)), check=False, env=keys.ck.env)
        died += done.returncode != DONE
        if not keys.opens(held):
            held, other = other, held
            assert keys.opens(held)
    assert died, "nothing was killed"
    assert keys.opens(THIRD)
    keys.change(held, other)
    assert CONF_TMP not in keys.entries()
    assert not keys.opens(held) and gocryptfs_opens(keys, other)


def test_kill_at_random_times(keys):
    draw = random.Random(1)
    with_third = False
    for _ in range(12):
        action = "remove" if with_third else "add"
        argv = keys.argv(action, "third", key=OLD, new=None if with_third else THIRD)
        with child(keys.ck.argv("key", *argv), env=keys.ck.env, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL) as p:
            try:
                p.wait(draw.uniform(0, 0.06))
            except subprocess.TimeoutExpired:
                p.send_signal(signal.SIGKILL)
        assert keys.opens(OLD)
        with_third = keys.opens(THIRD)
        assert keys.names() == (["third"] if with_third else [])


def test_two_at_once(keys):
    """Every one of them gets its slot: none overwrites what another wrote meanwhile."""
    statuses = []
    specs = {f"k{i}": keys.raw(name=f"raw{i}") for i in range(6)}

    def add(name):
        statuses.append(subprocess.run(keys.ck.argv("key", *keys.argv("add", name, key=OLD, new=specs[name])),
                                       env=keys.ck.env, capture_output=True, timeout=100).returncode)

    threads = [threading.Thread(target=add, args=[name]) for name in specs]
    for t in threads:
        t.start()
    keys.change(OLD, OLD)
    for t in threads:
        t.join()
    assert statuses == [DONE] * 6
    assert keys.names() == sorted(specs)
    assert all(keys.opens(spec) for spec in specs.values())


# ---- whose files, and no key anywhere

def test_root_leaves_a_users_files_to_the_user(keys):
    for path in (keys.cipher, *keys.cipher.iterdir()):
        os.chown(path, 1000, 1001)
    keys.change(OLD, NEW)
    keys.add("third", THIRD, key=NEW)
    for name in (CONF, SLOTS):
        st = (keys.cipher / name).stat()
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (1000, 1001, 0o400)


def test_keys_are_nowhere(keys):
    """Not in what strace sees the commands write, nor in argv and environment, nor in the volume's files."""
    raw = os.urandom(32)
    spec, master = keys.raw(content=raw), keys.volume.master_key()
    trace = keys.ck.dir / "trace"
    for argv in (keys.argv("add", "raw", key=OLD, new=spec), keys.argv("change", key=spec, new=NEW),
                 keys.argv("verify", key=spec), keys.argv("remove", "raw", key=spec)):
        run("strace", "-f", "-qq", "-v", "-xx", "-s", "100000", "-e", "trace=execve,write,pwrite64,writev,sendmsg,add_key",
            "-a", "1", "-o", trace, *keys.ck.argv("key", *argv), env=keys.ck.env)
        text = trace.read_text().replace("\\x", "")
        assert b"key".hex() in text
        files = b"".join(p.read_bytes() for p in keys.cipher.iterdir() if p.is_file())
        for secret in (raw, master, OLD.encode(), NEW.encode()):
            assert not [form for form in forms(secret) if form.hex() in text or form in files]
