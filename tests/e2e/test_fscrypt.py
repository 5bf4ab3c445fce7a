# SPDX-License-Identifier: MIT
"""lower = fscrypt: directories that their file system encrypts, with keys that the kernel holds. test_fscrypt_life.py has
what becomes of the key in the kernel."""
import fcntl
import os
import signal
from pathlib import Path

import pytest
from fscrypt import (ABSENT, ADD, GET_POLICY_EX, PRESENT, REMOVE, SET_POLICY, STATUS, Encrypting, add_key, directory,
                     gocryptfs_inside, identifier, key_status, left_in_keys, policy, raw_key, remove_key, state_of)
from support import (BUSY, CONFIG, DONE, FAILED, NO_KEY, NO_VOLUME, TOOLS, UID, UNSUPPORTED, USAGE, WRONG_KEY, alive,
                     errno_of, forms, run, wait_until)

PASSPHRASE = "a passphrase of fscrypt"


# ---- the fscrypt tool makes, ckrfs mounts

@pytest.mark.parametrize("version", [2, 1])
def test_passphrase_of_the_tool_mounts(ck, fs, version):
    ck.keep_secret(PASSPHRASE)
    enc = fs.make()
    fs.setup()
    fs.encrypt(enc, PASSPHRASE, version=version, parallelism=2)
    (enc / "by the tool").write_text("hello")
    fs.lock(enc)
    ck.configure("volume v", source=enc, lower="fscrypt", key=f"file:{ck.key_file(PASSPHRASE)}")
    with ck.mounted("v") as at:
        assert (at / "by the tool").read_text() == "hello"
        (at / "by ckrfs").write_text("back")
        state = ck.state()
        assert (state["lower"], state["format"], state["key_identifier"]) == ("fscrypt", "plain", policy(enc)[4].hex())
    assert fs.is_locked(enc)
    fs.unlock(enc, PASSPHRASE)
    assert (enc / "by ckrfs").read_text() == "back"


def test_raw_key_of_the_tool_mounts(ck, fs):
    key, spec = raw_key(ck, size=32)
    enc = fs.make()
    fs.setup()
    fs.encrypt(enc, key_file=ck.dir / "raw")
    (enc / "f").write_text("hello")
    fs.lock(enc)
    ck.configure("volume v", source=enc, lower="fscrypt", key=spec)
    with ck.mounted("v") as at:
        assert (at / "f").read_text() == "hello"
    assert fs.is_locked(enc)


def test_second_protector_of_the_tool_mounts(ck, fs):
    key, spec = raw_key(ck, size=32)
    ck.keep_secret(PASSPHRASE)
    enc, other = fs.make(), fs.make("other")
    fs.setup()
    fs.encrypt(enc, PASSPHRASE)
    fs.encrypt(other, key_file=ck.dir / "raw")
    protector = next(p.name for p in (fs.dir / ".fscrypt/protectors").iterdir()
                     if p.stat().st_mtime_ns == max(q.stat().st_mtime_ns for q in (fs.dir / ".fscrypt/protectors").iterdir()))
    fs.tool("metadata", "add-protector-to-policy", f"--protector={fs.dir}:{protector}",
            f"--policy={fs.dir}:{policy(enc)[4].hex()}", f"--unlock-with={fs.dir}:{protector}", check=False,
            passphrase=PASSPHRASE)
    fs.lock(enc)
    fs.lock(other)
    ck.configure("volume v", source=enc, lower="fscrypt", key=f"file:{ck.key_file(PASSPHRASE)}")
    with ck.mounted("v"):
        assert not fs.is_locked(enc)
        assert fs.is_locked(other)


