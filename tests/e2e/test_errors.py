# SPDX-License-Identifier: MIT
"""Bad input: a clear error with the right exit status, nothing lost, and everything else goes on working."""
import base64
import contextlib
import json
import os
import random

import pytest
from support import (BUSY, CONFIG, FAILED, NO_KEY, NO_VOLUME, UNSUPPORTED, WRONG_KEY, Gocryptfs, errno_of, mounts_under,
                     run)


def refused(ck, status, *words, name="web", what=None):
    """Mounting fails with that status; two lines at most; nothing stays behind."""
    done = ck.run("mount", name, ck.mnt, status=None)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith(what or f'ckrfs: cannot mount "{name}": '), done.stderr
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("  try: ")), done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert mounts_under(ck.dir) == [] and ck.states() == []
    return done.stderr


# ---- keys

def test_wrong_passphrase(ck):
    ck.volume(key=f"file:{ck.key_file('wrong horse', name='wrong')}")
    ck.keep_secret("wrong horse")
    refused(ck, WRONG_KEY)


@pytest.mark.parametrize("form", ["raw", "hex"])
def test_wrong_master_key(ck, form):
    """Nothing in the config tells a wrong master key; the root directory's names do, once there are any."""
    key = bytes(range(32))
    ck.volume(key=f"file:{ck.key_file(key if form == 'raw' else key.hex(), name='master')}?fmt={form}")
    with Gocryptfs(ck.dir / "cipher").mounted(ck.dir / "peer") as peer:
        (peer / "f").write_text("x")
    refused(ck, WRONG_KEY)


def test_no_wrong_master_key_gets_through(ck):
    """A wrong key makes one name in 256 look right by its padding: with many names that must not be enough."""
    rng = random.Random(7)
    volume = ck.volume()
    with ck.mounted():
        for i in range(100):
            (ck.mnt / f"file-{i}").write_text("x")
    ck.configure("volume web", source=volume.cipher, key=f"file:{ck.dir}/master?fmt=raw")
    for _ in range(40):
        ck.key_file(rng.randbytes(32), name="master")
        refused(ck, WRONG_KEY)
    ck.key_file(volume.master_key(), name="master")
    with ck.mounted():
        assert len(os.listdir(ck.mnt)) == 100


@pytest.mark.parametrize("size", [1, 31, 33, 64])
def test_master_key_of_wrong_size(ck, size):
    ck.volume(key=f"file:{ck.key_file(os.urandom(size), name='master')}?fmt=raw")
    assert "32" in refused(ck, WRONG_KEY)


def test_no_key(ck):
    ck.volume(key=f"file:{ck.dir}/missing")
    refused(ck, NO_KEY, f"{ck.dir}/missing")
    ck.configure("volume web", source=ck.dir / "cipher")
    refused(ck, NO_KEY, "no key source configured")


# ---- source and target

def test_source_missing(ck):
    ck.configure("volume web", source=ck.dir / "none", key="file:/dev/null")
    refused(ck, NO_VOLUME, f"source {ck.dir}/none does not exist")


def test_source_is_a_file(ck):
    (ck.dir / "file").touch()
    ck.configure("volume web", source=ck.dir / "file", key="file:/dev/null")
    refused(ck, FAILED, f"source {ck.dir}/file is not a directory")


def test_source_is_no_volume(ck):
    (ck.dir / "empty").mkdir()
    ck.configure("volume web", source=ck.dir / "empty", key="file:/dev/null")
    text = refused(ck, FAILED, f"{ck.dir}/empty", "gocryptfs.conf")
    assert "ckrfs init" in text or "not a gocryptfs volume" in text


def test_target_missing(ck):
    ck.volume()
    ck.mnt.rmdir()
    refused(ck, FAILED, str(ck.mnt), "No such file or directory")
    ck.mnt.touch()
    refused(ck, FAILED, str(ck.mnt), "Not a directory")
    ck.mnt.unlink()
    ck.mnt.mkdir()


def test_target_busy(ck):
    """Where another ckrfs mount already is, a second one is not stacked on top."""
    ck.volume("web")
    ck.plain("other")
    with ck.mounted("web"):
        done = ck.run("mount", "other", ck.mnt, status=BUSY)
        assert str(ck.mnt) in done.stderr
        assert len(mounts_under(ck.dir)) == 1


def test_no_target(ck):
    ck.volume()
    done = ck.run("mount", "web")
    assert done.returncode in (2, CONFIG) and "target" in done.stderr.lower()


