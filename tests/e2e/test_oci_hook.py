# SPDX-License-Identifier: MIT
"""ckrfs oci-hook: annotations give volumes to containers of crun, runc and podman, with the hooks that are installed."""
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import containers
import pytest
from plugin import Plugin
from support import BINARY, BUILD, CONFIG, DONE, FAILED, NO_VOLUME, UID, USAGE, alive, child, run, wait_until
from test_containers import PROBE
from test_leaks import PASSPHRASE, Hunt, hunted
from test_volume_plugin import fifo_key

ENGINES = ["crun", "runc", "podman"]
SHELL = "echo up; /bin/sh"  # takes commands from its standard input
STAYS = SHELL + "; exec sleep 1000"  # also when nobody writes there any more


class Container:
    """A container that runs, and does what it is told."""

    def __init__(self, host, name, process):
        self.host, self.name, self.process = host, name, process
        self.up = process.stdout.readline() == "up\n"

    def do(self, script):
        self.process.stdin.write(f"{{ {script}\n}} 2>&1; echo END\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline()) != "END\n":
            assert line, "the container has ended"
            lines.append(line)
        return "".join(lines)

    def end(self):
        """-> exit status and what the engine said"""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        said = self.process.stderr.read()
        return self.process.wait(60), said

    def pid(self):
        """of its first process, on the host"""
        return self.host.pid(self.name)


class Host:
    """Engines in a mount namespace of the test's, with the hooks as they are installed but for the program's place."""

    def __init__(self, ck):
        self.ck = ck
        self.namespace = containers.Namespace()
        self.program = ck.dir / "ckrfs-hook"
        environment = " ".join(f"'{k}={ck.env[k]}'" for k in ("CKRFS_RUNTIME_DIR", "LC_ALL", "ASAN_OPTIONS", "UBSAN_OPTIONS"))
        self.program.write_text(f'#!/bin/sh\nshift\nexec env {environment} {BINARY} oci-hook --config {ck.conf} "$@"\n')
        self.program.chmod(0o755)
        self.containers = []
        self.count = 0

    def hook(self, name):
        text = (BUILD / f"ckrfs-{name}.json").read_text()
        return re.sub(r'"path": ".*/ckrfs"', f'"path": "{self.program}"', text)

    def start(self, annotations, script=SHELL, **options):
        self.count += 1
        name = f"c{self.count}"
        argv = self.namespace.argv(*self.argv(name, annotations, script, **options))
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.containers.append(Container(self, name, process))
        return self.containers[-1]

    def run(self, annotations, script, **options):
        """-> what it printed"""
        c = self.start(annotations, "echo up; " + script, **options)
        out = c.process.stdout.read()
        status, said = c.end()
        assert c.up and status == 0, (status, out, said)
        return out

    def refused(self, annotations, **options):
        """-> what the engine said"""
        c = self.start(annotations, **options)
        status, said = c.end()
        assert not c.up and status != 0, (status, said)
        return said

    def close(self):
        for c in self.containers:
            c.end()
            c.process.stdout.close()
            c.process.stderr.close()
        self.namespace.close()


class OciHost(Host):
    """crun and runc, with the hooks in config.json as an engine would write them there"""

    def __init__(self, ck, runtime):
        super().__init__(ck)
        self.runtime = runtime
        self.dir = ck.dir / runtime
        self.dir.mkdir()
        self.root = containers.make_rootfs(self.dir / "rootfs")

    def bundle(self, annotations, script, **options):
        config = containers.oci_config(self.root, self.root / "tmp", script, **options)
        config["annotations"] = annotations
        config["hooks"] = {}
        for name in ("create", "poststop"):
            hook = json.loads(self.hook(name))
            for stage in hook["stages"]:
                config["hooks"].setdefault(stage, []).append(hook["hook"])
        return config

    def argv(self, name, annotations, script, **options):
        bundle = self.dir / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self.bundle(annotations, script, **options)))
        return [self.runtime, "--root", self.dir / "state", "run", "--bundle", bundle, name]

    def pid(self, name):
        return int(json.loads(self.tool("state", name))["pid"])

    def tool(self, *args):
        return run(*self.namespace.argv(self.runtime, "--root", self.dir / "state", *args)).stdout

    def kill_monitor(self, container):
        container.process.kill()