def test_wrong_passphrase(ck, fs):
    enc = fs.make()
    fs.setup()
    fs.encrypt(enc, PASSPHRASE)
    fs.lock(enc)
    ck.configure("volume v", source=enc, lower="fscrypt", key=f"file:{ck.key_file('not this one')}")
    done = ck.run("mount", "v", ck.mnt, status=WRONG_KEY)
    assert done.stderr == (f'ckrfs: cannot mount "v": wrong passphrase: no protector of source {enc} opens with it\n')
    assert fs.is_locked(enc)
    assert left_in_keys(ck) == []


def test_passphrase_without_metadata(ck, fs):
    enc, ident = directory(ck, fs)
    done = ck.run("mount", "enc", ck.mnt, "-o", f"key=file:{ck.key_file(PASSPHRASE)}", status=WRONG_KEY)
    assert f"there is no .fscrypt/policies/{ident.hex()}" in done.stderr
    assert state_of(fs, ident) == ABSENT


@pytest.mark.parametrize("damage", ["cut", "fifo", "symlink", "costs", "garbage", "large"])
def test_hostile_metadata_is_refused(ck, fs, damage):
    """The files belong to whoever may write to the file system: clear words, no hang."""
    enc = fs.make()
    fs.setup()
    fs.encrypt(enc, PASSPHRASE)
    fs.lock(enc)
    file = fs.dir / ".fscrypt/policies" / policy(enc)[4].hex()
    protector = next((fs.dir / ".fscrypt/protectors").iterdir())
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "garbage":
        protector.write_bytes(os.urandom(500))
    elif damage == "large":
        file.write_bytes(bytes(1 << 20))
    elif damage == "costs":  # the varint of 8192 KiB becomes one of a terabyte
        data = protector.read_bytes()
        at = data.index(b"\x18\x80\x40")
        length = data.rindex(b"\x22", 0, at) + 1
        data = data[:length] + bytes([data[length] + 3]) + data[length + 1:at] + b"\x18\x80\x80\x80\x80\x04" + data[at + 3:]
        protector.write_bytes(data)
    else:
        file.unlink()
        os.mkfifo(file) if damage == "fifo" else file.symlink_to("/dev/zero")
    ck.configure("volume v", source=enc, lower="fscrypt", key=f"file:{ck.key_file(PASSPHRASE)}")
    done = ck.run("mount", "v", ck.mnt, timeout=30)
    assert done.returncode == (WRONG_KEY if damage == "symlink" else FAILED), done.stderr
    words = {"costs": "takes more memory or time than is allowed", "symlink": "has no passphrase"}
    assert words.get(damage, "the metadata of source") in done.stderr
    assert fs.is_locked(enc)


# ---- ckrfs makes

def test_init_sets_a_policy_that_others_can_unlock(ck, fs):
    key, spec = raw_key(ck)
    path, ident = directory(ck, fs, spec=spec)
    assert policy(path) == (2, 1, 4, 3, identifier(key)), "AES-256-XTS, AES-256-CTS, names padded to 32"
    assert state_of(fs, ident) == ABSENT, "init does not leave the key behind"
    with ck.mounted("enc") as at:
        (at / "f").write_text("by ckrfs")
    assert not (path / "f").exists()
    add_key(fs.dir, key)
    assert (path / "f").read_text() == "by ckrfs"
    assert remove_key(fs.dir, ident) == 0


@pytest.mark.parametrize("options,want", [
    (["--contents", "adiantum", "--filenames", "adiantum", "--iv", "direct-key"], (2, 9, 9, 7)),
    (["--filenames", "aes-256-hctr2", "--padding", "4"], (2, 1, 10, 0)),
    (["--padding", "16", "--iv", "ino-lblk-64"], (2, 1, 4, 0x0a)),
    (["--contents", "aes-128-cbc", "--filenames", "aes-128-cts", "--padding", "8"], (2, 5, 6, 1)),
])
def test_init_options(ck, fs, options, want):
    _, spec = raw_key(ck)
    path = fs.make()
    done = ck.run("init", "--lower", "fscrypt", path, "--key", spec, *options)
    if done.returncode == UNSUPPORTED and "ino-lblk-64" in options:
        # mke2fs without the feature stable_inodes
        run("tune2fs", "-O", "stable_inodes", fs.loop())
        fs.mount()
        done = ck.run("init", "--lower", "fscrypt", path, "--key", spec, *options)
    assert done.returncode == DONE, done.stderr
    assert policy(path)[:4] == want


