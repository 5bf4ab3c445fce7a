# SPDX-License-Identifier: MIT
"""The same programs on a file system and on a mount whose files lie on such a file system: what they see is equal.

Where it is not, KNOWN says what differs, and docs/posix.md why."""
import contextlib
import copy
import os
import tempfile
from pathlib import Path

import posix_base
import posix_files  # noqa: F401 (fills SCENARIOS)
import posix_scenarios  # noqa: F401
import pytest
from support import REPO, Ckrfs, run

SIZE = 24 << 20


@contextlib.contextmanager
def file_system(kind, at):
    at.mkdir()
    if kind == "ext4":
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as image:
            image.truncate(SIZE)
            run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-b", "4096", image.name)
            run("mount", "-o", "loop", image.name, at)
    else:
        run("mount", "-t", "tmpfs", "-o", f"size={SIZE},nr_inodes=200k", "tmpfs", at)
    try:
        yield at
    finally:
        run("umount", at)


@pytest.fixture(scope="module", params=["ext4", "tmpfs"])
def native(request):
    """What the scenarios see on the file system itself."""
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        with file_system(request.param, Path(top) / "fs") as at:
            (at / "work").mkdir()
            seen = posix_base.run_all(at / "work")
    yield request.param, seen


@pytest.fixture(scope="module", params=["plain", "plain-by-server", "gocryptfs"])
def both(request, native):
    kind, seen = native
    ck = Ckrfs()
    with file_system(kind, ck.dir / "lower") as lower:
        source = lower / "volume"
        if request.param.startswith("plain"):
            source.mkdir()
            ck.configure("volume vol", source=source, format="plain", suid="yes", dev="yes",
                         passthrough="auto" if request.param == "plain" else "no")
        else:
            ck.volume("vol", cipher=source, suid="yes", dev="yes")
        with ck.mounted("vol") as at:
            (at / "work").mkdir()
            ours = posix_base.run_all(at / "work")
    assert not ck.close()
    yield kind, request.param.partition("-")[0], seen, ours


# ---- what differs, and has to: each function makes of what the file system answered what the mount must answer.
# docs/posix.md has the reasons; its headings are the names here.

def chown_of_nothing(seen):
    return [[name, who, before, "0o10" + before[2:] if name == "chown-nothing" else after] for name, who, before, after in seen]


def mapped_writes_clear_capabilities(seen):
    return [[*row[:3], "ENODATA", []] if row[0] == "map" else row for row in seen]


def no_file_capabilities(seen):
    return [[name, who, "EOPNOTSUPP", "EOPNOTSUPP", []] for name, who, *_ in seen]


def no_collapse_no_insert(seen):
    whole = seen[0][5]
    return [[*row[:3], row[3] if row[2] <= 0 or row[1] < 0 else "EOPNOTSUPP", 20000, whole] if row[0] in ("collapse", "insert") else row
            for row in seen]


def zero_range_everywhere(seen):
    by = {tuple(row[:3]): row for row in seen}
    for row in seen:
        if row[0].startswith("zero") and row[3] == "EOPNOTSUPP":
            like = by["punch" if row[0] == "zero-keep" else "plain", row[1], row[2]]
            row[3:5] = like[3:5]
            row[5] = like[5] if row[0] == "zero-keep" else None
    return seen


def shorter_xattr_names(seen):
    assert len(seen[41]) == 1 and seen[32] is None
    return [*seen[:32], "ERANGE", *seen[33:41], []]


def xattrs_of_files_and_directories_only(seen):
    return [[n, a, "EPERM", "ENODATA"] if n != "dir" and not a.startswith("user") else [n, a, *rest] for n, a, *rest in seen]


KNOWN = {  # (scenario, format): functions; "any" format
    ("suid_after_change", "any"): [chown_of_nothing],
    ("capability_after_change", "plain"): [mapped_writes_clear_capabilities],
    ("capability_after_change", "gocryptfs"): [no_file_capabilities],
    ("allocate", "any"): [no_collapse_no_insert],
    ("allocate", "gocryptfs"): [zero_range_everywhere],
    ("xattrs", "gocryptfs"): [shorter_xattr_names],
    ("xattrs_of_other_types", "gocryptfs"): [xattrs_of_files_and_directories_only],
}


def expected(name, fmt, seen):
    seen = copy.deepcopy(seen)
    for function in KNOWN.get((name, "any"), []) + KNOWN.get((name, fmt), []):
        seen = function(seen)
    return seen


def without_hash_where_unknown(seen, wanted):
    """A range zeroed where the file system itself cannot: there is nothing to compare the contents with."""
    return [[*row[:5], None] if want[5] is None else row for row, want in zip(seen, wanted)]


def test_every_difference_is_explained():
    text = (REPO / "docs" / "posix.md").read_text()
    for functions in KNOWN.values():
        for function in functions:
            assert f"**{function.__name__}**" in text, function.__name__


@pytest.mark.parametrize("name", posix_base.SCENARIOS)
def test_same_as_native(both, name):
    kind, fmt, native_saw, ours = both
    assert "Traceback" not in str(native_saw[name]), native_saw[name]
    wanted, got = expected(name, fmt, native_saw[name]), ours[name]
    if name == "allocate" and isinstance(got, list):
        got = without_hash_where_unknown(got, wanted[:-1]) + got[-1:] if len(got) == len(wanted) else got
    assert got == wanted
