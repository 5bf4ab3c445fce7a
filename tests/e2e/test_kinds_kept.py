# SPDX-License-Identifier: MIT
"""check and rekey on every kind of volume: a healthy one is clean and left as it is, each damage is found and none more,
and after a rekey gocryptfs sees the same tree under another key."""
import json
import os
from pathlib import Path

import pytest
from check_volume import BLOCK, HEADER, change, overwrite, tell, walk
from support import DAMAGED, DONE
from test_interop import assert_same, make_tree, picture
from test_interop_kinds import KINDS, OLD, new_volume
from test_vectors import VECTORS, load, unpack

ALL = ["default", *KINDS, *OLD]
LONG = "l" * 240


def flags_of(cipher):
    return set(json.loads((Path(cipher) / "gocryptfs.conf").read_text())["FeatureFlags"])


def fill(at):
    make_tree(at, "kinds", 30)
    (at / "planted").mkdir()
    for name in ("block", "header", "id", "cut", "swapped", "xattr"):
        (at / "planted" / name).write_bytes(os.urandom(3 * BLOCK))
    for i in range(2):
        (at / "planted" / f"{i}{LONG}").write_text("long")
        (at / "planted" / f"directory {i}").mkdir()
        (at / "planted" / f"directory {i}" / "inside").write_text("x")
    (at / "planted" / "link").symlink_to("somewhere")
    os.setxattr(at / "planted" / "xattr", "user.test", b"value")


@pytest.fixture
def volume(ck, kind):
    if kind == "default":
        made = ck.volume()
    else:
        made = new_volume(ck, kind, "ckrfs")
    with ck.mounted() as at:
        fill(at)
        inodes = {(at / p).lstat().st_ino: p for p in walk(at)}
    made.disk = {inodes[i]: p for p in walk(made.cipher) if (i := (made.cipher / p).lstat().st_ino) in inodes}
    return made


def check(ck, *options, status):
    return json.loads(ck.run("check", "web", "--config", ck.conf, "--json", *options, status=status).stdout)


def everything(root):
    """Names, contents, attributes and times, as on disk."""
    seen = {}
    for path in [".", *walk(root)]:
        full = os.path.join(root, path)
        st = os.lstat(full)
        content = os.readlink(full) if os.path.islink(full) else Path(full).read_bytes() if os.path.isfile(full) else None
        attributes = {n: os.getxattr(full, n, follow_symlinks=False) for n in os.listxattr(full, follow_symlinks=False)}
        seen[path] = (st.st_mode, st.st_ino, st.st_uid, st.st_size, st.st_mtime_ns, st.st_ctime_ns, content, attributes)
    return seen


def plant(volume):
    """yields what must be found"""
    flags = flags_of(volume.cipher)
    disk_block = BLOCK + (40 if "XChaCha20Poly1305" in flags else 32 if "GCMIV128" in flags else 28)

    def new(name):
        disk = volume.disk[f"planted/{name}"]
        return volume.cipher / disk, disk

    path, disk = new("block")
    change(path, HEADER + disk_block + 100)
    yield "blocks", disk, 1, 1
    path, disk = new("header")
    overwrite(path, 0, b"\0\3")
    yield "header", disk, None, None
    path, disk = new("id")
    change(path, 5)
    yield "blocks", disk, 0, 3
    path, disk = new("cut")
    os.truncate(path, HEADER + 2 * disk_block + 10)
    yield "cut", disk, 2, 1
    path, disk = new("swapped")
    content = path.read_bytes()[HEADER:]
    overwrite(path, HEADER, content[disk_block:2 * disk_block] + content[:disk_block])
    yield "blocks", disk, 0, 2
    path, disk = new("xattr")
    name, = os.listxattr(path)
    os.setxattr(path, name, os.getxattr(path, name)[:-1])
    yield "xattr", disk, None, None
    if "PlaintextNames" in flags:
        return
    path, disk = new("link")
    path.unlink()
    path.symlink_to("garbage")
    yield "symlink", disk, None, None
    path, disk = new(f"0{LONG}")
    path.with_name(path.name + ".name").unlink()
    yield "name-missing", disk, None, None
    path, disk = new(f"1{LONG}")
    text = path.with_name(path.name + ".name")
    text.chmod(0o600)
    text.write_text("garbage")
    yield "name-damaged", disk + ".name", None, None
    foreign = os.path.join(os.path.dirname(disk), "not.ours")
    (volume.cipher / foreign).touch()
    yield "foreign", foreign, None, None
    if "DirIV" not in flags:
        return
    path, disk = new("directory 0")
    (path / "gocryptfs.diriv").unlink()
    yield "diriv-missing", disk, None, None
    path, disk = new("directory 1")
    (path / "gocryptfs.diriv").chmod(0o600)
    (path / "gocryptfs.diriv").write_bytes(b"short")
    yield "diriv-damaged", disk, None, None


@pytest.mark.parametrize("kind", ALL)
def test_check(ck, volume, kind):
    before = everything(volume.cipher)
    answer = check(ck, status=DONE)
    assert answer["findings"] == [] and answer["summary"]["complete"]
    assert check(ck, "--repair", status=DONE)["repairs"] == []
    assert everything(volume.cipher) == before
    planted = sorted(plant(volume), key=str)
    assert len(planted) >= 6
    assert sorted((tell(f) for f in check(ck, status=DAMAGED)["findings"]), key=str) == planted


@pytest.mark.parametrize("kind", ALL)
def test_rekey(ck, volume, kind):
    with ck.mounted() as at:
        wanted = picture(at)
    flags, old = flags_of(volume.cipher), volume.key if kind in OLD else volume.master_key().hex()
    new = os.urandom(32).hex()
    ck.keep_secret(bytes.fromhex(new))
    options = ["--new-key", f"file:{ck.key_file(new, 'new')}?fmt=hex"] if kind in OLD else []
    done = ck.run("rekey", "web", "--config", ck.conf, *options, status=DONE)
    assert "has a new master key" in done.stdout
    assert flags_of(volume.cipher) == flags and os.listdir(ck.dir).count("cipher.rekey") == 0
    if kind in OLD:
        volume.key = new
        ck.configure("volume web", source=volume.cipher, key=f"file:{ck.dir}/new?fmt=hex")
    else:
        ck.keep_secret(volume.master_key())
        assert volume.master_key().hex() != old
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert_same(picture(peer), wanted)
    with ck.mounted() as at:
        assert_same(picture(at), wanted)
    assert check(ck, status=DONE)["findings"] == []


@pytest.mark.parametrize("name", [n for n in VECTORS if n != "corrupt-block"])
def test_vectors_are_clean(ck, name):
    vector = load(name)
    cipher = unpack(ck, name)
    ck.keep_secret(vector["password"])
    ck.configure("volume web", source=cipher, key=f"file:{ck.key_file(vector['password'])}")
    before = everything(cipher)
    assert check(ck, status=DONE)["findings"] == []
    assert everything(cipher) == before
