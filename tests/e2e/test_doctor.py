# SPDX-License-Identifier: MIT
"""`ckrfs doctor`: each finding provoked, in a mount namespace of its own where it is about the machine's files."""
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import struct
import subprocess

import pytest

from support import BINARY, CONFIG, DAMAGED, DONE, FAILED, NO_KEY, NO_VOLUME, UNSUPPORTED, USAGE, as_user, kernel_lacks, run, wait_until

libc = ctypes.CDLL(None, use_errno=True)
SYSCALLS = {"memfd-secret": 447, "openat2": 437, "landlock": 444, "seccomp": 317}  # x86-64 has only the last one of its own
if os.uname().machine != "x86_64":
    SYSCALLS["seccomp"] = 277


def parse(done):
    answer = json.loads(done.stdout)
    assert set(answer) == {"findings", "notes", "problems"}
    for f in answer["findings"]:
        assert set(f) == {"check", "level", "text", "try"} and f["level"] in ("ok", "note", "problem") and f["text"]
    for level in ("note", "problem"):
        assert sum(f["level"] == level for f in answer["findings"]) == answer[level + "s"]
    return answer["findings"]


def doctor(ck, *args, status=None, **kw):
    """-> {check: (level, text, try)}; of several with the same check, the last"""
    done = ck.run("doctor", "--json", "--config", ck.conf, *args, status=status, **kw)
    return {f["check"]: (f["level"], f["text"], f["try"]) for f in parse(done)}


def elsewhere(*binds):
    """For preexec_fn: a mount namespace in which each (what, where) is bound."""
    def enter():
        if libc.unshare(0x20000) or libc.mount(None, b"/", None, 1 << 14 | 1 << 18, None):
            raise OSError(ctypes.get_errno(), "unshare")
        for what, where in binds:
            if libc.mount(os.fsencode(what), os.fsencode(where), None, 4096, None):
                raise OSError(ctypes.get_errno(), where)
    return enter


def without(number, code=errno.ENOSYS):
    """For preexec_fn: that system call fails from now on."""
    def enter():
        program = b"".join(struct.pack("HBBI", *i) for i in (
            (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | code), (0x06, 0, 0, 0x7fff0000)))
        buf = ctypes.create_string_buffer(program)
        filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buf)))
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter_, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")
    return enter


# ---- what is fine

def test_a_volume_that_is_fine(ck):
    ck.volume(target=ck.mnt)
    found = doctor(ck, "web")
    for check in ("fuse-device", "openat2", "config", "volume web", "source web", "target web", "key web", "runtime"):
        assert found[check][0] == "ok", found[check]
    assert found["key web"] == ("ok", f"file:{ck.dir}/key can be reached", "")
    ck.mount("web")
    assert doctor(ck)["mount web"][0] in ("ok", "note")
    ck.umount()


def test_text_has_what_is_not_fine(ck):
    ck.volume(target=ck.dir / "missing")
    text = ck.run("doctor", "--config", ck.conf, status=FAILED).stdout
    assert f"problem target web        {ck.dir}/missing does not exist\n  try: mkdir -p {ck.dir}/missing\n" in text
    assert "\nok " not in text and text.splitlines()[-1].endswith(" notes")
    assert "\nok      config            " in ck.run("doctor", "--all", "--config", ck.conf).stdout
    run("mkdir", "-p", ck.dir / "missing")
    assert "problem " not in ck.run("doctor", "--config", ck.conf).stdout
    ck.run("doctor", "web", "more", status=USAGE)


# ---- the kernel

def test_no_fuse_device(ck):
    found = doctor(ck, status=UNSUPPORTED, preexec_fn=elsewhere((ck.dir, "/dev")))
    assert found["fuse-device"] == ("problem", "cannot open /dev/fuse: No such file or directory", "modprobe fuse")
    assert "fuse-passthrough" not in found


def test_what_the_kernel_offers_is_what_a_mount_gets(ck):
    ck.plain()
    with ck.mounted("plain"):
        passthrough = ck.state()["passthrough"]
        protections = ck.state()["protections"]
        memory = ck.state()["secret_memory"]
    found = doctor(ck)
    if "kernel" in passthrough:
        assert found["fuse-passthrough"][0] == "note"
    if passthrough == "active":
        assert found["fuse-passthrough"][0] == "ok"
    assert (found["seccomp"][0] == "ok") == ("seccomp" in protections)
    assert (found["memfd-secret"][0] == "ok") == (memory == "memfd_secret")