@pytest.mark.parametrize("args,status,words", [
    (["--key", "{raw}", "--padding", "5"], USAGE, "--padding must be 4, 8, 16 or 32"),
    (["--key", "{raw}", "--contents", "aes-256-xtc"], USAGE, "did you mean aes-256-xts?"),
    (["--key", "{raw}", "--cipher", "xchacha"], USAGE, "are about gocryptfs, not --lower fscrypt"),
    (["--key", "{pass}"], USAGE, "is no passphrase, but 32 to 64 bytes"),
    (["--key", "{short}"], NO_KEY, "a key of 31 bytes cannot be used"),
    (["--key", "{raw}", "--iv", "direct-key"], UNSUPPORTED, "does not have these modes together"),
    ([], NO_KEY, "no key source configured"),
])
def test_init_refuses(ck, fs, args, status, words):
    path = fs.make()
    key = {"raw": raw_key(ck)[1], "short": raw_key(ck, "short", 31)[1], "pass": f"file:{ck.key_file(PASSPHRASE, name='p')}"}
    done = ck.run("init", "--lower", "fscrypt", path, *[a.format(**key) for a in args], status=status)
    assert words in done.stderr
    assert policy(path) is None
    assert left_in_keys(ck) == []


def test_init_wants_an_empty_directory_without_a_policy(ck, fs):
    path, _ = directory(ck, fs)
    _, spec = raw_key(ck, "other")
    assert "is encrypted already" in ck.run("init", "--lower", "fscrypt", path, "--key", spec, status=FAILED).stderr
    full = fs.make("full")
    (full / "f").touch()
    assert "is not empty" in ck.run("init", "--lower", "fscrypt", full, "--key", spec, status=FAILED).stderr
    assert policy(full) is None


def test_init_options_of_fscrypt_need_the_lower(ck, fs):
    _, spec = raw_key(ck)
    done = ck.run("init", fs.make(), "--key", spec, "--padding", "16", status=USAGE)
    assert "are about --lower fscrypt" in done.stderr


# ---- keys

def test_wrong_key_leaves_the_kernel_untouched(ck, fs):
    path, ident = directory(ck, fs)
    other, spec = raw_key(ck, "other")
    done = ck.run("mount", "enc", ck.mnt, "-o", f"key={spec}", status=WRONG_KEY)
    assert done.stderr == (f'ckrfs: cannot mount "enc": wrong key: source {path} is encrypted with key {ident.hex()}, '
                           f"not with {identifier(other).hex()}\n")
    assert state_of(fs, ident) == ABSENT
    assert state_of(fs, identifier(other)) == ABSENT
    assert left_in_keys(ck) == []


def with_ring(ck, key, command, *args, description="volume", kind=2, status=DONE, timeout=0):
    """ckrfs with a session keyring of the manager that has a key which only the kernel reads."""
    payload = ck.key_file(kind.to_bytes(4, "little") + bytes(4) + key, name="payload")
    done = run("keyctl", "session", "-", "sh", "-c", r"""
key=$(keyctl padd fscrypt-provisioning "$1" @s < "$2") || exit 99
keyctl read $key >/dev/null 2>&1 && exit 98
[ $3 = 0 ] || keyctl timeout $key $3
shift 3; exec "$@" """, "sh", description, payload, str(timeout), *ck.argv(command, *args), "-o", "keyring=inherit", env=ck.env, check=False)
    os.unlink(payload)
    ck.transcript.append(done.stderr.decode())
    assert done.returncode == status, done.stderr
    return done.stderr.decode()


