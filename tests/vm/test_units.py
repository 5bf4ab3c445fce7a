# SPDX-License-Identifier: MIT
"""The units under a real systemd: run by root in a virtual machine whose first process it is (vm.py --systemd)."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

BUILD = pathlib.Path(os.environ["CKRFS_BUILD_DIR"])
REPO = pathlib.Path(__file__).resolve().parents[2]
BINARY = BUILD / "ckrfs"
UNITS = pathlib.Path("/etc/systemd/system")
HOME = pathlib.Path("/run/disk/units")
PROTOCOL = "Content-Type: application/json"

assert pathlib.Path("/proc/1/comm").read_text() == "systemd\n", "only for a guest of vm.py --systemd"


def run(*command, check=True, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=180, **more)
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr, recent())
    return done


def recent():
    """What the journal has of the last minute, for who reads the failure."""
    return subprocess.run(["journalctl", "-q", "--no-pager", "-o", "cat", "-n", "150"], capture_output=True, text=True).stdout


def systemctl(*args, check=True):
    return run("systemctl", *args, check=check)


def show(unit, name):
    return systemctl("show", "--value", "-p", name, unit).stdout.strip()


def wait_for(what, seconds=90):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, recent()
        time.sleep(0.2)


def journal(unit):
    return run("journalctl", "-q", "--no-pager", "-o", "cat", "-u", unit).stdout


def mounts_of_systemd():
    return [line.split()[4] for line in open("/proc/1/mountinfo") if " - fuse.ckrfs " in line]


def keys_of_ckrfs():
    return [line for line in open("/proc/keys") if "ckrfs" in line]


def configure(name, *lines):
    """A volume of gocryptfs with a passphrase; lines of its section."""
    (HOME / f"{name}.pass").write_text("correct horse")
    (HOME / f"{name}.pass").chmod(0o600)
    for directory in (f"{name}.cipher", name):
        (HOME / directory).mkdir()
    run(BINARY, "init", HOME / f"{name}.cipher", "--scrypt-n", "10", "--key", f"file:{HOME / name}.pass")
    write(f"/etc/ckrfs/conf.d/{name}.conf", f"[volume {name}]", f"source = {HOME / name}.cipher", f"target = {HOME / name}", *lines)
    return HOME / name


def write(path, *lines):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text("\n".join([*lines, ""]))


@pytest.fixture(scope="module", autouse=True)
def machine():
    HOME.mkdir()
    shutil.rmtree("/etc/ckrfs", ignore_errors=True)
    write("/etc/ckrfs/ckrfs.conf", "[defaults]", "log = syslog")
    # Where mount(8) and the units look for it.
    for name in ("ckrfs", "mount.ckrfs", "umount.ckrfs", "mount.fuse.ckrfs", "umount.fuse.ckrfs"):
        path = pathlib.Path("/usr/sbin") / name
        path.unlink(missing_ok=True)
        path.symlink_to(BINARY)
    for unit in (BUILD / "ckrfs@.service", BUILD / "ckrfs-volume-plugin.service", REPO / "conf/systemd/ckrfs-volume-plugin.socket"):
        (UNITS / unit.name).write_text(re.sub(r"(?m)^(Exec\w+=\+?)\S+/ckrfs ", r"\1/usr/sbin/ckrfs ", unit.read_text()))
    systemctl("daemon-reload")


@pytest.fixture(scope="module")
def web():
    mnt = configure("web", f"key = file:{HOME}/web.pass")
    systemctl("start", "ckrfs@web")
    yield mnt
    systemctl("stop", "ckrfs@web")


def test_it_is_mounted_when_started(web):
    assert show("ckrfs@web", "ActiveState") == "active"
    assert show("ckrfs@web", "StatusText") == f"mounted on {web}"
    assert str(web) in mounts_of_systemd()
    (web / "f").write_text("content")
    assert "content" not in [p.read_text(errors="replace") for p in (HOME / "web.cipher").iterdir() if p.is_file()]


def test_the_state_is_shown(web):
    run(BINARY, "lock", "web")
    assert "locked" in show("ckrfs@web", "StatusText")
    run(BINARY, "unlock", "web")
    assert show("ckrfs@web", "StatusText") == f"mounted on {web}"


def test_an_error_is_in_the_journal():
    configure("wrong", "key = file:/nowhere")
    assert systemctl("start", "ckrfs@wrong", check=False).returncode != 0
    systemctl("stop", "ckrfs@wrong")
    assert 'cannot mount "wrong"' in journal("ckrfs@wrong") and "/nowhere" in journal("ckrfs@wrong")


def test_a_volume_in_use_is_not_lost(web):
    """stop is refused what it cannot do without loss: the log says who uses it. What is left systemd ends as ever."""
    with open(web / "open", "w") as f:
        f.write("written before")
        f.flush()
        systemctl("stop", "ckrfs@web", check=False)
        assert "is busy" in journal("ckrfs@web") and "held by" in journal("ckrfs@web"), journal("ckrfs@web")
    systemctl("reset-failed", "ckrfs@web", check=False)
    systemctl("restart", "ckrfs@web")
    assert (web / "open").read_text() == "written before"


@pytest.mark.parametrize("who", ["keeper_pid", "server_pid"])
def test_it_is_mounted_again_when_it_dies(web, who):
    before = json.loads(run(BINARY, "status", "--json", "web").stdout)["mounts"][0]
    os.kill(before[who], signal.SIGKILL)
    wait_for(lambda: show("ckrfs@web", "ActiveState") == "active" and int(show("ckrfs@web", "MainPID")) not in (0, before["keeper_pid"]))
    assert (web / "f").read_text() == "content"
    assert int(show("ckrfs@web", "NRestarts")) > 0


def test_a_keeper_that_hangs_is_replaced(web):
    write(UNITS / "ckrfs@web.service.d/soon.conf", "[Service]", "WatchdogSec=3", "TimeoutAbortSec=3")
    systemctl("daemon-reload")
    systemctl("restart", "ckrfs@web")
    keeper = int(show("ckrfs@web", "MainPID"))
    time.sleep(7)  # longer than the watchdog waits: one that works is left alone
    assert int(show("ckrfs@web", "MainPID")) == keeper
    os.kill(keeper, signal.SIGSTOP)
    wait_for(lambda: show("ckrfs@web", "ActiveState") == "active" and int(show("ckrfs@web", "MainPID")) not in (0, keeper))
    assert (web / "f").read_text() == "content"
    (UNITS / "ckrfs@web.service.d/soon.conf").unlink()
    systemctl("daemon-reload")


def test_a_credential_that_systemd_decrypts():
    mnt = configure("cred", "key = cred:cred")
    run("systemd-creds", "--with-key=host", "--name=cred", "encrypt", HOME / "cred.pass", "/etc/ckrfs/cred.cred")
    (HOME / "cred.pass").unlink()
    write(UNITS / "ckrfs@cred.service.d/key.conf", "[Service]", "LoadCredentialEncrypted=cred:/etc/ckrfs/cred.cred")
    systemctl("daemon-reload")
    systemctl("start", "ckrfs@cred")
    (mnt / "f").write_text("by credential")
    run(BINARY, "lock", "cred")
    with pytest.raises(OSError):
        (mnt / "f").read_text()
    run(BINARY, "unlock", "cred")
    assert (mnt / "f").read_text() == "by credential"
    keeper = show("ckrfs@cred", "MainPID")
    assert "correct horse" not in pathlib.Path(f"/proc/{keeper}/environ").read_text()
    systemctl("stop", "ckrfs@cred")
    assert str(mnt) not in mounts_of_systemd() and not keys_of_ckrfs()
    assert not os.listdir(mnt)


def test_fstab_and_automount():
    mnt = configure("auto", f"key = file:{HOME}/auto.pass")
    by_path = HOME / "plain.mount"
    by_path.mkdir()
    write("/etc/fstab", f"auto {mnt} ckrfs noauto,nofail,x-systemd.automount,x-systemd.idle-timeout=5s 0 0")
    systemctl("daemon-reload")
    unit = run("systemd-escape", "-p", "--suffix=automount", mnt).stdout.strip()
    systemctl("start", unit)
    assert str(mnt) not in mounts_of_systemd()
    (mnt / "f").write_text("on access")
    assert str(mnt) in mounts_of_systemd()
    wait_for(lambda: str(mnt) not in mounts_of_systemd())
    assert (mnt / "f").read_text() == "on access"
    systemctl("stop", unit)
    assert str(mnt) not in mounts_of_systemd()


def test_mount_unit_of_fstab():
    mnt = configure("tab", f"key = file:{HOME}/tab.pass")
    write("/etc/fstab", f"tab {mnt} ckrfs nofail 0 0")
    systemctl("daemon-reload")
    unit = run("systemd-escape", "-p", "--suffix=mount", mnt).stdout.strip()
    systemctl("start", unit)
    (mnt / "f").write_text("x")
    systemctl("stop", unit)
    assert str(mnt) not in mounts_of_systemd() and not os.listdir(mnt)
    write("/etc/fstab")
    systemctl("daemon-reload")


def test_the_plugin_is_started_by_its_socket(web):
    systemctl("start", "ckrfs-volume-plugin.socket")
    socket = systemctl("show", "--value", "-p", "Listen", "ckrfs-volume-plugin.socket").stdout.split()[0]
    assert show("ckrfs-volume-plugin.service", "ActiveState") == "inactive"
    said = run("curl", "-sS", "--unix-socket", socket, "-H", PROTOCOL, "-d", "{}", "http://localhost/Plugin.Activate").stdout
    assert json.loads(said) == {"Implements": ["VolumeDriver"]}
    assert show("ckrfs-volume-plugin.service", "ActiveState") == "active"
    systemctl("stop", "ckrfs-volume-plugin.service", "ckrfs-volume-plugin.socket")


def test_nspawn(web):
    """A container of systemd-nspawn reads and writes the volume, and finds no key."""
    root = HOME / "rootfs"
    for directory in ("bin", "data", "proc", "sys", "dev", "tmp", "run", "etc", "usr"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in ("sh", "cat", "grep", "ls"):
        (root / "bin" / name).symlink_to("busybox")
    (web / "from-host").write_text("from the host\n")
    script = "cat /data/from-host; echo inside > /data/from-inside; grep -c ckrfs /proc/keys; ls /proc | grep -c '^[0-9]'"
    done = run("systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "--pipe", f"--bind={web}:/data", "/bin/sh", "-c", script)
    assert done.stdout.split("\n")[:2] == ["from the host", "0"], (done.stdout, done.stderr)
    assert (web / "from-inside").read_text() == "inside\n"