@pytest.mark.parametrize("check", SYSCALLS)
def test_a_system_call_is_missing(ck, check):
    before = doctor(ck)[check][0]
    if before != "ok":
        kernel_lacks(check)
    level, text, _ = doctor(ck, preexec_fn=without(SYSCALLS[check]))[check]
    assert level == ("problem" if check == "openat2" else "note")
    assert "missing" in text or "fails" in text


# ---- the machine

def test_fuse_conf(ck):
    conf = ck.dir / "fuse.conf"
    conf.write_text("#user_allow_other\nmount_max = 5\n")
    found = doctor(ck, preexec_fn=elsewhere((conf, "/etc/fuse.conf")))
    assert found["fuse-conf"] == ("note", "users cannot let others into their mounts (allow-other)",
                                  "echo user_allow_other >> /etc/fuse.conf")
    conf.write_text("  user_allow_other # for podman\n")
    assert doctor(ck, preexec_fn=elsewhere((conf, "/etc/fuse.conf")))["fuse-conf"][0] == "ok"


def test_fusermount(ck):
    fake = ck.dir / "fusermount3"
    fake.write_bytes(b"")
    fake.chmod(0o755)
    found = doctor(ck, preexec_fn=elsewhere((fake, "/usr/bin/fusermount3")))
    assert found["fusermount"] == ("note", "fusermount3(1) is not set-user-ID root: only root can mount",
                                   "chmod u+s /usr/bin/fusermount3")


def test_runtime_directory_of_others(ck):
    ck.runtime.chmod(0o777)
    found = doctor(ck, status=CONFIG)
    assert found["runtime"][:2] == ("problem", f"the runtime directory {ck.runtime} can be written by others (mode 0777)")
    assert found["runtime"][2] == f"chmod go-w {ck.runtime}"
    ck.runtime.chmod(0o755)
    assert doctor(ck)["runtime"][0] == "ok"


def test_dead_mount(ck):
    ck.volume()
    ck.mount()
    os.kill(ck.state()["keeper_pid"], signal.SIGKILL)
    wait_until("it to be dead", lambda: ck.state()["state"] == "dead")
    assert doctor(ck, status=FAILED)["mount web"] == (
        "problem", f"nobody serves {ck.mnt}: its keeper died", "ckrfs umount web")
    ck.run("umount", "web", status=DONE)
    assert "mount web" not in doctor(ck)


def test_dead_server(ck):
    ck.volume()
    ck.mount()
    os.kill(ck.state()["server_pid"], signal.SIGKILL)
    wait_until("it to have failed", lambda: ck.state()["state"] == "failed")
    assert doctor(ck, status=FAILED)["mount web"][1] == f"nobody serves {ck.mnt}: its server died"
    ck.umount()


def test_degraded_mount(ck):
    ck.volume(key_lifetime="1h")
    with ck.mounted():
        (ck.dir / "key").rename(ck.dir / "gone")
        ck.run("refresh", "web", status=NO_KEY)
        level, text, mend = doctor(ck)["mount web"]
        assert level == "problem" and "No such file" in text and mend == "ckrfs refresh web"


def test_damage(ck):
    volume = ck.volume()
    with ck.mounted():
        (ck.mnt / "f").write_bytes(b"x" * 4096)
    [file] = [p for p in volume.cipher.iterdir() if not p.name.startswith("gocryptfs.")]
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with ck.mounted():
        with pytest.raises(OSError):
            (ck.mnt / "f").read_bytes()
        assert doctor(ck, status=DAMAGED)["mount web"] == (
            "problem", "damage was found while files were read", "ckrfs check --online web")


# ---- the configuration

def test_wrong_configuration(ck):
    ck.conf.write_text("[volume web]\nsourc = /x\n")
    found = doctor(ck, status=CONFIG)
    assert found["config"][0] == "problem" and f"{ck.conf}:2" in found["config"][1] and "source" in found["config"][1]


def test_configuration_that_others_write(ck):
    ck.conf.chmod(0o666)
    assert doctor(ck, status=CONFIG)["config"] == (
        "problem", f"{ck.conf} can be written by others (mode 0666)", f"chmod go-w {ck.conf}")


def test_wrong_volume(ck):
    ck.volume()
    assert doctor(ck, "wbe", status=NO_VOLUME)["volume wbe"][0] == "problem"
    ck.configure("volume web", source=ck.dir / "cipher", key="fil:/k")
    level, text, _ = doctor(ck, "web", status=CONFIG)["key web"]
    assert level == "problem" and 'did you mean "file:"' in text