class UserHost(OciHost):
    """crun of a user who is root in a user namespace, as podman's are who have no root"""

    def __init__(self, ck):
        super().__init__(ck, "crun")
        self.namespace.close()
        self.namespace = containers.Namespace(f"mknod {ck.dir}/fuse c 10 229; chmod 666 {ck.dir}/fuse; mount --bind {ck.dir}/fuse /dev/fuse")

    def bundle(self, annotations, script, user_namespace=False):
        config = super().bundle(annotations, script, user_namespace=user_namespace)
        del config["process"]["capabilities"]
        if user_namespace:
            for kind in ("uidMappings", "gidMappings"):
                config["linux"][kind] = [{"containerID": 0, "hostID": 0, "size": 1}]
        return config

    def argv(self, *args, **options):
        command = super().argv(*args, **options)
        run("chown", "-R", f"{UID}:{UID}", self.ck.dir)
        return ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "unshare", "-Urm", "--propagation", "private",
                command[0], "--cgroup-manager=disabled", *command[1:]]

    def close(self):
        super().close()
        run("chown", "-R", "0:0", self.ck.dir)  # root does not look into a runtime directory of others


class PodmanHost(Host):
    def __init__(self, ck, precreate=False):
        super().__init__(ck)
        self.podman = containers.Podman(ck.dir)
        self.root = self.podman.root
        self.hooks = ck.dir / "hooks.d"
        self.hooks.mkdir()
        for name in ("create", "poststop", *(["precreate"] if precreate else [])):
            (self.hooks / f"ckrfs-{name}.json").write_text(self.hook(name))

    def bare(self, *args):
        return self.podman.bare("--hooks-dir", self.hooks, *args)

    def argv(self, name, annotations, script, user_namespace=False):
        words = [w for k, v in annotations.items() for w in ("--annotation", f"{k}={v}")]
        return self.bare("run", "--rm", "-i", "--name", name, *self.podman.RUN, *words, "--rootfs", self.root, "/bin/sh", "-c", script)

    def tool(self, *args):
        return run(*self.namespace.argv(*self.bare(*args))).stdout

    def pid(self, name):
        return int(self.tool("inspect", "--format", "{{.State.Pid}}", name))

    def kill_monitor(self, container):
        os.kill(int(self.tool("inspect", "--format", "{{.State.ConmonPid}}", container.name)), signal.SIGKILL)
        container.process.kill()  # it would wait for that one for ever

    def close(self):
        run(*self.namespace.argv(*self.bare("rm", "-f", "-t", "0", "-a")), check=False)
        super().close()


@contextlib.contextmanager
def host_of(ck, kind, **options):
    host = {"podman": PodmanHost, "user": UserHost}.get(kind, lambda ck: OciHost(ck, kind))(ck, **options)
    try:
        yield host
    finally:
        host.close()
        for point in (m for m in ck.states()):
            ck.run("umount", "--lazy", point["name"])


@pytest.fixture(params=ENGINES)
def host(ck, request):
    ck.encrypted = ck.volume("web", passphrase=PASSPHRASE)
    with host_of(ck, request.param) as h:
        yield h


@pytest.fixture
def crun(ck):
    ck.encrypted = ck.volume("web", passphrase=PASSPHRASE)
    with host_of(ck, "crun") as h:
        yield h


def web(path="/data"):
    return {"io.ckrfs.volume.web": path}


def names(ck):
    return sorted(m["name"] for m in ck.states())


def nothing_left(ck):
    return ck.states() == [] and list((ck.runtime / "oci").iterdir()) == []


def wait_for_nothing(ck):
    wait_until("the unmount", lambda: nothing_left(ck))


