# SPDX-License-Identifier: MIT
"""ckrfs volume-plugin, spoken to byte by byte: protocol, limits, what it refuses, its state, and its end at every step."""
import contextlib
import concurrent.futures
import grp
import json
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess

import pytest
from plugin import PODMAN_ID, Plugin, docker_request, podman_request
from support import CONFIG, DONE, BUSY, TOOLS, UID, alive, child, kernel_lacks, run, wait_until
from test_leaks import PASSPHRASE, Hunt, hunted


@pytest.fixture
def plugin(ck):
    """A plugin with the volume `web` of the configuration, which is plain: quick."""
    ck.backing = ck.plain("web")
    p = Plugin(ck)
    yield p
    if p.process and p.process.poll() is None:
        p.stop()
    for name in os.listdir(p.mounts) if p.mounts.exists() else []:
        ck.run("umount", p.mounts / name, "--lazy")
    shutil_leftovers(p)


def shutil_leftovers(p):
    """What outlives the plugin on purpose; ck looks for anything else."""
    for directory in (p.counts, p.mounts):
        for entry in directory.iterdir() if directory.exists() else []:
            entry.unlink() if entry.is_file() else entry.rmdir()


def fifo_key(ck):
    """A key source that waits until the test writes; -> the FIFO and its specification"""
    fifo = ck.dir / "fifo"
    os.mkfifo(fifo, 0o600)
    return fifo, f"exec:/bin/cat {fifo}"


# ---- protocol

@pytest.mark.parametrize("form", [docker_request, podman_request])
def test_every_endpoint(plugin, form):
    plugin.form = form
    with plugin.running():
        empty = None if form is podman_request else {}
        assert plugin.ask("Plugin.Activate") == (200, {"Implements": ["VolumeDriver"]})
        assert plugin.ask("VolumeDriver.Capabilities", {}) == (200, {"Capabilities": {"Scope": "local"}})
        assert plugin.ask("VolumeDriver.List", empty) == (200, {"Volumes": [], "Err": ""})
        assert plugin.ask("VolumeDriver.Get", {"Name": "v"}) == (500, {"Err": 'ckrfs: there is no volume "v"'})
        assert plugin.ask("VolumeDriver.Create", {"Name": "v", "Opts": {"volume": "web"}}) == (200, {"Err": ""})
        status, answer = plugin.ask("VolumeDriver.Get", {"Name": "v"})
        created = answer["Volume"].pop("CreatedAt")
        assert status == 200 and created.endswith("Z") and len(created) == 20
        assert answer == {"Err": "", "Volume": {"Name": "v", "Mountpoint": "", "Status": {
            "state": "not mounted", "format": "plain", "lower": "directory", "mounts": 0}}}
        path = str(plugin.mounts / "v")
        mount = {"Name": "v", "ID": PODMAN_ID}
        assert plugin.ask("VolumeDriver.Path", {"Name": "v"}) == (200, {"Mountpoint": "", "Err": ""})
        assert plugin.ask("VolumeDriver.Mount", mount) == (200, {"Mountpoint": path, "Err": ""})
        assert os.path.ismount(path)
        assert plugin.ask("VolumeDriver.Path", {"Name": "v"}) == (200, {"Mountpoint": path, "Err": ""})
        assert plugin.ask("VolumeDriver.List", empty) == (200, {"Volumes": [{"Name": "v", "Mountpoint": path}], "Err": ""})
        assert plugin.get("v")["Status"] == {"state": "unlocked", "format": "plain", "lower": "directory", "mounts": 1}
        assert plugin.ask("VolumeDriver.Remove", {"Name": "v"}) == (500, {
            "Err": f'ckrfs: volume "v" is mounted for a container engine\n  try: ckrfs umount {path}'})
        assert plugin.ask("VolumeDriver.Unmount", mount) == (200, {"Err": ""})
        assert not os.path.ismount(path)
        assert plugin.ask("VolumeDriver.Remove", {"Name": "v"}) == (200, {"Err": ""})
        assert plugin.names() == [] and not os.path.exists(path) and list(plugin.state.iterdir()) == []
        assert plugin.ask("VolumeDriver.Mount", mount) == (500, {"Err": 'ckrfs: there is no volume "v"'})


