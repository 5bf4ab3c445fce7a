# SPDX-License-Identifier: MIT
"""ckrfs check: a healthy volume is clean, every damage is found and nothing else, repair and undo."""
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from support import BUSY, DAMAGED, DONE, FAILED, NO_VOLUME, REPAIRED, REPO, USAGE, WRONG_KEY, Gocryptfs, alive, run

BLOCK, HEADER, OVERHEAD = 4096, 18, 32
DISK_BLOCK = BLOCK + OVERHEAD
FILES, LINKS, LONGS, DIRS = 60, 8, 16, 16
PASSPHRASE = "correct horse"
VECTORS = Path(os.environ.get("CKRFS_SHARED", REPO.parent / "shared")) / "vectors" / "gocryptfs"


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


# ---- tests

def ours(ck, at):
    """The same tree in a volume that ckrfs made and wrote."""
    at.mkdir()
    key = f"file:{ck.key_file(PASSPHRASE)}"
    ck.run("init", at, "--key", key, "--scrypt-n", "10", status=DONE)
    ck.configure("volume ours", source=at, key=key)
    with ck.mounted("ours") as mnt:
        fill(mnt)
    return at


@pytest.mark.parametrize("maker", ["gocryptfs", "ckrfs"])
def test_healthy_is_clean_and_left_alone(ck, template, maker):
    v = Volume(ck, *template)
    if maker == "ckrfs":
        shutil.rmtree(v.root)
        ours(ck, v.root)
    # our own files in the root of a volume, and ext4's
    (v.root / "gocryptfs.longname.ckrfs-keys.name").write_text("{}")
    (v.root / "gocryptfs.longname.ckrfs-later.name").write_text("{}")
    (v.root / "lost+found").mkdir()
    before, times = v.snapshot(), {p: (v.root / p).lstat().st_mtime_ns for p in walk(v.root)}
    answer = v.check(status=DONE)
    assert answer["findings"] == [] and answer["summary"]["complete"]
    assert answer["volume"] == str(v.root)
    done = v.check("--repair", status=DONE)
    assert done["findings"] == [] and done["repairs"] == [] and "log" not in done
    assert v.snapshot() == before
    assert {p: (v.root / p).lstat().st_mtime_ns for p in walk(v.root)} == times
    counted = answer["summary"]
    assert counted["files"] == sum(1 for _ in range(FILES)) + LONGS + 1 + 3 * DIRS + 8 + 1 + 1 + 30 + 1 + 40
    assert counted["links"] == LINKS and counted["others"] == 1


@pytest.mark.parametrize("group", GROUPS)
def test_each_damage_is_found(volume, group):
    planted = sorted(group(volume), key=str)
    assert planted
    status = DONE if all(kind in NOTES for kind, *_ in planted) else DAMAGED
    got = sorted((tell(f) for f in volume.check(status=status)["findings"]), key=str)
    assert got == planted


def test_all_at_once_repair_and_undo(volume):
    """Everything is found, none more; after a repair only what cannot be repaired is left; undo restores all."""
    planted = plant_all(volume)
    before = volume.snapshot()
    answer = volume.check("--repair", status=DAMAGED)
    assert sorted(map(tell, answer["findings"]), key=str) == sorted(planted, key=str)
    assert answer["summary"]["damages"] == sum(kind not in NOTES for kind, *_ in planted)
    left = {(r["kind"], r["path"]) for r in answer["repairs"] if r["action"] == "left"}
    lost = [p[:-5] for k, p, *_ in planted if k == "name-damaged"]
    restored = [r["path"][:-5] for r in answer["repairs"] if r["action"] == "restored"]
    assert len(restored) == 2  # the two that were exchanged
    missing = {p for k, p, *_ in planted if k == "name-missing"} | set(lost) - set(restored)
    assert left == {(k, p) for k, p, *_ in planted if k in ("name-missing", "header-only")}
    after = volume.found(status=DAMAGED)
    assert {(k, p) for k, p, *_ in after} == {("name-missing", p) for p in missing} | \
        {(k, p) for k, p, *_ in planted if k == "header-only"}
    volume.ck.run("check", "--undo", answer["log"], volume.root, status=DONE)
    assert volume.snapshot() == before
    assert not list(volume.root.glob("*quarantine*"))