def test_container_uses_a_volume(host, ck):
    """Read, write, read-only, options of the mount; on disk is ciphertext; nothing is mounted between two containers."""
    said = host.run(web(), "echo from inside > /data/f; cat /data/f; grep ' /data ' /proc/self/mountinfo")
    assert said.startswith("from inside\n") and " rw,nosuid,nodev" in said and " - fuse.ckrfs web " in said
    wait_for_nothing(ck)
    assert run("grep", "-rla", "from inside", ck.encrypted.cipher, check=False).stdout == b""
    said = host.run(web("/data:ro:noexec"), "cat /data/f; touch /data/x || echo read-only; cp /bin/busybox /tmp/b; grep ' /data ' /proc/self/mountinfo")
    assert said.startswith("from inside\nread-only\n") and " ro,nosuid,nodev,noexec" in said
    wait_for_nothing(ck)
    with ck.encrypted.mounted(ck.dir / "peer", read_only=True) as peer:
        assert (peer / "f").read_text() == "from inside\n"


@pytest.mark.parametrize("kind", ["crun", "runc"])
def test_user_namespace(ck, kind):
    ck.volume("web", passphrase=PASSPHRASE)
    with host_of(ck, kind) as host:
        run("chown", "-R", f"{containers.BASE_ID}:{containers.BASE_ID}", host.root)
        host.dir.chmod(0o755)
        assert host.run(web("/vol"), "cat /proc/self/uid_map | wc -l; cd /vol && ls -d .", user_namespace=True) == "1\n.\n"
        wait_for_nothing(ck)


@pytest.mark.parametrize("user_namespace", [False, True], ids=["same", "nested"])
def test_user_without_root(ck, user_namespace):
    ck.volume("web", passphrase=PASSPHRASE)
    with host_of(ck, "user") as host:
        said = host.run(web(), "echo x > /data/f; cat /data/f; grep ' /data ' /proc/self/mountinfo", user_namespace=user_namespace)
        assert said.startswith("x\n") and " rw,nosuid,nodev" in said and " - fuse.ckrfs web " in said
        wait_until("the unmount", lambda: list((ck.runtime / "oci").iterdir()) == [])
    wait_for_nothing(ck)


def test_two_volumes_one_below_the_other(crun, ck):
    ck.plain("plain")
    volumes = {"io.ckrfs.volume.web": "/data/inner", "io.ckrfs.volume.plain": "/data"}
    crun.run(volumes, "echo a > /data/f; echo b > /data/inner/g")
    wait_for_nothing(ck)
    assert (ck.dir / "plain" / "f").read_text() == "a\n" and not (ck.dir / "plain" / "inner" / "g").exists()


def test_keys_are_out_of_reach(host, ck):
    """Memory, argv and environment of engine, hook, container and mount; /proc/keys and keyctl inside."""
    containers.add_program(host.root, shutil.which("keyctl"))
    hunt = Hunt(ck, hunted(ck.encrypted.master_key()))
    c = host.start(web())
    c.do("dd if=/dev/urandom of=/data/f bs=1M count=2 2>/dev/null")
    [state] = ck.states()
    pids = [c.process.pid, c.pid(), *watchers(ck)]
    assert len(pids) == 3 and hunt.all([*pids, state["keeper_pid"], state["server_pid"]]) == []
    said = c.do(f"SERIALS='{state['keyring']}'; {PROBE}")
    assert "FOUND" not in said and said.endswith("looked\n"), said
    assert "ckrfs" not in c.do("cat /proc/[0-9]*/comm")
    said = c.do("cat /proc/keys")
    assert not [s for s in hunt.secrets if s.decode("latin-1") in said]
    assert c.end()[0] == 0
    wait_for_nothing(ck)
    assert hunt.files([ck.log]) == []


def watchers(ck):
    return [p for p in ck.processes() if Path(f"/proc/{p}/comm").read_text() == "ckrfs-oci-watch\n"]


def test_container_is_killed(host, ck):
    """kill -9 of its first process"""
    c = host.start(web())
    c.do("echo x > /data/f")
    os.kill(c.pid(), signal.SIGKILL)
    c.end()
    wait_for_nothing(ck)
    assert host.run(web(), "cat /data/f") == "x\n"
    wait_for_nothing(ck)