def test_repeating_does_no_harm(plugin):
    with plugin.running():
        plugin.create("v", volume="web")
        plugin.create("v", volume="web")
        assert plugin.create("v", 500, volume="web", read_only="yes") in (
            'ckrfs: there is a volume "v" with other options',
            f"ckrfs: option read-only is not allowed: plugin-allow in {plugin.ck.conf} has no such word\n"
            "  try: man 5 ckrfs.conf")
        assert plugin.create("w", 500, volume="web") == 'ckrfs: volume "v" has that volume of the configuration'
        plugin.unmount("v")
        plugin.mount("v")
        plugin.unmount("v")
        plugin.unmount("v")
        plugin.remove("v")
        plugin.remove("v")
    assert 'audit: umount "web" by uid=0 pid=' in plugin.log_text() and 'comm="exe"' not in plugin.log_text()


def test_without_options_it_is_the_volume_of_that_name(plugin):
    with plugin.running():
        plugin.create("web")
        assert plugin.ask("VolumeDriver.Create", {"Name": "web", "Opts": None}) == (200, {"Err": ""})
        plugin.mount("web")
        plugin.unmount("web")
        assert plugin.create("other", 500) == \
            f'ckrfs: there is no volume "other" in {plugin.ck.conf}\n  try: ckrfs config --list'


def test_mounts_are_counted_not_ids(plugin):
    """podman's ID is one constant, docker's are many: both mean a mount each."""
    with plugin.running():
        plugin.create("v", volume="web")
        for id in (PODMAN_ID, PODMAN_ID, "a", "b", ""):
            plugin.mount("v", id=id)
        assert plugin.get("v")["Status"]["mounts"] == 5
        for id in ("b", "a", PODMAN_ID, "unknown"):
            plugin.unmount("v", id=id)
            assert plugin.is_mounted("v")
        plugin.unmount("v")
        assert not plugin.is_mounted("v")


def test_list_of_many(plugin):
    """More than one answer between the two processes holds."""
    plugin.ck.configure("defaults", plugin_allow=f"source={plugin.ck.dir} format")
    names = [f"v{i:03}" for i in range(150)]
    with plugin.running():
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda n: plugin.create(n, source=str(plugin.ck.backing), format="plain"), names))
        assert plugin.names() == names
    with plugin.running():
        assert plugin.names() == names


# ---- what is allowed

SECRET = "correct horse battery staple"
HEX = "6368616e676520746869732070617373776f726420746f206120736563726574"
BASE64 = "c2VjcmV0IGJ5dGVzIHRoYXQgYXJlIGEga2V5ISEhISE="


