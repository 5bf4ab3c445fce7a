# SPDX-License-Identifier: MIT
"""Several processes do everything at once in one tree: each in a part of its own, of which it knows what must be there,
and all of them with the same few names. What is there at the end, and after a mount anew, is what each of them knows."""
import contextlib
import errno
import json
import os
import random
import stat
import sys

import pytest
from support import child, run, sanitized
from variants import configure, mounted, tmpfs, variant  # noqa: F401

WORKERS = 4
OPERATIONS = int(os.environ.get("CKRFS_STRESS_OPS", "250" if sanitized() else "1500"))
CONTENDED = [f"name{i}" for i in range(5)] + ["n" * 200]
# What may happen to a name that others change at the same time.
RACES = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.ELOOP, errno.ENODATA,
         errno.ESTALE, errno.EPERM, errno.EBUSY}


class Tree:
    """A worker's own directory, with a model: path -> bytes of a file (shared by its links), None for a directory."""

    def __init__(self, top, seed):
        self.top, self.rng, self.model, self.xattrs, self.count = top, random.Random(seed), {"": None}, {}, 0

    def path(self, name):
        return os.path.join(self.top, name) if name else self.top

    def pick(self, directories):
        found = [n for n, c in self.model.items() if (c is None) == directories and (n or directories)]
        return self.rng.choice(found) if found else None

    def fresh(self):
        self.count += 1
        return os.path.join(self.pick(True), f"{self.count}-" + "l" * self.rng.choice([1, 10, 200]))

    def create(self):
        name = self.fresh()
        content = bytearray(self.rng.randbytes(self.rng.choice([0, 10, 5000, 70000])))
        with open(self.path(name), "xb") as f:
            f.write(content)
        self.model[name] = content

    def write(self):
        name = self.pick(False)
        at, data = self.rng.randrange(20000), self.rng.randbytes(self.rng.randrange(1, 9000))
        with open(self.path(name), "r+b") as f:
            f.seek(at)
            f.write(data)
        content = self.model[name]
        content.extend(bytes(max(0, at - len(content))))
        content[at:at + len(data)] = data

    def truncate(self):
        name, size = self.pick(False), self.rng.randrange(30000)
        os.truncate(self.path(name), size)
        content = self.model[name]
        content[size:] = bytes(max(0, size - len(content)))

    def mkdir(self):
        name = self.fresh()
        if name.count("/") < 5:
            os.mkdir(self.path(name))
            self.model[name] = None

    def rmdir(self):
        name = self.pick(True)
        empty = not any(n.startswith(name + "/") for n in self.model)
        if name and empty:
            os.rmdir(self.path(name))
            del self.model[name]
        elif name:
            with contextlib.suppress(OSError):
                os.rmdir(self.path(name))
                raise AssertionError("a directory that is not empty was removed")

    def rename(self):
        name, to = self.pick(self.rng.random() < 0.3), self.fresh()
        if not name or (to + "/").startswith(name + "/"):
            return
        os.rename(self.path(name), self.path(to))
        moved = [n for n in self.model if n == name or n.startswith(name + "/")]
        for table in (self.model, self.xattrs):
            for n in moved:
                if n in table:
                    table[to + n[len(name):]] = table.pop(n)

    def replace(self):
        name, to = self.pick(False), self.pick(False)
        if name != to and self.model[name] is not self.model[to]:
            os.rename(self.path(name), self.path(to))
            self.model[to] = self.model.pop(name)
            self.xattrs.pop(to, None)
            if name in self.xattrs:
                self.xattrs[to] = self.xattrs.pop(name)

    def link(self):
        name, to = self.pick(False), self.fresh()
        if name not in self.xattrs:
            os.link(self.path(name), self.path(to))
            self.model[to] = self.model[name]

    def unlink(self):
        name = self.pick(False)
        os.unlink(self.path(name))
        del self.model[name]
        self.xattrs.pop(name, None)

    def xattr(self):
        name = self.pick(False)
        if sum(c is self.model[name] for c in self.model.values()) == 1:
            value = self.rng.randbytes(self.rng.randrange(60))
            os.setxattr(self.path(name), "user.x", value)
            self.xattrs[name] = value

    def contend(self):
        """With the names that all use: nothing may happen but what races allow."""
        a, b = (os.path.join(os.path.dirname(self.top), "shared", self.rng.choice(CONTENDED)) for _ in range(2))
        call = self.rng.choice([lambda: os.close(os.open(a, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK)), lambda: os.mkdir(a), lambda: os.rmdir(a),
                                lambda: os.unlink(a), lambda: os.rename(a, b), lambda: os.link(a, b), lambda: os.symlink(b, a),
                                lambda: os.truncate(a, 5000), lambda: os.listdir(os.path.dirname(a)), lambda: os.stat(a),
                                lambda: os.setxattr(a, "user.a", b"x"), lambda: os.lstat(b)])
        try:
            call()
        except OSError as e:
            if e.errno not in RACES:
                raise

    def run(self, operations):
        kinds = [self.create] * 4 + [self.write] * 4 + [self.truncate, self.mkdir, self.mkdir, self.rmdir, self.rename, self.rename, self.replace,
                                                       self.link, self.unlink, self.unlink, self.xattr] + [self.contend] * 5
        for _ in range(3):
            self.create()
        for _ in range(operations):
            kind = self.rng.choice(kinds)
            if self.pick(False) or kind in (self.create, self.mkdir, self.contend):
                kind()
            if self.rng.random() < 0.02:
                self.verify_one()

    def verify_one(self):
        name = self.pick(False)
        if name:
            with open(self.path(name), "rb") as f:
                assert f.read() == bytes(self.model[name]), name

    def expected(self):
        return {n: None if c is None else [bytes(c).hex(), sum(o is c for o in self.model.values()), self.xattrs.get(n, b"").hex()]
                for n, c in self.model.items()}


