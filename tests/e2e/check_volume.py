# SPDX-License-Identifier: MIT
"""A volume with everything in it, and each kind of damage for it: for the tests of ckrfs check."""
import base64
import hashlib
import json
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from support import Gocryptfs, run

BLOCK, HEADER, OVERHEAD = 4096, 18, 32
DISK_BLOCK = BLOCK + OVERHEAD
FILES, LINKS, LONGS, DIRS = 60, 8, 16, 16
PASSPHRASE = "correct horse"


def fill(at):
    """One object for each damage, among others that stay healthy."""
    (at / "files").mkdir()
    for i in range(FILES):
        # five blocks, the last one shorter; every third file ends with a whole block
        (at / "files" / f"f{i:02}").write_bytes(os.urandom(4 * BLOCK + (BLOCK if i % 3 == 0 else 1000)))
    (at / "links").mkdir()
    for i in range(LINKS):
        (at / "links" / f"l{i}").symlink_to(f"../files/f{i:02}")
    (at / "long").mkdir()
    for i in range(LONGS):
        (at / "long" / (f"{i:02}" + "n" * 198)).write_text("long")
    (at / "long" / ("d" * 200)).mkdir()
    (at / "long" / ("d" * 200) / "inside").write_text("x")
    (at / "dirs").mkdir()
    for i in range(DIRS):
        d = at / "dirs" / f"d{i:02}"
        d.mkdir()
        for name in ("one", "two", "three"):
            (d / name).write_text(name)
    (at / "attributes").mkdir()
    for i in range(8):
        (at / "attributes" / f"a{i}").write_text("x")
        os.setxattr(at / "attributes" / f"a{i}", "user.test", b"value")
    os.setxattr(at / "attributes", "user.directory", b"value")
    (at / "empty").touch()
    with open(at / "sparse", "wb") as f:
        f.truncate(64 << 20)
        f.seek(20 << 20)
        f.write(b"data")
        f.seek(0, 2)
        f.write(b"end")
    os.mkfifo(at / "fifo")
    deep = at / "deep"
    for i in range(30):
        deep.mkdir()
        (deep / "f").write_text("x")
        deep = deep / "d"
    os.link(at / "files" / "f00", at / "linked")
    for i in range(40):
        (at / f"good{i:02}").write_text("x" * i)


def walk(top):
    for where, dirs, files in os.walk(top):
        for name in dirs + files:
            yield os.path.relpath(os.path.join(where, name), top)


class Volume:
    """A copy of the template: disk[plain path] is where it lies."""

    def __init__(self, ck, template, disk):
        self.ck, self.disk = ck, disk
        self.root = ck.dir / "cipher"
        run("cp", "-a", template, self.root)
        ck.keep_secret(PASSPHRASE)
        self.key = f"file:{ck.key_file(PASSPHRASE)}"

    def at(self, plain):
        return self.root / self.disk[plain]

    def check(self, *options, status=None):
        done = self.ck.run("check", self.root, "--key", self.key, "--json", *options, status=status)
        return json.loads(done.stdout)

    def found(self, **kw):
        return {tell(f) for f in self.check(**kw)["findings"]}

    def snapshot(self):
        found = {}
        for path in walk(self.root):
            full = self.root / path
            st = full.lstat()
            content = None
            if stat.S_ISREG(st.st_mode):
                big = st.st_size > 100 << 20
                content = st.st_blocks if big else hashlib.sha256(full.read_bytes()).hexdigest()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(full)
            attributes = {} if stat.S_ISLNK(st.st_mode) else \
                {n: os.getxattr(full, n) for n in os.listxattr(full, follow_symlinks=False)}
            times = () if stat.S_ISDIR(st.st_mode) else (st.st_mtime_ns, st.st_size)
            found[path] = (st.st_mode, st.st_ino, st.st_uid, times, content, attributes)
        return found


def tell(finding):
    return (finding["kind"], finding["path"], finding.get("first_block"), finding.get("blocks"))


@pytest.fixture(scope="module")
def template():
    """-> the volume's directory, {plain path: path on disk}"""
    base = Path(tempfile.mkdtemp(prefix="ckrfs-check-"))
    g = Gocryptfs(base / "cipher", PASSPHRASE).init()
    with g.mounted(base / "mnt") as at:
        fill(at)
        inodes = {(at / p).lstat().st_ino: p for p in walk(at)}
        disk = {p: None for p in walk(at)}
        for path in walk(g.cipher):
            plain = inodes.get((g.cipher / path).lstat().st_ino)
            if plain:
                disk[plain] = path
    disk = {k: v for k, v in disk.items() if v}
    yield g.cipher, disk
    shutil.rmtree(base)


@pytest.fixture
def volume(ck, template):
    return Volume(ck, *template)


# ---- the damages

def change(path, offset, count=1):
    with open(path, "r+b") as f:
        f.seek(offset)
        old = f.read(count)
        f.seek(offset)
        f.write(bytes(b ^ 0x55 for b in old))