@pytest.mark.parametrize("options, words", [
    ({"key": SECRET}, "what key holds looks like a key"),
    ({"key": HEX}, "what key holds looks like a key"),
    ({"lower-key": SECRET}, "what lower-key holds looks like a key"),
    ({"key": f"hex:{HEX}"}, "what key holds looks like a key"),
    ({"key": f"keyring:user:{HEX}"}, "what key holds looks like a key"),
    ({"key": f"base64:{BASE64}"}, "what key holds looks like a key"),
    ({"key": "pass:" + SECRET}, "key does not name where a key is, as SCHEME:PLACE"),
    ({"key": "file:" + SECRET}, "key does not name where a key is, as SCHEME:PLACE"),
    ({"source": HEX}, "what source holds looks like a key"),
    ({"source": SECRET}, "source is not an absolute path"),
    ({"password": SECRET}, "an option has a name that is none of ckrfs.conf(5)"),
    ({"passphrase": SECRET}, "an option has a name that is none of ckrfs.conf(5)"),
    ({SECRET: ""}, "an option has a name that is none of ckrfs.conf(5)"),
    ({"volume": SECRET}, "option volume names none of those in "),
    ({"volume": HEX}, "option volume names none of those in "),
    ({"keyy": SECRET}, 'an option has a name that is none of ckrfs.conf(5) (did you mean "key"?)'),
], ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
def test_what_may_be_a_key_is_neither_kept_nor_repeated(plugin, options, words):
    plugin.ck.configure("defaults", plugin_allow="volume source=/srv key=file key=keyring lower-key=file")
    if "key" in options or "lower-key" in options:
        options = {"source": str(plugin.ck.backing), **options}
    with plugin.running():
        status, answer = plugin.ask("VolumeDriver.Create", {"Name": "v", "Opts": options})
        assert status == 500 and answer["Err"].startswith("ckrfs: " + words), answer
        assert plugin.names() == []
    seen = plugin.log_text() + json.dumps(answer)
    assert list(plugin.state.iterdir()) == []
    assert not [s for s in (SECRET, HEX, BASE64) if s in seen], seen


def test_plugin_allow(plugin):
    ck = plugin.ck
    (ck.dir / "allowed" / "in").mkdir(parents=True)
    (ck.dir / "allowed" / "out").symlink_to("/etc")
    (ck.dir / "allowedNOT").mkdir()
    key = ck.key_file(SECRET)
    source = f"{ck.dir}/allowed/in"
    refused = f"ckrfs: this value of source is not allowed: plugin-allow in {ck.conf} has source={ck.dir}/allowed"
    table = [
        ("volume", {"volume": "web"}, None),
        ("volume=web", {"volume": "web"}, None),
        ("volume=mail", {"volume": "web"}, f"ckrfs: this value of volume is not allowed: plugin-allow in {ck.conf} has volume=mail"),
        ("volume", {"source": source}, f"ckrfs: option source is not allowed: plugin-allow in {ck.conf} has no such word"),
        (f"source={ck.dir}/allowed format=plain", {"source": source, "format": "plain"}, None),
        (f"source={ck.dir}/allowed/", {"source": source}, None),
        (f"source={ck.dir}/allowed", {"source": f"{ck.dir}/allowed/out"}, refused),
        (f"source={ck.dir}/allowed", {"source": f"{ck.dir}/allowed/../allowedNOT"}, refused),
        (f"source={ck.dir}/allowed", {"source": f"{ck.dir}/allowedNOT"}, refused),
        (f"source={ck.dir}/allowed", {"source": "/"}, refused),
        (f"source=/ key=file:{ck.dir}", {"source": source, "key": f"file:{key}?fmt=raw"}, None),
        ("source=/ key=file:/etc", {"source": source, "key": f"file:{key}"},
         f"ckrfs: this value of key is not allowed: plugin-allow in {ck.conf} has key=file:/etc"),
        ("source=/ key=file", {"source": source, "key": "exec:/bin/true"},
         f"ckrfs: this value of key is not allowed: plugin-allow in {ck.conf} has key=file"),
        ("source=/ key=cred", {"source": source, "key": "cred:web"}, None),
        ("source=/ format=plain", {"source": source, "format": "gocryptfs"},
         f"ckrfs: this value of format is not allowed: plugin-allow in {ck.conf} has format=plain"),
        ("source=/ log=/tmp/x", {"source": source, "log": "/tmp/x"},
         "ckrfs: an option has a name that is none of ckrfs.conf(5)"),
        ("volume source=/", {"source": source, "volume": "web"}, "ckrfs: options volume and source exclude each other"),
        ("volume read-only", {"read-only": "yes"},
         "ckrfs: an option volume or source is needed\n  try: -o volume=NAME"),
    ]
    with plugin.running():
        for rules, options, error in table:
            ck.configure("defaults", plugin_allow=rules)
            status, answer = plugin.ask("VolumeDriver.Create", {"Name": "v", "Opts": options})
            assert (status, answer["Err"].split("\n  try: man")[0]) == (200 if error is None else 500, error or ""), \
                (rules, options, answer)
            plugin.remove("v")


def test_name_of_a_configured_volume_is_not_taken(plugin):
    plugin.ck.configure("defaults", plugin_allow="source=/ format")
    with plugin.running():
        assert plugin.create("web", 500, source="/srv") == \
            f'ckrfs: "web" is a volume of {plugin.ck.conf}: another one needs another name'


def test_what_is_not_allowed_any_more_is_not_mounted(plugin):
    ck = plugin.ck
    ck.configure("defaults", plugin_allow=f"source={ck.dir} format read-only")
    with plugin.running():
        plugin.create("v", source=str(ck.backing), format="plain", read_only="yes")
        path = plugin.mount("v")
        with pytest.raises(OSError, match="Read-only"):
            (path / "f").write_text("x")
        assert ck.state(path)["name"] == "v"
        plugin.unmount("v")
        ck.configure("defaults", plugin_allow="volume")
        assert plugin.mount("v", 500).startswith("ckrfs: option format is not allowed: plugin-allow in ")


def test_plugin_allow_stands_in_defaults_alone(plugin):
    ck = plugin.ck
    ck.configure("volume other", source="/srv", plugin_allow="volume")
    said = ck.run("config", "--check", status=CONFIG).stderr
    assert said.endswith(": plugin-allow can stand only in [defaults]\n")
    ck.sections.pop("volume other")
    for rules, words in (("sauce=/x", 'plugin-allow = "sauce=/x": must be words volume[=NAME], source=/DIRECTORY, '
                          "key=SCHEME[:/DIRECTORY] and OPTION[=VALUE]"),
                         ("source=x", 'plugin-allow = "source=x": must be'), ("key", 'plugin-allow = "key": must be'),
                         ("key=fd", "plugin-allow: key=fd does not name a key source that can be allowed")):
        ck.configure("defaults", plugin_allow=rules)
        done = subprocess.run(plugin.argv(), capture_output=True, text=True, timeout=30, env=ck.env)
        assert done.returncode == CONFIG and words in done.stderr, done


# ---- clients that are not engines

GARBAGE = [
    b"\0" * 100, b"\xff" * 5000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /VolumeDriver.List HTTP/9.9\r\n\r\n",
    b"POST /VolumeDriver.Nope HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /VolumeDriver.Mount HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"POST /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /VolumeDriver.List HTTP/1.1\r\n" + b"".join(b"H%d: %s\r\n" % (i, b"x" * 100) for i in range(200)) + b"\r\n",
]


def test_garbage(plugin):
    with plugin.running():
        front = plugin.front()
        for text in GARBAGE:
            got = plugin.raw(text + b"\r\n\r\n", last=True)
            assert got == b"" or got[9:12] in (b"400", b"404", b"405", b"413", b"414", b"431", b"501", b"505"), got
        assert plugin.raw(docker_request("VolumeDriver.Mount", None))[9:12] == b"400"
        assert plugin.answers() and plugin.front() == front


@pytest.mark.parametrize("body, words", [
    (b"null", "is not a JSON object"), (b"[]", "is not a JSON object"), (b"{} {}", "is not a JSON object"),
    (b'{"Name":"v"', "is not a JSON object"), (b"{'Name':'v'}", "is not a JSON object"),
    (b'{"Name":"v","Opts":{"a":{"b":{"c":{}}}}}', "is not a JSON object"),
    (b"{}", "has no name of a volume"), (b'{"Name":7}', "has no name that a volume can have"),
    (b'{"Name":""}', "has no name"), (b'{"Name":"../x"}', "has no name"), (b'{"Name":".x"}', "has no name"),
    (b'{"Name":"' + b"v" * 65 + b'"}', "has no name"), (b'{"Name":"v\\u0000w"}', "has no name"),
    (b'{"Name":"v","Opts":[]}', "has options that are no JSON object"),
])
def test_bodies_that_are_none(plugin, body, words):
    text = b"POST /VolumeDriver.Create HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with plugin.running():
        got = plugin.raw(text)
        assert got[9:12] == b"400" and ("ckrfs: the request " + words).encode() in got, got
        assert plugin.names() == []


def test_limits(plugin):
    def create(**options):
        status, answer = plugin.ask("VolumeDriver.Create", {"Name": "v", "Opts": options})
        return status, answer["Err"].split("\n")[0]

    with plugin.running():
        assert create(volume="w" * 20000) == (413, "ckrfs: the request is longer than 16384 bytes")
        assert create(volume="w" * 512) == (500, "ckrfs: the value of volume is longer than 511 bytes")
        assert create(volume="a\nb") == (400, "ckrfs: the value of volume is not a line of text")
        assert create(volume=7) == (400, "ckrfs: the value of volume is not a line of text")
        names = run(plugin.argv()[0], "complete", "options").stdout.decode().split("\n")
        many = {n.split("\t")[0]: "no" for n in names if "\tbool\t" in n or "\ttime\t" in n or "\tword\t" in n}
        assert len(many) > 16
        assert create(**many) == (500, "ckrfs: there are more than 16 options")
        for id in ("i" * 129, "a b", "ä"):
            status, answer = plugin.ask("VolumeDriver.Mount", {"Name": "v", "ID": id})
            assert status == 400 and "has an ID that is not" in answer["Err"]


def test_half_requests_and_slow_clients(plugin):
    """Whoever takes up places and says nothing is in nobody's way, and is cut off."""
    whole = docker_request("VolumeDriver.List", {})
    with plugin.running(), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(plugin.connect()) for _ in range(200)]
        for i, s in enumerate(slow):
            with contextlib.suppress(OSError):
                s.sendall(whole[:i % len(whole)])
        assert plugin.names() == []
        with contextlib.suppress(OSError):
            slow[-1].sendall(b"x")  # drop by drop is no way out either
        answers = [plugin.rest(s) for s in slow]  # each ends
        assert not [a for a in answers if a.startswith(b"HTTP/1.1 200")]
        assert plugin.names() == []