def test_monitor_is_killed(host, ck):
    """Nobody is left who would run poststop: what the hook left behind unmounts."""
    c = host.start(web(), STAYS)
    c.do("echo x > /data/f")
    pid, [watcher] = c.pid(), watchers(ck)
    host.kill_monitor(c)
    assert names(ck) == ["web"] and alive(pid), "the container goes on"
    os.kill(pid, signal.SIGKILL)
    wait_for_nothing(ck)
    wait_until("the watcher's end", lambda: not alive(watcher))


def crun_waits(host):
    return isinstance(host, OciHost) and host.runtime == "crun"


def test_containers_share_a_mount(host, ck):
    one, two = host.start(web()), host.start(web("/other:ro"))
    one.do("echo x > /data/f")
    assert two.do("cat /other/f; touch /other/g || echo no").startswith("x\n") and names(ck) == ["web"]
    server = ck.states()[0]["server_pid"]
    # `crun run` waits for all of its descendants, also for the mount that its hook has made: that one ends last.
    first, last, path = (two, one, "/data") if crun_waits(host) else (one, two, "/other")
    assert first.end()[0] == 0
    assert last.do(f"cat {path}/f") == "x\n" and ck.states()[0]["server_pid"] == server
    assert last.end()[0] == 0
    wait_for_nothing(ck)


@pytest.mark.parametrize("kind", ["runc", "podman"])
def test_many_begin_and_end_at_once(ck, kind):
    """One mount, made once, and unmounted once; or, as each ends when it likes, several times one after the other."""
    ck.volume("web", passphrase=PASSPHRASE)
    with host_of(ck, kind) as host, concurrent.futures.ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda i: host.run(web(), f"echo {i} > /data/{i}; cat /data/{i}"), range(6)))
        assert said == [f"{i}\n" for i in range(6)]
        wait_for_nothing(ck)
        assert host.run(web(), "cat /data/[0-5]") == "".join(said)
        wait_for_nothing(ck)


def test_container_that_begins_keeps_nothing_mounted(host, ck):
    """Its namespace is a copy of one with the mounts of others: those can be unmounted while it waits for a key."""
    ck.volume("web", init=False, passphrase=PASSPHRASE, stop_timeout="3s")
    fifo, spec = fifo_key(ck)
    ck.volume("slow", cipher=ck.dir / "slow", passphrase="another", key=spec)
    one = host.start(web())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        two = pool.submit(host.start, {"io.ckrfs.volume.slow": "/a", "io.ckrfs.volume.web": "/b"})
        try:
            wait_until("the second", lambda: list((ck.runtime / "oci").glob("slow/user.*")))
            one.end()
            wait_until("the unmount", lambda: not (ck.runtime / "oci" / "web").exists())
        finally:
            fifo.write_text("another")
    assert "cut off" not in ck.log_text(), "it did not wait for files that are open elsewhere"
    two = two.result()
    assert two.do("echo x > /a/f; echo y > /b/f; cat /a/f /b/f") == "x\ny\n"
    assert two.end()[0] == 0
    wait_for_nothing(ck)


def test_podman_restarts_a_container(ck):
    """The same ID lives several times: each life has the volume, the end of one is not that of the next."""
    ck.volume("web", passphrase=PASSPHRASE, scope="container")
    with host_of(ck, "podman") as host:
        host.tool("run", "-d", "--name", "c", *host.podman.RUN, "--annotation", "io.ckrfs.volume.web=/data", "--rootfs", str(host.root),
                  "/bin/sh", "-c", "echo life >> /data/f; exec sleep 1000")
        ident = host.tool("inspect", "--format", "{{.Id}}", "c").decode().strip()
        for lives in (1, 2, 3):
            wait_until("the life", lambda n=lives: host.tool("exec", "c", "cat", "/data/f").decode() == "life\n" * n)
            assert names(ck) == ["web@" + ident[:12]]
            if lives < 3:
                host.tool("restart", "-t", "0", "c")
        host.tool("stop", "-t", "0", "c")
        wait_for_nothing(ck)
        host.tool("start", "c")
        wait_until("the life", lambda: host.tool("exec", "c", "cat", "/data/f").decode() == "life\n" * 4)
        host.tool("rm", "-f", "-t", "0", "c")
        wait_for_nothing(ck)