def overwrite(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def read_at(path, offset, size):
    with open(path, "rb") as f:
        f.seek(offset)
        return f.read(size)


def block_at(n):
    return HEADER + n * DISK_BLOCK


def replace(path, make):
    """Puts something else in a file's place."""
    os.unlink(path)
    make(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as s:
        link = tempfile.mktemp()
        os.symlink(os.path.dirname(path), link)
        s.bind(os.path.join(link, os.path.basename(path)))
        os.unlink(link)


def make_sparse(path):
    with open(path, "wb") as f:
        f.truncate(1 << 30)


def make_zeros(path):
    Path(path).write_bytes(b"\0" * 16)


ODD_FILES = [lambda p: os.mkfifo(p), lambda p: os.mkdir(p), lambda p: os.symlink("/etc/passwd", p), make_socket,
             make_sparse, lambda p: Path(p).write_bytes(b""), make_zeros,
             lambda p: os.mknod(p, stat.S_IFCHR | 0o600, os.makedev(1, 3)), lambda p: os.symlink(".", p)]


def file_damages(v):
    """yields what must be found; each uses up one file"""
    files = iter(range(FILES))

    def new(whole=None):
        i = next(i for i in files if whole is None or (i % 3 == 0) == whole)
        assert i, "f00 has another link"
        return v.at(f"files/f{i:02}"), v.disk[f"files/f{i:02}"]

    next(files)
    for block in (0, 2, 4):
        for inside in (0, 15, 16, 500, OVERHEAD + 900):  # IV, ciphertext, tag
            path, disk = new(whole=False)
            change(path, block_at(block) + inside)
            yield "blocks", disk, block, 1
    for blocks in ([1, 2], [0, 1, 2, 3, 4]):
        path, disk = new()
        for b in blocks:
            change(path, block_at(b) + 100)
        yield "blocks", disk, blocks[0], len(blocks)
    path, disk = new()
    for b in (1, 3):
        change(path, block_at(b) + 100)
        yield "blocks", disk, b, 1
    for header in (b"\0" * 18, b"\0\1" + b"x" * 16, b"\0\2" + b"\0" * 16, b"\xff\2" + b"x" * 16):
        path, disk = new()
        overwrite(path, 0, header)
        yield "header", disk, None, None
    path, disk = new()
    change(path, 2, 16)
    yield "blocks", disk, 0, 5
    for rest in (1, 16, OVERHEAD):
        path, disk = new()
        os.truncate(path, block_at(2) + rest)
        yield "cut", disk, 2, 1
    for rest in (OVERHEAD + 1, 2000):
        path, disk = new()
        os.truncate(path, block_at(2) + rest)
        yield "blocks", disk, 2, 1
    for size in (1, 17, 18):
        path, disk = new()
        os.truncate(path, size)
        yield "header-only", disk, None, None
    for zeros, kind in ((10, "cut"), (500, "blocks")):
        path, disk = new(whole=True)
        os.truncate(path, path.stat().st_size + zeros)
        yield kind, disk, 5, 1
    path, disk = new()
    one, two = (read_at(path, block_at(b), DISK_BLOCK) for b in (0, 1))
    overwrite(path, block_at(0), two + one)
    yield "blocks", disk, 0, 2
    path, disk = new()
    overwrite(path, block_at(3), read_at(v.at("files/f00"), block_at(3), DISK_BLOCK))
    yield "blocks", disk, 3, 1
    path, disk = new()
    overwrite(path, block_at(1), b"\0" * 16)
    yield "blocks", disk, 1, 1
    # What the format does not authenticate: whole blocks of zeros, files that end earlier at a block's end.
    path, disk = new()
    overwrite(path, block_at(1), b"\0" * DISK_BLOCK)
    path, disk = new()
    os.truncate(path, block_at(2))
    path, disk = new()
    os.truncate(path, 0)


def link_damages(v):
    targets = [lambda t: "garbage", lambda t: t[:-4], lambda t: "A" * 4095, lambda t: "/etc/passwd",
               lambda t: ("B" if t[0] == "A" else "A") + t[1:], lambda t: t + "\n"]
    for i, make in enumerate(targets):
        path = v.at(f"links/l{i}")
        target = os.readlink(path)
        path.unlink()
        path.symlink_to(make(target))
        yield "symlink", v.disk[f"links/l{i}"], None, None


def diriv_damages(v):
    dirs = iter(range(DIRS))

    def new():
        name = f"dirs/d{next(dirs):02}"
        return v.at(name) / "gocryptfs.diriv", v.disk[name]

    for content in (b"x" * 15, b"x" * 17):
        iv, disk = new()
        iv.chmod(0o600)
        iv.write_bytes(content)
        yield "diriv-damaged", disk, None, None
    for make in ODD_FILES:
        iv, disk = new()
        replace(iv, make)
        yield "diriv-damaged", disk, None, None
    iv, disk = new()
    iv.unlink()
    yield "diriv-missing", disk, None, None
    iv, disk = new()
    iv.chmod(0o600)
    iv.write_bytes((v.root / "gocryptfs.diriv").read_bytes())
    yield "diriv-wrong", disk, None, None


def long_damages(v):
    longs = iter(range(LONGS))

    def new():
        disk = v.disk[f"long/{next(longs):02}" + "n" * 198]
        return v.root / (disk + ".name"), disk

    name, disk = new()
    name.unlink()
    yield "name-missing", disk, None, None
    for content in (b"", b"x" * 345, b"garbage", b"x" * 300, b"\0" * 300):
        name, disk = new()
        name.chmod(0o600)
        name.write_bytes(content)
        yield "name-damaged", disk + ".name", None, None
    for make in (os.mkdir, os.mkfifo, lambda p: os.symlink("/etc/passwd", p)):
        name, disk = new()
        replace(name, make)
        yield "name-damaged", disk + ".name", None, None
    name, disk = new()
    name.chmod(0o600)
    name.write_bytes(name.read_bytes() + b"\n")
    yield "name-damaged", disk + ".name", None, None
    (one, disk), (two, other) = new(), new()
    texts = one.read_bytes(), two.read_bytes()
    for path, text in ((one, texts[1]), (two, texts[0])):
        path.chmod(0o600)
        path.write_bytes(text)
    yield "name-damaged", disk + ".name", None, None
    yield "name-damaged", other + ".name", None, None
    name, disk = new()
    (v.root / disk).unlink()
    yield "orphan-name", disk + ".name", None, None


def name_damages(v):
    top = v.disk["links"]

    def put(name, make, where=top):
        make(v.root / where / name)
        return os.path.join(where, name)

    def file(path):
        path.write_bytes(b"x")

    for name in ("README", "x", "QQQQ", "a b", "name.with.dots", "gocryptfs.conf", "gocryptfs.conf.tmp", "." * 3,
                 "Q" * 21, "Q" * 23, "Q" * 22 + "=="):
        yield "foreign", put(name, file), None, None
    yield "foreign", put("directory", os.mkdir), None, None
    yield "foreign", put("fifo", os.mkfifo), None, None
    yield "foreign", put("link", lambda p: os.symlink("/", p)), None, None
    yield "foreign", put("gocryptfs.longname.xyz.name", os.mkdir), None, None
    yield "foreign", put("gocryptfs.diriv.rmdir.5", os.mkdir), None, None
    yield "name", put(base64.urlsafe_b64encode(b"0123456789abcdef").decode().rstrip("="), Path.touch), None, None
    whole = os.path.basename(v.disk["files/f00"])
    shutil.copy(v.at("files/f00"), v.root / top / whole)
    yield "name", os.path.join(top, whole), None, None
    link = os.path.basename(v.disk["links/l7"])
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    second = link[:-1] + last[last.index(link[-1]) | 5]
    yield "duplicate", put(second, lambda p: os.symlink("x", p)), None, None
    yield "name-missing", put("gocryptfs.longname." + "Q" * 43, lambda p: p.touch()), None, None
    yield "parked-diriv", put("gocryptfs.diriv.rmdir.77", lambda p: p.write_bytes(b"x" * 16)), None, None
    making = put("gocryptfs.diriv.mkdir.78", os.mkdir)
    (v.root / making / "gocryptfs.diriv").write_bytes(b"x" * 16)
    yield "unfinished-directory", making, None, None
    for name in ("gocryptfs.longname.mkdir.79.name", "gocryptfs.longname.rmdir.80.name"):
        yield "unfinished-directory", put(name, os.mkdir), None, None
    yield "parked-diriv", put("gocryptfs.longname.diriv.81.name", lambda p: p.write_bytes(b"x" * 16)), None, None
    yield "foreign", put("gocryptfs.longname.diriv.82.name", os.mkdir), None, None
    yield "orphan-name", put("gocryptfs.longname.redo.1.name", file), None, None  # a log is in the root only
    yield "unfinished-config", put("gocryptfs.conf.tmp", file, ""), None, None
    yield "foreign", put("gocryptfs.diriv.txt", file, ""), None, None


def attribute_damages(v):
    def of(i):
        path = v.at(f"attributes/a{i}")
        return path, os.listxattr(path)[0], v.disk[f"attributes/a{i}"]

    for i, make in enumerate((lambda x: x[:-1], lambda x: b"garbage", lambda x: b"\0" * 60, lambda x: x + b"\0")):
        path, name, disk = of(i)
        os.setxattr(path, name, make(os.getxattr(path, name)))
        yield "xattr", disk, None, None
    path, name, disk = of(4)
    os.setxattr(path, "user.gocryptfs.notbase64!", b"x")
    yield "xattr", disk, None, None
    path, name, disk = of(5)
    os.removexattr(path, name)
    giant = 60000
    while giant:
        try:
            os.setxattr(path, name, os.urandom(giant))
            break
        except OSError:
            giant //= 2
    yield "xattr", disk, None, None
    path = v.at("attributes")
    os.setxattr(path, "user.gocryptfs.", b"")
    yield "xattr", v.disk["attributes"], None, None


GROUPS = [file_damages, link_damages, diriv_damages, long_damages, name_damages, attribute_damages]
NOTES = {"header-only", "orphan-name", "parked-diriv", "unfinished-directory", "unfinished-config"}


def plant_all(v):
    planted = [d for group in GROUPS for d in group(v)]
    assert len(planted) >= 100
    return planted