def test_no_such_volume_names_the_nearest(ck):
    ck.volume("photos")
    text = refused(ck, NO_VOLUME, "photos", name="photso", what="ckrfs: ")
    assert "photso" in text


# ---- gocryptfs.conf

def change_conf(volume, change):
    path = volume.cipher / "gocryptfs.conf"
    conf = json.loads(path.read_text())
    changed = change(conf)
    path.chmod(0o600)
    path.write_text(changed if isinstance(changed, str) else json.dumps(conf))


def setting(*path, to):
    def change(conf):
        for key in path[:-1]:
            conf = conf[key]
        conf[path[-1]] = to
    return change


def flipped(conf):
    raw = bytearray(base64.b64decode(conf["EncryptedKey"]))
    raw[20] ^= 1
    conf["EncryptedKey"] = base64.b64encode(raw).decode()


BAD_CONFIGS = {
    # name: (change, status, a word the error must have)
    "empty": (lambda c: "", FAILED, "gocryptfs.conf"),
    "cut": (lambda c: json.dumps(c)[:100], FAILED, "gocryptfs.conf"),
    "garbage": (lambda c: "\x00\xff\x1b[31m" * 50, FAILED, "gocryptfs.conf"),
    "a list": (lambda c: "[]", FAILED, "gocryptfs.conf"),
    "deep": (lambda c: "[" * 100000, FAILED, "gocryptfs.conf"),
    "version 1": (setting("Version", to=1), FAILED, "Version"),
    "version text": (setting("Version", to="2"), FAILED, "Version"),
    "no flags": (lambda c: c.pop("FeatureFlags") and None, FAILED, "feature flags"),
    "unknown flag": (lambda c: c["FeatureFlags"].append("Quantum"), None, "Quantum"),
    "key cut": (setting("EncryptedKey", to="AAAA"), FAILED, "EncryptedKey"),
    "key no base64": (setting("EncryptedKey", to="!!"), FAILED, "EncryptedKey"),
    "key flipped": (flipped, WRONG_KEY, ""),
    "no scrypt": (lambda c: c.pop("ScryptObject") and None, FAILED, "ScryptObject"),
    "salt short": (setting("ScryptObject", "Salt", to="AAAA"), FAILED, "Salt"),
    "N not a power of two": (setting("ScryptObject", "N", to=1025), FAILED, "N"),
    "N too small": (setting("ScryptObject", "N", to=512), FAILED, "N"),
    "N negative": (setting("ScryptObject", "N", to=-1024), FAILED, "N"),
    "r too small": (setting("ScryptObject", "R", to=1), FAILED, "R"),
    "KeyLen": (setting("ScryptObject", "KeyLen", to=64), FAILED, "KeyLen"),
    "memory": (setting("ScryptObject", "N", to=1 << 30), UNSUPPORTED, "scrypt-memory"),
    "memory by r": (setting("ScryptObject", "R", to=1 << 24), UNSUPPORTED, "scrypt-memory"),
    "FIDO2 without its member": (lambda c: c["FeatureFlags"].append("FIDO2"), FAILED, "no FIDO2"),
    "two ciphers": (lambda c: c["FeatureFlags"].append("XChaCha20Poly1305"), FAILED, "XChaCha20Poly1305 and GCMIV128"),
    "names both ways": (lambda c: c["FeatureFlags"].append("PlaintextNames"), FAILED, "PlaintextNames and EMENames"),
    "LongNameMax without its flag": (setting("LongNameMax", to=100), FAILED, "LongNameMax"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_gocryptfs_conf(ck, case):
    change, status, word = BAD_CONFIGS[case]
    volume = ck.volume()
    change_conf(volume, change)
    if status is None:
        done = ck.run("mount", "web", ck.mnt)
        assert done.returncode in (FAILED, UNSUPPORTED) and word in done.stderr, done
        return
    text = refused(ck, status, word)
    assert "\x1b" not in text, "foreign bytes are shown printable"


def test_scrypt_memory_can_be_raised_and_lowered(ck):
    volume = Gocryptfs(ck.dir / "cipher", scryptn=14).init()  # 16 MiB
    ck.volume(init=False, scrypt_memory="8M")
    refused(ck, UNSUPPORTED, "scrypt-memory", "16")
    ck.volume(init=False, scrypt_memory="17M")
    with ck.mounted():
        pass
    assert volume.scryptn == 14


# ---- damage in the volume: EIO for that piece only

def on_disk(volume, before):
    """The one name that was not there before"""
    new = {n for n in os.listdir(volume.cipher) if not n.endswith(".name")} - before
    assert len(new) == 1
    return new.pop()


def make(ck, volume, name, content):
    """-> name on disk of a new file in the root"""
    before = set(os.listdir(volume.cipher))
    with ck.mounted():
        (ck.mnt / name).write_bytes(content)
    return on_disk(volume, before)


def damage(path, offset, data=None):
    with open(path, "r+b") as f:
        f.seek(offset)
        old = f.read(1)
        f.seek(offset)
        f.write(bytes([old[0] ^ 1]) if data is None else data)


@contextlib.contextmanager
def logged_once(ck, cipher_name):
    """The damage is in the log with its name on disk; what is said about one piece is said once."""
    before = len(ck.log_text())
    yield
    ck.wait_for_log(cipher_name)
    lines = [line[line.index("damaged: "):] for line in ck.log_text()[before:].splitlines() if cipher_name in line]
    assert lines and len(lines) == len(set(lines)), lines


CONTENT = b"".join(bytes([i + 1]) * 4096 for i in range(5)) + b"tail"


@pytest.mark.parametrize("offset, bad", [
    (18 + 4128, [1]), (18 + 2 * 4128 + 20, [2]), (18 + 3 * 4128 + 4127, [3]), (18 + 5 * 4128 + 16, [5]),
    (0, range(6)), (5, range(6))], ids=["iv", "content", "tag", "last", "header-version", "header-id"])
def test_damaged_block(ck, offset, bad):
    volume = ck.volume()
    name = make(ck, volume, "f", CONTENT)
    make(ck, volume, "other", b"fine")
    damage(volume.cipher / name, offset)
    with ck.mounted(), logged_once(ck, name):
        for _ in range(2):
            fd = os.open(ck.mnt / "f", os.O_RDONLY)
            for i in range(6):
                wanted = CONTENT[i * 4096:(i + 1) * 4096]
                if i in bad:
                    assert errno_of(os.pread, fd, 4096, i * 4096) == "EIO", i
                else:
                    assert os.pread(fd, 4096, i * 4096) == wanted, i
            os.close(fd)
        assert (ck.mnt / "other").read_bytes() == b"fine"
        assert (ck.mnt / "f").stat().st_size == len(CONTENT)


def test_damaged_block_can_be_overwritten(ck):
    """A part of a damaged block cannot be written (the rest would be invented), the whole of it can."""
    volume = ck.volume()
    name = make(ck, volume, "f", CONTENT)
    damage(volume.cipher / name, 18 + 4128 + 100)
    with ck.mounted("web", ck.mnt, "-o", "writeback=no"):
        fd = os.open(ck.mnt / "f", os.O_RDWR)
        assert errno_of(os.pwrite, fd, b"part", 5000) == "EIO"
        assert os.pwrite(fd, b"w" * 4096, 4096) == 4096
        os.close(fd)
        assert (ck.mnt / "f").read_bytes() == CONTENT[:4096] + b"w" * 4096 + CONTENT[8192:]
    volume.fsck()


def test_file_cut(ck):
    volume = ck.volume()
    name = make(ck, volume, "f", CONTENT)
    os.truncate(volume.cipher / name, 18 + 4128 + 10)
    with ck.mounted():
        fd = os.open(ck.mnt / "f", os.O_RDONLY)
        assert os.pread(fd, 4096, 0) == CONTENT[:4096]
        assert errno_of(os.pread, fd, 4096, 4096) == "EIO"
        os.close(fd)


def test_blocks_swapped(ck):
    volume = ck.volume()
    name = make(ck, volume, "f", CONTENT)
    raw = (volume.cipher / name).read_bytes()
    a, b = raw[18:18 + 4128], raw[18 + 4128:18 + 2 * 4128]
    (volume.cipher / name).write_bytes(raw[:18] + b + a + raw[18 + 2 * 4128:])
    with ck.mounted():
        fd = os.open(ck.mnt / "f", os.O_RDONLY)
        assert [errno_of(os.pread, fd, 10, i * 4096) for i in range(3)] == ["EIO", "EIO", None]
        os.close(fd)


def make_directories(ck, volume):
    """-> name on disk of directory "d"; "e" is its healthy sibling"""
    before = set(os.listdir(volume.cipher))
    with ck.mounted():
        (ck.mnt / "d").mkdir()
        (ck.mnt / "d" / "f").write_text("inside")
    name = on_disk(volume, before)
    with ck.mounted():
        (ck.mnt / "e").mkdir()
        (ck.mnt / "e" / "f").write_text("inside e")
    return name


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(16), b"x" * 17],
                         ids=["missing", "empty", "short", "zero", "long"])
