# SPDX-License-Identifier: MIT
"""ckrfs volume-plugin under a real podman and a real Docker engine. Both, and the plugin, run in a mount namespace of the
test, as the machine's own may not pass mounts on."""
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess

import containers
import pytest
from plugin import Plugin
from support import BINARY, BUILD, REPO, alive, run, wait_until
from test_containers import PROBE
from test_leaks import PASSPHRASE, Hunt, hunted
from test_volume_plugin import BASE64, HEX, fifo_key


class Engine:
    """What podman and docker have in common."""

    def __init__(self, plugin):
        self.plugin = plugin
        self.ck = plugin.ck

    def run(self, *args, status=0, **kw):
        """-> what it printed; with another status, what it complained"""
        done = run(*self.plugin.namespace.argv(*self.command(*args)), check=False, stdin=subprocess.DEVNULL, **kw)
        assert (done.returncode == 0) == (status == 0), (args, done)
        return (done.stdout if status == 0 else done.stderr).decode()

    def container(self, volume, script, *options, status=0):
        return self.run("run", "--rm", *self.RUN, "-v", volume, *options, "img", "/bin/sh", "-c", script, status=status)

    def start(self, name, volume, *options):
        self.run("run", "-d", "--name", name, *self.RUN, "-v", volume, *options, "img", "/bin/sh", "-c",
                 "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done")

    def exec(self, name, script):
        return self.run("exec", name, "/bin/sh", "-c", script)

    def import_image(self):
        """podman 4.3 forgets to unmount volumes of containers that have --rootfs: all use an image."""
        containers.add_program(self.root, shutil.which("keyctl"))
        archive = self.dir / "rootfs.tar"
        run("tar", "-C", self.root, "-cf", archive, ".")
        self.run("import", str(archive), "img")

    def close(self):
        pass


class Podman(Engine):
    RUN = containers.Podman.RUN

    def __init__(self, plugin):
        super().__init__(plugin)
        self.podman = containers.Podman(self.ck.dir)
        self.root = self.podman.root
        self.dir = self.podman.dir
        self.conf = self.ck.dir / "containers.conf"
        self.conf.write_text(f'[engine.volume_plugins]\nckrfs = "{plugin.socket}"\n')
        self.import_image()

    def command(self, *args):
        return ["env", f"CONTAINERS_CONF={self.conf}", *self.podman.bare(*args)]

    def close(self):
        run(*self.plugin.namespace.argv(*self.command("rm", "-f", "-a")), check=False)

class Docker(Engine):
    RUN = ["--network", "none", "--security-opt", "seccomp=unconfined"]

    def __init__(self, plugin):
        super().__init__(plugin)
        self.dir = self.ck.dir / "docker"
        self.dir.mkdir()
        self.root = containers.make_rootfs(self.dir / "rootfs")
        self.host = f"unix://{self.dir}/docker.sock"
        with open(self.ck.dir / "dockerd.log", "wb") as log:
            self.daemon = subprocess.Popen(plugin.namespace.argv(
                "dockerd", "--data-root", self.dir / "data", "--exec-root", self.dir / "exec", "-H", self.host, "-p",
                self.dir / "pid", "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until("dockerd", lambda: run(*plugin.namespace.argv(*self.command("info")), check=False).returncode == 0, 60)
        self.import_image()

    def command(self, *args):
        return ["/usr/bin/docker", "-H", self.host, *args]

    def close(self):
        self.daemon.terminate()
        self.daemon.wait(60)
        for point in containers_mounts(self.plugin.namespace, self.dir):
            run(*self.plugin.namespace.argv("umount", "-l", point), check=False)


def containers_mounts(namespace, directory):
    lines = run(*namespace.argv("cat", "/proc/self/mountinfo")).stdout.decode().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(str(directory))]


@pytest.fixture
def plugin(ck):
    """With the encrypted volume `web`; in a namespace of its own, where /etc/docker is empty."""
    ck.encrypted = ck.volume("web", passphrase=PASSPHRASE, idmap="yes")
    p = Plugin(ck)
    p.namespace = containers.Namespace("mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker")
    with contextlib.ExitStack() as stack:
        stack.callback(p.namespace.close)
        p.stack = stack
        yield p
        if p.process and p.process.poll() is None:
            p.stop()
        for mount in ck.states():
            ck.run("umount", mount["name"])
        for directory in (p.counts, p.mounts):
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=[Podman, Docker])
def engine(plugin, request):
    if request.param is Docker:
        plugin.socket = plugin.ck.dir / "ckrfs.sock"
        spec = plugin.namespace.path("/etc/docker/plugins")
        spec.mkdir()
        (spec / "ckrfs.spec").write_text(plugin.ck.run("volume-plugin", "--socket", plugin.socket, "--print-spec").stdout)
    plugin.start()
    e = request.param(plugin)
    plugin.stack.callback(e.close)
    return e