def test_each_container_has_its_own(host, ck):
    """scope = container: another mount, keyring, server; one ends, the other goes on."""
    ck.volume("web", init=False, passphrase=PASSPHRASE, scope="container", shared="yes")
    one, two = host.start(web()), host.start(web())
    one.do("echo x > /data/f")
    assert two.do("cat /data/f") == "x\n"
    first, second = ck.states()
    assert [re.sub("@.*", "", m["name"]) for m in (first, second)] == ["web", "web"] and first["name"] != second["name"]
    for what in ("server_pid", "keeper_pid", "keyring", "target"):
        assert first[what] != second[what], what
    if isinstance(host, OciHost):
        assert names(ck) == ["web@c1", "web@c2"]
    assert one.end()[0] == 0
    wait_until("its unmount", lambda: len(ck.states()) == 1)
    assert two.do("echo y >> /data/f; cat /data/f") == "x\ny\n"
    left = ck.states()[0]
    gone = first if left["name"] == second["name"] else second
    wait_until("its processes' end", lambda: not alive(gone["server_pid"]) and not alive(gone["keeper_pid"]))
    assert alive(left["server_pid"])
    assert two.end()[0] == 0
    wait_for_nothing(ck)


def test_own_mounts_need_a_shared_volume(crun, ck):
    """The volume's lock is respected; several that only read go together."""
    ck.volume("web", init=False, passphrase=PASSPHRASE, scope="container")
    one = crun.start(web())
    said = crun.refused(web())
    assert f'ckrfs: cannot give volume "web" to container c2: cannot mount "web@c2": source {ck.encrypted.cipher} is in use: ' \
        f'"web@c1" is mounted on {ck.runtime}/oci/web@c1/mnt\n  try: ckrfs config --show web    # several containers at once need shared = yes\n' in said, said
    assert one.do("echo x > /data/f; cat /data/f") == "x\n" and names(ck) == ["web@c1"]
    assert one.end()[0] == 0
    wait_for_nothing(ck)
    readers = [crun.start(web("/data:ro")) for _ in range(2)]
    assert [r.do("cat /data/f") for r in readers] == ["x\n", "x\n"] and names(ck) == ["web@c3", "web@c4"]
    for r in readers:
        r.end()
    wait_for_nothing(ck)


def test_volume_plugin_refuses_own_mounts(ck):
    ck.volume("web", passphrase=PASSPHRASE, scope="container")
    plugin = Plugin(ck)
    with plugin.running():
        assert plugin.create("vault", 500, volume="web") == \
            "ckrfs: scope = container is not for volumes of engines, but for annotations of containers\n  try: man 8 ckrfs-oci-hook"
        assert plugin.names() == []
    for directory in (plugin.counts, plugin.mounts):
        shutil.rmtree(directory)


def test_mount_of_somebody_else_is_used_and_stays(crun, ck):
    run(*crun.namespace.argv(*ck.argv("mount", "web", ck.mnt)), env=ck.env)
    crun.namespace.path(ck.mnt / "f").write_text("from the host\n")
    pid = ck.state()["server_pid"]
    assert crun.run(web(), "cat /data/f") == "from the host\n"
    assert names(ck) == ["web"] and ck.state()["server_pid"] == pid
    assert list((ck.runtime / "oci").iterdir()) == []
    ck.umount("web")


def test_mount_that_the_runtime_does_not_see(crun, ck):
    """The directory below it would be written to in clear."""
    run("unshare", "-m", "--propagation", "private", BINARY, "mount", "--config", ck.conf, "web", ck.mnt, env=ck.env)
    said = crun.refused(web())
    assert f"its runtime does not see the mount on {ck.mnt}: it has another mount namespace" in said
    ck.run("umount", "web", status=DONE)