def test_damaged_diriv(ck, content):
    volume = ck.volume()
    name = make_directories(ck, volume)
    path = volume.cipher / name / "gocryptfs.diriv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with ck.mounted(), logged_once(ck, name):
        for _ in range(2):
            assert errno_of(os.listdir, ck.mnt / "d") == "EIO"
            assert errno_of(os.stat, ck.mnt / "d" / "f") == "EIO"
            assert errno_of(open, ck.mnt / "d" / "new", "w") == "EIO"
        assert (ck.mnt / "e" / "f").read_text() == "inside e"
        assert sorted(os.listdir(ck.mnt)) == ["d", "e"]


def test_diriv_of_another_directory(ck):
    """It opens, but no name in it can be decrypted: hidden, logged."""
    volume = ck.volume()
    name = make_directories(ck, volume)
    inner = [n for n in os.listdir(volume.cipher / name) if n != "gocryptfs.diriv"]
    (volume.cipher / name / "gocryptfs.diriv").chmod(0o600)
    (volume.cipher / name / "gocryptfs.diriv").write_bytes(os.urandom(16))
    with ck.mounted(), logged_once(ck, inner[0]):
        assert os.listdir(ck.mnt / "d") == []
        assert os.listdir(ck.mnt / "d") == []


FOREIGN = ["foreign.txt", "AAAAAAAAAAAAAAAAAAAAAA", "gocryptfs.longname.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
           "with\x1bescape"]