def names(engine):
    return engine.run("volume", "ls", "-q").split()


def state_of(plugin):
    return next((m for m in plugin.ck.states() if m["name"] == "web"), None)


def test_engine_uses_a_volume(engine, plugin):
    """create, ls, inspect, run -v, two containers at once, ro, rm; what is on disk is encrypted."""
    engine.run("volume", "create", "--driver", "ckrfs", "-o", "volume=web", "vault")
    assert names(engine) == ["vault"]
    shown = json.loads(engine.run("volume", "inspect", "vault"))[0]
    assert (shown["Driver"], shown["Name"], shown["Options"]) == ("ckrfs", "vault", {"volume": "web"})
    assert shown["Status"]["state"] == "not mounted" and shown["Status"]["format"] == "gocryptfs"
    assert engine.container("vault:/vol", "echo from the first > /vol/f; cat /vol/f") == "from the first\n"
    assert state_of(plugin) is None, "its last user has gone"
    engine.start("one", "vault:/vol")
    engine.start("two", "vault:/vol:ro")
    assert json.loads(engine.run("volume", "inspect", "vault"))[0]["Status"]["state"] == "unlocked"
    assert engine.exec("one", "echo more >> /vol/f; echo ok") == "ok\n"
    assert engine.exec("two", "cat /vol/f; touch /vol/x 2>/dev/null || echo read-only") == \
        "from the first\nmore\nread-only\n"
    engine.run("volume", "rm", "vault", status=1)
    engine.run("rm", "-f", "one")
    assert engine.exec("two", "wc -l < /vol/f") == "2\n"
    engine.run("rm", "-f", "two")
    wait_until("the unmount", lambda: state_of(plugin) is None)
    engine.run("volume", "rm", "vault")
    assert names(engine) == [] and plugin.names() == []
    assert run("grep", "-rla", "from the first", plugin.ck.encrypted.cipher, check=False).stdout == b""
    with plugin.ck.encrypted.mounted(plugin.ck.dir / "peer", read_only=True) as peer:
        assert (peer / "f").read_text() == "from the first\nmore\n"