def test_repair_then_clean(volume):
    """Without lost names all is repaired, gocryptfs agrees, and sees nothing of the quarantine."""
    for group in (file_damages, link_damages, diriv_damages, attribute_damages):
        list(group(volume))
    assert volume.check("--repair", status=REPAIRED)["log"]
    assert {k for k, *_ in volume.found(status=DONE)} == {"header-only"}
    assert volume.check("--repair", status=DONE)["repairs"]  # told of, and left
    g = Gocryptfs(volume.root, PASSPHRASE)
    with g.mounted(volume.ck.dir / "peer", read_only=True) as at:
        assert not [n for n in os.listdir(at) if "quarantine" in n]
        assert len(os.listdir(at / "files")) < FILES
        for path in walk(at):
            if (at / path).is_file() and not (at / path).is_symlink():
                (at / path).read_bytes()


def test_quarantine_elsewhere_and_undo(volume):
    disk = volume.disk["files/f01"]
    change(volume.root / disk, 200)
    before = volume.snapshot()
    away = volume.ck.dir / "away"
    away.mkdir()
    answer = volume.check("--repair", "--quarantine", away, status=REPAIRED)
    assert Path(answer["log"]).parent.parent == away and not (volume.root / disk).exists()
    lines = [json.loads(line) for line in Path(answer["log"]).read_text().splitlines()]
    assert [(x["action"], x["path"]) for x in lines] == [("found", disk), ("move", disk)]
    assert lines[0]["first_block"] == 0 and lines[0]["blocks"] == 1
    # something new is in its place: it is not overwritten, and nothing is lost
    (volume.root / disk).write_text("new")
    done = volume.ck.run("check", "--undo", answer["log"], volume.root, status=FAILED)
    assert "1 could not be taken back" in done.stderr
    assert (volume.root / disk).read_text() == "new"
    (volume.root / disk).unlink()
    assert "took back 1 change\n" in volume.ck.run("check", "--undo", answer["log"], volume.root, status=DONE).stdout
    assert volume.snapshot() == before and not list(away.iterdir())


def test_undo_after_a_crash(volume):
    """The log says what was about to be done; what was not done is passed over, and so is half a line."""
    disk = volume.disk["files/f01"]
    change(volume.root / disk, 200)
    log = Path(volume.check("--repair", status=REPAIRED)["log"])
    os.rename(log.parent / "1", volume.root / disk)
    log.write_text(log.read_text() + '{"action":"move","pa')
    volume.ck.run("check", "--undo", log, volume.root, status=DONE)
    assert (volume.root / disk).exists() and not log.exists()


@pytest.mark.parametrize("line", ['{"action":"move","path":"../../x","to":"1"}',
                                  '{"action":"move","path":"x/../../y","to":"../1"}',
                                  '{"action":"create","path":"gocryptfs.conf","text":"x"}',
                                  '{"action":"attribute","path":".","attribute":"user.other","value":""}',
                                  '{"action":"rename","path":"/tmp/x","to":"gocryptfs.conf"}',
                                  "[" * 10000, '{"action":1}', '{"action":"move","path":"\\\\x00","to":"1"}'])
def test_undo_believes_nothing(volume, line):
    """A log that the volume's owner wrote moves nothing out of the volume."""
    before = volume.snapshot()
    place = volume.ck.dir / "place"
    place.mkdir()
    (place / "1").write_text("x")
    (place / "log").write_text('{"action":"found","path":"x"}\n' + line + "\n")
    volume.ck.run("check", "--undo", place / "log", volume.root, status=FAILED)
    assert volume.snapshot() == before and (place / "1").exists()


@pytest.mark.parametrize("empty", [True, False])
def test_interrupted_rmdir_is_mended(volume, empty):
    path, disk = volume.at("dirs/d00"), volume.disk["dirs/d00"]
    if empty:
        for entry in path.iterdir():
            if entry.name != "gocryptfs.diriv":
                entry.unlink()
    parked = os.path.join(os.path.dirname(disk), "gocryptfs.diriv.rmdir.123")
    before = volume.snapshot()
    os.rename(path / "gocryptfs.diriv", volume.root / parked)
    assert volume.found(status=DAMAGED) == {("diriv-missing", disk, None, None), ("parked-diriv", parked, None, None)}
    answer = volume.check("--repair", status=REPAIRED)
    assert {r["action"] for r in answer["repairs"]} == {"put-back"}
    Path(answer["log"]).unlink()
    Path(answer["log"]).parent.rmdir()
    assert volume.snapshot() == before