@pytest.mark.parametrize("name", FOREIGN, ids=["plain", "base64", "longname-without-name", "escape"])
def test_foreign_names_are_hidden_and_logged(ck, name):
    volume = ck.volume()
    make(ck, volume, "mine", b"x")
    (volume.cipher / name).write_text("foreign")
    shown = name.replace("\x1b", "\\x1b")
    with ck.mounted(), logged_once(ck, shown):
        for _ in range(3):
            assert os.listdir(ck.mnt) == ["mine"]
            assert [e.name for e in os.scandir(ck.mnt)] == ["mine"]
    assert (volume.cipher / name).read_text() == "foreign"
    assert "\x1b" not in ck.log_text()


@pytest.mark.parametrize("content", [None, b"", b"x" * 400, b"garbage"], ids=["missing", "empty", "long", "garbage"])
def test_damaged_long_name(ck, content):
    volume = ck.volume()
    name = make(ck, volume, "l" * 200, b"x")
    path = volume.cipher / (name + ".name")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    make(ck, volume, "mine", b"x")
    with ck.mounted(), logged_once(ck, name):
        assert os.listdir(ck.mnt) == ["mine"]


def test_leftovers_of_a_crash_are_tolerated(ck):
    volume = ck.volume()
    make(ck, volume, "mine", b"x")
    (volume.cipher / "gocryptfs.diriv.rmdir.123456789").write_bytes(os.urandom(16))
    (volume.cipher / "gocryptfs.conf.tmp").write_text("{")
    (volume.cipher / ("gocryptfs.longname." + "A" * 43 + ".name")).write_text("orphan")
    with ck.mounted():
        assert os.listdir(ck.mnt) == ["mine"]


def test_stale_name_file_does_not_block_the_name(ck):
    """An orphan .name whose object is gone: the name can be used again."""
    volume = ck.volume()
    name = make(ck, volume, "l" * 200, b"x")
    (volume.cipher / name).unlink()
    with ck.mounted():
        (ck.mnt / ("l" * 200)).write_text("again")
        assert os.listdir(ck.mnt) == ["l" * 200]
    volume.fsck()


def test_damaged_symlink_and_xattr(ck):
    volume = ck.volume()
    before = set(os.listdir(volume.cipher))
    with ck.mounted():
        (ck.mnt / "l").symlink_to("target")
    link = volume.cipher / on_disk(volume, before)
    target = os.readlink(link)
    link.unlink()
    link.symlink_to(target[:10] + ("A" if target[10] != "A" else "B") + target[11:])
    file = volume.cipher / make(ck, volume, "f", b"x")
    with ck.mounted():
        os.setxattr(ck.mnt / "f", "user.a", b"value")
        os.setxattr(ck.mnt / "f", "user.b", b"other")
    broken = os.listxattr(file)[0]
    os.setxattr(file, broken, b"damaged damaged damaged damaged damaged")
    with ck.mounted():
        assert errno_of(os.readlink, ck.mnt / "l") == "EIO"
        os.lstat(ck.mnt / "l")
        assert sorted(os.listxattr(ck.mnt / "f")) == ["user.a", "user.b"]
        assert sorted([errno_of(os.getxattr, ck.mnt / "f", a) or "" for a in ("user.a", "user.b")]) == ["", "EIO"]