def test_a_hundred_at_once(plugin):
    ck = plugin.ck
    ck.configure("defaults", plugin_allow=f"source={ck.dir} format")
    for i in range(4):
        (ck.dir / f"s{i}").mkdir()
    with plugin.running(), concurrent.futures.ThreadPoolExecutor(100) as pool:
        for i in range(4):
            plugin.create(f"v{i}", source=f"{ck.dir}/s{i}", format="plain")
        paths = list(pool.map(lambda i: plugin.mount(f"v{i % 4}", id=str(i)), range(100)))
        assert all(os.path.ismount(p) for p in paths)
        assert [plugin.get(f"v{i}")["Status"]["mounts"] for i in range(4)] == [25] * 4
        mixed = [lambda i=i: plugin.unmount(f"v{i % 4}") for i in range(96)] + [plugin.names] * 4
        list(pool.map(lambda f: f(), mixed))
        assert [plugin.is_mounted(f"v{i}") for i in range(4)] == [True] * 4
        list(pool.map(lambda i: plugin.unmount(f"v{i}"), range(4)))
        assert [plugin.is_mounted(f"v{i}") for i in range(4)] == [False] * 4


# ---- mounts: late, gone, dead, locked

def test_late_mount_is_told_and_found_ready(ck, plugin):
    """Answered within the time; what was begun goes on, and the next Mount gets it."""
    fifo, spec = fifo_key(ck)
    ck.volume("web", key=spec)
    plugin.options = ("--answer", "300ms", "--linger", "1h")
    with plugin.running():
        plugin.create("web")
        assert plugin.mount("web", 500) == \
            'ckrfs: volume "web" is still unlocking after 0.3 s: once it is done, the next attempt finds it ready\n' \
            "  try: ckrfs status"
        assert plugin.get("web")["Status"]["state"] == "mounting"
        fifo.write_text("correct horse")
        wait_until("the mount", lambda: plugin.get("web")["Status"]["state"] == "unlocked")
        assert plugin.get("web")["Status"]["mounts"] == 0
        plugin.mount("web")
        plugin.unmount("web")
        assert not plugin.is_mounted("web")