def test_doubtful_iv_is_left(volume):
    """The IV beside a directory without one does not fit: nobody guesses."""
    path, disk = volume.at("dirs/d00"), volume.disk["dirs/d00"]
    parked = volume.root / os.path.dirname(disk) / "gocryptfs.diriv.rmdir.9"
    (path / "gocryptfs.diriv").unlink()
    parked.write_bytes(b"x" * 16)
    before = volume.snapshot()
    answer = volume.check("--repair", status=DAMAGED)
    assert {r["action"] for r in answer["repairs"]} == {"left"} and volume.snapshot() == before


def test_lost_name_is_restored_from_the_quarantine(volume):
    """A .name file whose text is in an earlier quarantine comes back."""
    disk = volume.disk["long/00" + "n" * 198]
    name, text = volume.root / (disk + ".name"), (volume.root / (disk + ".name")).read_bytes()
    (volume.root / disk).rename(volume.root / "kept")
    (volume.root / "kept").rename(volume.ck.dir / "kept")
    volume.check("--repair", status=REPAIRED)
    assert not name.exists()
    (volume.ck.dir / "kept").rename(volume.root / disk)
    assert volume.found(status=DAMAGED) == {("name-missing", disk, None, None)}
    assert volume.check("--repair", status=REPAIRED)["repairs"][0]["action"] == "restored"
    assert name.read_bytes() == text and volume.found(status=DONE) == set()


def test_words(volume):
    disk = volume.disk["files/f01"]
    change(volume.root / disk, block_at(1) + 5)
    change(volume.root / disk, block_at(2) + 5)
    (volume.root / "R\x1bEADME").touch()
    done = volume.ck.run("check", volume.root, "--key", volume.key, status=DAMAGED)
    assert ("damage: files/f01: parts of the file do not authenticate: blocks 1 to 2\n"
            f"  on disk: {disk}\n"
            "  these parts of the file cannot be read, the others can\n") in done.stdout
    assert "damage: <R\\x1bEADME>: not part of the volume\n" in done.stdout
    assert ": 2 damages\n" in done.stdout and done.stdout.startswith("damage: ")
    done = volume.ck.run("check", volume.root, "--key", volume.key, "--repair", status=REPAIRED)
    assert f"moved: {disk}: parts of the file do not authenticate\n" in done.stdout
    assert "log of the repair: " in done.stdout


def deep_chain(fd, levels):
    for i in range(levels):
        name = "x" * 200
        os.mkdir(name, dir_fd=fd)
        fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    return fd


def test_deeper_than_a_path(ck):
    """Two hundred levels of long names: over 40,000 bytes of path. A damage at the bottom is found and repaired."""
    g = ck.volume()
    with ck.mounted() as at:
        fd = deep_chain(os.open(at, os.O_RDONLY), 200)
        f = os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
        os.write(f, b"x" * 100)
        os.close(f)
        os.close(fd)
    assert json.loads(ck.run("check", "web", "--config", ck.conf, "--json", status=DONE).stdout)["summary"]["directories"] == 201
    fd = os.open(g.cipher, os.O_RDONLY)
    try:
        for i in range(200):
            name = next(n for n in os.listdir(fd) if n.startswith("gocryptfs.longname.") and not n.endswith(".name"))
            fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
            os.close(old)
        name = next(n for n in os.listdir(fd) if not n.startswith("gocryptfs."))
        f = os.open(name, os.O_WRONLY, dir_fd=fd)
        os.pwrite(f, b"xxx", 40)
        os.close(f)
    finally:
        os.close(fd)
    limited = ["prlimit", "--nofile=40:40", ck.argv("check")[0], "check", "web", "--config", str(ck.conf), "--json"]
    done = subprocess.run(limited, env=ck.env, capture_output=True, timeout=60)
    assert done.returncode == DAMAGED, done.stderr
    found = json.loads(done.stdout)["findings"]
    assert len(found) == 1 and found[0]["name"] == ("x" * 200 + "/") * 200 + "f"
    ck.run("check", "web", "--config", ck.conf, "--repair", status=REPAIRED)
    ck.run("check", "web", "--config", ck.conf, status=DONE)
    run("rm", "-rf", g.cipher)