# ---- disk full

@contextlib.contextmanager
def small_disk(ck, size):
    point = ck.dir / "disk"
    point.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "small", point)
    try:
        yield point
    finally:
        run("umount", point)


@pytest.mark.parametrize("options", [[], ["-o", "writeback=no"]], ids=["writeback", "direct"])
def test_disk_full_in_the_middle_of_a_write(ck, options):
    """ENOSPC reaches the writer; what was there before stays intact; room can be made again."""
    with small_disk(ck, "4M") as disk:
        volume = ck.volume(cipher=disk / "cipher")
        with ck.mounted("web", ck.mnt, *options):
            (ck.mnt / "old").write_bytes(CONTENT * 20)
            (ck.mnt / "grow").write_bytes(CONTENT)
            fd = os.open(ck.mnt / "grow", os.O_RDWR)
            failed = None
            try:
                for i in range(100):
                    os.pwrite(fd, b"n" * 100000, 5 * 4096 + i * 100000)
                os.fsync(fd)
            except OSError as e:
                failed = e.strerror
            with contextlib.suppress(OSError):
                os.close(fd)
            assert failed == "No space left on device"
            assert (ck.mnt / "old").read_bytes() == CONTENT * 20
            assert (ck.mnt / "grow").read_bytes()[:5 * 4096] == CONTENT[:5 * 4096]
            os.unlink(ck.mnt / "grow")
            (ck.mnt / "new").write_bytes(CONTENT * 5)
        volume.fsck()
        with ck.mounted():
            assert (ck.mnt / "old").read_bytes() == CONTENT * 20
            assert (ck.mnt / "new").read_bytes() == CONTENT * 5


def test_overwrite_on_a_full_disk(ck):
    """Parts of blocks that exist are changed in place: no new room is needed, nothing may be torn."""
    with small_disk(ck, "2M") as disk:
        volume = ck.volume(cipher=disk / "cipher")
        with ck.mounted("web", ck.mnt, "-o", "writeback=no"):
            (ck.mnt / "old").write_bytes(CONTENT)
            with open(disk / "filler", "wb", buffering=0) as f, contextlib.suppress(OSError):
                while True:
                    f.write(bytes(4096))
            fd = os.open(ck.mnt / "old", os.O_RDWR)
            os.pwrite(fd, b"changed", 5000)
            os.close(fd)
            assert (ck.mnt / "old").read_bytes() == CONTENT[:5000] + b"changed" + CONTENT[5007:]
            assert errno_of(os.mkdir, ck.mnt / "d") in ("ENOSPC", None)
            os.unlink(disk / "filler")
        volume.fsck()


def test_errors_of_the_disk_reach_the_caller(ck):
    """No directory, no half made object stays when there is no room for it."""
    with small_disk(ck, "1M,nr_inodes=12") as disk:
        volume = ck.volume(cipher=disk / "cipher")
        made = []
        with ck.mounted():
            for i in range(20):
                name = f"{i}" + "l" * 200 * (i % 2)
                with contextlib.suppress(OSError):
                    (ck.mnt / name).mkdir()
                    made.append(name)
            assert len(made) < 12 and sorted(os.listdir(ck.mnt)) == sorted(made)
            for name in made:
                assert os.listdir(ck.mnt / name) == []
                (ck.mnt / name).rmdir()
            assert os.listdir(ck.mnt) == []
        assert sorted(os.listdir(volume.cipher)) == ["gocryptfs.conf", "gocryptfs.diriv"]


def test_no_secret_in_any_error(ck):
    """Wrong keys of every form leave no trace in what is printed and logged (the fixture scans both)."""
    volume = ck.volume()
    master = volume.master_key()
    for content, form in ((master, "hex"), (master.hex().encode(), "base64"), (b"correct horse", "hex"),
                          (master[:31], "raw"), (master.hex().encode() + b"zz", "hex")):
        ck.configure("volume web", source=volume.cipher, key=f"file:{ck.key_file(content, name='k')}?fmt={form}")
        ck.keep_secret(content)
        done = ck.run("mount", "web", ck.mnt)
        assert done.returncode in (WRONG_KEY, NO_KEY), done
