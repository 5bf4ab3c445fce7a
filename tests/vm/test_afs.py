# SPDX-License-Identifier: MIT
"""lower = afs on a real cell: run by root in a virtual machine, whose kernel has kAFS (afs_cell.py). One writer goes on for
AFS_LIFETIMES lives of a ticket while the other tests are at work."""
import errno
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import pytest

from afs_cell import IP, KEYTABS, NAME, Cell, run, wait_for, write

REPO = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.path.join(os.environ["CKRFS_BUILD_DIR"], "ckrfs")
LIFE = int(os.environ.get("AFS_LIFE", "30"))
LIFETIMES = int(os.environ.get("AFS_LIFETIMES", "10"))

# Records of 512 bytes with their digest, each fsynced before its number is told.
WRITER = textwrap.dedent("""
    import hashlib, os, sys, time
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
    told = open(sys.argv[2], "w", buffering=1)
    n = 0
    while not os.path.exists(sys.argv[2] + ".stop"):
        body = n.to_bytes(8, "big") + os.urandom(472)
        try:
            os.pwrite(fd, body + hashlib.sha256(body).digest(), n * 512)
            os.fsync(fd)
        except OSError as e:
            told.write(f"error {e.errno}\\n")
            if len(sys.argv) < 4:
                raise
            time.sleep(0.2)
            continue
        told.write(f"{n}\\n")
        n += 1
        time.sleep(0.05)
""")


def records(path):
    data = pathlib.Path(path).read_bytes()
    return [int.from_bytes(data[i:i + 8], "big") if hashlib.sha256(data[i:i + 480]).digest() == data[i + 480:i + 512] else None
            for i in range(0, len(data), 512)]


class Writer:
    def __init__(self, mount, *mode):
        self.file, self.told = mount.target / "records", pathlib.Path(f"/run/{mount.name}.told")
        self.process = subprocess.Popen(["keyctl", "session", "-", sys.executable, "-c", WRITER, self.file, self.told, *mode],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lines(self):
        return self.told.read_text().split("\n")[:-1] if self.told.exists() else []

    def numbers(self):
        return [int(line) for line in self.lines() if not line.startswith("error")]

    def errors(self):
        return {int(line.split()[1]) for line in self.lines() if line.startswith("error")}

    def goes_on(self):
        """Another record is told."""
        count = len(self.numbers())
        wait_for(lambda: len(self.numbers()) > count)

    def stop(self):
        pathlib.Path(f"{self.told}.stop").touch()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


class Mount:
    def __init__(self, cell, name, user, volume=None, key=None, extra=()):
        self.name, self.target = name, pathlib.Path("/run/ck") / name
        self.target.mkdir(parents=True, exist_ok=True)
        self.conf = pathlib.Path(f"/run/ck/{name}.conf")
        option = "lower-key" if any(line.startswith("format = gocryptfs") for line in extra) else "key"
        self.conf.write_text("\n".join([
            f"[volume {name}]", f"source = %{NAME}:{volume or name}", f"target = {self.target}", "lower = afs", f"afs-servers = {IP}",
            f"log = /run/ck/{name}.log", f"{option} = {key or cell.source(user, '10m')}", *extra, ""]))

    def ckrfs(self, *args, check=True):
        config = ["--config", self.conf] if args[0] == "mount" else []
        return run(BINARY, args[0], *config, *args[1:], check=check)

    def mount(self, check=True):
        return self.ckrfs("mount", self.name, check=check)

    def status(self):
        return json.loads(self.ckrfs("status", "--json", self.name).stdout)["mounts"][0]

    def log(self):
        return pathlib.Path(f"/run/ck/{self.name}.log").read_text()

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *exc):
        self.ckrfs("umount", self.name, check=False)


@pytest.fixture(scope="module")
def cell():
    c = Cell()
    c.tickets_live("carol", LIFE)
    c.volume("one", "alice")
    c.volume("two", "bob")
    yield c
    c.stop()