def test_large_file_is_shared_and_exact(ck):
    """Damages at the seams of what threads take; a giant sparse file takes no time."""
    g = ck.volume()
    blocks = 8192
    with ck.mounted() as at:
        (at / "large").write_bytes(os.urandom(BLOCK) * blocks)
        with open(at / "giant", "wb") as f:
            f.truncate(1 << 40)
    large = next(p for p in g.cipher.iterdir() if (1 << 20) < p.stat().st_size < (1 << 30))
    giant = next(p for p in g.cipher.iterdir() if p.stat().st_size > (1 << 30))
    bad = [0, 63, 64, 255, 256, 257, 4000, 4001, 8191]
    for b in bad:
        change(large, block_at(b) + 77)
    overwrite(giant, block_at(1000000) + 100, b"x")
    found = json.loads(ck.run("check", "web", "--config", ck.conf, "--json", status=DAMAGED).stdout)["findings"]
    runs = {(f["first_block"], f["blocks"]) for f in found if f["name"] == "large"}
    assert runs == {(0, 1), (63, 2), (255, 3), (4000, 2), (8191, 1)}
    assert [(f["first_block"], f["blocks"]) for f in found if f["name"] == "giant"] == [(1000000, 1)]


@pytest.mark.parametrize("config, words", [
    (lambda p: os.truncate(p, 1 << 30), "larger than"), (lambda p: p.write_text("[" * 200000), ""),
    (lambda p: p.write_text(""), ""), (lambda p: replace(p, os.mkfifo), "not a regular file"),
    (lambda p: replace(p, os.mkdir), "not a regular file"), (lambda p: p.unlink(), "not a gocryptfs volume")])
def test_config_that_cannot_be_read(volume, config, words):
    path = volume.root / "gocryptfs.conf"
    path.chmod(0o600)
    config(path)
    done = volume.ck.run("check", volume.root, "--key", volume.key, status=FAILED)
    assert done.stderr.startswith(f'ckrfs: cannot check "{volume.root}": ') and words in done.stderr
    assert done.stdout == ""


def test_statuses(volume):
    ck = volume.ck
    wrong = ck.key_file("wrong", name="other")
    assert "wrong" in ck.run("check", volume.root, "--key", f"file:{wrong}", status=WRONG_KEY).stderr
    ck.run("check", ck.dir / "nowhere", "--key", volume.key, status=NO_VOLUME)
    ck.run("check", "nothing", "--config", ck.conf, status=NO_VOLUME)
    ck.run("check", status=USAGE)
    ck.run("check", volume.root, "--quarantine", "x", status=USAGE)
    ck.run("check", volume.root, "--undo", ck.dir / "nolog", status=FAILED)


def test_mounted_is_busy(ck):
    ck.volume()
    with ck.mounted():
        for option in ([], ["--repair"]):
            done = ck.run("check", "web", "--config", ck.conf, *option, status=BUSY)
            hint = "ckrfs umount web" if option else "ckrfs check --online web"
            assert f'"web" is mounted on {ck.mnt}' in done.stderr and done.stderr.endswith(f"  try: {hint}\n")
    ck.run("check", "web", "--config", ck.conf, status=DONE)


def test_unreadable_is_told_and_the_walk_goes_on(ck, template):
    """As somebody who may not read all; others' files are no reason to stop."""
    v = Volume(ck, *template)
    run("chown", "-R", "1000:1000", v.root)
    v.at("files/f01").chmod(0)
    change(v.at("files/f02"), 300)
    v.at("dirs/d00").chmod(0)
    ck.dir.chmod(0o755)
    os.chown(ck.dir / "key", 1000, 1000)
    runtime = ck.dir / "userrun"
    runtime.mkdir()
    os.chown(runtime, 1000, 1000)
    done = ck.run("check", v.root, "--key", v.key, "--json", status=DAMAGED, user=1000, group=1000, extra_groups=[],
                  env=dict(ck.env, CKRFS_RUNTIME_DIR=str(runtime)))
    assert {tell(f) for f in json.loads(done.stdout)["findings"]} == {
        ("unreadable", v.disk["files/f01"], None, None), ("unreadable", v.disk["dirs/d00"], None, None),
        ("blocks", v.disk["files/f02"], 0, 1)}


