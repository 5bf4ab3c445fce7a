# SPDX-License-Identifier: MIT
"""Key hunting after a lock and after the unmount, with a container on the volume that goes on running."""
import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from locked import MARK
from support import DONE, alive, child, run, sanitized, wait_until
from test_containers import PROBE, container_with_keyctl
from test_leaks import PASSPHRASE, Hunt, hunted, keys_as

KINDS = {
    "crun": ("crun", {}),
    "crun-user-namespace": ("crun", {"user_namespace": True}),
    "crun-no-new-keyring": ("crun", {"new_keyring": False}),
    "runc": ("runc", {}),
    "runc-user-namespace": ("runc", {"user_namespace": True}),
    "runc-no-new-keyring": ("runc", {"new_keyring": False}),
    "podman": ("podman", {}),
    "podman-user-namespace": ("podman", {"user_namespace": True}),
    "bwrap": ("bwrap", {"user_namespace": False}),
    "bwrap-user-namespace": ("bwrap", {}),
}

# Holds the file open all the time; whatever can be read while it is locked says FOUND.
INSIDE = f"""
exec 3< /vol/f
dd bs=4096 count=1 <&3 2>/dev/null | wc -c
read locked
dd bs=4096 count=1 <&3 2>/dev/null | grep -q . && echo FOUND descriptor
cat /vol/f 2>/dev/null | grep -q . && echo FOUND contents
ls /vol 2>/dev/null | grep -q . && echo FOUND names
{PROBE}
read unlocked
dd bs=4096 count=1 <&3 2>/dev/null | wc -c
read unmounted
cat /vol/f 2>/dev/null | grep -q . && echo FOUND after the unmount
{PROBE}
read end
"""


def core_of(pid, path):
    """As gcore(1) takes it from a process that lives; what is kept out of core files is in memory(), too."""
    run("gdb", "-nx", "-batch", "-p", str(pid), "-ex", "set use-coredump-filter off", "-ex", f"generate-core-file {path}",
        stdin=subprocess.DEVNULL)
    assert path.stat().st_size > 4096
    return path


def who_runs(script):
    """Also those who are nobody's children any more, as podman's; the one inside is the last."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if script.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return sorted(found)


def look(ck, hunt, pids, container, script):
    """Memory, argv and environment of these and of the container's processes; core files of these; /proc/keys."""
    inside = who_runs(script)
    assert inside and alive(container.pid), "the container's processes were looked at"
    hits = hunt.all([*pids, *inside])
    for pid in [] if sanitized() else pids:  # whose shadow memory is terabytes
        core = core_of(pid, ck.dir / "core")
        hits += hunt.files([core])
        core.unlink()
    for pid in {inside[-1], os.getpid(), *pids[:1]}:
        keys = keys_as(pid)
        hits += [f"/proc/keys as {pid}" for s in hunt.secrets if s in keys]
    return hits


def said(container):
    line = container.stdout.readline().decode().strip()
    assert line, "it lives"
    return line


def tell(container):
    container.stdin.write(b"go on\n")
    container.stdin.flush()


def mounted_volume(ck):
    """-> everything that opens it, and the processes of the mount"""
    volume = ck.volume(passphrase=PASSPHRASE, stop_timeout="100ms")
    hunt = Hunt(ck, hunted(volume.master_key()))
    ck.mount()
    ck.mnt.chmod(0o755)
    (ck.mnt / "f").write_bytes(MARK * 4000)
    (ck.mnt / "f").chmod(0o644)
    state = ck.state()
    return hunt, [state["keeper_pid"], state["server_pid"]], state["keyring"]


@pytest.mark.parametrize("kind", KINDS)
def test_locked_and_unmounted(ck, kind):
    name, options = KINDS[kind]
    ck.dir.chmod(0o755)  # for who is root in a user namespace only
    hunt, pids, ring = mounted_volume(ck)
    script = f"SERIALS={ring}\n{INSIDE}"
    argv = container_with_keyctl(name, ck).argv(ck.mnt, script, **options)
    with child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
        assert said(container) == "4096"
        ck.run("lock", "web", status=DONE)
        assert look(ck, hunt, pids, container, script) == []
        assert Hunt(ck, [MARK]).memory(pids) == [], "no plaintext either"
        tell(container)
        assert said(container) == "looked"
        ck.run("unlock", "web", status=DONE)
        tell(container)
        assert said(container) == "4096", "the same descriptor goes on"
        ck.run("umount", "--lazy", "web", status=DONE)
        wait_until("the end of keeper and server", lambda: not any(alive(p) for p in pids))
        assert look(ck, hunt, [], container, script) == []
        tell(container)
        assert said(container) == "looked"
        tell(container)
        container.wait(30)


def test_core_of_who_holds_it_is_found(ck):
    """The hunt in such core files can succeed: plaintext in the server's memory, before a lock."""
    _, pids, _ = mounted_volume(ck)
    assert (ck.mnt / "f").read_bytes() == MARK * 4000
    hunt = Hunt(ck, [MARK])

    def found():
        return hunt.memory(pids[1:]) if sanitized() else hunt.files([core_of(pids[1], ck.dir / "core")])

    assert found()
    ck.run("lock", "web", status=DONE)
    assert found() == []
    ck.umount()