@pytest.fixture(scope="module")
def one(cell):
    with Mount(cell, "one", "alice") as m:
        yield m


@pytest.fixture(scope="module")
def long_writer(cell):
    """Begun first, looked at last."""
    cell.volume("long", "carol")
    with Mount(cell, "long", "carol", key=cell.keytab("carol")) as m:
        began = time.monotonic()
        writer = Writer(m)
        yield m, writer, began
        writer.stop()


def stranger(*command, check=True):
    """In a session of its own: no token."""
    return run("keyctl", "session", "-", *map(str, command), check=check)


def test_writer_begins(long_writer):
    _, writer, _ = long_writer
    writer.goes_on()


def test_stranger_reads_and_writes(cell, one):
    script = f"""
        cd {one.target} && echo from-outside > f && cat f && mkdir d && mv f d/g && ln d/g d/h && rm d/h && ls d
        id -u > d/id; setpriv --reuid 1234 --regid 1234 --clear-groups bash -c 'echo user >> d/g && cat d/g'
    """
    assert stranger("bash", "-ec", script).stdout.split() == ["from-outside", "g", "from-outside", "user"]
    with cell.mounted("one") as place:
        assert cell.as_user("alice", "cat", place / "d/g").stdout == "from-outside\nuser\n"


def test_stranger_finds_no_key(cell, one):
    pids = one.status()
    assert " rxrpc " not in stranger("keyctl", "show").stdout
    assert stranger("keyctl", "request", "rxrpc", f"afs@{NAME}", check=False).returncode != 0
    with cell.mounted("one") as place:
        r = stranger("ls", place, check=False)
        assert r.returncode != 0 and "Permission denied" in r.stderr
    # Not even root sees the key of the mount, whose permissions are the possessor's alone.
    assert not [line for line in open("/proc/keys") if f"afs@{NAME}" in line and " 3f000000 " in line]
    for pid in (pids["keeper_pid"], pids["server_pid"]):
        assert not [line for line in open(f"/proc/{pid}/mountinfo") if " - afs " in line], "it is mounted where it can be found"
        r = stranger("nsenter", "-t", pid, "-m", "ls", "/proc/self/mountinfo", check=False)
        assert " - afs " not in r.stdout


def test_container(cell, one):
    """crun, with the mount bound into it."""
    bundle = pathlib.Path("/run/bundle")
    (bundle / "rootfs/bin").mkdir(parents=True)
    for name in ("data", "proc", "dev"):
        (bundle / "rootfs" / name).mkdir()
    run("cp", "/bin/busybox", bundle / "rootfs/bin/busybox")
    spec = {
        "ociVersion": "1.0.0", "root": {"path": "rootfs"}, "hostname": "inside",
        "process": {"user": {"uid": 1234, "gid": 1234}, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": True,
                    "args": ["/bin/busybox", "sh", "-c", "echo inside > /data/c && /bin/busybox cat /data/c /proc/keys"]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/data", "type": "bind", "source": str(one.target), "options": ["rbind", "rw"]}],
        "linux": {"namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount", "network")]}}
    (bundle / "config.json").write_text(json.dumps(spec))
    r = run("crun", "--cgroup-manager=disabled", "run", "-b", bundle, "inside", check=False)
    assert r.returncode == 0, r.stderr
    assert r.stdout.startswith("inside\n") and "3f000000" not in r.stdout
    with cell.mounted("one") as place:
        assert cell.as_user("alice", "cat", place / "c").stdout == "inside\n"


def test_other_principal(cell, one):
    two = Mount(cell, "two", "bob", key=cell.keytab("bob"))
    with two:
        stranger("bash", "-ec", f"echo bob > {two.target}/f")
        with cell.mounted("two") as place:
            assert cell.as_user("bob", "cat", place / "f").stdout == "bob\n"
            assert cell.as_user("alice", "cat", place / "f", check=False).returncode != 0
    refused = Mount(cell, "refused", "bob", volume="one").mount(check=False)
    assert refused.returncode == 1 and "may not read it (the ACL of the directory decides)" in refused.stderr


