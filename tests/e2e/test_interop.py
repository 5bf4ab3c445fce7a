# SPDX-License-Identifier: MIT
"""What ckrfs writes, gocryptfs checks and reads back identically, and the other way round."""
import ctypes
import errno
import hashlib
import os
import random
import stat
import subprocess

import pytest
from support import TOOLS, child, errno_of, run, sanitized

SLOW = bool(sanitized())  # sizes only; what is checked stays the same
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2


def renameat2(old, new, flags):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def random_name(rng, size):
    """size bytes, anything a name may hold: not only UTF-8"""
    while True:
        name = bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz \t\xc3\xff\x01.-_=~") for _ in range(size))
        if name not in (b".", b".."):
            return name


def content(rng):
    size = rng.choice([0, 1, 15, 4095, 4096, 4097, 8192, 12288, 131072, rng.randrange(300000)])
    return rng.randbytes(size)


def make_file(rng, path):
    with open(path, "wb") as f:
        if rng.random() < 0.2:  # holes, whole blocks and pieces
            f.seek(rng.choice([1, 4095, 4096, 5000, 65536, 1000003]))
            f.write(content(rng))
            f.truncate(f.tell() + rng.choice([0, 1, 4096, 100000]))
        else:
            f.write(content(rng))
    os.chmod(path, rng.choice([0o600, 0o644, 0o755, 0o4755, 0o444]))