def memory_hits(ck, key, *pids):
    patterns = ck.dir / "patterns"
    patterns.write_text("".join(f.hex() + "\n" for f in forms(key)))
    done = run(TOOLS / "memscan", patterns, *map(str, pids), check=False)
    return [line for line in done.stdout.decode().splitlines() if ": pattern" in line]


def test_key_that_only_the_kernel_reads(ck, fs):
    """It is named by its serial: its bytes are never in memory of ours, which could not even read them."""
    key, spec = raw_key(ck)
    path, ident = directory(ck, fs, spec=spec)
    os.unlink(ck.dir / "raw")
    ck.configure("volume enc", source=path, lower="fscrypt", key="keyring:fscrypt-provisioning:volume")
    with_ring(ck, key, "mount", "enc", ck.mnt)
    (ck.mnt / "f").write_text("x")
    state = ck.remember(ck.mnt)
    assert state["key_source"] == "keyring:fscrypt-provisioning:volume"
    assert key_status(fs.dir, ident) == (PRESENT, 1), "one user: the one who tried the key has left"
    assert memory_hits(ck, key, state["keeper_pid"], state["server_pid"]) == []
    ck.run("lock", "enc", status=DONE)
    assert state_of(fs, ident) == ABSENT
    ck.run("unlock", "enc", status=DONE)
    assert memory_hits(ck, key, state["keeper_pid"], state["server_pid"]) == []
    assert (ck.mnt / "f").read_text() == "x"
    ck.umount()
    assert state_of(fs, ident) == ABSENT


def test_key_that_only_the_kernel_reads_expires(ck, fs):
    """As any other key: its end is the end of the unlocked state."""
    key, spec = raw_key(ck)
    path, ident = directory(ck, fs, spec=spec)
    ck.configure("volume enc", source=path, lower="fscrypt", key="keyring:fscrypt-provisioning:volume")
    with_ring(ck, key, "mount", "enc", ck.mnt, timeout=3)
    ck.remember(ck.mnt)
    assert ck.state()["state"] == "unlocked"
    wait_until("the lock", lambda: ck.state()["state"] == "locked")
    wait_until("the key to be gone", lambda: state_of(fs, ident) == ABSENT)
    assert errno_of(os.listdir, ck.mnt) in ("ENOKEY", "EKEYEXPIRED")
    assert "expired" in ck.run("unlock", "enc", status=NO_KEY).stderr
    ck.run("unlock", "enc", "--key", spec, status=DONE)
    assert os.listdir(ck.mnt) == []
    ck.umount()


@pytest.mark.parametrize("kind", ["raw", "passphrase"])
def test_key_is_in_no_memory(ck, fs, kind):
    """Neither what was given nor what was unwrapped, as long as the files can be read and after."""
    enc = fs.make()
    if kind == "raw":
        key, spec = raw_key(ck, "k")
        ck.run("init", "--lower", "fscrypt", enc, "--key", spec, status=DONE)
    else:
        key, spec = PASSPHRASE.encode(), f"file:{ck.key_file(PASSPHRASE)}"
        fs.setup()
        fs.encrypt(enc, PASSPHRASE, parallelism=2)
        fs.lock(enc)
    ck.configure("volume v", source=enc, lower="fscrypt", key=spec)
    with ck.mounted("v"):
        pids = [ck.state()["keeper_pid"], ck.state()["server_pid"]]
        assert memory_hits(ck, key, *pids) == []
        ck.run("lock", "v", status=DONE)
        ck.run("unlock", "v", status=DONE)
        assert memory_hits(ck, key, *pids) == []


