# SPDX-License-Identifier: MIT
"""Real containers use the volume; what holds the key is out of their reach."""
import shutil

import containers
import pytest
from support import TOOLS, UID, child, forms, run

KEY_NAME = "ckrfs-e2e-web"

USE = f"""
set -e
cd /vol
cat from-host
echo from the container > from-container
mkdir -p dir/sub && mv from-container dir/sub/moved
for i in 1 2 3 4 5 6 7 8 9; do echo $i > dir/sub/n$i; done
rm dir/sub/n5
ln -s sub/moved dir/link
cat dir/link
dd if=/dev/zero of=big bs=100000 count=20 2>/dev/null
chown {UID}:{UID} dir/sub/n1 || true
ls dir/sub | wc -l
"""

# Every way in is tried; each that leads somewhere says FOUND.
PROBE = f"""
for ring in @t @p @s @u @us @g; do keyctl search $ring user {KEY_NAME} >/dev/null 2>&1 && echo FOUND search $ring; done
keyctl request user {KEY_NAME} >/dev/null 2>&1 && echo FOUND request
for id in $SERIALS; do
    for verb in read print pipe describe rdescribe 'setperm 0x3f3f3f3f' 'link @s' 'timeout 5' revoke invalidate clear; do
        set -- $verb
        case $verb in
        setperm*|timeout*) keyctl $1 $id $2 >/dev/null 2>&1 && echo FOUND $1 $id ;;
        link*) keyctl link $id @s >/dev/null 2>&1 && echo FOUND link $id ;;
        *) keyctl $1 $id >/dev/null 2>&1 && echo FOUND $1 $id ;;
        esac
    done
done
grep {KEY_NAME} /proc/keys && echo FOUND proc-keys
for id in $SERIALS; do grep -i $(printf %08x $id) /proc/keys && echo FOUND proc-keys $id; done
keyctl id @s >/dev/null && echo looked
"""


def container_with_keyctl(name, ck):
    container = containers.runtime(name, ck.dir)
    containers.add_program(container.root, shutil.which("keyctl"))
    return container


def mount_with_manager_ring(ck):
    """The manager keeps the key in a ring of its own and hands it over; -> serials the container must not reach."""
    ck.volume(key=f"keyring:user:{KEY_NAME}")
    done = run("keyctl", "session", "-", "sh", "-c", r"""
ring=$(keyctl newring manager @s)
id=$(keyctl padd user "$1" $ring < "$2")
keyctl setperm $id 0x3f000000; keyctl setperm $ring 0x3f000000
"$3" mount --config "$4" web "$5" -o keyring=$ring >&2 && echo $ring $id
""", "sh", KEY_NAME, ck.key_file("correct horse"), ck.argv("mount")[0], ck.conf, ck.mnt, env=ck.env)
    ck.remember(ck.mnt)
    return done.stdout.decode().split()


@pytest.mark.parametrize("name", containers.RUNTIMES)
def test_container_uses_the_volume(ck, name):
    volume = ck.volume()
    container = containers.runtime(name, ck.dir)
    with ck.mounted():
        (ck.mnt / "from-host").write_text("from the host\n")
        ck.mnt.chmod(0o777)
        said = containers.run_in(container, ck.mnt, USE)
        assert said.split("\n")[:3] == ["from the host", "from the container", "9"]
        assert (ck.mnt / "dir" / "sub" / "moved").read_text() == "from the container\n"
        assert (ck.mnt / "big").stat().st_size == 2000000
        on_disk = run("find", volume.cipher).stdout
        assert b"moved" not in on_disk and b"from" not in on_disk
        assert run("grep", "-rla", "from the container", volume.cipher, check=False).stdout == b""
    volume.fsck()
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert (peer / "dir" / "sub" / "moved").read_text() == "from the container\n"


