# SPDX-License-Identifier: MIT
"""The two executables: what mounts do not load, how each finds the other, and the words when it is not there."""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from containers import Namespace
from plugin import PODMAN_ID, Plugin, docker_request
from support import BINARY, BUILD, COMPANION, FAILED, NO_KEY, UID, UNSUPPORTED, USAGE, run

# Of ckrfs-net, with the largest of what they load in turn.
LIBRARIES = ("libkrb5", "libmicrohttpd", "libgnutls", "libp11-kit")
OPTIONS = {o["name"]: o["value"] for o in json.loads((BUILD / "meson-info" / "intro-buildoptions.json").read_text())}
PREFIX = Path(OPTIONS["prefix"])
SBIN, LIBEXEC = PREFIX / OPTIONS["sbindir"], PREFIX / OPTIONS["libexecdir"] / "ckrfs"


def loaded(pid):
    """-> which of LIBRARIES the process has mapped"""
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "libcrypto.so" in maps, "the process can be looked at"
    return {name for name in LIBRARIES if re.search(rf"/{name}\.so", maps)}


def exe(pid):
    return os.readlink(f"/proc/{pid}/exe")


@pytest.fixture
def namespace():
    """Where no ckrfs is installed, whatever this machine has"""
    ns = Namespace(f"for d in {LIBEXEC} {SBIN}; do if test -e $d/ckrfs || test -e $d/ckrfs-net; then mount -t tmpfs none $d; fi; done")
    yield ns
    ns.close()


@pytest.fixture
def installed(ck):
    """A mount namespace in which `meson install` has been run; nobody else sees that."""
    tree = ck.dir / "tree"
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", tree)
    layer = ck.dir / "layer"
    layer.mkdir()
    ns = Namespace(f"mount -t tmpfs none {layer}; mkdir {layer}/upper {layer}/work; cp -a {tree}{PREFIX}/. {layer}/upper; "
                   f"mount -t overlay -o lowerdir={PREFIX},upperdir={layer}/upper,workdir={layer}/work none {PREFIX}")
    yield ns
    ns.close()


@pytest.fixture
def plugin(ck):
    ck.plain("web")
    p = Plugin(ck)
    yield p
    if p.process and p.process.poll() is None:
        p.stop()
    for directory in (p.counts, p.mounts):
        for entry in directory.iterdir() if directory.exists() else []:
            entry.unlink() if entry.is_file() else entry.rmdir()


def alone(ck, program):
    """A copy without the other beside it"""
    (ck.dir / "alone").mkdir()
    return Path(shutil.copy(program, ck.dir / "alone"))


def ask(ck, *argv, status):
    done = subprocess.run([str(a) for a in argv], env=ck.env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    ck.transcript.append(done.stdout + done.stderr)
    assert done.returncode == status, done
    return done.stderr


# ---- what a mount loads

def test_mounts_load_nothing_of_the_network(ck):
    """Each library is loaded anew for each mount, and its pages are the keeper's as long as it lives."""
    ck.plain()
    with ck.mounted("plain"):
        state = ck.state()
        assert loaded(state["keeper_pid"]) == set() == loaded(state["server_pid"])


def test_plugin_is_the_process_that_was_started(plugin):
    """systemd knows it by its pid. What it mounts is a mount like any other."""
    with plugin.running():
        assert exe(plugin.process.pid) == str(COMPANION)
        assert loaded(plugin.process.pid) == set(LIBRARIES), "the hunt can succeed"
        assert Path(f"/proc/{plugin.process.pid}/cmdline").read_text().split("\0")[:-1] == plugin.argv()
        plugin.create("web")
        keeper = plugin.ck.state(plugin.mount("web"))["keeper_pid"]
        assert exe(keeper) == str(BINARY) and loaded(keeper) == set()
        plugin.unmount("web")


# ---- installed

def ask_inside(namespace, plugin, endpoint):
    """By a process of that namespace: the plugin looks whether who asks sees the mount."""
    client = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect(sys.argv[1]); "
              "s.sendall(sys.stdin.buffer.read()); sys.stdout.buffer.write(s.recv(65536))")
    request = docker_request(f"VolumeDriver.{endpoint}", {"Name": "web", "ID": PODMAN_ID})
    return run(*namespace.argv("/usr/bin/python3", "-c", client, plugin.socket), input=request).stdout


