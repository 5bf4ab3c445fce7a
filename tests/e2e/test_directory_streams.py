# SPDX-License-Identifier: MIT
"""Directory streams of 100,000 entries, which others change meanwhile: telldir(3), seekdir(3), rewinddir(3)."""
import ctypes
import os
import sys

import pytest
from support import child, sanitized
from variants import configure, mounted, tmpfs, variant  # noqa: F401

MANY = 20000 if sanitized() else 100000
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.telldir.restype = ctypes.c_long
for name, more in (("readdir64", []), ("telldir", []), ("seekdir", [ctypes.c_long]), ("rewinddir", []), ("closedir", [])):
    getattr(LIBC, name).argtypes = [ctypes.c_void_p, *more]

CHANGER = """
import os, sys
n = 0
while True:
    path = os.path.join(sys.argv[1], "other%d" % (n % 500))
    with open(path, "w"):
        pass
    if n % 2:
        os.rename(path, path + "-moved" + "x" * 180)
        os.unlink(path + "-moved" + "x" * 180)
    else:
        os.unlink(path)
    n += 1
    if n == 100:
        print("on", flush=True)
"""


class Stream:
    def __init__(self, path):
        self.dir = LIBC.opendir(os.fsencode(path))
        assert self.dir

    def next(self):
        entry = LIBC.readdir64(self.dir)
        return ctypes.string_at(entry + 19).decode() if entry else None

    def rest(self):
        seen = []
        while (name := self.next()) is not None:
            seen.append(name)
        return seen

    def close(self):
        LIBC.closedir(self.dir)


def stays(names):
    return [n for n in names if n.startswith("e")]


@pytest.fixture
def full(ck, variant):  # noqa: F811
    """A directory of so many entries, some of them with long names."""
    with tmpfs(ck.dir / "lower", 1 << 30) as lower:
        configure(ck, variant, lower)
        with mounted(ck, variant) as at:
            (at / "d").mkdir()
            for i in range(MANY):
                os.mknod(at / "d" / (f"e{i}" + "l" * (200 if i % 100 == 0 else 0)), 0o100644)
            yield at / "d"


def rss(ck):
    with open(f"/proc/{ck.state()['server_pid']}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_streams_while_others_change(ck, full):
    """What was there all the time comes once, from the start, again after rewinding, and from each place told."""
    wanted = sorted(stays(os.listdir(full)))
    assert len(wanted) == MANY
    before = rss(ck)
    with child([sys.executable, "-c", CHANGER, full], stdout=-1) as changer:
        assert changer.stdout.readline() == b"on\n"
        stream = Stream(full)
        first, places = [], []
        while (name := stream.next()) is not None:
            first.append(name)
            if len(first) % (MANY // 10) == 0:
                places.append((LIBC.telldir(stream.dir), len(first)))
        assert sorted(stays(first)) == wanted
        LIBC.rewinddir(stream.dir)
        assert sorted(stays(stream.rest())) == wanted
        for place, count in reversed(places):
            LIBC.seekdir(stream.dir, place)
            assert stays(stream.rest()) == stays(first[count:])
        stream.close()
        assert changer.poll() is None
    assert rss(ck) - before < 64 << 10, "a stream costs no memory that grows with the directory"


def test_removed_while_read(ck, full):
    """As rm -r does it."""
    stream, count = Stream(full), 0
    while (name := stream.next()) is not None:
        if name not in (".", ".."):
            os.unlink(full / name)
            count += 1
    stream.close()
    assert count == MANY
    os.rmdir(full)