def test_source_and_target(ck):
    volume = ck.volume(target=ck.dir / "missing")
    assert doctor(ck, status=FAILED)["target web"] == (
        "problem", f"{ck.dir}/missing does not exist", f"mkdir -p {ck.dir}/missing")
    ck.configure("volume web", source=ck.dir / "nowhere", key=f"file:{ck.dir}/key")
    assert doctor(ck, status=NO_VOLUME)["source web"][1] == f"cannot find {ck.dir}/nowhere: No such file or directory"
    empty = ck.dir / "empty"
    empty.mkdir()
    ck.configure("volume web", source=empty, key=f"file:{ck.dir}/key")
    level, text, mend = doctor(ck, status=NO_VOLUME)["source web"]
    assert (level, text) == ("problem", f"{empty} is no volume: it has no gocryptfs.conf")
    assert mend == f"ckrfs init {empty} --key 'file:{ck.dir}/key'"
    assert subprocess.run(["/bin/sh", "-c", mend.replace("ckrfs", str(BINARY), 1)], env=ck.env,
                          stdout=subprocess.DEVNULL).returncode == 0, "what it says to try works"
    assert doctor(ck)["source web"][0] == "ok"
    assert volume.cipher.exists()


# ---- key sources

def key_finding(ck, spec, status=NO_KEY, **kw):
    ck.configure("volume web", source=ck.dir / "cipher", key=spec)
    return doctor(ck, "web", status=status, **kw)["key web"]


def test_key_files(ck):
    ck.volume()
    key = ck.dir / "key"
    key.chmod(0o644)
    assert key_finding(ck, f"file:{key}") == (
        "problem", f"file:{key} can be read by others (mode 0644)", f"chmod 600 {key}")
    key.chmod(0o600)
    assert key_finding(ck, f"file:{key}", status=None)[0] == "ok"
    assert key_finding(ck, f"file:{ck.dir}/none")[1] == f"cannot read file:{ck.dir}/none: No such file or directory"
    assert key_finding(ck, f"file:{ck.dir}")[1] == f"file:{ck.dir} is a directory, not a file"
    empty = ck.key_file("", "empty")
    assert key_finding(ck, f"file:{empty}")[1] == f"file:{empty} is empty"


def test_key_files_are_not_opened(ck):
    """A FIFO whose writer waits would be released by an open."""
    ck.volume()
    fifo = ck.dir / "fifo"
    os.mkfifo(fifo, 0o600)
    assert key_finding(ck, f"file:{fifo}", status=None)[0] == "ok"
    with pytest.raises(OSError) as e:
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    assert e.value.errno == errno.ENXIO and stat.S_ISFIFO(fifo.stat().st_mode)


def test_programs_are_not_run(ck):
    ck.volume()
    program, mark = ck.dir / "give", ck.dir / "mark"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    assert key_finding(ck, f"exec:{program}")[1] == f"cannot run exec:{program}: Permission denied"
    program.chmod(0o755)
    assert key_finding(ck, f"exec:{program}", status=None) == ("ok", f"exec:{program} can be reached", "")
    assert not mark.exists()
    assert key_finding(ck, f"exec:{ck.dir}/none")[1] == f"cannot run exec:{ck.dir}/none: No such file or directory"


def test_sockets_are_not_connected_to(ck):
    ck.volume()
    path = ck.dir / "socket"
    assert key_finding(ck, f"unix:{path}")[1] == f"cannot connect to unix:{path}: No such file or directory"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.setblocking(False)
        assert key_finding(ck, f"unix:{path}", status=None)[0] == "ok"
        with pytest.raises(BlockingIOError):
            server.accept()


def test_keyrings(ck):
    ck.volume()
    ck.configure("volume web", source=ck.dir / "cipher", key="keyring:user:ckrfs-doctor", keyring="inherit")
    script = "keyctl add user ckrfs-doctor secret @s >/dev/null"
    argv = ck.argv("doctor", "--json", "--config", ck.conf, "web")
    there = subprocess.run(["keyctl", "session", "-", "sh", "-c", f'{script}; exec "$@"', "sh", *argv],
                           capture_output=True, text=True, env=ck.env)
    found = {f["check"]: f for f in parse(there)}
    assert found["key web"]["level"] == "ok", found["key web"]
    missing = subprocess.run(["keyctl", "session", "-", *argv], capture_output=True, text=True, env=ck.env)
    assert {f["check"]: f["text"] for f in parse(missing)}["key web"] == "no key in keyring:user:ckrfs-doctor"
    assert missing.returncode == NO_KEY


def test_one_source_of_several_is_enough(ck):
    ck.volume(key=["file:/none", "fd:7"])
    done = ck.run("doctor", "--json", "--config", ck.conf, "web")
    found = [(f["level"], f["text"]) for f in parse(done) if f["check"] == "key web"]
    assert found == [("note", "cannot read file:/none: No such file or directory"),
                     ("note", "whether fd:7 serves cannot be told without taking the key")]