def test_installed(ck, plugin, installed):
    """Each is found where it was configured to be, also when the plugin's own file was replaced meanwhile."""
    ckrfs = SBIN / "ckrfs"
    said = ask(ck, *installed.argv(ckrfs, "ticket", "example.org", "--key", f"krb5:ccache={ck.dir}/none"), status=NO_KEY)
    assert f"there is no ticket in the credential cache {ck.dir}/none" in said
    assert "--timeout TIME" in run(*installed.argv(ckrfs, "ticket", "--help"), env=ck.env).stdout.decode()
    plugin.program, plugin.namespace = ckrfs, installed
    with plugin.running():
        assert exe(plugin.process.pid) == str(LIBEXEC / "ckrfs-net")
        run(*installed.argv("sh", "-c", f"cp {LIBEXEC}/ckrfs-net {LIBEXEC}/new && mv {LIBEXEC}/new {LIBEXEC}/ckrfs-net"))
        plugin.create("web")
        assert ask_inside(installed, plugin, "Mount").startswith(b"HTTP/1.1 200 ")
        [mount] = json.loads(run(*installed.argv(ckrfs, "status", "--json"), env=ck.env).stdout)["mounts"]
        assert exe(mount["keeper_pid"]) == str(ckrfs)
        assert ask_inside(installed, plugin, "Unmount").startswith(b"HTTP/1.1 200 ")


# ---- not there

def test_companion_that_is_not_installed(ck, namespace):
    ckrfs = alone(ck, BINARY)
    for argv in (["ticket", "example.org"], ["--config", ck.conf, "volume-plugin"]):
        command = "ticket" if "ticket" in argv else "volume-plugin"
        assert ask(ck, *namespace.argv(ckrfs, *argv), status=UNSUPPORTED) == \
            f'ckrfs: cannot run "{command}": {LIBEXEC}/ckrfs-net is not installed\n  try: man 8 ckrfs\n'
    assert "volume-plugin" in run(*namespace.argv(ckrfs, "--help"), env=ck.env).stdout.decode()


def test_companion_that_cannot_be_executed(ck):
    ckrfs = alone(ck, BINARY)
    beside = ckrfs.with_name("ckrfs-net")
    beside.write_bytes(COMPANION.read_bytes())
    beside.chmod(0o644)
    assert ask(ck, ckrfs, "ticket", "example.org", status=FAILED) == \
        f'ckrfs: cannot run "ticket": cannot execute {beside}: Permission denied\n  try: man 8 ckrfs\n'


def test_companion_of_somebody_else(ck, namespace):
    """Root may run a copy that lies where everybody can put files."""
    ckrfs = alone(ck, BINARY)
    beside = Path(shutil.copy(COMPANION, ckrfs.parent))
    assert "--key is needed" in ask(ck, *namespace.argv(ckrfs, "ticket", "example.org"), status=USAGE)
    os.chown(beside, UID, UID)
    assert f"{LIBEXEC}/ckrfs-net is not installed" in ask(ck, *namespace.argv(ckrfs, "ticket", "example.org"), status=UNSUPPORTED)


def test_plugin_without_ckrfs(ck, plugin, namespace):
    """The engine is told."""
    plugin.program, plugin.namespace = alone(ck, COMPANION), namespace
    with plugin.running():
        plugin.create("web")
        assert plugin.mount("web", 500) == f'ckrfs: cannot run "mount": {SBIN}/ckrfs is not installed\n  try: man 8 ckrfs'


def test_companion_by_its_own_name(ck):
    for argv, word in (([], ""), (["--config", "/x"], ""), (["mount"], "mount"), (["--help"], "--help"), (["--config"], "--config")):
        assert ask(ck, COMPANION, *argv, status=USAGE) == f'ckrfs: ckrfs-net has no command "{word}"\n  try: ckrfs --help\n'