def make_extras(rng, where, names):
    os.symlink(rng.randbytes(20).hex(), os.path.join(where, names[0]))
    os.symlink(b"x/" * 1000 + b"end", os.path.join(where, names[1]))
    os.mkfifo(os.path.join(where, names[2]), 0o640)
    path = os.path.join(where, names[3])
    make_file(rng, path)
    os.link(path, os.path.join(where, names[4]))
    os.setxattr(path, "user.some", rng.randbytes(rng.choice([0, 1, 200])))
    os.setxattr(where, "user.dir", b"of a directory")
    os.mknod(os.path.join(where, names[5]), 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def make_tree(root, seed, files):
    """A tree that depends on nothing but the seed. Every name length from 1 to 255 occurs at least once."""
    rng = random.Random(seed)
    directories = [os.fsencode(root)]
    lengths = list(range(1, 256)) if files >= 255 else [1, 15, 16, 174, 175, 176, 177, 255]
    for i in range(files):
        where = rng.choice(directories)
        path = os.path.join(where, random_name(rng, lengths[i % len(lengths)]))
        if os.path.lexists(path):
            continue
        if rng.random() < 0.15:
            os.mkdir(path, rng.choice([0o700, 0o755, 0o2750]))
            directories.append(path)
        else:
            make_file(rng, path)
    make_extras(rng, directories[-1], [b"extra-%d-" % i + b"y" * (i * 40) for i in range(6)])
    for path in directories[1:]:
        os.utime(path, ns=(10**18 + rng.randrange(10**9), 10**18 + rng.randrange(10**9)))


def picture(root):
    """Everything of a tree that must be the same on both sides."""
    root = os.fsencode(root)
    seen = {}
    for where, directories, files in os.walk(root):
        for name in directories + files + [b"."]:
            path = os.path.join(where, name)
            st = os.lstat(path)
            entry = [st.st_mode, st.st_uid, st.st_gid, st.st_rdev, st.st_mtime_ns]
            if not stat.S_ISDIR(st.st_mode):
                entry += [st.st_nlink, st.st_size]
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    entry.append(hashlib.file_digest(f, "sha256").hexdigest())
            if stat.S_ISLNK(st.st_mode):
                entry.append(os.readlink(path))
            entry.append({n: os.getxattr(path, n, follow_symlinks=False)
                          for n in sorted(os.listxattr(path, follow_symlinks=False))})
            seen[os.path.relpath(path, root)] = entry
    return seen


def assert_same(seen, wanted):
    assert sorted(seen) == sorted(wanted)
    for name, entry in wanted.items():
        assert seen[name] == entry, name


@pytest.mark.parametrize("seed", [1, 2])
def test_written_by_ckrfs_read_by_gocryptfs(ck, seed):
    volume = ck.volume()
    with ck.mounted():
        make_tree(ck.mnt, seed, 300)
        wanted = picture(ck.mnt)
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert_same(picture(peer), wanted)
    with ck.mounted():
        assert_same(picture(ck.mnt), wanted)


@pytest.mark.parametrize("seed", [3])
def test_written_by_gocryptfs_read_by_ckrfs(ck, seed):
    volume = ck.volume()
    with volume.mounted(ck.dir / "peer") as peer:
        make_tree(peer, seed, 300)
        wanted = picture(peer)
    with ck.mounted():
        assert_same(picture(ck.mnt), wanted)


def test_volume_of_init_opens_with_gocryptfs(ck):
    """The other maker: `ckrfs init`."""
    source = ck.dir / "made"
    source.mkdir()
    key = ck.key_file("correct horse")
    ck.run("init", source, "--key", f"file:{key}", "--scrypt-n", "11", status=0)
    volume = ck.volume(cipher=source, init=False)
    ck.keep_secret(volume.master_key())
    assert b'"N": 2048' in (source / "gocryptfs.conf").read_bytes()
    with ck.mounted():
        make_tree(ck.mnt, 4, 60)
        wanted = picture(ck.mnt)
    volume.fsck()
    with volume.mounted(ck.dir / "peer") as peer:
        assert_same(picture(peer), wanted)


def test_init_refuses_a_directory_with_something_in_it(ck):
    source = ck.dir / "full"
    source.mkdir()
    (source / "mine").write_text("here")
    done = ck.run("init", source, "--key", f"file:{ck.key_file('x')}")
    assert done.returncode not in (0, 2) and "not empty" in done.stderr
    assert os.listdir(source) == ["mine"]


def test_tar_of_thousands_of_files(ck):
    rng = random.Random(5)
    tree = ck.dir / "tree"
    for i in range(500 if SLOW else 4000):
        d = tree / f"d{i % 40}" / f"e{i % 7}"
        d.mkdir(parents=True, exist_ok=True)
        (d / f"file-{i}{'-long' * (i % 50)}").write_bytes(rng.randbytes(i * 31 % 9000))
    archive = ck.dir / "tree.tar"
    run("tar", "-C", tree, "-cf", archive, ".")
    volume = ck.volume()
    with ck.mounted():
        run("tar", "-C", ck.mnt, "-xf", archive)
        run("tar", "-C", ck.mnt, "-df", archive)  # compares contents, modes, owners, times
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        run("tar", "-C", peer, "-df", archive)


EDGES = [1, 15, 16, 31, 32, 143, 175, 176, 177, 254, 255]


def test_name_lengths(ck):
    """175 bytes is the last that is stored as itself, 176 the first stored by hash; 256 is too long."""
    volume = ck.volume()
    with ck.mounted():
        for size in EDGES:
            (ck.mnt / ("n" * size)).write_text(str(size))
            (ck.mnt / ("d" * size)).mkdir()
        assert errno_of(os.mkdir, ck.mnt / ("n" * 256)) == "ENAMETOOLONG"
        assert errno_of(os.stat, ck.mnt / ("n" * 256)) == "ENAMETOOLONG"
        on_disk = os.listdir(volume.cipher)
        assert sum(n.endswith(".name") and ".redo." not in n for n in on_disk) == 2 * sum(s >= 176 for s in EDGES)
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert set(os.listdir(peer)) == {c * s for c in "nd" for s in EDGES}
    with ck.mounted():
        for size in EDGES:
            (ck.mnt / ("n" * size)).unlink()
            (ck.mnt / ("d" * size)).rmdir()
        assert os.listdir(ck.mnt) == []
        assert sorted(os.listdir(volume.cipher)) == ["gocryptfs.conf", "gocryptfs.diriv"]


SHORT, LONG, OTHER_LONG = "s", "l" * 200, "m" * 255


@pytest.mark.parametrize("target", ["absent", "file", "directory"])
@pytest.mark.parametrize("new", [SHORT + "2", OTHER_LONG], ids=["to-short", "to-long"])
@pytest.mark.parametrize("old", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_rename(ck, kind, old, new, target):
    """All pairs of short and long names, across directories, onto nothing, a file and an empty directory."""
    volume = ck.volume()
    with ck.mounted():
        a, b = ck.mnt / "a", ck.mnt / ("b" * 180)
        a.mkdir()
        b.mkdir()

        def make(path, what):
            if what == "file":
                path.write_text(path.name)
            elif what == "directory":
                path.mkdir()

        make(a / old, kind)
        if kind == "directory":
            (a / old / ("child" * 40)).write_text("inside")
        make(b / new, target)
        wrong = {("file", "directory"): "EISDIR", ("directory", "file"): "ENOTDIR"}.get((kind, target))
        assert errno_of(os.rename, a / old, b / new) == wrong
        if wrong:
            assert os.listdir(a) == [old] and os.listdir(b) == [new]
        else:
            assert os.listdir(a) == [] and os.listdir(b) == [new]
            if kind == "file":
                assert (b / new).read_text() == old
            else:
                assert (b / new / ("child" * 40)).read_text() == "inside"
        wanted = picture(ck.mnt)
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert_same(picture(peer), wanted)


def test_rename_flags_and_refusals(ck):
    volume = ck.volume()
    with ck.mounted():
        m = ck.mnt
        for name in (SHORT, LONG):
            (m / name).write_text(name)
        (m / "full").mkdir()
        (m / "full" / "x").touch()
        (m / "empty").mkdir()
        assert errno_of(renameat2, m / SHORT, m / LONG, RENAME_NOREPLACE) == "EEXIST"
        assert errno_of(renameat2, m / LONG, m / SHORT, RENAME_NOREPLACE) == "EEXIST"
        assert (m / LONG).read_text() == LONG
        renameat2(m / SHORT, m / LONG, RENAME_EXCHANGE)
        assert (m / LONG).read_text() == SHORT and (m / SHORT).read_text() == LONG
        renameat2(m / SHORT, m / "empty", RENAME_EXCHANGE)
        assert (m / SHORT).is_dir() and (m / "empty").read_text() == LONG
        renameat2(m / "empty", m / OTHER_LONG, RENAME_NOREPLACE)
        assert errno_of(renameat2, m / "none", m / LONG, RENAME_EXCHANGE) == "ENOENT"
        assert errno_of(os.rename, m / SHORT, m / "full") == "ENOTEMPTY"
        assert errno_of(os.rename, m / "full", m / "full" / "in") == "EINVAL"
        assert errno_of(os.rmdir, m / "full") == "ENOTEMPTY"
        os.link(m / LONG, m / "same")
        os.rename(m / LONG, m / "same")  # hard links of one file: nothing happens
        assert set(os.listdir(m)) == {SHORT, LONG, OTHER_LONG, "same", "full"}
        wanted = picture(m)
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert_same(picture(peer), wanted)


def test_sparse_file_stays_sparse(ck):
    volume = ck.volume()
    with ck.mounted():
        path = ck.mnt / "sparse"
        with open(path, "wb") as f:
            f.write(b"head")
            f.seek(1 << 30)
            f.write(b"tail")
        st = os.stat(path)
        assert st.st_size == (1 << 30) + 4 and st.st_blocks * 512 < 1 << 20
        with open(path, "rb") as f:
            assert f.read(4) == b"head"
            f.seek(1 << 29)
            assert f.read(4096) == bytes(4096)
            f.seek(1 << 30)
            assert f.read() == b"tail"
            hole = os.lseek(f.fileno(), 0, os.SEEK_HOLE)
            data = os.lseek(f.fileno(), 1 << 20, os.SEEK_DATA)
        assert 4 <= hole <= 1 << 20 and 1 << 20 <= data <= 1 << 30
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        with open(peer / "sparse", "rb") as f:
            f.seek((1 << 30) - 10)
            assert f.read() == bytes(10) + b"tail"


def big_chunk(i):
    return hashlib.sha256(i.to_bytes(8, "big")).digest() * (1 << 15)  # 1 MiB


def test_file_of_5_gib(ck):
    """Offsets over 4 GiB: long runs in order at both ends, a hole between, a write over the border."""
    volume = ck.volume()
    gib = 1 << 30
    border, end = 4 * 1024, 5 * 1024  # in MiB
    tail = [*range(border - 8, border + 8), end - 1] if SLOW else range(border - 256, end)
    with ck.mounted():
        with open(ck.mnt / "big", "wb", buffering=0) as f:
            for i in range(16 if SLOW else 512):
                f.write(big_chunk(i))
            for i in tail:
                os.pwrite(f.fileno(), big_chunk(i), i << 20)
            os.pwrite(f.fileno(), b"over the border", 4 * gib - 7)
            os.fsync(f.fileno())
        assert os.stat(ck.mnt / "big").st_size == 5 * gib
    with volume.mounted(ck.dir / "peer", read_only=True) as peer, open(peer / "big", "rb") as f:
        assert os.fstat(f.fileno()).st_size == 5 * gib
        for i in [0, 1, 15, border - 8, border + 7, end - 1]:
            assert os.pread(f.fileno(), 1 << 20, i << 20) == big_chunk(i), i
        assert os.pread(f.fileno(), 1 << 20, 2 * gib) == bytes(1 << 20)
        assert os.pread(f.fileno(), 15, 4 * gib - 7) == b"over the border"
        assert os.pread(f.fileno(), 100, 4 * gib + 8) == big_chunk(border)[8:108]
    with ck.mounted(), open(ck.mnt / "big", "rb") as f:
        for i in tail:
            if i not in (border - 1, border):
                assert os.pread(f.fileno(), 1 << 20, i << 20) == big_chunk(i), i


@pytest.mark.parametrize("options", ["", "writeback=no", "attr-timeout=0,entry-timeout=0"])
@pytest.mark.parametrize("seed", [11, 12])
def test_random_operations(ck, seed, options):
    """fsx: the same operations on a model in memory. Afterwards gocryptfs sees the same bytes."""
    volume = ck.volume()
    more = ["-o", options] if options else []
    with ck.mounted("web", ck.mnt, *more):
        for size in (20000, 1000000):
            run(TOOLS / "fsx", ck.mnt / f"f{size}", str(seed), "600" if SLOW else "3000", str(size), timeout=300)
        wanted = picture(ck.mnt)
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert_same(picture(peer), wanted)


def test_fsx_finds_a_difference(ck):
    """fsx can fail: somebody else writes into the file while it runs."""
    path = ck.dir / "file"
    with child([TOOLS / "fsx", path, "1", "100000000", "100000"], stderr=subprocess.PIPE) as fsx:
        while fsx.poll() is None:
            with open(path, "ab") as f:
                f.write(b"x")
        assert fsx.returncode == 1 and b"the last operations" in fsx.stderr.read()


def test_two_writers_of_one_file(ck):
    """Parallel writers to disjoint blocks and to neighbouring parts of one block lose nothing."""
    ck.volume()
    with ck.mounted():
        path = ck.mnt / "shared"
        path.write_bytes(bytes(400 * 1000))
        children = []
        for part in range(4):
            pid = os.fork()
            if pid == 0:
                fd = os.open(path, os.O_WRONLY)
                for i in range(100):
                    os.pwrite(fd, bytes([part + 1]) * 1000, (i * 4 + part) * 1000)
                os._exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        wanted = b"".join(bytes([i % 4 + 1]) * 1000 for i in range(400))
        assert path.read_bytes() == wanted
    with ck.mounted():
        assert path.read_bytes() == wanted


def test_allocated_space_is_zeros(ck):
    ck.volume()
    with ck.mounted():
        path = ck.mnt / "f"
        path.write_bytes(b"x" * 20000)
        with open(path, "r+b") as f:
            os.posix_fallocate(f.fileno(), 0, 50000)
        assert path.read_bytes() == b"x" * 20000 + bytes(30000)
