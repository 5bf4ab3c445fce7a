#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Compares a mounted tree with a vector's expected.json, by nothing but system calls on the mount.

usage: check_tree.py MOUNTPOINT EXPECTED.json      prints the differences, exit status 1 if there are any
"""
import base64
import errno
import hashlib
import json
import os
import stat
import sys

BLOCK = 4096
BIG = 64 << 20
SAMPLE = 64 << 10


def name_of(error):
    return errno.errorcode[error.errno]


def read_blocks(path, size):
    """-> whole content, or None with the list of blocks whose read is EIO"""
    content, bad = [], []
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        number = 0
        while True:
            try:
                data = os.pread(fd, BLOCK, number * BLOCK)
            except OSError as e:
                if e.errno != errno.EIO:
                    raise
                bad.append(number)
                data = None
            if data == b"" or (data is None and (number + 1) * BLOCK >= size):
                break
            content.append(data or b"")
            number += 1
    finally:
        os.close(fd)
    return (None if bad else b"".join(content)), bad


def sample(path, size):
    with open(path, "rb") as f:
        head = f.read(SAMPLE)
        f.seek(size - SAMPLE)
        return hashlib.sha256(head + f.read(SAMPLE)).hexdigest()


def look_at_file(path, st, seen):
    seen["nlink"] = st.st_nlink
    seen["size"] = st.st_size
    if st.st_size > BIG:
        seen["sample64k"] = sample(path, st.st_size)
        return
    content, bad = read_blocks(path, st.st_size)
    if bad:
        seen["bad"] = bad
    else:
        seen["readlen"] = len(content)
        seen["sha256"] = hashlib.sha256(content).hexdigest()


def xattrs(path):
    found = {}
    for name in os.listxattr(path, follow_symlinks=False):
        try:
            found[name] = base64.b64encode(os.getxattr(path, name, follow_symlinks=False)).decode()
        except OSError as e:
            found[name] = name_of(e)
    return found


def look_at(path):
    """-> what expected.json says about one path"""
    st = os.lstat(path)
    seen = {"mode": f"{st.st_mode:06o}"}
    if stat.S_ISREG(st.st_mode):
        look_at_file(path, st, seen)
    elif stat.S_ISLNK(st.st_mode):
        seen["size"] = st.st_size
        try:
            seen["target"] = os.readlink(path)
        except OSError as e:
            seen["target"] = name_of(e)
    elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        seen["rdev"] = st.st_rdev
    elif stat.S_ISDIR(st.st_mode):
        try:
            os.listdir(path)
        except OSError as e:
            seen["listdir"] = name_of(e)
    found = xattrs(path)
    if found:
        seen["xattrs"] = found
    return seen


def walk(root):
    """relative names of everything, "." first; unreadable directories are not entered"""
    names, todo = ["."], [""]
    while todo:
        here = todo.pop()
        try:
            entries = os.listdir(os.path.join(root, here))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(here, entry)
            names.append(path)
            if stat.S_ISDIR(os.lstat(os.path.join(root, path)).st_mode):
                todo.append(path)
    return names


def compare(root, expected):
    """-> list of differences, as text"""
    differences = []
    names = set(walk(root))
    for name in sorted(names - set(expected)):
        differences.append(f"{name!r}: should not be there")
    for name, want in sorted(expected.items()):
        try:
            seen = look_at(os.path.join(root, name))
        except OSError as e:
            differences.append(f"{name!r}: {name_of(e)}")
            continue
        for key in sorted(set(want) | set(seen)):
            if want.get(key) != seen.get(key):
                differences.append(f"{name!r}: {key} is {seen.get(key)!r}, should be {want.get(key)!r}")
    return differences


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    with open(sys.argv[2], encoding="utf-8") as f:
        expected = json.load(f)["entries"]
    differences = compare(sys.argv[1], expected)
    print("\n".join(differences) or f"{len(expected)} entries, all as expected")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