@pytest.mark.parametrize("how", ["late", "gone"])
def test_mount_that_nobody_has_is_taken_back(ck, plugin, how):
    fifo, spec = fifo_key(ck)
    ck.volume("web", key=spec)
    plugin.options = ("--answer", "300ms" if how == "late" else "20s", "--linger", "50ms")
    with plugin.running():
        plugin.create("web")
        if how == "late":
            plugin.mount("web", 500)
        else:
            with plugin.connect() as s:
                s.sendall(docker_request("VolumeDriver.Mount", {"Name": "web", "ID": "a"}))
                wait_until("the job", lambda: plugin.get("web")["Status"]["state"] == "mounting")
        fifo.write_text("correct horse")
        wait_until("its end", lambda: "is mounted for nobody: unmounting it" in plugin.log_text())
        wait_until("the unmount", lambda: plugin.get("web")["Status"]["state"] == "not mounted")
        assert plugin.get("web")["Status"]["mounts"] == 0


def test_errors_come_through_whole(ck, plugin):
    ck.volume("web", key=f"file:{ck.dir}/missing")
    with plugin.running():
        plugin.create("web")
        assert plugin.mount("web", 500) == \
            f'ckrfs: cannot mount "web": cannot read file:{ck.dir}/missing: No such file or directory'
        ck.volume("web", init=False, key=f"file:{ck.key_file('wrong')}")
        assert plugin.mount("web", 500).startswith('ckrfs: cannot mount "web": ')
        ck.volume("web", init=False)
        path = plugin.mount("web")
        with child(["sleep", "1000"], cwd=path) as holder:
            said = plugin.unmount("web", 500)
            assert said.startswith(f'ckrfs: cannot unmount "web": {path} is busy\n  held by: {holder.pid} (sleep)') and \
                said.endswith("\n  try: ckrfs umount --lazy web"), said
        plugin.unmount("web")


@pytest.mark.parametrize("victim", ["server_pid", "keeper_pid"])
def test_dead_mount_is_healed_at_the_next_mount(ck, plugin, victim):
    with plugin.running():
        plugin.create("web")
        path = plugin.mount("web")
        (path / "f").write_text("x")
        pid = ck.remember(path)[victim]
        os.kill(pid, signal.SIGKILL)
        wait_until("its end", lambda: not alive(pid))
        wait_until("the mount's end", lambda: plugin.get("web")["Status"]["state"] == "dead")
        assert plugin.mount("web") == path
        assert (path / "f").read_text() == "x"
        assert plugin.get("web")["Status"]["mounts"] == 2
        plugin.unmount("web")
        assert plugin.is_mounted("web")
        plugin.unmount("web")
        assert not plugin.is_mounted("web")