def test_mount_of_the_volume_plugin_is_refused(crun, ck):
    plugin = Plugin(ck)
    with plugin.running():
        plugin.create("web")
        plugin.mount("web")
        said = crun.refused(web())
        assert 'ckrfs: cannot give volume "web" to container c1: "web" is mounted for the volume plugin, and will be unmounted with ' \
            "its last container\n  try: ckrfs status web\n" in said
        plugin.unmount("web")
        plugin.remove("web")
    for directory in (plugin.counts, plugin.mounts):
        shutil.rmtree(directory)


def test_dead_mount_is_mounted_anew(crun, ck):
    one = crun.start(web())
    one.do("echo x > /data/f")
    pid = ck.states()[0]["keeper_pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until("its end", lambda: not alive(pid))
    two = crun.start(web())
    assert two.do("cat /data/f") == "x\n" and "x" not in one.do("cat /data/f")
    one.end()
    assert two.do("cat /data/f") == "x\n"
    two.end()
    wait_for_nothing(ck)


@pytest.mark.parametrize("annotations, words", [
    ({"io.ckrfs.volume.wob": "/data"}, 'cannot give volume "wob" to container c1: there is no volume "wob" in CONF\n  try: ckrfs config --list'),
    ({"io.ckrfs.volume.closed": "/data"}, 'cannot give volume "closed" to container c1: this value of volume is not allowed: plugin-allow '
     "in CONF has volume=web, volume=wrong\n  try: man 5 ckrfs.conf"),
    ({"io.ckrfs.volume.wrong": "/data"}, 'cannot give volume "wrong" to container c1: cannot mount "wrong": '),
    (web("data"), "annotation io.ckrfs.volume.web is not an absolute path in the container, or a path and options, as in /data:ro"),
    (web("/data/../etc"), "annotation io.ckrfs.volume.web is not an absolute path in the container"),
    (web("/data:rw,suid"), "annotation io.ckrfs.volume.web has an option that is none of ro, rw, exec and noexec"),
    ({**web(), "io.ckrfs.volume.wrong": "//data/"}, 'volumes "web" and "wrong" have the same place in the container: /data'),
    ({**web(), "io.ckrfs.volumes.x": "/x"}, "unknown annotation io.ckrfs.volumes.x (those of ckrfs are io.ckrfs.volume.NAME)"),
], ids=["unknown", "not-allowed", "wrong-key", "relative", "dots", "option", "same-place", "misspelt"])
@pytest.mark.parametrize("kind", ["crun", "runc"])
def test_refused(ck, kind, annotations, words):
    """The container does not start, its user reads why, and so does the log."""
    ck.volume("web", passphrase=PASSPHRASE)
    ck.volume("wrong", cipher=ck.dir / "cipher", init=False, key=f"file:{ck.key_file('not it', 'other')}")
    ck.plain("closed")
    ck.configure("defaults", plugin_allow="volume=web volume=wrong")
    with host_of(ck, kind) as host:
        said = host.refused(annotations)
        words = words.replace("CONF", str(ck.conf))
        if kind == "runc":  # in a line of its log, quoted
            said = said.replace("\\n", "\n").replace('\\"', '"')
        assert "ckrfs: " + words in said
        assert words.split("\n")[0] in ck.log_text()
        wait_until("nothing left", lambda: ck.states() == [] and watchers(ck) == [])


def test_podman_says_what_is_wrong_before(ck):
    """With the precreate hook podman's user reads it; crun keeps what later hooks say to itself."""
    ck.volume("web", passphrase=PASSPHRASE)
    with host_of(ck, "podman", precreate=True) as host:
        said = host.refused({"io.ckrfs.volume.wob": "/data"})
        assert f'ckrfs: cannot give volume "wob" to the container: there is no volume "wob" in {ck.conf}\n  try: ckrfs config --list\n' in said
        assert host.run(web(), "echo x > /data/f; cat /data/f") == "x\n"
        wait_for_nothing(ck)


def test_locked_volume_is_refused(crun, ck):
    ck.mount()
    ck.run("lock", "web", status=DONE)
    said = crun.refused(web())
    assert 'ckrfs: cannot give volume "web" to container c1: "web" is locked\n  try: ckrfs unlock web\n' in said
    ck.umount()


def hook_that_mounts(ck):
    """The hook, once it has started `ckrfs mount`; not the process that it has left behind."""
    for p in ck.processes():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[1])
            if b"\0mount\0" in Path(f"/proc/{p}/cmdline").read_bytes() and b"createRuntime" in Path(f"/proc/{parent}/cmdline").read_bytes():
                return parent
    return None