@pytest.mark.parametrize("name", containers.RUNTIMES)
def test_keys_are_out_of_reach(ck, name):
    """keyctl, request_key, /proc/keys from inside: nothing, though the mount found its key in a keyring."""
    container = container_with_keyctl(name, ck)
    serials = mount_with_manager_ring(ck)
    (ck.mnt / "f").write_text("readable")
    said = containers.run_in(container, ck.mnt, f"SERIALS='{' '.join(serials)}'; cat /vol/f; echo; {PROBE}")
    assert "FOUND" not in said and said.startswith("readable\n") and said.endswith("looked\n"), said
    ck.umount()


def test_probe_finds_what_is_there(ck):
    """The same probe where a manager leaves the key in its session keyring, which bwrap hands on: it is found."""
    container = container_with_keyctl("bwrap", ck)
    done = run("keyctl", "session", "-", "sh", "-c", 'SERIALS=$(echo x | keyctl padd user "$1" @s); export SERIALS; shift; exec "$@"',
               "sh", KEY_NAME, *container.argv(ck.mnt, PROBE))
    for way in ("search @s", "request", "read", "describe", "proc-keys"):
        assert f"FOUND {way}".encode() in done.stdout, (way, done.stdout)


def test_daemon_is_invisible_in_a_pid_namespace(ck):
    ck.volume()
    container = containers.runtime("crun", ck.dir)
    with ck.mounted():
        state = ck.state()
        said = containers.run_in(container, ck.mnt, "cat /proc/[0-9]*/comm; ls /proc | grep -c '^[0-9]'")
        assert "ckrfs" not in said
        for pid in (state["keeper_pid"], state["server_pid"]):
            assert containers.run_in(container, ck.mnt, f"test -e /proc/{pid}/mem || echo none") in ("none\n", "")


@pytest.mark.parametrize("capabilities", [[], ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]],
                         ids=["plain", "ptrace"])
def test_memory_of_the_daemon_gives_nothing(ck, capabilities):
    """Worst case: the host's pid namespace, even CAP_SYS_PTRACE: /proc/PID/mem shows no key."""
    volume = ck.volume()
    master = volume.master_key()
    container = containers.runtime("crun", ck.dir)
    containers.add_program(container.root, TOOLS / "memscan")
    patterns = container.root / "patterns"
    patterns.write_text("".join(f.hex() + "\n" for f in forms(master) | forms(b"correct horse")))
    with ck.mounted():
        state = ck.state()
        pids = f"{state['keeper_pid']} {state['server_pid']}"
        said = containers.run_in(
            container, ck.mnt, f"{TOOLS}/memscan /patterns {pids}; echo status $?; for p in {pids}; do "
            "head -c 1 /proc/$p/environ >/dev/null 2>&1 && echo environ; ls /proc/$p/fd 2>/dev/null; done",
            pid_namespace=False, capabilities=capabilities)
    assert "pattern" not in said
    if capabilities:
        assert "status 0\n" in said and "scanned" in said, said
    else:
        assert "status 2\n" in said and "environ" not in said, said


def test_memory_probe_finds_what_is_planted(ck):
    """The same look at a process that does hold the bytes."""
    container = containers.runtime("crun", ck.dir)
    containers.add_program(container.root, TOOLS / "memscan")
    secret = b"planted secret bytes"
    (container.root / "patterns").write_text("".join(f.hex() + "\n" for f in forms(secret)))
    with child(["sleep", "1000"], env={"PLANTED": secret.decode()}) as holder:
        said = containers.run_in(container, ck.mnt, f"{TOOLS}/memscan /patterns {holder.pid}; echo status $?",
                                 pid_namespace=False, capabilities=["CAP_SYS_PTRACE"])
        holder.kill()
    assert "pattern" in said and "status 1\n" in said


def test_container_cannot_reach_around_the_mount(ck):
    """No ioctl of the backing file system, no xattr of the format, no name of it shows through."""
    ck.volume()
    container = containers.runtime("crun", ck.dir)
    with ck.mounted():
        said = containers.run_in(container, ck.mnt, "cd /vol; echo x > a; ls -la; ls ..; cat gocryptfs.conf; true")
        assert "gocryptfs" not in said