def test_locked_volume_is_not_given_out(ck, plugin):
    ck.volume("web", key_lifetime="1h")
    with plugin.running():
        plugin.create("web")
        path = plugin.mount("web")
        status = plugin.get("web")["Status"]
        assert status["state"] == "unlocked" and status["format"] == "gocryptfs" and status["expires"].endswith("Z")
        ck.run("lock", "web", status=DONE)
        assert plugin.get("web")["Status"]["state"] == "locked"
        assert plugin.mount("web", 500) == 'ckrfs: "web" is locked\n  try: ckrfs unlock web'
        ck.run("unlock", "web", status=DONE)
        assert plugin.mount("web") == path
        plugin.unmount("web")
        plugin.unmount("web")


def test_engine_that_does_not_see_the_mount_gets_none(plugin):
    """It would give its container the directory below, and what is written there would be in clear."""
    client = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n" \
        "import socket, plugin\ns = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n" \
        "s.sendall(plugin.docker_request('VolumeDriver.Mount', {'Name': 'web', 'ID': 'a'}))\n" \
        "print(plugin.Plugin.rest(s).decode())"
    with plugin.running():
        plugin.create("web")
        said = run("unshare", "-m", "--propagation", "private", "/usr/bin/python3", "-c", client, plugin.socket,
                   env=plugin.ck.env).stdout.decode()
        assert " 500 " in said and "does not see it: its mount namespace gets no mounts from ours" in said
        assert plugin.get("web")["Status"]["mounts"] == 0


# ---- life of the process

def test_socket_is_for_root_or_a_group(plugin):
    with plugin.running():
        assert stat.S_IMODE(plugin.socket.stat().st_mode) == 0o600
        again = subprocess.run(plugin.argv(), capture_output=True, text=True, timeout=30, env=plugin.ck.env)
        assert (again.returncode, again.stderr) == (BUSY, f"ckrfs: another plugin answers at {plugin.socket}\n")
    assert not plugin.socket.exists()
    group = grp.getgrgid(6)
    plugin.options = ("--group", group.gr_name)
    with plugin.running():
        info = plugin.socket.stat()
        assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o660, 6)
        plugin.kill()
    assert plugin.socket.exists()
    with plugin.running():
        assert plugin.answers()


def test_print_spec(ck):
    assert ck.run("volume-plugin", "--print-spec").stdout == "unix:///run/docker/plugins/ckrfs.sock\n"
    assert ck.run("volume-plugin", "--socket", "/x.sock", "--print-spec").stdout == "unix:///x.sock\n"


def test_socket_of_systemd(plugin):
    """LISTEN_FDS; READY=1 when it answers. The socket is systemd's, and stays."""
    with socket.socket(socket.AF_UNIX) as s, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        s.bind(str(plugin.socket))
        s.listen()
        notify.bind(str(plugin.ck.dir / "notify"))
        script = f'exec 3<&{s.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        argv = plugin.argv
        plugin.argv = lambda: ["bash", "-c", script, "bash", *argv()]
        with plugin.running(pass_fds=[s.fileno()], env=dict(plugin.ck.env, NOTIFY_SOCKET=str(plugin.ck.dir / "notify"))):
            assert notify.recv(1000) == b"READY=1\nSTATUS=serving volumes"
            plugin.create("web")
            plugin.mount("web")
            plugin.unmount("web")
        assert notify.recv(1000).startswith(b"STOPPING=1")
        assert plugin.socket.exists()