@pytest.mark.parametrize("there", [False, True])
def test_wrong_key_that_only_the_kernel_reads(ck, fs, there):
    """Whose key it is, the kernel tells only by taking it; a key that was there before stays there."""
    path, ident = directory(ck, fs)
    other = os.urandom(64)
    if there:
        add_key(fs.dir, other)
    ck.configure("volume enc", source=path, lower="fscrypt", key="keyring:fscrypt-provisioning:volume")
    said = with_ring(ck, other, "mount", "enc", ck.mnt, status=WRONG_KEY)
    assert f"is encrypted with key {ident.hex()}, not with {identifier(other).hex()}" in said
    assert key_status(fs.dir, identifier(other)) == ((PRESENT, 1) if there else (ABSENT, 0))
    assert state_of(fs, ident) == ABSENT


def test_missing_key_that_only_the_kernel_reads(ck, fs):
    path, _ = directory(ck, fs)
    ck.configure("volume enc", source=path, lower="fscrypt", key="keyring:fscrypt-provisioning:volume")
    said = with_ring(ck, os.urandom(64), "mount", "enc", ck.mnt, description="another", status=NO_KEY)
    assert "no key in keyring:fscrypt-provisioning:volume" in said


def test_init_with_a_key_that_only_the_kernel_reads(ck, fs):
    key = os.urandom(64)
    path = fs.make()
    with_ring(ck, key, "init", "--lower", "fscrypt", path, "--key", "keyring:fscrypt-provisioning:volume")
    assert policy(path)[4] == identifier(key)
    assert state_of(fs, identifier(key)) == ABSENT


def test_key_of_version_1_cannot_be_one_that_only_the_kernel_reads(ck, fs):
    enc = fs.make()
    fs.setup()
    fs.encrypt(enc, PASSPHRASE, version=1)
    fs.lock(enc)
    ck.configure("volume v", source=enc, lower="fscrypt", key="keyring:fscrypt-provisioning:volume")
    assert "cannot be known" in with_ring(ck, os.urandom(64), "mount", "v", ck.mnt, kind=1, status=UNSUPPORTED)


# ---- gocryptfs in it

def test_gocryptfs_volume_in_an_encrypted_directory(ck, fs):
    _, ident = gocryptfs_inside(ck, fs)
    ck.run("mount", "inner", ck.mnt, "-o", f"key=file:{ck.key_file('not it', name='bad')}", status=WRONG_KEY)
    assert state_of(fs, ident) == ABSENT, "a mount that fails leaves nothing"
    with ck.mounted("inner") as at:
        (at / "f").write_text("twice")
        for name in ("a", "b" * 200):  # what takes room beforehand, and files that stay open for it
            (at / name).mkdir()
            (at / name / "x").write_text("x")
            os.unlink(at / name / "x")
            os.rename(at / name, at / (name + "2"))
            os.rmdir(at / (name + "2"))
        with open(at / "f", "r+") as f:
            ck.run("lock", "inner", status=DONE)
            assert state_of(fs, ident) == ABSENT
            assert errno_of(os.pread, f.fileno(), 5, 0) == "ENOKEY"
            wrong = ck.key_file("wrong", name="wrong")
            ck.run("unlock", "inner", "--key", f"file:{wrong}", status=WRONG_KEY)
            assert state_of(fs, ident) == ABSENT, "what the lower had got is taken back"
            ck.run("unlock", "inner", status=DONE)
            assert f.read() == "twice"
            f.write("!")
        assert (at / "f").read_text() == "twice!"
    assert state_of(fs, ident) == ABSENT
    ck.run("check", "inner", "--config", ck.conf, status=DONE)
    assert state_of(fs, ident) == ABSENT


# ---- hidden

