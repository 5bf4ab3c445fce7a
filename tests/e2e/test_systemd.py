# SPDX-License-Identifier: MIT
"""The units of systemd: that systemd takes them, that nothing hides the mount, and what their command lines do."""
import configparser
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from support import BINARY, BUILD, DONE, REPO, child, run, wait_until

UNITS = {"ckrfs@.service": BUILD / "ckrfs@.service", "ckrfs-volume-plugin.service": BUILD / "ckrfs-volume-plugin.service",
         "ckrfs-volume-plugin.socket": REPO / "conf" / "systemd" / "ckrfs-volume-plugin.socket"}
# systemd.exec(5): each of them makes a mount namespace.
HIDING = re.compile(r"Private(?!Network|Users)|Protect|ReadOnly|ReadWrite|Inaccessible|Bind|Root|TemporaryFileSystem|MountFlags|DynamicUser|"
                    "ExecPaths|NoExecPaths")


def unit(name):
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str
    parsed.read_string(UNITS[name].read_text())
    return parsed


@pytest.fixture
def installed(tmp_path):
    """The units as they are, but for the place of the program"""
    for name, path in UNITS.items():
        (tmp_path / name).write_text(re.sub(r"(?m)^(Exec\w+=\+?)\S+/ckrfs ", rf"\1{BINARY} ", path.read_text()))
    (tmp_path / "ckrfs@web.service").symlink_to("ckrfs@.service")
    return tmp_path


def test_systemd_takes_them(installed):
    for name in ("ckrfs@web.service", "ckrfs-volume-plugin.service", "ckrfs-volume-plugin.socket"):
        done = run("systemd-analyze", "verify", "--man=no", installed / name, check=False)
        said = [line for line in done.stderr.decode().splitlines() if "ckrfs" in line]
        assert said == [] and done.returncode == 0, done.stderr


def test_verify_finds_what_is_wrong(installed):
    bad = installed / "ckrfs@.service"
    bad.write_text(bad.read_text().replace("Type=notify", "Type=notfy"))
    assert b"notfy" in run("systemd-analyze", "verify", "--man=no", installed / "ckrfs@web.service", check=False).stderr


@pytest.mark.parametrize("name", ["ckrfs@.service", "ckrfs-volume-plugin.service"])
def test_nothing_hides_the_mount(name):
    service = unit(name)["Service"]
    assert [key for key in service if HIDING.match(key)] == []
    assert service["Type"] == "notify"


@pytest.mark.parametrize("name", ["ckrfs@web.service", "ckrfs-volume-plugin.service"])
def test_exposure_is_what_mounting_takes(installed, name):
    """systemd-analyze's list: what does not take a mount namespace, a file or an address is set."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--json=short", installed / name, check=False)
    found = {check["json_field"]: check["set"] for check in json.loads(done.stdout)}
    for word in ("LockPersonality", "RestrictRealtime", "SystemCallArchitectures", "UMask", "CapabilityBoundingSet_CAP_SYS_MODULE",
                 "CapabilityBoundingSet_CAP_SYS_TIME", "CapabilityBoundingSet_CAP_NET_ADMIN"):
        matching = [value for field, value in found.items() if field.startswith(word)]
        assert matching and all(matching), (word, sorted(found))


def capabilities(name):
    return unit(name)["Service"]["CapabilityBoundingSet"].split()


def with_capabilities(name, argv):
    """As the unit bounds them"""
    words = ",".join("+" + c[4:].lower() for c in capabilities(name))
    return ["setpriv", f"--bounding-set=-all,{words}", "--inh-caps=-all", "--", *argv]


def command_of(name, verb, instance):
    words = unit(name)["Service"][verb].replace("%i", instance).split()
    assert Path(words[0]).name == "ckrfs"
    return [str(BINARY), *words[1:]]


def test_what_the_template_runs(ck):
    """Its command lines, with its capabilities only: told when it is ready, unmounted by ExecStop, exit status 0."""
    volume = ck.volume()
    ck.sections["volume web"]["target"] = ck.mnt
    ck.configure("volume unused", source=volume.cipher)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(ck.dir / "notify"))
    notify.settimeout(60)
    start = command_of("ckrfs@.service", "ExecStart", "web")
    start[2:2] = ["--config", str(ck.conf)]
    with child(with_capabilities("ckrfs@.service", start), env=dict(ck.env, NOTIFY_SOCKET=str(ck.dir / "notify"))) as process:
        while "READY=1" not in (said := notify.recv(4096).decode()):
            pass
        ck.remember(ck.mnt)
        (ck.mnt / "f").write_text("by the unit")
        os.chown(ck.mnt / "f", 1234, 1234)
        os.mknod(ck.mnt / "device", 0o600 | 0o020000, os.makedev(1, 3))
        assert ck.state()["keeper_pid"] == process.pid, "systemd tells it by its main process"
        assert "keeper-capabilities" in ck.state()["protections"], said
        stop = command_of("ckrfs@.service", "ExecStop", "web")
        assert subprocess.run(with_capabilities("ckrfs@.service", stop), env=ck.env, timeout=60).returncode == DONE
        assert process.wait(60) == DONE
    notify.close()


def test_main_process_ends_when_the_server_dies(ck):
    """So that Restart=on-failure starts it again, on the same target."""
    ck.volume()
    with child(ck.argv("mount", "web", ck.mnt, "--foreground"), env=ck.env) as process:
        wait_until("the mount", lambda: any(m["state"] == "unlocked" for m in ck.states()))
        ck.remember(ck.mnt)
        os.kill(ck.state()["server_pid"], signal.SIGKILL)
        assert process.wait(60) not in (DONE, None)
    with ck.mounted("web"):
        (ck.mnt / "again").touch()


def test_keeper_that_was_killed_is_started_again(ck):
    """Nothing but the same command line: systemd runs no ExecStop= then."""
    ck.volume()
    with child(ck.argv("mount", "web", ck.mnt, "--foreground"), env=ck.env) as process:
        wait_until("the mount", lambda: any(m["state"] == "unlocked" for m in ck.states()))
        ck.remember(ck.mnt)
        (ck.mnt / "f").write_text("before")
        with open(ck.mnt / "f"):
            os.kill(process.pid, signal.SIGKILL)
            process.wait(60)
            wait_until("it to be dead", lambda: ck.state()["state"] == "dead")
            assert ck.run("mount", "web", ck.mnt).returncode != DONE
            with child(ck.argv("mount", "web", ck.mnt, "--foreground"), env=ck.env):
                wait_until("the mount", lambda: any(m["state"] == "unlocked" for m in ck.states()))
                ck.remember(ck.mnt)
                assert (ck.mnt / "f").read_text() == "before"
                ck.umount()


def test_socket_hands_the_plugin_its_clients(ck):
    """systemd-socket-activate(1) as the socket unit; the plugin answers on what it was given."""
    path = ck.dir / "ckrfs.sock"
    words = command_of("ckrfs-volume-plugin.service", "ExecStart", "")
    with child(["systemd-socket-activate", "-l", path, *words, "--config", ck.conf, "--state", ck.dir / "volumes"], env=ck.env,
               stderr=subprocess.DEVNULL):
        ck.configure("volume unused", source=ck.dir)
        wait_until("the socket", path.exists)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            # It is there a moment before somebody listens.
            wait_until("somebody who listens", lambda: s.connect_ex(str(path)) == 0)
            s.sendall(b"POST /Plugin.Activate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            answer = s.recv(4096)
            while b"VolumeDriver" not in answer:
                more = s.recv(4096)
                assert more, answer
                answer += more
