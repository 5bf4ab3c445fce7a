# SPDX-License-Identifier: MIT
"""Volumes made by gocryptfs 2.3, of every kind, read exactly as recorded, damage included."""
import json
import os
from pathlib import Path

import check_tree
import pytest
from support import BUSY, DONE, REPO, run


def find_vectors():
    """Kept in tests/vectors; more are taken from the project's shared folder where there is one."""
    shared = Path(os.environ.get("CKRFS_SHARED", REPO.parent / "shared")) / "vectors" / "gocryptfs"
    found = {}
    for base in (shared, REPO / "tests" / "vectors"):
        for path in sorted(base.glob("*/expected.json")):
            found[path.parent.name] = path.parent
    return found


VECTORS = find_vectors()


def load(name):
    return json.loads((VECTORS[name] / "expected.json").read_text())


def unpack(ck, name):
    run("tar", "--xattrs", "--xattrs-include=*", "--acls", "-C", ck.dir, "-xpJf", VECTORS[name] / "cipher.tar.xz")
    return ck.dir / "cipher"


def test_vectors_are_here():
    assert set(VECTORS) >= {"gcm", "default-scrypt", "corrupt-block", "aessiv", "xchacha", "plaintextnames", "detnames",
                            "longnamemax-100", "legacy-nohkdf-padded64"}


@pytest.mark.parametrize("key", ["passphrase", "masterkey"])
@pytest.mark.parametrize("name", VECTORS)
def test_reads_as_recorded(ck, name, key):
    vector = load(name)
    unpack(ck, name)
    ck.keep_secret(vector["password"], bytes.fromhex(vector["masterkey"]))
    spec = f"file:{ck.key_file(vector['password'])}" if key == "passphrase" else \
        f"file:{ck.key_file(vector['masterkey'])}?fmt=hex"
    ck.volume("vec", init=False, passphrase=vector["password"], key=spec)
    with ck.mounted("vec") as at:
        assert check_tree.compare(at, vector["entries"]) == []


def test_checker_sees_differences(ck):
    """The comparison can fail: each kind of change to what is expected is reported."""
    vector = load("corrupt-block")
    unpack(ck, "corrupt-block")
    ck.volume("vec", init=False, passphrase=vector["password"])
    entries = vector["entries"]
    assert entries["f"]["bad"] == [1]
    cases = {"mode": ("good", "100600"), "size": ("good", 5), "sha256": ("good", "0" * 64), "bad": ("f", [0]),
             "nlink": ("f", 2), "xattrs": ("f", {"user.x": ""})}
    with ck.mounted("vec") as at:
        for key, (name, value) in cases.items():
            changed = {n: dict(e) for n, e in entries.items()}
            changed[name][key] = value
            assert any(key in line for line in check_tree.compare(at, changed)), key
        assert check_tree.compare(at, {n: e for n, e in entries.items() if n != "f"}) == ["'f': should not be there"]
        assert check_tree.compare(at, dict(entries, more={"mode": "100644"})) == ["'more': ENOENT"]


def test_one_volume_twice_needs_shared(ck):
    """Two mounts of one volume are refused, also by another name and path, unless both say shared = yes."""
    ck.volume("one")
    cipher = ck.dir / "cipher"
    (ck.dir / "link").symlink_to(cipher)
    key = f"file:{ck.dir / 'key'}"
    ck.configure("volume two", source=ck.dir / "link", key=key)
    second = ck.dir / "second"
    second.mkdir()
    with ck.mounted("one"):
        done = ck.run("mount", "two", second, status=BUSY)
        assert done.stderr == (f'ckrfs: cannot mount "two": source {ck.dir / "link"} is in use: "one" is mounted on {ck.mnt}\n'
                               "  try: ckrfs umount one\n")
        (ck.mnt / "still").write_text("works")
    ck.configure("volume one", source=cipher, key=key, shared="yes")
    ck.configure("volume two", source=cipher, key=key, shared="yes")
    with ck.mounted("one"), ck.mounted("two", second):
        assert (second / "still").read_text() == "works"
        (second / "new").write_text("seen by both")
        assert (ck.mnt / "new").read_text() == "seen by both"
    assert ck.run("status", status=DONE)