def test_restart_after_the_server_was_killed(engine, plugin):
    engine.run("volume", "create", "--driver", "ckrfs", "web")
    engine.start("one", "web:/vol")
    engine.exec("one", "echo kept > /vol/f")
    pid = state_of(plugin)["server_pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until("its end", lambda: not alive(pid))
    # `podman restart` may hold on to the volume, and then asks for no Mount; stop and start always do.
    engine.run("stop", "-t", "1", "one")
    engine.run("start", "one")
    assert engine.exec("one", "cat /vol/f") == "kept\n"
    engine.run("rm", "-f", "one")
    wait_until("the unmount", lambda: state_of(plugin) is None)
    engine.run("volume", "rm", "web")


def test_plugin_is_restarted_under_a_container(engine, plugin):
    engine.run("volume", "create", "--driver", "ckrfs", "web")
    engine.start("one", "web:/vol")
    plugin.kill()
    assert engine.exec("one", "echo kept > /vol/f; cat /vol/f") == "kept\n"
    plugin.start()
    engine.run("rm", "-f", "one")
    wait_until("the unmount", lambda: state_of(plugin) is None)
    engine.run("volume", "rm", "web")
    assert plugin.names() == []


def test_slow_key_is_told_and_then_there(engine, plugin):
    """The engine says why its container did not start, and the next attempt finds the volume ready."""
    fifo, spec = fifo_key(plugin.ck)
    plugin.ck.volume("web", init=False, passphrase=PASSPHRASE, key=spec)
    plugin.stop()
    plugin.options = ("--answer", "300ms")
    plugin.start()
    engine.run("volume", "create", "--driver", "ckrfs", "web")
    said = engine.container("web:/vol", "true", status=1)
    assert 'volume "web" is still unlocking after 0.3 s' in said, said
    fifo.write_text(PASSPHRASE)
    wait_until("the mount", lambda: plugin.get("web")["Status"]["state"] == "unlocked")
    # Without nocopy docker mounts, copies what the image has there, unmounts, and mounts again.
    nocopy = ":nocopy" if isinstance(engine, Docker) else ""
    assert engine.container("web:/vol" + nocopy, "echo x > /vol/f; cat /vol/f") == "x\n"
    wait_until("the unmount", lambda: state_of(plugin) is None)
    engine.run("volume", "rm", "web")


@pytest.mark.parametrize("engine", [Podman], indirect=True)
def test_podman_changes_owner_and_maps_ids(engine, plugin):
    engine.run("volume", "create", "--driver", "ckrfs", "web")
    engine.container("web:/vol", "chmod 755 /vol; echo x > /vol/f; chown 7:7 /vol/f")
    maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"]
    said = engine.run("run", "--rm", *engine.RUN, *maps, "-v", "web:/vol:idmap", "img", "/bin/sh", "-c",
                      "stat -c %u:%g /vol/f; echo y > /vol/g; stat -c %u /vol/g", status=0)
    assert said == "7:7\n0\n"
    assert engine.container("web:/vol", "stat -c %u /vol/g") == "0\n"
    assert engine.container("web:/vol:U", "stat -c %u:%g /vol/f; echo z > /vol/h; stat -c %u /vol/h", "--user", "1000:1000") == \
        "1000:1000\n1000\n"
    engine.run("volume", "rm", "web")


@pytest.mark.parametrize("engine", [Podman], indirect=True)
def test_podman_volume_reload(engine, plugin):
    """What others created is known after a reload, what they removed is gone."""
    plugin.create("web")
    assert names(engine) == []
    engine.run("volume", "reload")
    assert names(engine) == ["web"]
    assert engine.container("web:/vol", "echo there > /vol/f; cat /vol/f") == "there\n"
    plugin.remove("web")
    engine.run("volume", "reload")
    assert names(engine) == []


def test_engine_keeps_no_key(engine, plugin):
    """Options that hold a key are refused with words that help, and are in no file of engine or plugin."""
    for option in (f"key={HEX}", f"key={BASE64}", f"password={HEX}", f"{HEX}={BASE64}"):
        said = engine.run("volume", "create", "--driver", "ckrfs", "-o", option, "vault", status=1)
        assert "looks like a key" in said or "an option has a name that is none of ckrfs.conf(5)" in said, said
        assert HEX not in said and BASE64 not in said
    assert names(engine) == []
    for where in (engine.dir, plugin.state, plugin.counts):
        assert run("grep", "-rlaF", "-e", HEX, "-e", BASE64, where, check=False).stdout == b""
    assert HEX not in plugin.log_text() and BASE64 not in plugin.log_text()


def test_key_is_found_nowhere_with_an_engine(engine, plugin):
    """Memory, argv and environment of engine, container, plugin and mount; /proc/keys and keyctl inside."""
    ck = plugin.ck
    hunt = Hunt(ck, hunted(ck.encrypted.master_key()))
    engine.run("volume", "create", "--driver", "ckrfs", "web")
    engine.start("one", "web:/vol")
    engine.exec("one", "dd if=/dev/urandom of=/vol/f bs=1M count=3 2>/dev/null")
    state = ck.remember(ck_target(plugin))
    inside = int(engine.run("inspect", "--format", "{{.State.Pid}}", "one"))
    pids = [inside, plugin.process.pid, plugin.front(), state["keeper_pid"], state["server_pid"]]
    if isinstance(engine, Docker):
        pids.append(engine.daemon.pid)
    assert hunt.all(pids) == []
    said = engine.exec("one", "cat /proc/keys 2>/dev/null; cat /proc/[0-9]*/comm")
    assert "ckrfs" not in said and not [s for s in hunt.secrets if s.decode("latin-1") in said]
    said = engine.exec("one", f"SERIALS='{state['keyring']}'; {PROBE}")
    assert "FOUND" not in said and said.endswith("looked\n"), said
    files = [p for d in (plugin.state, plugin.counts, plugin.log, ck.log) for p in ([d] if d.is_file() else d.iterdir())]
    assert hunt.files(files) == []
    engine.run("rm", "-f", "one")
    engine.run("volume", "rm", "web")


def ck_target(plugin):
    return plugin.mounts / "web"


# ---- the documentation's transcripts

FRESH = """
for d in /etc/ckrfs /etc/containers /etc/docker /run/docker /run/ckrfs /var/lib/ckrfs /srv /root; do
    mkdir -p $d && mount -t tmpfs -o mode=755 tmpfs $d
done
printf '{"default":[{"type":"insecureAcceptAnything"}]}' > /etc/containers/policy.json
"""


def transcript(page):
    """The indented lines of a page, as (command, what it prints)"""
    found, open_block = [], False
    for line in (REPO / "docs" / page).read_text().splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], []))
            open_block = True
        elif line.startswith("    ") and open_block:
            found[-1][1].append(line[4:])
        else:
            open_block = False
    return found