def test_hook_is_killed(crun, ck):
    """kill -9 while it waits for the key: the container does not start, and nothing is left."""
    fifo, spec = fifo_key(ck)
    ck.volume("web", init=False, passphrase=PASSPHRASE, key=spec)
    with child([str(w) for w in crun.namespace.argv(*crun.argv("c9", web(), "true"))], stdin=subprocess.DEVNULL,
               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        os.kill(wait_until("the hook", lambda: hook_that_mounts(ck)), signal.SIGKILL)
        assert process.wait(60) != 0

    # What nobody waits for any more undoes itself, at the latest when it has the key.
    def give_key():
        with contextlib.suppress(OSError):
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            os.write(fd, os.fsencode(PASSPHRASE))
            os.close(fd)
    wait_until("the end of it all", lambda: give_key() or nothing_left(ck))


def test_links_of_the_image_lead_nowhere_else(crun, ck):
    """Links in the container's root are followed within it."""
    outside = ck.dir / "outside"
    outside.mkdir()
    (crun.root / str(outside)[1:]).mkdir(parents=True)  # the same path in the image
    (crun.root / "absolute").symlink_to(outside)
    (crun.root / "up").symlink_to("../" * 30 + str(outside))
    (crun.root / "magic").symlink_to("/proc/1/root")
    (crun.root / "dangling").symlink_to("/nowhere")
    shown = "grep ' - fuse.ckrfs ' /proc/self/mountinfo | cut -d' ' -f5"
    assert crun.run(web("/absolute/v"), shown) == f"{outside}/v\n"
    assert crun.run(web("/up/v"), shown) == f"{outside}/v\n"
    assert list(outside.iterdir()) == []
    assert "cannot make /magic/v in it: " in crun.refused(web("/magic/v"))
    assert "cannot make /dangling in it: a symbolic link on the way leads nowhere\n" in crun.refused(web("/dangling"))
    wait_for_nothing(ck)


# ---- what comes on standard input

STATE = {"ociVersion": "1.0", "id": "c1", "pid": 0, "bundle": "/nowhere", "status": "created", "annotations": web()}


def state(**members):
    return json.dumps({**STATE, **members}).encode()


@pytest.mark.parametrize("text, words", [
    (b"", "the container's state is not a JSON object"),
    (b"\0" * 1000, "the container's state is not a JSON object"),
    (b"[" * 100000, "the container's state is not a JSON object"),
    (state() + b"x", "the container's state is not a JSON object"),
    (b" " * (1 << 20) + state(), "the container's state is larger than 1 MiB"),
    (state(id="../../etc"), "the container's state has no ID of 1 to 128 letters"),
    (state(id="x" * 129), "the container's state has no ID of 1 to 128 letters"),
    (state(bundle="etc"), "the container's state has no absolute path of a bundle"),
    (state(pid=-1), "the container's state has a pid that is none"),
    (state(annotations={f"io.ckrfs.volume.v{i}": f"/{i}" for i in range(17)}), "more than 16 volumes for one container"),
    (state(annotations=web("/a\nb")), "annotation io.ckrfs.volume.web is not an absolute path"),
    (state(annotations={"io.ckrfs.volume.../x": "/x"}), "annotation io.ckrfs.volume.../x does not end with a volume's name"),
], ids=["empty", "zeros", "deep", "trailing", "giant", "id", "long-id", "bundle", "pid", "many", "control", "name"])
@pytest.mark.parametrize("phase", ["createRuntime", "poststop"])
def test_hostile_state(ck, phase, text, words):
    done = subprocess.run([BINARY, "oci-hook", "--config", ck.conf, phase], input=text, capture_output=True, env=ck.env, timeout=60)
    assert done.returncode in (FAILED, CONFIG) and done.stderr.decode().startswith("ckrfs: " + words), done
    assert done.stdout == b"" and len(done.stderr) < 2000


def test_hostile_bundle(ck):
    """config.json is not followed out of the bundle, and not waited for."""
    bundle = ck.dir / "bundle"
    bundle.mkdir()
    config = bundle / "config.json"

    def hook():
        return ck.run("oci-hook", "createRuntime", input=state(bundle=str(bundle)).decode(), status=FAILED).stderr

    assert hook() == f"ckrfs: cannot read {config}: No such file or directory\n"
    config.symlink_to("/etc/passwd")
    assert hook() == f"ckrfs: cannot read {config}: Too many levels of symbolic links\n"
    config.unlink()
    os.mkfifo(config)
    assert hook() == f"ckrfs: cannot read {config}: Invalid argument\n"
    config.unlink()
    config.write_text("{}")
    assert hook() == "ckrfs: the container's config.json has no path of a root\n"
    with config.open("wb") as f:
        f.truncate(5 << 20)
    assert hook() == "ckrfs: the container's config.json is larger than 4 MiB\n"


def test_not_the_moment_for_it(ck):
    """Called for a process that has no root of its own to come: nothing is mounted over a directory of the host."""
    ck.volume("web", passphrase=PASSPHRASE)
    bundle = ck.dir / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "config.json").write_text('{"root": {"path": "rootfs"}}')
    with child(["sleep", "1000"]) as process:
        text = state(bundle=str(bundle), pid=process.pid).decode()
        said = subprocess.run([BINARY, "oci-hook", "--config", ck.conf, "createRuntime"], input=text, capture_output=True, env=ck.env,
                              text=True, timeout=60)
        assert said.returncode == 15 and f"its runtime has not mounted its root {bundle}/rootfs yet" in said.stderr
        assert list((bundle / "rootfs").iterdir()) == [] and ck.states() == []
    assert "the container's process" in subprocess.run(
        [BINARY, "oci-hook", "--config", ck.conf, "createRuntime"], input=text, capture_output=True, env=ck.env, text=True).stderr
    assert "the container's state has no pid" in subprocess.run(
        [BINARY, "oci-hook", "--config", ck.conf, "createRuntime"], input=state(bundle=str(bundle)), capture_output=True,
        env=ck.env).stderr.decode()
    wait_for_nothing(ck)