def test_words(cell):
    r = Mount(cell, "nosuch", "alice").mount(check=False)
    assert (r.returncode, "cell example.test has no such volume" in r.stderr) == (10, True), r.stderr
    m = Mount(cell, "nocell", "alice")
    m.conf.write_text(m.conf.read_text().replace(f"%{NAME}", "%nowhere.test").replace(f"afs-servers = {IP}\n", ""))
    r = m.mount(check=False)
    assert (r.returncode, "no servers are known for cell nowhere.test" in r.stderr) == (10, True), r.stderr
    m = Mount(cell, "badkey", "alice", volume="one")
    m.conf.write_text(m.conf.read_text().replace(f"{cell.source('alice', '10m')}", "exec:/bin/echo nonsense?fmt=raw"))
    r = m.mount(check=False)
    assert (r.returncode, "gives no token for AFS" in r.stderr) == (12, True), r.stderr


def test_subtree(cell, one):
    (one.target / "below/deep").mkdir(parents=True)
    (one.target / "below/deep/x").write_text("deep\n")
    with Mount(cell, "sub", "alice", volume="one", extra=["subtree = /below/deep"]) as m:
        assert os.listdir(m.target) == ["x"]
        m.ckrfs("lock", "sub")
        with pytest.raises(OSError) as e:
            (m.target / "x").read_text()
        assert e.value.errno == errno.ENOKEY
        m.ckrfs("unlock", "sub")
        assert (m.target / "x").read_text() == "deep\n"


def test_lock_and_unlock_with_open_files(cell, one):
    fd = os.open(one.target / "open", os.O_RDWR | os.O_CREAT)
    stream = os.scandir(one.target)
    os.pwrite(fd, b"before", 0)
    one.ckrfs("lock", "one")
    assert not [line for line in open("/proc/keys") if "3f000000" in line and "rxrpc" in line]
    with pytest.raises(OSError) as e:
        os.pread(fd, 6, 0)
    assert e.value.errno == errno.ENOKEY
    with cell.mounted("one") as place:
        assert cell.as_user("alice", "cat", place / "open").stdout == "before"
    one.ckrfs("unlock", "one")
    assert os.pread(fd, 6, 0) == b"before" and "open" in {entry.name for entry in stream}
    os.pwrite(fd, b"after!", 0)
    os.fsync(fd)
    os.close(fd)


def test_transcript_of_the_documentation(cell):
    """docs/afs.md, as tests/e2e/test_docs.py does with the others."""
    sys.path.insert(0, str(REPO / "tests/e2e"))
    from test_docs import matches, transcript
    text = (REPO / "docs/afs.md").read_text()
    conf = text[text.index("    [volume alice]"):text.index("    $ mkdir /srv/alice")]
    run("mount", "-t", "tmpfs", "tmpfs", "/srv")
    run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", "/root")
    run("cp", f"{KEYTABS}/alice.kt", "/root/alice.keytab")
    write("/etc/ckrfs/conf.d/alice.conf", textwrap.dedent(conf))
    cell.volume("home.alice", "alice")
    steps = transcript(text)
    script = "".join(f"{command}\necho '\036'\n" for command, _ in steps)
    path = f"{os.path.dirname(BINARY)}:{os.environ['PATH']}"
    done = subprocess.run(["keyctl", "session", "-", "bash"], input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(os.environ, PATH=path), timeout=120)
    said = [part.strip("\n").splitlines() for part in done.stdout.split("\036")]
    for (command, wanted), got in zip(steps, said):
        assert matches(wanted, [line for line in got if not line.startswith("Joined session")]), (command, got)


def test_two_clients_are_coherent(cell, one):
    """Another mount, in a network namespace of its own: another client for the servers."""
    path = make_netns("other")
    with Mount(cell, "client", "alice", volume="one", extra=[f"netns = {path}"]) as other:
        for n in range(3):
            (one.target / f"seen{n}").write_text(f"{n}")
            wait_for(lambda n=n: (other.target / f"seen{n}").exists() and (other.target / f"seen{n}").read_text() == f"{n}", 5)
            (other.target / f"seen{n}").write_text(f"{n}{n}")
            wait_for(lambda n=n: (one.target / f"seen{n}").read_text() == f"{n}{n}", 5)


