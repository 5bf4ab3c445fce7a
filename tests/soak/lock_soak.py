#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Random lock, unlock, expiry, revocation and refresh under a load that verifies itself.

usage: lock_soak.py [--seconds N] [--seed N] [--binary CKRFS]

Writers append records that can be computed again, sync each one and note it as acknowledged; readers compare acknowledged
records. The controller plays the manager. Looked for: an acknowledged record that is lost or wrong (through the mount, and at
the end by gocryptfs), anything that is read, written or left in memory while the mount is locked, and descriptors or memory that
keeper and server do not give back. Prints a report as one JSON object; exit status 0 if nothing was found.
"""
import argparse
import contextlib
import errno
import hashlib
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

import support  # noqa: E402

WRITERS, READERS = 3, 1
RECORD, PER_FILE, KEPT_FILES = 9000, 500, 2
MARK = b"a record of the soak test, in clear: "
PASSPHRASE = b"correct horse"
ACK = struct.Struct("<qdd")  # records acknowledged; when the last one's write began, and its fsync ended
GROWTH_MAX = 16 << 20


def record(writer, number):
    head = MARK + b"%d.%d." % (writer, number)
    return head + hashlib.shake_128(head).digest(RECORD - len(head))


class Shared:
    """What the processes tell each other."""

    def __init__(self):
        self.map = mmap.mmap(-1, mmap.PAGESIZE)

    def ack(self, writer, number, began, ended):
        ACK.pack_into(self.map, writer * 64, number, began, ended)

    def acked(self, writer):
        return ACK.unpack_from(self.map, writer * 64)

    def count_read(self):
        n, = struct.unpack_from("<q", self.map, 2048)
        struct.pack_into("<q", self.map, 2048, n + 1)

    def reads(self):
        return struct.unpack_from("<q", self.map, 2048)[0]


def refused(e):
    """What a lock makes of a call. EIO: fsync tells of cached writes that a lock could not store."""
    return e.errno in (errno.ENOKEY, errno.EIO)


def write_one(fd, writer, number):
    """A lock may come in the middle: then less is written than was asked for."""
    began, data, done = time.monotonic(), record(writer, number), 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], number % PER_FILE * RECORD + done)
    os.fsync(fd)
    return began, time.monotonic()


def patiently(call):
    while True:
        try:
            return call()
        except OSError as e:
            if not refused(e):
                raise
            time.sleep(0.005)


def writer_run(shared, at, writer):
    number, fd = 0, -1
    while True:
        if number % PER_FILE == 0:
            if fd >= 0:
                os.close(fd)
            fd = patiently(lambda: os.open(at / f"{writer}.{number // PER_FILE}", os.O_RDWR | os.O_CREAT, 0o600))
            old = at / f"{writer}.{number // PER_FILE - KEPT_FILES}"
            with contextlib.suppress(FileNotFoundError):
                patiently(lambda: os.unlink(old))
        began, ended = patiently(lambda: write_one(fd, writer, number))
        number += 1
        shared.ack(writer, number, began, ended)


def kept(count):
    """Numbers of the acknowledged records that are still there for sure."""
    return range(max(0, (count - 1) // PER_FILE - KEPT_FILES + 2) * PER_FILE, count) if count else range(0)


def read_one(at, writer, number):
    fd = os.open(at / f"{writer}.{number // PER_FILE}", os.O_RDONLY)
    data = b""
    try:
        while len(data) < RECORD:
            more = os.pread(fd, RECORD - len(data), number % PER_FILE * RECORD + len(data))
            if not more:
                break
            data += more
    finally:
        os.close(fd)
    return data


def difference(data, writer, number):
    wanted = record(writer, number)
    at = next((i for i, (a, b) in enumerate(zip(data, wanted)) if a != b), min(len(data), len(wanted)))
    return f"{len(data)} bytes, the first wrong one is {at}, {sum(a != b for a, b in zip(data, wanted))} are wrong"


def reader_run(shared, at, seed):
    choice = random.Random(seed)
    while True:
        writer = choice.randrange(WRITERS)
        numbers = kept(shared.acked(writer)[0])
        if not numbers:
            time.sleep(0.01)
            continue
        number = choice.choice(numbers)
        try:
            data = patiently(lambda: read_one(at, writer, number))
        except FileNotFoundError:
            # Removed meanwhile, or lost.
            assert number not in kept(shared.acked(writer)[0]), f"record {writer}.{number} is gone"
            continue
        assert data == record(writer, number), f"record {writer}.{number} is not what was written: {difference(data, writer, number)}"
        shared.count_read()


def spawn(call, *args):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            call(*args)
        except BaseException as e:  # it is told, whatever it is
            print(f"{call.__name__}{args[1:]}: {e!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return pid


class Soak:
    def __init__(self, ck, args):
        self.ck, self.args = ck, args
        self.choice = random.Random(args.seed)
        self.found, self.counts, self.slowest = [], {}, {}
        self.shared = Shared()
        self.sizes = []
        self.volume = ck.volume(key="keyring:user:ckrfs-soak", keyring="inherit", log_level="info")
        self.key = None
        self.give_key()
        self.mnt = ck.mount()
        self.probe = os.open(self.mnt / "probe", os.O_RDWR | os.O_CREAT)
        os.pwrite(self.probe, record(9, 9), 0)
        os.fsync(self.probe)
        self.children = [spawn(writer_run, self.shared, self.mnt, w) for w in range(WRITERS)]
        self.children += [spawn(reader_run, self.shared, self.mnt, args.seed + r) for r in range(READERS)]

    # -- the manager's side

    def keyctl(self, *args, data=None):
        return support.run("keyctl", *map(str, args), input=data).stdout.decode().strip()

    def give_key(self):
        self.key = int(self.keyctl("padd", "user", "ckrfs-soak", "@s", data=PASSPHRASE))

    def state(self):
        return self.ck.state(self.mnt)

    def wait_for(self, state, what):
        began = time.monotonic()
        support.wait_until(f"{state} after {what}", lambda: self.state()["state"] == state, 60)
        took = time.monotonic() - began
        self.slowest[what] = max(self.slowest.get(what, 0), round(took, 3))

    # -- what must hold

    def problem(self, text):
        self.found.append(text)
        print("found:", text, file=sys.stderr, flush=True)

    def expect_refused(self, name, call):
        try:
            call()
        except OSError as e:
            if e.errno != errno.ENOKEY:
                self.problem(f"locked: {name}: {e}")
        else:
            self.problem(f"locked: {name} is answered")

    def look_while_locked(self):
        locked = time.monotonic()
        self.expect_refused("read of an open file", lambda: os.pread(self.probe, 10, 0))
        self.expect_refused("write to an open file", lambda: os.pwrite(self.probe, MARK, 0))
        self.expect_refused("list", lambda: os.listdir(self.mnt))
        self.expect_refused("open", lambda: os.open(self.mnt / "probe", os.O_RDONLY))
        state = self.state()
        pids = [state["keeper_pid"], state["server_pid"]]
        if self.choice.randrange(4) == 0:
            patterns = self.ck.dir / "patterns"
            patterns.write_text(f"{MARK.hex()}\n{PASSPHRASE.hex()}\n")
            done = support.run(support.TOOLS / "memscan", patterns, *map(str, pids), check=False)
            if b": pattern" in done.stdout:
                self.problem(f"locked: in memory: {done.stdout!r}")
        self.sizes.append([(len(os.listdir(f"/proc/{p}/fd")), self.resident(p)) for p in pids])
        unlocked = time.monotonic()
        for writer in range(WRITERS):
            _, began, ended = self.shared.acked(writer)
            if locked < began and ended < unlocked:
                self.problem(f"locked: a write of writer {writer} was acknowledged")

    @staticmethod
    def resident(pid):
        """Of its own, in bytes: anonymous memory."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0

    def look_for_deaths(self):
        for pid in self.children:
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.children.remove(pid)
                self.problem("a writer or reader gave up: see above")

    # -- what happens

    def lock_and_unlock(self):
        done = self.ck.run("lock", "web", *self.choice.choice([[], ["--timeout", "20ms"], ["--timeout", "5s"]]))
        if done.returncode not in (support.DONE, support.PARTLY):
            self.problem(f"lock: {done.stderr}")
        if done.returncode == support.PARTLY:
            self.counts["locks that lost cached writes"] = self.counts.get("locks that lost cached writes", 0) + 1
        self.look_while_locked()
        self.ck.run("unlock", "web", status=support.DONE)

    def key_goes(self, what, *args):
        self.keyctl(*args)
        self.wait_for("locked", what)
        self.look_while_locked()
        self.give_key()
        self.wait_for("unlocked", f"the key's return after {what}")

    def revoke(self):
        self.key_goes("revoke", "revoke", self.key)

    def unlink(self):
        self.key_goes("unlink", "unlink", self.key, "@s")

    def expire(self):
        self.key_goes("timeout", "timeout", self.key, 1)

    def wrong_key(self):
        self.keyctl("pupdate", self.key, data=b"not it")
        self.wait_for("degraded", "a wrong key")
        self.keyctl("pupdate", self.key, data=PASSPHRASE)
        self.wait_for("unlocked", "the right key")

    def exchange(self):
        self.keyctl("unlink", self.key, "@s")
        self.give_key()
        self.wait_for("unlocked", "exchange")

    def refresh(self):
        self.ck.run("refresh", "web", status=support.DONE)

    def two_at_once(self):
        both = [subprocess.Popen(self.ck.argv(c, "web"), env=self.ck.env, stderr=subprocess.DEVNULL)
                for c in self.choice.sample(["lock", "unlock", "refresh", "lock"], 2)]
        for p in both:
            p.wait(120)
        self.ck.run("lock", "web")
        self.ck.run("unlock", "web", status=support.DONE)

    def run(self):
        end = time.monotonic() + self.args.seconds
        steps = [self.lock_and_unlock, self.lock_and_unlock, self.revoke, self.unlink, self.expire, self.wrong_key,
                 self.exchange, self.refresh, self.two_at_once]
        while time.monotonic() < end and not self.found:
            step = self.choice.choice(steps)
            step()
            self.counts[step.__name__] = self.counts.get(step.__name__, 0) + 1
            self.look_for_deaths()
            time.sleep(self.choice.random() * 0.3)

    # -- the end

    def compare_all(self, at, through):
        for writer in range(WRITERS):
            for number in kept(self.shared.acked(writer)[0]):
                try:
                    data = read_one(at, writer, number)
                except OSError as e:
                    data = repr(e)
                if data != record(writer, number):
                    self.problem(f"record {writer}.{number} is lost, read by {through}")
                    break

    def look_for_leaks(self):
        """Of the first quarter and the last: descriptors and memory while locked.

        Not the memory of a build with a sanitizer, which keeps what was freed for a while.
        """
        quarter = max(1, len(self.sizes) // 4)
        for i, name in enumerate(("keeper", "server")):
            early, late = self.sizes[:quarter], self.sizes[-quarter:]
            fds = [max(s[i][0] for s in part) for part in (early, late)]
            if fds[1] > fds[0] + 2:
                self.problem(f"{name}: {fds[0]} descriptors became {fds[1]}")
            bytes_ = [max(s[i][1] for s in part) for part in (early, late)]
            if bytes_[1] > bytes_[0] + GROWTH_MAX and not support.sanitized():
                self.problem(f"{name}: {bytes_[0]} bytes became {bytes_[1]}")

    def finish(self):
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.compare_all(self.mnt, "ckrfs")
        os.close(self.probe)
        self.ck.umount()
        self.volume.fsck()
        with self.volume.mounted(self.ck.dir / "peer", read_only=True) as peer:
            self.compare_all(peer, "gocryptfs")
        self.look_for_leaks()

    def report(self):
        last = self.sizes[-1] if self.sizes else None
        return {"seconds": self.args.seconds, "seed": self.args.seed, "steps": self.counts,
                "acknowledged": [self.shared.acked(w)[0] for w in range(WRITERS)], "read": self.shared.reads(),
                "locked": len(self.sizes), "slowest": self.slowest,
                "first": self.sizes[0] if self.sizes else None, "last": last, "found": self.found}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--binary", type=Path)
    args = parser.parse_args()
    if args.binary:
        support.BINARY = args.binary
    if os.environ.get("CKRFS_SOAK_SESSION") != str(os.getpid()):
        # A session keyring of its own, which keyctl(1) makes for the program it becomes.
        os.environ["CKRFS_SOAK_SESSION"] = str(os.getpid())
        os.execvp("keyctl", ["keyctl", "session", "-", sys.executable, __file__, *sys.argv[1:]])
    ck = support.Ckrfs()
    soak = Soak(ck, args)
    try:
        soak.run()
        soak.finish()
    except BaseException as e:
        soak.problem(repr(e))
        for pid in soak.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(soak.probe) if soak.probe >= 0 else None
    soak.found += ck.close()
    print(json.dumps(soak.report(), indent=1))
    return 1 if soak.found else 0


if __name__ == "__main__":
    sys.exit(main())