def test_log_of_a_killed_mount(ck):
    """What a crash leaves is a note; a mount, or a repair, is done with it."""
    volume = ck.volume()
    key = f"file:{ck.dir}/key"

    def kill():
        with open(ck.mnt / "f", "r+b") as f:
            os.pwrite(f.fileno(), b"new", 10)
            os.fsync(f.fileno())
            for pid in (ck.state()["keeper_pid"], ck.state()["server_pid"]):
                os.kill(pid, signal.SIGKILL)
        ck.umount()

    for end in ("mount", "repair"):
        ck.mount()
        (ck.mnt / "f").write_bytes(os.urandom(10000))
        with open(ck.mnt / "f", "rb") as f:
            os.fsync(f.fileno())
        kill()
        done = ck.run("check", volume.cipher, "--key", key, "--json", status=DONE)
        assert [f["kind"] for f in json.loads(done.stdout)["findings"]] == ["redo-log"]
        volume.fsck()
        if end == "mount":
            with ck.mounted():
                assert (ck.mnt / "f").read_bytes()[10:13] == b"new"
        else:
            ck.run("check", volume.cipher, "--key", key, "--repair", status=DONE)
        assert "no damage" in ck.run("check", volume.cipher, "--key", key, status=DONE).stdout
        assert not [n for n in os.listdir(volume.cipher) if "redo" in n]


def test_corrupt_block_vector(ck):
    where = VECTORS if (VECTORS / "corrupt-block").exists() else REPO / "tests" / "vectors"
    vector = json.loads((where / "corrupt-block" / "expected.json").read_text())
    run("tar", "--xattrs", "--xattrs-include=*", "-C", ck.dir, "-xpJf", where / "corrupt-block" / "cipher.tar.xz")
    ck.keep_secret(vector["password"])
    key = ck.key_file(vector["password"])
    done = ck.run("check", ck.dir / "cipher", "--key", f"file:{key}", "--json", status=DAMAGED)
    found = json.loads(done.stdout)["findings"]
    expected = {(n, b) for n, e in vector["entries"].items() for b in e.get("bad", [])}
    assert {(f["name"], f["first_block"]) for f in found if f["kind"] == "blocks"} == expected and expected
    assert [f["path"] for f in found if f["kind"] != "blocks"] == ["not-ours.txt"]


# ---- while it is mounted

LOAD = r"""
import os, random, sys
at, seconds = sys.argv[1], float(sys.argv[2])
import time
end = time.monotonic() + seconds
rng = random.Random(int(sys.argv[3]))
os.makedirs(at, exist_ok=True)
n = 0
print("begun", flush=True)
while time.monotonic() < end:
    n += 1
    name = os.path.join(at, rng.choice("abcdef") * rng.choice([3, 200]))
    what = rng.randrange(8)
    try:
        if what == 0:
            with open(name, "wb") as f:
                f.write(os.urandom(rng.randrange(1, 200000)))
        elif what == 1:
            with open(name, "r+b") as f:
                for _ in range(20):
                    f.seek(rng.randrange(0, 200000))
                    f.write(os.urandom(rng.randrange(1, 9000)))
                    f.flush()
        elif what == 2:
            os.truncate(name, rng.randrange(0, 200000))
        elif what == 3:
            os.unlink(name)
        elif what == 4:
            os.mkdir(name + "d")
            with open(name + "d/f", "w") as f:
                f.write("x")
        elif what == 5:
            os.unlink(name + "d/f")
            os.rmdir(name + "d")
        elif what == 6:
            os.rename(name, name[::-1] + "r")
        else:
            os.symlink("target", name + "l")
            os.rename(name + "l", name + "m")
    except OSError:
        pass
print(n, flush=True)
"""


def online(ck, *options, **kw):
    done = ck.run("check", "--online", "web", "--json", *options, **kw)
    return json.loads(done.stdout) if done.stdout else None


def test_online_finds_damage_and_nothing_else(ck, template):
    """Under load there is no false finding; a planted damage is found; only the damaged file is told of."""
    v = Volume(ck, *template)
    ck.configure("volume web", source=v.root, key=v.key)
    change(v.at("files/f01"), block_at(2) + 50)
    v.at("dirs/d03").joinpath("gocryptfs.diriv").unlink()
    planted = {("blocks", v.disk["files/f01"], 2, 1), ("diriv-missing", v.disk["dirs/d03"], None, None)}
    with ck.mounted() as at:
        writers = [subprocess.Popen(["/usr/bin/python3", "-c", LOAD, str(at / f"load{i}"), "6", str(i)],
                                    stdout=subprocess.PIPE, text=True) for i in range(2)]
        try:
            for w in writers:
                assert w.stdout.readline() == "begun\n"
            rounds = 0
            while rounds < 2 or any(w.poll() is None for w in writers):
                answer = online(ck, status=DAMAGED)
                assert {tell(f) for f in answer["findings"] if f["severity"] == "damage"} == planted
                assert answer["summary"]["complete"] and answer["volume"] == str(v.root)
                rounds += 1
        finally:
            for w in writers:
                w.kill() if w.poll() is None else None
                out, _ = w.communicate()
        assert all(w.returncode == 0 for w in writers) and int(out) > 50
    assert {t for t in v.found(status=DAMAGED) if t[0] not in NOTES} == planted


