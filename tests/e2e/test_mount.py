# SPDX-License-Identifier: MIT
"""The life of a mount: start, status, signals, busy, deaths of its processes, mount(8), unprivileged users."""
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import (BINARY, BUSY, CONFIG, DONE, NO_VOLUME, UID, UNSUPPORTED, USAGE, WRONG_KEY, alive, as_user, child, errno_of, kernel_lacks,
                     mount_line, mounts_under, run, wait_until)

STATUS_MEMBERS = {"name", "state", "source", "target", "lower", "format", "key_identifier", "key_source", "since",
                  "requests", "read_bytes", "written_bytes", "errors", "keeper_pid", "server_pid", "protections",
                  "secret_memory", "passthrough"}
PROTECTIONS = {"no-core", "no-new-privs", "capabilities", "empty-root", "private-ipc", "private-net", "dies-with-keeper",
               "private-lower", "landlock", "seccomp", "keeper-capabilities", "keeper-seccomp"}


def test_mount_answers_when_the_parent_returns(ck):
    ck.volume()
    done = ck.run("mount", "web", ck.mnt, status=DONE)
    ck.remember(ck.mnt)
    assert done.stdout == "" and done.stderr == "", "success is silent"
    (ck.mnt / "f").write_text("content")
    options, kind, source, _ = mount_line(ck.mnt)
    assert kind == "fuse.ckrfs" and {"nosuid", "nodev"} <= set(options)
    pids = set(ck.pids)
    assert ck.umount().stdout == ""
    assert mounts_under(ck.dir) == []
    wait_until("keeper and server to end", lambda: not any(alive(p) for p in pids))
    assert not (ck.mnt / "f").exists()
    with ck.mounted():
        assert (ck.mnt / "f").read_text() == "content"


def test_source_and_target_on_the_command_line(ck):
    volume = ck.volume()
    key = f"key=file:{ck.dir}/key"
    for source in (volume.cipher, os.path.relpath(volume.cipher, "/")):
        ck.mount(source, ck.mnt, "-o", key, cwd="/")
        (ck.mnt / "f").write_text("x")
        assert ck.state()["source"] == str(volume.cipher)
        ck.umount()


def test_target_from_the_configuration(ck):
    ck.volume(target=ck.mnt)
    ck.run("mount", "web", status=DONE)
    ck.remember(ck.mnt)
    ck.umount("web")
    assert mounts_under(ck.dir) == []