def test_callbacks_break_under_load(cell, one):
    """One client writes a file again and again, the other reads it: only whole contents, in their order, the last one within the timeouts."""
    path, rounds = make_netns("other"), 12
    file = one.target / "turns"
    script = f"""
        import os, time
        for n in range({rounds}):
            with open({str(file)!r} + ".new", "w") as f:
                f.write(f"{{n}}\\n" * 2000)
            os.rename({str(file)!r} + ".new", {str(file)!r})
    """
    with Mount(cell, "reader", "alice", volume="one", key=cell.keytab("alice"), extra=[f"netns = {path}"]) as other:
        seen = []
        with subprocess.Popen(["keyctl", "session", "-", sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as writer:
            end = time.monotonic() + 120
            while not seen or seen[-1] != rounds - 1:
                assert time.monotonic() < end, (seen, writer.poll(), file.read_text()[:4])
                try:
                    lines = (other.target / "turns").read_text().split("\n")[:-1]
                except OSError as e:
                    assert e.errno in (errno.ENOENT, errno.ESTALE), e  # replaced between lookup and open
                    continue
                assert len(lines) == 2000 and len(set(lines)) == 1, (len(lines), set(lines))
                seen.append(int(lines[0]))
            assert writer.wait() == 0
        assert seen == sorted(seen) and other.status()["state"] == one.status()["state"] == "unlocked"


def make_netns(name):
    path = pathlib.Path("/run/netns") / name
    if not path.exists():
        run("ip", "netns", "add", name)
        run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", name)
        run("ip", "addr", "add", "10.98.0.1/24", "dev", "v0")
        run("ip", "link", "set", "v0", "up")
        for command in ("addr add 10.98.0.2/24 dev v1", "link set v1 up", "link set lo up", f"route add {IP} via 10.98.0.1"):
            run("ip", "-n", name, *command.split())
        # The servers' answers come from the address that was asked.
        run("ip", "route", "replace", "10.98.0.0/24", "dev", "v0", "src", IP)
    return path


def test_same_cell_in_two_namespaces(cell, one):
    """The key of one is no key in the other: bob's mount there, alice's here."""
    path = make_netns("other")
    with Mount(cell, "two-there", "bob", volume="two", extra=[f"netns = {path}"]) as there:
        (there.target / "there").write_text("bob")
        (one.target / "here").write_text("alice")
        assert sorted(os.listdir(there.target)) != sorted(os.listdir(one.target))
        refused = Mount(cell, "refused-there", "bob", volume="one", extra=[f"netns = {path}"]).mount(check=False)
        assert "may not read it" in refused.stderr
    with cell.mounted("two") as place:
        assert cell.as_user("bob", "cat", place / "there").stdout == "bob"


def test_gocryptfs_in_afs(cell, one):
    made = pathlib.Path("/run/ck/cipher")
    made.mkdir()
    key = pathlib.Path("/run/ck/enc.key")
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    run(BINARY, "init", made, "--key", f"file:{key}?fmt=raw")
    run("cp", "-r", made, one.target)
    with Mount(cell, "enc", "alice", volume="one", key=cell.source("alice", f"{LIFE}s"),
               extra=["format = gocryptfs", "subtree = /cipher", f"key = file:{key}?fmt=raw"]) as m:
        stranger("bash", "-ec", f"echo secret > {m.target}/f; mkdir {m.target}/d; echo more > {m.target}/d/f")
        m.ckrfs("refresh", "enc")
        assert (m.target / "d/f").read_text() == "more\n" and (m.target / "f").read_text() == "secret\n"
        assert b"secret" not in b"".join(p.read_bytes() for p in (one.target / "cipher").iterdir() if p.is_file())
        m.ckrfs("lock", "enc")
        m.ckrfs("unlock", "enc")
        assert (m.target / "f").read_text() == "secret\n"


def test_quota_reaches_the_writer(cell):
    cell.volume("small", "alice", quota="1000")
    with Mount(cell, "small", "alice") as m:
        fd = os.open(m.target / "big", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, bytes(500 << 10), 0)
        os.fsync(fd)
        with pytest.raises(OSError) as e:
            os.pwrite(fd, bytes(4 << 20), 0)
            os.fsync(fd)
        # The last is what Linux 6.1 makes of it.
        assert e.value.errno in (errno.EDQUOT, errno.ENOSPC, errno.EDESTADDRREQ)
        try:
            os.close(fd)
        except OSError:
            pass


def test_ten_lifetimes(long_writer):
    """Nothing is lost, and no error is seen, while tickets come and go."""
    mount, writer, began = long_writer
    writer.goes_on()
    time.sleep(max(0, LIFETIMES * LIFE - (time.monotonic() - began)))
    assert writer.process.poll() is None and not writer.errors(), mount.log()
    assert mount.status()["state"] == "unlocked"


def test_kdc_stopped_for_a_while(cell, long_writer):
    mount, writer, _ = long_writer
    cell.stop_kdc()
    wait_for(lambda: mount.status()["state"] == "degraded", 2 * LIFE)
    writer.goes_on()
    cell.start_kdc()
    wait_for(lambda: mount.status()["state"] == "unlocked", 2 * LIFE)
    writer.goes_on()
    assert writer.process.poll() is None and not writer.errors(), mount.log()
    writer.stop()
    assert records(writer.file) == writer.numbers()


def test_kdc_stopped_for_good(cell):
    """It is locked in time, all that was acknowledged is there, and the same open file goes on after the unlock."""
    cell.volume("last", "carol")
    with Mount(cell, "last", "carol", key=cell.keytab("carol")) as m:
        writer = Writer(m, "goes on after errors")
        writer.goes_on()
        cell.stop_kdc()
        wait_for(lambda: m.status()["state"] == "locked", 2 * LIFE)
        told = writer.numbers()
        wait_for(writer.errors)
        assert writer.errors() == {errno.ENOKEY}
        cell.start_kdc()
        with cell.mounted("last") as place:
            copy = "/run/cell/last.copy"
            cell.as_user("carol", "cp", place / "records", copy)
            assert records(copy)[:len(told)] == told
        m.ckrfs("unlock", "last", check=False)
        wait_for(lambda: m.status()["state"] == "unlocked", 2 * LIFE)
        writer.goes_on()
        writer.stop()
        assert records(writer.file) == writer.numbers() and writer.errors() == {errno.ENOKEY}


def test_fileserver_restarted(cell, one):
    """What needs the server fails while there is none, as with AFS itself; then all goes on, files that were open too."""
    fd = os.open(one.target / "kept", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"kept", 0)
    os.fsync(fd)
    cell.stop_fileserver()
    with pytest.raises(OSError):
        (one.target / "meanwhile").touch()
    cell.start_fileserver()
    wait_for(lambda: run("touch", one.target / "new", check=False).returncode == 0, 90, 1)
    os.pwrite(fd, b"more", 4)
    os.fsync(fd)
    assert os.pread(fd, 8, 0) == b"keptmore" and one.status()["state"] == "unlocked"
    os.close(fd)
    with cell.mounted("one") as place:
        assert cell.as_user("alice", "cat", place / "kept").stdout == "keptmore"


def test_volume_taken_offline_and_back(cell, one):
    (one.target / "there").write_text("there")
    run("vos", "offline", IP, "a", "one", "-localauth")
    with pytest.raises(OSError):
        (one.target / "meanwhile").touch()
    run("vos", "online", IP, "a", "one", "-localauth")
    wait_for(lambda: run("touch", one.target / "new2", check=False).returncode == 0, 90, 1)
    assert (one.target / "there").read_text() == "there" and one.status()["state"] == "unlocked"