def ask_with_pipe(ck, name="web"):
    """-> the answer of the keeper, the end of the pipe to read from"""
    r, w = os.pipe()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(ck.runtime / "mounts" / name / "control"))
        socket.send_fds(s, [b'{"version":1,"command":"check"}\n'], [w])
        os.close(w)
        answer = json.loads(s.makefile().readline())
    return answer, r


def many_damages(v, n=700):
    """More findings than a pipe holds."""
    for i in range(n):
        (v.root / f"foreign-{i:05}").touch()


def test_online_one_at_a_time_and_umount_at_once(ck, template):
    """A reader that does not read holds up its check, and neither the mount nor its end."""
    v = Volume(ck, *template)
    many_damages(v)
    ck.configure("volume web", source=v.root, key=v.key)
    at = ck.mount("web")
    answer, r = ask_with_pipe(ck)
    assert answer == {"version": 1, "ok": True}
    assert os.read(r, 1)
    done = ck.run("check", "--online", "web", status=BUSY)
    assert done.stderr == 'ckrfs: cannot check "web": "web" is being checked already\n'
    (at / "new").write_text("works")
    pids = [ck.state()["keeper_pid"], ck.state()["server_pid"]]
    ck.umount()
    assert not any(alive(p) for p in pids)
    os.close(r)


def test_online_reader_that_goes(ck, template):
    """It ends its check; the next one is not refused, and complete."""
    v = Volume(ck, *template)
    many_damages(v)
    ck.configure("volume web", source=v.root, key=v.key)
    with ck.mounted():
        for _ in range(3):
            answer, r = ask_with_pipe(ck)
            assert answer["ok"]
            os.close(r)
            ck.wait_for_log("check stopped")
            ck.log.write_text("")
        assert len(online(ck, status=DAMAGED)["findings"]) == 700
        assert ck.state()["state"] == "unlocked"


def test_online_mistakes(ck):
    ck.volume()
    ck.plain()
    ck.run("check", "--online", "web", status=NO_VOLUME)
    ck.run("check", "--online", "web", "--repair", status=USAGE)
    with ck.mounted():
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(ck.runtime / "mounts" / "web" / "control"))
            s.sendall(b'{"version":1,"command":"check"}\n')
            assert json.loads(s.makefile().readline())["error"]["code"] == -74
        with socket.socket(socket.AF_UNIX) as s, open(ck.dir / "file", "wb") as f:
            s.connect(str(ck.runtime / "mounts" / "web" / "control"))
            socket.send_fds(s, [b'{"version":1,"command":"check"}\n'], [f.fileno()] * 3)
            assert json.loads(s.makefile().readline())["error"]["code"] == -22
        keeper = ck.state()["keeper_pid"]
        before = len(os.listdir(f"/proc/{keeper}/fd"))
        assert "no damage" in ck.run("check", "--online", ck.mnt, status=DONE).stdout
        assert len(os.listdir(f"/proc/{keeper}/fd")) == before
    with ck.mounted("plain"):
        assert "nothing to check" in ck.run("check", "--online", "plain", status=15).stderr


def test_online_check_is_ended_by_a_lock(ck, template):
    """It uses the key. A locked volume is not checked, an unlocked one is again."""
    v = Volume(ck, *template)
    many_damages(v)
    ck.configure("volume web", source=v.root, key=v.key)
    with ck.mounted():
        answer, r = ask_with_pipe(ck)
        assert answer["ok"] and os.read(r, 1)
        ck.run("lock", "web", status=DONE)
        ck.wait_for_log("check stopped")
        os.close(r)
        done = ck.run("check", "--online", "web", status=13)
        assert done.stderr == 'ckrfs: cannot check "web": "web" is locked\n  try: ckrfs unlock web\n'
        ck.run("unlock", "web", status=DONE)
        assert len(online(ck, status=DAMAGED)["findings"]) == 700