def test_key_of_the_lower(ck):
    key = ck.key_file(os.urandom(64), "lower")
    ck.configure("volume web", source=ck.dir, lower="fscrypt", format="gocryptfs", lower_key=f"file:{key}",
                 key=f"file:{ck.dir}/none")
    found = doctor(ck, "web", status=NO_KEY)
    assert found["lower-key web"] == ("ok", f"file:{key} can be reached", "")
    assert found["key web"][0] == "problem"
    key.unlink()
    assert doctor(ck, "web")["lower-key web"][:2] == ("problem", f"cannot read file:{key}: No such file or directory")


def test_no_key_is_shown_or_logged(ck):
    """The environment looks for key bytes in all that was printed."""
    ck.volume()
    out = ck.run("doctor", "--all", "--config", ck.conf).stdout
    assert "correct horse" not in out and f"file:{ck.dir}/key" in out


# ---- engines

def test_podman_names_a_plugin_that_is_not_there(ck):
    conf = ck.dir / "containers.conf"
    conf.write_text(f'[engine.volume_plugins]\nckrfs = "{ck.dir}/plugin.sock"\n')
    etc = ck.dir / "etc"
    etc.mkdir()
    (etc / "containers.conf").symlink_to(conf)
    units = ck.dir / "units"
    units.mkdir()
    (units / "ckrfs-volume-plugin.socket").touch()
    found = doctor(ck, status=FAILED, preexec_fn=elsewhere((etc, "/etc/containers"), (units, "/etc/systemd/system")))
    assert found["podman"] == (
        "problem", "/etc/containers/containers.conf names a volume plugin ckrfs, but nobody answers at "
        f"{ck.dir}/plugin.sock: No such file or directory", "systemctl start ckrfs-volume-plugin.socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{ck.dir}/plugin.sock")
        server.listen()
        assert doctor(ck, preexec_fn=elsewhere((etc, "/etc/containers")))["podman"][0] == "ok"


def test_docker_names_a_plugin_that_is_not_there(ck):
    plugins = ck.dir / "docker" / "plugins"
    plugins.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(plugins / "ckrfs.sock"))
        enter = elsewhere((ck.dir, "/run"))
        assert doctor(ck, status=FAILED, preexec_fn=enter)["docker"][1] == \
            "nobody answers at /run/docker/plugins/ckrfs.sock: Connection refused"
        server.listen()
        assert doctor(ck, preexec_fn=enter)["docker"][0] == "ok"


def test_hooks(ck):
    hooks = ck.dir / "oci" / "hooks.d"
    hooks.mkdir(parents=True)
    (hooks / "ckrfs.json").write_text('{"version": "1.0.0", "hook": {"path": "/nowhere/ckrfs", "args": ["ckrfs", "oci-hook"]}}\n')
    (hooks / "other.json").write_text('{"version": "1.0.0", "hook": {"path": "/bin/other"}}\n')
    enter = elsewhere((ck.dir, "/etc/containers"))
    assert doctor(ck, status=FAILED, preexec_fn=enter)["oci-hook"][1] == \
        "/etc/containers/oci/hooks.d/ckrfs.json names /nowhere/ckrfs, which cannot be run: No such file or directory"
    (hooks / "ckrfs.json").write_text('{"version": "1.0.0", "hook": {"path": "%s"}}\n' % BINARY)
    assert doctor(ck, preexec_fn=enter)["oci-hook"][0] == "ok"


# ---- users

def test_somebody_else_than_root(ck):
    """What cannot be known is not claimed; a device that lets only root in is found."""
    device = ck.dir / "fuse"
    env = dict(ck.env, XDG_RUNTIME_DIR=str(ck.dir / "xdg"), HOME="/nonexistent")
    env.pop("CKRFS_RUNTIME_DIR")

    def look():
        done = subprocess.run([BINARY, "doctor", "--json"], capture_output=True, text=True, env=env)
        found = {f["check"]: f for f in parse(done)}
        if mode == 0o666:
            assert found["fuse-passthrough"]["level"] == "note"
            assert "only root" in found["fuse-passthrough"]["text"]
        else:
            assert found["fuse-device"] == {"check": "fuse-device", "level": "problem", "try": "chmod 666 /dev/fuse",
                                            "text": "cannot open /dev/fuse: Permission denied"}

    def in_namespace():
        elsewhere((device, "/dev/fuse"))()
        as_user(look)

    os.mknod(device, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
    for mode in (0o666, 0o600):
        device.chmod(mode)
        as_user(in_namespace, uid=0)