def test_hidden_lower_is_reached_through_the_mount_alone(ck, fs):
    path, ident = directory(ck, fs)
    device = fs.loop()
    ck.configure("volume enc", source=device, subtree="/enc", hide_lower="yes", lower="fscrypt", key=ck.sections["volume enc"]["key"])
    with ck.mounted("enc") as at:
        (at / "f").write_text("hidden")
        state = ck.state()
        for pid in ("self", state["keeper_pid"], state["server_pid"]):
            assert device not in Path(f"/proc/{pid}/mountinfo").read_text()
        assert "private-lower" in state["protections"]
        ck.run("lock", "enc", status=DONE)
        assert errno_of(os.listdir, at) == "ENOKEY"
        ck.run("unlock", "enc", status=DONE)
        assert (at / "f").read_text() == "hidden"
    assert left_in_keys(ck) == []
    fs.mount()
    assert state_of(fs, ident) == ABSENT
    ck.configure("volume enc", source=path, lower="fscrypt", key=ck.sections["volume enc"]["key"])
    with ck.mounted("enc") as at:
        assert (at / "f").read_text() == "hidden"


def test_hidden_lower_of_a_killed_keeper(ck, fs):
    directory(ck, fs)
    device = fs.loop()
    ck.configure("volume enc", source=device, subtree="/enc", hide_lower="yes", lower="fscrypt", key=ck.sections["volume enc"]["key"])
    ck.mount("enc")
    keeper = ck.state()["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    wait_until("the keeper's end", lambda: not alive(keeper))
    ck.umount("enc")
    assert left_in_keys(ck) == []
    with ck.mounted("enc"):
        pass


@pytest.mark.parametrize("what,status,words", [
    ("directory", CONFIG, "is no block device"),
    ("mounted", BUSY, "it would not be hidden"),
    ("missing", NO_VOLUME, "does not exist"),
])
def test_hiding_refuses(ck, fs, what, status, words):
    path, _ = directory(ck, fs)
    key = ck.sections["volume enc"]["key"]
    device = run("findmnt", "-no", "SOURCE", fs.dir).stdout.decode().strip()
    if what == "missing":
        fs.loop()
    ck.configure("volume enc", source=path if what == "directory" else device, hide_lower="yes", lower="fscrypt", key=key,
                 **({} if what == "directory" else {"subtree": "/nothing" if what == "missing" else "/enc"}))
    assert words in ck.run("mount", "enc", ck.mnt, status=status).stderr


def test_plain_directory_of_a_hidden_device(ck, fs):
    (fs.make("data") / "f").write_text("x")
    device = fs.loop()
    ck.configure("volume d", source=device, subtree="/data", hide_lower="yes", format="plain")
    with ck.mounted("d") as at:
        assert (at / "f").read_text() == "x"


# ---- what else the mount does

def test_ioctls_on_keys_and_policies_do_not_pass(ck, fs):
    directory(ck, fs)
    with ck.mounted("enc") as at:
        (at / "f").write_text("x")
        for path in (at, at / "f"):
            fd = os.open(path, os.O_RDONLY)
            for request in (ADD, REMOVE, STATUS, GET_POLICY_EX, SET_POLICY):
                assert errno_of(fcntl.ioctl, fd, request, bytearray(256)) == "ENOTTY"
            os.close(fd)


def test_passthrough_is_only_for_who_asks_for_it(ck, fs):
    """What is passed through cannot be locked."""
    path, _ = directory(ck, fs)
    section = ck.sections["volume enc"]
    with ck.mounted("enc"):
        assert ck.state()["passthrough"] == "off"
    ck.configure("volume enc", **section, passthrough="yes")
    done = ck.run("mount", "enc", ck.mnt)
    if done.returncode == UNSUPPORTED:
        assert "the kernel does not offer it" in done.stderr
        return
    ck.remember(ck.mnt)
    assert ck.state()["passthrough"] == "active"
    with open(ck.mnt / "f", "w"):
        assert "cannot be taken back" in ck.run("lock", "enc", status=UNSUPPORTED).stderr
        assert os.listdir(ck.mnt) == ["f"]
    ck.run("lock", "enc", status=DONE)
    assert fs.is_locked(path)
    ck.run("unlock", "enc", status=DONE)
    (ck.mnt / "f").write_text("again")
    ck.umount()


def test_unprivileged_mount(ck, fs):
    """The key is counted for the user; files are found again by their places, without handles."""
    key, spec = raw_key(ck)
    path, ident = directory(ck, fs, spec=spec)
    run("chown", "-R", f"{UID}:{UID}", ck.dir)
    done = run("unshare", "-m", "sh", "-c", rf"""
cp /etc/passwd $1/passwd; echo "ckrfstest:x:{UID}:{UID}::/:/bin/sh" >> $1/passwd; mount --bind $1/passwd /etc/passwd
mknod $1/fuse c 10 229; chmod 666 $1/fuse; mount --bind $1/fuse /dev/fuse
asuser() {{ setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps -all "$@"; }}
asuser $2 mount --config $1/ckrfs.conf enc $1/mnt 2>&1 || echo "mount $?"
asuser sh -c "echo mine > $1/mnt/f; cat $1/mnt/f"
asuser $2 lock enc 2>&1 || echo "lock $?"
asuser cat $1/mnt/f 2>&1 || echo refused
test -e $1/fs/enc/f && echo "not locked below"
asuser $2 unlock enc || echo "unlock $?"
asuser cat $1/mnt/f
asuser $2 umount $1/mnt || echo "umount $?"
rm $1/fuse
""", "sh", ck.dir, ck.argv("mount")[0], env=ck.env).stdout.decode()
    assert done == f"mine\ncat: {ck.dir}/mnt/f: Required key not available\nrefused\nmine\n"
    assert state_of(fs, ident) == ABSENT


# ---- what cannot be

def test_file_system_without_the_feature(ck):
    system = Encrypting(ck, feature=False)
    try:
        path = system.make()
        ck.configure("volume v", source=path, lower="fscrypt", key="file:/nowhere")
        done = ck.run("mount", "v", ck.mnt, status=UNSUPPORTED)
        assert done.stderr == (f'ckrfs: cannot mount "v": the file system of source {path} has no encrypt feature\n'
                               f'  try: tune2fs -O encrypt "$(findmnt -no SOURCE -T {path})"\n')
        run("sh", "-c", done.stderr.split("try: ")[1])
        assert "is not encrypted" in ck.run("mount", "v", ck.mnt, status=FAILED).stderr
    finally:
        system.close()


def test_directory_without_a_policy(ck, fs):
    path = fs.make()
    ck.configure("volume v", source=path, lower="fscrypt", key="file:/nowhere")
    done = ck.run("mount", "v", ck.mnt, status=FAILED)
    assert done.stderr == (f'ckrfs: cannot mount "v": source {path} is not encrypted: it has no policy\n'
                           f"  try: ckrfs init --lower fscrypt {path} --key 'SPEC?fmt=raw'\n")


def test_file_system_that_cannot_encrypt(ck):
    place = ck.dir / "tmpfs"
    place.mkdir()
    run("mount", "-t", "tmpfs", "t", place)
    try:
        ck.configure("volume v", source=place, lower="fscrypt", key="file:/nowhere")
        done = ck.run("mount", "v", ck.mnt, status=UNSUPPORTED)
        assert "cannot encrypt, or the kernel was built without fscrypt" in done.stderr
    finally:
        run("umount", place)


@pytest.mark.parametrize("options,words", [
    ({"lower_key": "file:/a", "key": "file:/b"}, "key and lower-key are given"),
    ({"format": "gocryptfs", "key": "file:/b"}, "lower = fscrypt needs lower-key"),
    ({"lower": "directory", "format": "plain", "lower_key": "file:/a"}, "lower \"directory\" uses no key"),
    ({"key": "file:/a", "subtree": "/x"}, "no block device is mounted"),
    ({"lower_key": "fle:/a"}, "unknown key source \"fle:\" (did you mean \"file:\"?)"),
])
def test_contradictions_in_the_configuration(ck, options, words):
    ck.configure("volume v", **{"source": ck.dir, "lower": "fscrypt", **options})
    assert words in ck.run("config", "--check", status=CONFIG).stderr