def install_hooks(directory):
    """As they are installed, but for the program's place; -> the directory for podman's hooks_dir"""
    hooks = directory / "hooks.d"
    hooks.mkdir()
    for name in ("ckrfs-create.json", "ckrfs-poststop.json"):
        (hooks / name).write_text(re.sub(r'"path": ".*"', f'"path": "{BINARY}"', (BUILD / name).read_text()))
    return hooks


def play(namespace, directory, commands):
    """All in one shell, as somebody would paste them; -> what each printed on standard output"""
    mark = "--- next ---"
    script = "".join(f"{c}\necho '{mark}'\n" for c, _ in commands)
    script += "kill %1; wait %1\n"
    env = {"PATH": f"{directory}:{BUILD}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    script = script.replace("/var/log/", f"{directory}/").replace("/usr/share/containers/oci/hooks.d", str(install_hooks(directory)))
    done = run(*namespace.argv("bash", "-c", script), env=env, stdin=subprocess.DEVNULL, timeout=40,
               check=False)
    said = done.stdout.decode().split(mark + "\n")
    assert len(said) == len(commands) + 1, done
    return said, done.stderr.decode()


def wrapper(directory, name, words, run_options):
    """A program of that name which has the options that this machine needs besides."""
    path = directory / name
    quoted = " ".join(shlex.quote(w) for w in [shutil.which(words[0]), *words[1:]])
    path.write_text(f'#!/bin/sh\nif [ "$1" = run ]; then shift; set -- run {" ".join(run_options)} "$@"; fi\n'
                    f'exec {quoted} "$@"\n')
    path.chmod(0o755)


@pytest.mark.parametrize("page, kind", [("podman.md", Podman), ("docker.md", Docker)])
def test_transcripts_of_the_documentation(ck, page, kind):
    """Pasted into a shell on a machine that has nothing of ckrfs yet, each command prints what the page says."""
    plugin = Plugin(ck)
    plugin.namespace = containers.Namespace(FRESH)
    programs = ck.dir / "programs"
    programs.mkdir()
    engine = kind(plugin)
    try:
        engine.run("tag", "img", "docker.io/library/alpine:latest" if kind is Podman else "alpine:latest")
        wrapper(programs, "podman" if kind is Podman else "docker",
                engine.podman.bare() if kind is Podman else engine.command(), kind.RUN)
        commands = transcript(page)
        assert len(commands) > 12
        # The plugin is there a moment after it was started; a person is slower.
        commands = [(c if not c.endswith("&") else c + "\nwhile ! [ -S /run/docker/plugins/ckrfs.sock ]; do :; done", s)
                    for c, s in commands]
        said, complained = play(plugin.namespace, programs, commands)
        for (command, expected), got in zip(commands, said):
            assert got.splitlines() == expected, (command, got, complained)
        assert "an option has a name that is none of ckrfs.conf(5)" in complained
    finally:
        engine.close()
        plugin.namespace.close()
