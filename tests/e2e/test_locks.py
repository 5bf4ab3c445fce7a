# SPDX-License-Identifier: MIT
"""Who waits for an advisory lock can be interrupted, and keeps nobody from unmounting."""
import contextlib
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support import BUSY, child, wait_until
from variants import check, configure, tmpfs, variant  # noqa: F401

WAITER = """
import fcntl, os, signal, struct, sys
class Interrupted(Exception): pass
def stop(*_): raise Interrupted
signal.signal(signal.SIGUSR1, stop)
fd = os.open(sys.argv[1], os.O_RDWR)
print("waits", flush=True)
try:
    if sys.argv[2] == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
    elif sys.argv[2] == "posix":
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
    else:
        fcntl.fcntl(fd, 38, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))
    print("has it", flush=True)
except Interrupted:
    print("interrupted", flush=True)
"""


def take(fd, kind):
    import fcntl
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
    elif kind == "posix":
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)
    else:
        fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))  # F_OFD_SETLK


@contextlib.contextmanager
def waiter(path, kind):
    """A process that sleeps in the kernel for the lock."""
    with child([sys.executable, "-c", WAITER, path, kind], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "waits\n"
        call = {"flock": 73, "posix": 72, "ofd": 72}[kind] if os.uname().machine == "x86_64" else {"flock": 32}.get(kind, 25)
        wait_until("it to sleep", lambda: Path(f"/proc/{process.pid}/syscall").read_text().split()[0] == str(call) and
                   Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
        yield process


@pytest.fixture
def held(ck, variant):  # noqa: F811
    """A mount of each kind with a file in it, and an open file of that."""
    with tmpfs(ck.dir / "lower") as lower:
        configure(ck, variant, lower)
        path = ck.mount("vol") / "f"
        check(ck, variant)
        path.write_text("x" * 100)
        yield path


@pytest.mark.parametrize("kind", ["flock", "posix", "ofd"])
def test_waiting_ends(ck, held, kind):
    """By a signal that is handled, by SIGKILL, by the lock; and umount says busy at once meanwhile."""
    fd = os.open(held, os.O_RDWR)
    take(fd, kind)
    with waiter(held, kind) as one, waiter(held, kind) as two, waiter(held, kind) as three:
        assert "busy" in ck.umount(status=BUSY).stderr
        one.send_signal(signal.SIGUSR1)
        assert one.stdout.readline() == "interrupted\n" and one.wait(20) == 0
        two.send_signal(signal.SIGKILL)
        assert two.wait(20) == -signal.SIGKILL
        os.close(fd)
        assert three.stdout.readline() == "has it\n" and three.wait(20) == 0
    ck.umount()


@pytest.mark.parametrize("kind", ["flock", "posix", "ofd"])
def test_lazy_umount_under_a_waiter(ck, held, kind):
    fd = os.open(held, os.O_RDWR)
    take(fd, kind)
    with waiter(held, kind) as one, waiter(held, kind) as two:
        ck.run("umount", ck.mnt, "--lazy", status=0, timeout=20)
        assert not os.path.ismount(ck.mnt)
        one.send_signal(signal.SIGTERM)
        assert one.wait(20) == -signal.SIGTERM
        os.close(fd)
        assert two.stdout.readline() == "has it\n" and two.wait(20) == 0
    wait_until("the mount to end", lambda: not ck.processes())


@pytest.mark.parametrize("kind", ["flock", "posix", "ofd"])
def test_server_dies_under_a_waiter(ck, held, kind):
    """The waiter is not unkillable then, and what is left can be unmounted."""
    fd = os.open(held, os.O_RDWR)
    take(fd, kind)
    with waiter(held, kind) as one, waiter(held, kind) as two:
        os.kill(ck.state()["server_pid"], signal.SIGKILL)
        one.send_signal(signal.SIGTERM)
        assert one.wait(20) == -signal.SIGTERM
        os.close(fd)
        assert two.stdout.readline() == "has it\n" and two.wait(20) == 0
    ck.run("umount", ck.mnt, "--lazy", timeout=20)
    wait_until("the mount to end", lambda: not ck.processes() and not os.path.ismount(ck.mnt))
