#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Memory of the server while the kernel knows very many inodes, and after it has forgotten them.

usage: tests/soak/nodes.py [FILES [FORMAT]]      default 1000000 plain; CKRFS_BUILD_DIR as for the tests. Root.
Fails if an inode costs 250 bytes or more, or if less than nine tenths of that comes back."""
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
from support import Ckrfs, run, wait_until  # noqa: E402
from variants import configure, tmpfs  # noqa: E402

PER_DIRECTORY = 1000


def rss(pid):
    """Bytes that are the process's own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Anonymous: in smaps_rollup")


def fill(top, files):
    for i in range(0, files, PER_DIRECTORY):
        d = top / f"d{i // PER_DIRECTORY}"
        d.mkdir()
        for k in range(PER_DIRECTORY):
            os.mknod(d / f"file-{k}", 0o100644)


def walk(top):
    count = 0
    for where, directories, files in os.walk(top):
        for name in files:
            os.lstat(os.path.join(where, name))
            count += 1
    return count


def drop():
    Path("/proc/sys/vm/drop_caches").write_text("2")


def inodes():
    """How many the kernel has, of all FUSE mounts: some may have been dropped meanwhile."""
    for line in Path("/proc/slabinfo").read_text().splitlines():
        if line.startswith("fuse_inode "):
            return int(line.split()[1])
    raise AssertionError("no fuse_inode in /proc/slabinfo")


def measure(ck, files):
    pid = ck.state()["server_pid"]
    before, known, start = rss(pid), inodes(), time.monotonic()
    count = walk(ck.mnt)
    walked, known, seconds = rss(pid), inodes() - known, time.monotonic() - start

    def forgotten():
        drop()
        return rss(pid) - before < (walked - before) / 10
    back = True
    try:
        wait_until("the memory to come back", forgotten, 60)
    except AssertionError:
        back = False
    after = rss(pid)
    each = (walked - before) / known
    print(f"{count} files walked in {seconds:.0f} s, {known} known then: {before >> 10} KiB before, {walked >> 10} KiB then ({each:.0f} bytes each), "
          f"{after >> 10} KiB when they were forgotten")
    return count == files and each < 250 and back


def main():
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 1000000
    variant = sys.argv[2] if len(sys.argv) > 2 else "plain"
    ck = Ckrfs()
    with tmpfs(ck.dir / "lower", 8 << 30) as lower:
        run("mount", "-o", "remount,nr_inodes=0", lower)
        configure(ck, variant, lower)
        if variant != "gocryptfs":
            fill(lower / "volume", files)
        ck.mount("vol")
        if variant == "gocryptfs":
            fill(ck.mnt, files)
            ck.umount()
            ck.mount("vol")
        good = measure(ck, files)
        ck.umount()
    problems = ck.close()
    print("\n".join(problems))
    return 0 if good and not problems else 1


if __name__ == "__main__":
    sys.exit(main())