def found(top):
    seen = {}
    for where, directories, files in os.walk(top):
        seen[os.path.relpath(where, top) if where != str(top) else ""] = None
        for n in files:
            path = os.path.join(where, n)
            st = os.stat(path)
            assert stat.S_ISREG(st.st_mode)
            with open(path, "rb") as f:
                content = f.read()
            assert len(content) == st.st_size
            xattr = os.getxattr(path, "user.x") if os.listxattr(path) else b""
            seen[os.path.relpath(path, top)] = [content.hex(), st.st_nlink, xattr.hex()]
    return seen


def check_contended(top):
    """What is left of those names is in order: each listed name is there, and can be removed."""
    for name in os.listdir(top):
        assert name in CONTENDED
        os.lstat(os.path.join(top, name))
    run("rm", "-rf", top)
    assert not os.path.exists(top)


@pytest.mark.parametrize("seed", [1, 2])
def test_parallel_changes(ck, variant, seed):  # noqa: F811
    with tmpfs(ck.dir / "lower") as lower:
        volume = configure(ck, variant, lower)
        with mounted(ck, variant) as at:
            (at / "shared").mkdir()
            with contextlib.ExitStack() as stack:
                workers = []
                for i in range(WORKERS):
                    (at / f"w{i}").mkdir()
                    with open(ck.dir / f"out{i}", "w") as out:
                        workers.append(stack.enter_context(child([sys.executable, __file__, at / f"w{i}", str(seed * 100 + i), str(OPERATIONS)], stdout=out)))
                assert [w.wait(timeout=500) for w in workers] == [0] * WORKERS
            wanted = [json.loads((ck.dir / f"out{i}").read_text()) for i in range(WORKERS)]
            for i in range(WORKERS):
                assert found(at / f"w{i}") == wanted[i]
        with mounted(ck, variant) as at:
            for i in range(WORKERS):
                assert found(at / f"w{i}") == wanted[i]
            check_contended(at / "shared")
        if volume:
            volume.fsck()


def test_parallel_check_finds_a_loss(tmp_path):
    """The check can fail: a byte, a name, a link."""
    tree = Tree(str(tmp_path / "w"), 1)
    os.mkdir(tree.top)
    os.mkdir(tmp_path / "shared")
    tree.run(200)
    assert found(tree.top) == tree.expected()
    path = tree.path(max((n for n, c in tree.model.items() if c), key=len))
    with open(path, "r+b") as f:
        byte = f.read(1)
        f.seek(0)
        f.write(bytes([byte[0] ^ 1]))
    assert found(tree.top) != tree.expected()
    with open(path, "r+b") as f:
        f.write(byte)
    assert found(tree.top) == tree.expected()
    os.unlink(path)
    assert found(tree.top) != tree.expected()


if __name__ == "__main__":
    mine = Tree(sys.argv[1], int(sys.argv[2]))
    mine.run(int(sys.argv[3]))
    json.dump(mine.expected(), sys.stdout)