def test_precreate_gives_back_what_it_got(ck):
    ck.plain("web")
    argv = [BINARY, "oci-hook", "--config", ck.conf, "precreate"]
    text = b' {"root":{"path":"/r"},\n "annotations":{"io.ckrfs.volume.web":"/data"}, "x": [1.50, "\\u00e9"]}\n'
    done = subprocess.run(argv, input=text, capture_output=True, env=ck.env)
    assert (done.returncode, done.stdout, done.stderr) == (0, text, b"")
    done = subprocess.run(argv, input=text.replace(b"web", b"wob"), capture_output=True, env=ck.env)
    assert (done.returncode, done.stdout) == (NO_VOLUME, b"")


def test_annotations_of_an_old_runtime(ck):
    """A state without annotations: those of config.json hold. A container without any has nothing to do with us."""
    bundle = ck.dir / "bundle"
    bundle.mkdir()
    text = json.dumps({k: v for k, v in {**STATE, "bundle": str(bundle)}.items() if k != "annotations"})
    (bundle / "config.json").write_text(json.dumps({"root": {"path": "r"}, "annotations": {"io.ckrfs.volume.wob": "/x"}}))
    assert 'there is no volume "wob"' in ck.run("oci-hook", "createRuntime", "--config", ck.conf, input=text, status=NO_VOLUME).stderr
    (bundle / "config.json").write_text('{"root": {"path": "r"}, "annotations": {"a": "b"}}')
    ck.run("oci-hook", "createRuntime", "--config", ck.conf, input=text, status=DONE)


def test_command_line(ck):
    assert ck.run("oci-hook", status=USAGE).stderr == "ckrfs: one phase is needed\n  try: ckrfs oci-hook --help\n"
    assert 'unknown phase "startContainer"' in ck.run("oci-hook", "startContainer", status=USAGE).stderr