def test_front_has_no_rights(plugin):
    """What reads the bytes of others: nobody, without capabilities, files, or more system calls than that takes."""
    with plugin.running():
        pid = plugin.front()
        lines = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
        assert lines["Uid"].split() == ["65534"] * 4 and lines["Gid"].split() == ["65534"] * 4
        assert lines["Groups"].split() == []
        assert [int(lines[c], 16) for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
        assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
        assert os.listdir(f"/proc/{pid}/root") == []
        kinds = {os.readlink(f"/proc/{pid}/fd/{n}").split(":")[0] for n in os.listdir(f"/proc/{pid}/fd")}
        assert kinds <= {"socket", "anon_inode", "/dev/null", str(plugin.log), str(plugin.ck.log)}, kinds


def test_front_that_dies_is_replaced(ck, plugin):
    fifo, spec = fifo_key(ck)
    ck.volume("web", key=spec)
    plugin.options = ("--answer", "20s", "--linger", "50ms")
    with plugin.running():
        plugin.create("web")
        with plugin.connect() as s:
            s.sendall(docker_request("VolumeDriver.Mount", {"Name": "web", "ID": "a"}))
            wait_until("the job", lambda: plugin.get("web")["Status"]["state"] == "mounting")
            front = plugin.front()
            os.kill(front, signal.SIGKILL)
            assert plugin.rest(s) == b""
        wait_until("another", lambda: plugin.front() not in (None, front) and plugin.answers())
        fifo.write_text("correct horse")
        wait_until("its end", lambda: "is mounted for nobody: unmounting it" in plugin.log_text())
        wait_until("the unmount", lambda: plugin.get("web")["Status"]["state"] == "not mounted")


def test_sigterm_leaves_mounts_and_counts(plugin):
    with plugin.running():
        plugin.create("web")
        plugin.mount("web")
        plugin.mount("web")
    assert plugin.is_mounted("web")
    with plugin.running():
        assert plugin.get("web")["Status"]["mounts"] == 2
        plugin.unmount("web")
        plugin.kill()
    with plugin.running():
        assert plugin.is_mounted("web")
        plugin.unmount("web")
        assert not plugin.is_mounted("web")


def test_sigterm_ends_what_is_under_way(ck, plugin):
    fifo, spec = fifo_key(ck)
    ck.volume("web", key=spec)
    plugin.options = ("--answer", "20s")
    with plugin.running():
        plugin.create("web")
        with plugin.connect() as s:
            s.sendall(docker_request("VolumeDriver.Mount", {"Name": "web", "ID": "a"}))
            wait_until("the job", lambda: plugin.get("web")["Status"]["state"] == "mounting")
            plugin.process.send_signal(signal.SIGTERM)
            wait_until("the socket's end", lambda: not plugin.socket.exists())
            fifo.write_text("correct horse")
            assert b" 200 OK" in plugin.rest(s)
        plugin.stop()
    assert plugin.is_mounted("web")


class Crash:
    """What tests/tools/plugincrash.c shares with us."""

    def __init__(self, ck):
        path = ck.dir / "control"
        path.write_bytes(bytes(4096))
        self.env = dict(ck.env, LD_PRELOAD=str(TOOLS / "plugincrash.so"), CKRFS_CRASH_CONTROL=str(path))
        self.env["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
        with path.open("r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)

    def arm(self, n):
        struct.pack_into("qq", self.map, 0, n, 0)

    def seen(self):
        return struct.unpack_from("q", self.map, 8)[0]


STEPS = [("Create", {"Name": "v", "Opts": {"volume": "web"}}), ("Mount", {"Name": "v", "ID": "a"}),
         ("Unmount", {"Name": "v", "ID": "a"}), ("Remove", {"Name": "v"})]


def request_until_death(plugin, crash, n, endpoint, body):
    """One request, with the n-th step of the plugin being its last; -> what the engine got, and whether it died"""
    crash.arm(n)
    got = plugin.raw(docker_request("VolumeDriver." + endpoint, body))
    alive_still = False
    with contextlib.suppress(OSError, AssertionError):
        plugin.names()  # what follows the answer is done by then
        alive_still = True
    crash.arm(0)
    if not alive_still:
        plugin.process.wait(10)
    return got, not alive_still


@pytest.mark.parametrize("victim", range(4), ids=[s[0] for s in STEPS])
def test_killed_in_every_phase(plugin, victim):
    """kill -9 before each step of a request, which the engine repeats if it got no answer, as docker does."""
    crash = Crash(plugin.ck)
    n, died = 0, True
    while died:
        n += 1
        assert n < 60
        plugin.start(env=crash.env)
        for i, (endpoint, body) in enumerate(STEPS):
            if i != victim:
                plugin.call(endpoint, **body)
                continue
            got, died = request_until_death(plugin, crash, n, endpoint, body)
            if died:
                plugin.start()
            if b" 200 OK" not in got:
                assert died, got
                plugin.call(endpoint, **body)
            if endpoint == "Mount":
                assert plugin.is_mounted("v") and plugin.get("v")["Status"]["mounts"] == 1
        assert plugin.names() == [] and not plugin.is_mounted("v")
        assert [*plugin.state.iterdir(), *plugin.counts.iterdir(), *plugin.mounts.iterdir()] == []
        plugin.stop()
    assert n > 4, "there are more steps than that"


# ---- state

def test_full_disk(plugin):
    """Create says so and leaves nothing; volumes that are there are mounted and unmounted all the same."""
    plugin.state.mkdir(mode=0o700)
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", plugin.state)
    try:
        plugin.ck.configure("volume mail", source=plugin.ck.backing, format="plain")
        with plugin.running():
            plugin.create("web")
            filler = plugin.state / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as f:
                while True:
                    f.write(bytes(4096))
            assert plugin.create("mail", 500) == \
                f"ckrfs: cannot write the volume to {plugin.state}: No space left on device"
            assert sorted(p.name for p in plugin.state.iterdir()) == ["filler", "web.volume"]
            assert plugin.names() == ["web"]
            plugin.mount("web")
            plugin.unmount("web")
            filler.unlink()
            plugin.create("mail")
            assert plugin.names() == ["mail", "web"]
    finally:
        run("umount", "-l", plugin.state)


GOOD = "ckrfs plugin volume 1\nname v\ncreated 1700000000\noption volume=web\nend\n"
DAMAGED = {
    "empty": "", "torn": GOOD[:40], "no-end": GOOD[:-4], "more": GOOD + "x\n", "other-name": GOOD.replace("name v", "name w"),
    "other-version": GOOD.replace("1\n", "2\n", 1), "option": GOOD.replace("volume=web", "target=/etc"),
    "twice": GOOD.replace("option volume=web", "option volume=web\noption volume=web"),
    "key": GOOD.replace("volume=web", f"key={HEX}"), "control": GOOD.replace("web", "w\x1bb"), "nul": GOOD.replace("web", "w\0b"),
    "large": GOOD + "#" * 70000, "bytes": "\x80\xff" * 30,
}


@pytest.mark.parametrize("kind", [*DAMAGED, "symlink", "fifo", "directory", "writable", "other-owner"])
def test_damaged_state(plugin, kind):
    """One file that is not ours, or torn, is named and left out; everything else goes on; Remove clears it."""
    plugin.state.mkdir(mode=0o700)
    file = plugin.state / "v.volume"
    if kind == "symlink":
        (plugin.ck.dir / "elsewhere").write_text(GOOD)
        file.symlink_to(plugin.ck.dir / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.write_text(DAMAGED.get(kind, GOOD), encoding="latin-1")
        file.chmod(0o666 if kind == "writable" else 0o600)
        if kind == "other-owner":
            os.chown(file, UID, UID)
    (plugin.state / "web.volume").write_text(GOOD.replace("name v", "name web"))
    (plugin.state / "web.tmp").write_text("what a crash left")
    with plugin.running():
        assert plugin.names() == ["web"]
        assert f"{file} is no volume of the plugin (" in plugin.log_text()
        assert plugin.mount("v", 500) == \
            f'ckrfs: what {plugin.state} has of volume "v" is damaged: remove it, or create it again'
        plugin.mount("web")
        plugin.unmount("web")
        plugin.remove("v", 500 if kind == "directory" else 200)
        assert file.exists() == (kind == "directory")


def test_damaged_count(plugin):
    with plugin.running():
        plugin.create("web")
        plugin.mount("web")
        plugin.kill()
        for text in ("", "ckrfs plugin count 1\nmounts 1\nunanswered a\nunanswered b\nend\n", "mounts -1\n"):
            (plugin.counts / "web.count").write_text(text)
            plugin.start()
            assert "web.count is damaged" in plugin.log_text()
            assert plugin.get("web")["Status"]["mounts"] == 1
            plugin.kill()
        plugin.start()
        plugin.unmount("web")
        assert not plugin.is_mounted("web")


def test_state_that_others_can_write_is_refused(plugin):
    plugin.state.mkdir()
    plugin.state.chmod(0o777)
    done = subprocess.run(plugin.argv(), capture_output=True, text=True, timeout=30, env=plugin.ck.env)
    assert done.returncode == CONFIG and done.stderr == \
        f"ckrfs: {plugin.state} can be written by others (uid 0, mode 0777): what is in there decides what is mounted\n" \
        f"  try: chown root {plugin.state} && chmod 700 {plugin.state}\n"


# ---- keys

def test_no_key_in_plugin_or_state(ck, plugin):
    volume = ck.volume("web", passphrase=PASSPHRASE)
    hunt = Hunt(ck, hunted(volume.master_key()))
    with plugin.running():
        plugin.create("web")
        path = plugin.mount("web")
        state = ck.remember(path)
        (path / "f").write_bytes(os.urandom(1 << 20))
        assert hunt.all([plugin.process.pid, plugin.front(), state["keeper_pid"], state["server_pid"]]) == []
        files = [p for d in (plugin.state, plugin.counts) for p in d.iterdir()]
        assert len(files) == 2 and hunt.files([*files, plugin.log, ck.log]) == []
        plugin.unmount("web")