def test_status(ck):
    volume = ck.volume()
    assert ck.states() == []
    with ck.mounted():
        (ck.mnt / "f").write_bytes(b"x" * 100000)
        fd = os.open(ck.mnt / "f", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        state = ck.state()
        assert STATUS_MEMBERS <= set(state)
        assert PROTECTIONS <= set(state["protections"]), "what the running kernel has is used"
        assert {k: state[k] for k in ("name", "state", "source", "target", "lower", "format", "key_source")} == {
            "name": "web", "state": "unlocked", "source": str(volume.cipher), "target": str(ck.mnt),
            "lower": "directory", "format": "gocryptfs", "key_source": f"file:{ck.dir}/key"}
        assert abs(time.time() - state["since"]) < 60
        assert state["requests"] > 0 and state["written_bytes"] >= 100000
        assert re.fullmatch("[0-9a-f]{32}", state["key_identifier"])
        assert alive(state["keeper_pid"]) and alive(state["server_pid"])
        text = ck.run("status", status=DONE).stdout
        one = ck.run("status", "web", status=DONE).stdout
        for word in ("web", "unlocked", str(ck.mnt)):
            assert word in text and word in one
        assert state["key_identifier"] in one
        assert json.loads(ck.run("status", "web", "--json").stdout)["mounts"][0]["name"] == "web"
        assert ck.run("status", "--names").stdout.split() == ["web"]
        done = ck.run("status", "wbe", status=NO_VOLUME)
        assert done.stderr.startswith("ckrfs: ")
    assert ck.states() == []
    first = state["key_identifier"]
    with ck.mounted():
        assert ck.state()["key_identifier"] == first, "the same key has the same identifier"


def test_two_volumes_at_once(ck):
    ck.volume("one")
    ck.plain("two")
    second = ck.dir / "second"
    second.mkdir()
    with ck.mounted("one"), ck.mounted("two", second):
        assert sorted(m["name"] for m in ck.states()) == ["one", "two"]
        (second / "f").write_text("plain")
        assert (ck.dir / "plain" / "f").read_text() == "plain"
        assert os.listdir(ck.mnt) == []


@pytest.mark.parametrize("command", ["umount", "lock"])
def test_command_comes_before_the_keeper_listens(ck, command):
    """The mount is there some time before the control socket is: who comes in between waits for it."""
    ck.volume()
    with child(["strace", "-f", "-qq", "-e", "trace=bind", "-e", "inject=bind:delay_enter=2500000", "-o", "/dev/null",
                *ck.argv("mount", "web", ck.mnt)], env=ck.env) as tracer:
        wait_until("the mount", lambda: os.path.ismount(ck.mnt))
        assert ck.remember(ck.mnt)["state"] == "starting"
        ck.run(command, "web", status=DONE)
        if command == "lock":
            assert ck.state()["state"] == "locked"
            ck.umount()
        tracer.wait(30)
    assert mounts_under(ck.dir) == []


def test_unmounting_one_does_not_wait_for_another(ck):
    """The namespace of a later mount's keeper must not hold on to an earlier mount: it would live until cut off."""
    ck.volume("one")
    ck.plain("two")
    second = ck.dir / "second"
    second.mkdir()
    ck.mount("one")
    with ck.mounted("two", second):
        before = set(ck.pids)
        ck.umount("one")
        wait_until("the first to end", lambda: sum(alive(p) for p in before) == 2)
    assert "cut off" not in ck.log_text()


@pytest.mark.parametrize("argv, status", [
    (["umount", "nothing"], NO_VOLUME), (["umount", "/proc"], NO_VOLUME), (["status", "nothing"], NO_VOLUME),
    (["mount", "nothing", "/mnt"], NO_VOLUME), (["mount"], USAGE), (["umount"], USAGE), (["frobnicate"], USAGE),
    (["mount", "--frobnicate", "x"], USAGE), (["umount", "/proc", "nothing"], NO_VOLUME)])
def test_wrong_commands(ck, argv, status):
    done = ck.run(*argv, status=status)
    assert done.stdout == "" and done.stderr.startswith("ckrfs: ")
    assert len(done.stderr.splitlines()) <= 2, "an error is two lines: what and why, then what to try"


# ---- ends

@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_unmounts_cleanly(ck, which):
    volume = ck.volume()
    ck.mount()
    (ck.mnt / "f").write_bytes(b"y" * 300000)
    os.kill(ck.state()["keeper_pid"], which)
    wait_until("the mount to end", lambda: not mounts_under(ck.dir) and not ck.processes())
    volume.fsck()
    with ck.mounted():
        assert (ck.mnt / "f").read_bytes() == b"y" * 300000


def test_umount_by_others_is_noticed(ck):
    """umount(8) without our helper: keeper and server end, nothing stays in the runtime directory."""
    ck.volume()
    ck.mount()
    run("umount", "-i", ck.mnt)
    wait_until("keeper and server to end", lambda: not ck.processes())
    assert ck.states() == []


def test_busy_umount_says_who_holds_it(ck):
    ck.volume()
    ck.mount()
    with child(["sleep", "1000"], cwd=ck.mnt) as holder:
        done = ck.umount(status=BUSY)
        assert str(holder.pid) in done.stderr and "sleep" in done.stderr, done.stderr
        assert "--lazy" in done.stderr.splitlines()[-1]
        (ck.mnt / "still").write_text("works")
        assert ck.state()["state"] == "unlocked"
        holder.kill()
    ck.umount()
    assert mounts_under(ck.dir) == []


def fds(pid):
    try:
        return [f"/proc/{pid}/fd/{n}" for n in os.listdir(f"/proc/{pid}/fd")]
    except FileNotFoundError:
        return []


def readlink_or_none(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


def test_open_file_makes_busy(ck):
    ck.volume()
    ck.mount()
    (ck.mnt / "f").touch()
    with child(["tail", "-f", ck.mnt / "f"], stdout=subprocess.DEVNULL) as holder:
        wait_until("tail to open", lambda: str(ck.mnt / "f") in map(readlink_or_none, fds(holder.pid)))
        done = ck.umount(status=BUSY)
        assert str(holder.pid) in done.stderr and "tail" in done.stderr
        holder.kill()
    ck.umount()


def test_lazy_umount_serves_open_files(ck):
    volume = ck.volume()
    ck.mount()
    f = open(ck.mnt / "f", "w+b", buffering=0)
    f.write(b"before ")
    ck.umount(ck.mnt, "--lazy")
    assert mounts_under(ck.dir) == []
    f.write(b"after")
    os.fsync(f.fileno())
    f.seek(0)
    assert f.read() == b"before after"
    f.close()
    wait_until("keeper and server to end", lambda: not ck.processes())
    volume.fsck()
    with ck.mounted():
        assert (ck.mnt / "f").read_bytes() == b"before after"


# ---- deaths

WRITER = """
import os, sys
fd = os.open(sys.argv[1] + "/kept", os.O_CREAT | os.O_WRONLY)
os.write(fd, b"k" * 100000); os.fsync(fd); os.close(fd)
fd = os.open(sys.argv[1] + "/busy", os.O_CREAT | os.O_WRONLY)
os.write(1, b"go")
try:
    while True:
        os.write(fd, b"b" * 65536)
        os.fsync(fd)
        if os.lseek(fd, 0, os.SEEK_CUR) > 50 << 20:
            os.lseek(fd, 0, os.SEEK_SET)
except OSError as e:
    print(e.errno)
"""


@pytest.mark.parametrize("victims", [["server_pid"], ["keeper_pid"], ["keeper_pid", "server_pid"]],
                         ids=["server", "keeper", "both"])
def test_killed_during_writes(ck, victims):
    """Callers get ENOTCONN and do not hang, status says it, umount cleans up, what was fsynced is there."""
    ck.volume()
    ck.mount()
    state = ck.state()
    with child([sys.executable, "-c", WRITER, str(ck.mnt)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.read(2) == b"go"
        for victim in victims:
            os.kill(state[victim], signal.SIGKILL)
        said, _ = writer.communicate(timeout=15)
        assert int(said) in (107, 103, 5), "ENOTCONN, or ECONNABORTED or EIO for the write that was under way"
    wait_until("the server to end", lambda: not alive(state["server_pid"]))
    # Who asks while the device is being closed is told that it was aborted.
    wait_until("the answer of a dead mount", lambda: b"not connected" in run("stat", "-f", ck.mnt, check=False, timeout=10).stderr)
    shown = ck.state()
    assert shown["state"] == ("failed" if victims == ["server_pid"] else "dead"), shown
    assert ck.run("status", status=None).stdout.count(str(ck.mnt)) == 1
    ck.umount()
    assert mounts_under(ck.dir) == []
    wait_until("all to end", lambda: not ck.processes())
    assert ck.states() == []
    with ck.mounted():
        assert (ck.mnt / "kept").read_bytes() == b"k" * 100000


def test_dead_mount_can_be_mounted_again(ck):
    """After the keeper was killed, `mount` says what is there, or cleans up; it never stacks a second mount on top."""
    ck.volume()
    ck.mount()
    state = ck.state()
    os.kill(state["keeper_pid"], signal.SIGKILL)
    wait_until("the server to end", lambda: not alive(state["server_pid"]))
    done = ck.run("mount", "web", ck.mnt)
    if done.returncode == DONE:
        ck.remember(ck.mnt)
    else:
        assert done.returncode == BUSY and "ckrfs umount" in done.stderr
        ck.umount()
        ck.mount()
    assert len(mounts_under(ck.dir)) == 1
    (ck.mnt / "f").write_text("alive")
    ck.umount()


def test_mounts_do_not_share_their_death(ck):
    ck.volume("one")
    ck.plain("two")
    second = ck.dir / "second"
    second.mkdir()
    ck.mount("one")
    with ck.mounted("two", second):
        os.kill(ck.state()["server_pid"], signal.SIGKILL)
        wait_until("failed", lambda: ck.state()["state"] == "failed")
        (second / "f").write_text("goes on")
        ck.umount("one")
        assert (second / "f").read_text() == "goes on"


# ---- foreground

@contextlib.contextmanager
def foreground(ck, *more, **environment):
    """-> process and the socket that gets its notifications"""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(ck.dir / "notify"))
    notify.settimeout(30)
    with notify, child(ck.argv("mount", "web", ck.mnt, "-f", *more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE,
                       env=dict(ck.env, NOTIFY_SOCKET=str(ck.dir / "notify"), **environment)) as process:
        yield process, notify


def wait_for_word(notify, word):
    seen = ""
    while word not in seen.splitlines():
        seen += notify.recv(4096).decode() + "\n"
    return seen


@pytest.mark.parametrize("end", ["signal", "umount"])
def test_foreground_speaks_sd_notify(ck, end):
    ck.volume()
    with foreground(ck) as (process, notify):
        wait_for_word(notify, "READY=1")
        assert mounts_under(ck.dir) == [str(ck.mnt)] and process.poll() is None
        state = ck.remember(ck.mnt)
        assert state["keeper_pid"] == process.pid, "the caller's child is the keeper: what systemd watches"
        (ck.mnt / "f").write_text("x")
        if end == "signal":
            process.terminate()
        else:
            ck.umount()
        wait_for_word(notify, "STOPPING=1")
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert mounts_under(ck.dir) == []


def test_watchdog_is_fed_while_the_keeper_works(ck):
    ck.volume()
    with foreground(ck, WATCHDOG_USEC="20000") as (process, notify):
        wait_for_word(notify, "READY=1")
        for _ in range(5):
            wait_for_word(notify, "WATCHDOG=1")
        ck.run("lock", "web", status=0)
        for _ in range(5):
            wait_for_word(notify, "WATCHDOG=1")
        process.terminate()
        wait_for_word(notify, "STOPPING=1")
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize("asked", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "-1"},
                                   {"WATCHDOG_USEC": "2", "WATCHDOG_PID": "1"},
                                   {"WATCHDOG_USEC": "2", "WATCHDOG_PID": "x"}], ids=str)
def test_watchdog_is_not_fed_unless_this_process_is_asked(ck, asked):
    ck.volume()
    with foreground(ck, **asked) as (process, notify):
        wait_for_word(notify, "READY=1")
        ck.state()
        process.terminate()
        assert "WATCHDOG" not in wait_for_word(notify, "STOPPING=1")
        process.communicate(timeout=20)


def test_foreground_fails_with_the_same_status(ck):
    ck.volume(key=f"file:{ck.key_file('wrong', name='other')}")
    with foreground(ck) as (process, notify):
        process.communicate(timeout=20)
        assert process.returncode == WRONG_KEY
        notify.settimeout(0.1)
        with pytest.raises(TimeoutError):
            wait_for_word(notify, "READY=1")


# ---- options as seen on the mount

def seccomp_mode(pid):
    """0 none, 2 a filter; proc(5)"""
    return int(re.search(r"(?m)^Seccomp:\s+(\d)$", Path(f"/proc/{pid}/status").read_text())[1])


def test_sandbox_levels(ck):
    ck.volume()
    for option, mode in [("auto", 2), ("strict", 2), ("off", 0)]:
        with ck.mounted("web", ck.mnt, "-o", f"sandbox={option}"):
            state = ck.state()
            assert seccomp_mode(state["server_pid"]) == mode
            if mode:
                assert set(state["protections"]) == PROTECTIONS
            else:
                assert set(state["protections"]) == {"no-core", "dies-with-keeper"}
            (ck.mnt / "f").write_text(option)
            assert (ck.mnt / "f").read_text() == option


def test_keeper_is_narrower_once_it_has_mounted(ck):
    """And what it runs to get the key again: seen by such a program itself."""
    seen, source = ck.dir / "seen", ck.dir / "source"
    source.write_text(f"#!/bin/sh\ngrep -E '^(CapBnd|Seccomp|NoNewPrivs):' /proc/self/status > {seen}\ncat {ck.key_file('correct horse')}\n")
    source.chmod(0o700)
    ck.volume(key=f"exec:{source}")
    with ck.mounted():
        ck.run("refresh", "web", status=DONE)
        after = {line.split(":")[0]: int(line.split()[1], 16) for line in seen.read_text().splitlines()}
        assert after["Seccomp"] == 2 and after["NoNewPrivs"] == 1
        sys_ptrace, sys_module, sys_time, sys_admin = (1 << n for n in (19, 16, 25, 21))
        assert not after["CapBnd"] & (sys_ptrace | sys_module | sys_time)
        assert after["CapBnd"] & sys_admin
        assert seccomp_mode(ck.state()["keeper_pid"]) == 2


def test_strict_sandbox_refuses_less(ck):
    """A user cannot have an empty root directory."""
    ck.volume()
    run("chown", "-R", f"{UID}:{UID}", ck.dir)
    done = in_namespace(ck, rf"""
echo "ckrfstest:x:{UID}:{UID}::/:/bin/sh" >> /etc/passwd
mknod $1/fuse c 10 229; chmod 666 $1/fuse; mount --bind $1/fuse /dev/fuse
setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps -all $2 mount --config $1/ckrfs.conf web $1/mnt \
    -o sandbox=strict 2>&1 || echo "exit $?"
! grep " $1/mnt " /proc/self/mountinfo
rm $1/fuse
""").stdout.decode()
    assert re.fullmatch(r'ckrfs: cannot mount "web": sandbox = strict cannot be done: no .*empty-root.*\n'
                        rf"  try: ckrfs mount -o sandbox=auto \.\.\.\nexit {UNSUPPORTED}\n", done)


LATENCY_DEVICE = Path("/dev/cpu_dma_latency")


def processors_kept_awake():
    """Does anybody ask for no latency at all? The device tells the strictest wish, in microseconds."""
    return struct.unpack("i", LATENCY_DEVICE.open("rb", buffering=0).read(4)) == (0,)


def latency_fds(pid):
    return [e for e in os.scandir(f"/proc/{pid}/fd") if os.readlink(e) == str(LATENCY_DEVICE)]


def test_low_latency_only_while_requests_stream(ck):
    if not LATENCY_DEVICE.exists():
        kernel_lacks(str(LATENCY_DEVICE))
    ck.volume()
    with ck.mounted("web", ck.mnt, "-o", "low-latency=yes,attr-timeout=0"):
        wait_until("nobody else to keep processors awake", lambda: not processors_kept_awake())

        def ask():
            for _ in range(2000):
                os.stat(ck.mnt)
            return processors_kept_awake()
        wait_until("processors to be kept awake", ask)
        wait_until("processors to be let go", lambda: not processors_kept_awake())
        assert len(latency_fds(ck.state()["server_pid"])) == 1
    with ck.mounted("web", ck.mnt, "-o", "low-latency=no"):
        assert latency_fds(ck.state()["server_pid"]) == []
    with ck.mounted():
        assert len(latency_fds(ck.state()["server_pid"])) == (os.cpu_count() <= 4), "auto"


@pytest.mark.parametrize("option", ["ro", "read-only=yes"])
def test_read_only(ck, option):
    volume = ck.volume()
    with ck.mounted():
        (ck.mnt / "f").write_text("x")
    before = {e.name: e.stat().st_mtime_ns for e in os.scandir(volume.cipher)}
    with ck.mounted("web", ck.mnt, "-o", option):
        for call in (lambda: (ck.mnt / "f").write_text("y"), lambda: (ck.mnt / "g").touch(),
                     lambda: os.unlink(ck.mnt / "f"), lambda: os.chmod(ck.mnt / "f", 0o777),
                     lambda: os.setxattr(ck.mnt / "f", "user.x", b"")):
            assert errno_of(call) == "EROFS"
        assert (ck.mnt / "f").read_text() == "x"
    assert before == {e.name: e.stat().st_mtime_ns for e in os.scandir(volume.cipher)}


def test_exec_suid_dev(ck):
    ck.volume()
    with ck.mounted("web", ck.mnt, "-o", "noexec,suid,dev"):
        options = mount_line(ck.mnt)[0]
        assert "noexec" in options and "nosuid" not in options and "nodev" not in options
    with ck.mounted("web", ck.mnt, "-o", "exec=yes"):
        options = mount_line(ck.mnt)[0]
        assert "noexec" not in options and {"nosuid", "nodev"} <= set(options)


def test_allow_other_off(ck):
    ck.volume()
    with ck.mounted("web", ck.mnt, "-o", "allow-other=no"):
        (ck.mnt / "f").touch()
        ck.mnt.chmod(0o777)

        def check():
            assert errno_of(os.listdir, ck.mnt) == "EACCES"

        as_user(check)


def test_other_users_may_not_control(ck):
    """The control socket is root's: another user can neither stop the mount nor ask it."""
    ck.volume()
    with ck.mounted():
        sockets = [p for p in ck.runtime.rglob("*") if p.is_socket()]
        assert sockets and all(p.stat().st_mode & 0o077 == 0 for p in sockets)

        def check():
            done = ck.run("umount", ck.mnt)
            assert done.returncode != DONE and "ckrfs: " in done.stderr
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            assert errno_of(s.connect, str(sockets[0])) in ("EACCES", "EPROTOTYPE", "EPERM")

        as_user(check)
        (ck.mnt / "f").write_text("still mounted")


def test_owner_may_control(ck):
    ck.volume(owner=UID)
    ck.mount()
    as_user(lambda: ck.umount())
    wait_until("the mount to end", lambda: not mounts_under(ck.dir) and not ck.processes())


# ---- mount(8)

NAMESPACE = r"""
set -e
for d in /etc /usr/sbin; do
    b=$1/overlay$d; mkdir -p $b/upper $b/work
    mount -t overlay overlay -o lowerdir=$d,upperdir=$b/upper,workdir=$b/work $d
done
ln -s "$2" /usr/sbin/mount.ckrfs
ln -s "$2" /usr/sbin/umount.ckrfs
ln -s "$2" /usr/sbin/umount.fuse.ckrfs
mkdir -p /etc/ckrfs
cp "$1/ckrfs.conf" /etc/ckrfs/ckrfs.conf
chmod 600 /etc/ckrfs/ckrfs.conf
[ -e "$1/fstab" ] && cp "$1/fstab" /etc/fstab
"""


def in_namespace(ck, script, check=True):
    """Runs a shell script where mount(8) finds our helpers and /etc is a copy; $1 is the test's directory."""
    return run("unshare", "-m", "--propagation", "private", "sh", "-c", NAMESPACE + script, "sh", ck.dir, BINARY,
               env=ck.env, check=check)


def test_mount_helper(ck):
    volume = ck.volume()
    ck.key_file("wrong", name="bad")
    done = in_namespace(ck, rf"""
m=$1/mnt
mount -t ckrfs web $m
echo by name > $m/f
umount $m
! grep -q " $m " /proc/self/mountinfo
mount -t ckrfs {volume.cipher} $m -o key=file:$1/key,noatime,_netdev,x-something,nofail
cat $m/f
grep " $m " /proc/self/mountinfo
umount $m
set +e
mount -t ckrfs {volume.cipher} $m -o key=file:$1/bad; echo "bad key: $?"
mount -t ckrfs {volume.cipher} $m -o keyy=file:$1/bad; echo "bad option: $?"
mount -t ckrfs /nowhere $m -o key=file:$1/key; echo "bad source: $?"
""")
    said = done.stdout.decode()
    assert said.startswith("by name\n") and " - fuse.ckrfs " in said
    assert "bad key: 32\n" in said and "bad source: 32\n" in said
    assert re.search(r"bad option: (1|2|32)\n", said)


def test_fstab(ck):
    volume = ck.volume()
    (ck.dir / "second").mkdir()
    (ck.dir / "fstab").write_text(
        f"web {ck.mnt} ckrfs noauto,nofail 0 0\n"
        f"{volume.cipher} {ck.dir}/second ckrfs noauto,ro,user,key=file:{ck.dir}/key 0 0\n")
    done = in_namespace(ck, r"""
mount $1/mnt
echo fstab > $1/mnt/f
umount $1/mnt
mount $1/second
cat $1/second/f
grep " $1/second " /proc/self/mountinfo
umount $1/second
! grep " $1/second " /proc/self/mountinfo
""").stdout.decode()
    assert done.startswith("fstab\n")
    assert "nosuid,nodev,noexec" in done.splitlines()[1], "user implies them"


def test_helper_umount_of_busy(ck):
    ck.volume()
    done = in_namespace(ck, r"""
mount -t ckrfs web $1/mnt
cd $1/mnt
set +e
umount $1/mnt; echo "busy: $?"
umount.ckrfs $1/mnt -v; echo "helper, busy: $?"
umount -l $1/mnt; echo "lazy: $?"
cd /
# umount(8) does not wait for the keeper's end.
until mount -t ckrfs web $1/mnt; do :; done
umount.ckrfs $1/mnt -v; echo "helper: $?"
umount.ckrfs $1/mnt; echo "helper, nothing there: $?"
""")
    said = done.stdout.decode()
    for line in ("busy: 32", "helper, busy: 32", "lazy: 0", "helper: 0", "helper, nothing there: 32"):
        assert line in said.splitlines(), said
    assert b"sh" in done.stderr, "who holds it is said"


def test_fake_mount_does_nothing(ck):
    ck.volume()
    in_namespace(ck, "mount -f -t ckrfs web $1/mnt; ! grep \" $1/mnt \" /proc/self/mountinfo")


# ---- without root

def test_unprivileged_user(ck):
    """A user mounts what is the user's own through fusermount3; root is kept out, as FUSE does."""
    volume = ck.volume()
    run("chown", "-R", f"{UID}:{UID}", ck.dir)
    done = in_namespace(ck, rf"""
echo "ckrfstest:x:{UID}:{UID}::/:/bin/sh" >> /etc/passwd
mknod $1/fuse c 10 229; chmod 666 $1/fuse; mount --bind $1/fuse /dev/fuse
asuser() {{ setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps -all "$@"; }}
asuser $2 mount --config $1/ckrfs.conf web $1/mnt
asuser sh -c "echo mine > $1/mnt/f; cat $1/mnt/f; stat -c %u $1/mnt/f"
asuser $2 status web --json
ls $1/mnt 2>&1 || echo "root: kept out"
asuser $2 umount $1/mnt
! grep " $1/mnt " /proc/self/mountinfo
rm $1/fuse
""").stdout.decode()
    assert done.startswith(f"mine\n{UID}\n") and "root: kept out" in done
    assert '"unlocked"' in done
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert (peer / "f").read_text() == "mine\n"


def test_configured_volume_under_another_name(ck):
    """A second mount of a volume, for one of its users: NAME@USER."""
    ck.volume(shared="yes")
    ck.mount()
    other = ck.dir / "other"
    other.mkdir()
    ck.mount("web", other, "-o", "name=web@one")
    assert sorted(m["name"] for m in ck.states()) == ["web", "web@one"]
    ck.run("lock", "web@one", status=DONE)
    assert [m["state"] for m in sorted(ck.states(), key=lambda m: m["name"])] == ["unlocked", "locked"]
    ck.umount("web@one")
    assert ck.state()["name"] == "web"
    ck.umount()
    assert "is not 1 to 64 letters" in ck.run("mount", "web", ck.mnt, "-o", "name=web@", status=CONFIG).stderr


def test_mount_reaches_a_slave_namespace(ck):
    """A namespace made before, with slave propagation, sees the mount come and go."""
    ck.volume()
    run("mount", "--bind", ck.mnt, ck.mnt)
    run("mount", "--make-shared", ck.mnt)
    inner = ck.mnt / "inner"
    inner.mkdir()
    try:
        with child(["unshare", "-m", "--propagation", "slave", "cat"], stdin=subprocess.PIPE) as other:
            wait_until("the namespace", lambda: os.readlink(f"/proc/{other.pid}/ns/mnt") !=
                       os.readlink("/proc/self/ns/mnt"))
            ck.mount("web", inner)
            (inner / "f").write_text("seen")
            assert run("nsenter", "-m", "-t", str(other.pid), "cat", inner / "f").stdout == b"seen"
            ck.umount(inner)
            assert not run("nsenter", "-m", "-t", str(other.pid), "ls", inner).stdout
            other.stdin.close()
    finally:
        run("umount", ck.mnt)


def test_version_and_help(ck):
    assert re.fullmatch(r"ckrfs \d+\.\d+\.\d+\n", ck.run("--version", status=DONE).stdout)
    text = ck.run("--help", status=DONE).stdout
    assert len(text.splitlines()) <= 40 and all(c in text for c in ("mount", "umount", "status", "init", "config"))
    assert ck.run("mount", "--help", status=DONE).stderr == ""
    assert "ckrfs: " in ck.run("mout", status=USAGE).stderr
