# SPDX-License-Identifier: MIT
"""Key hunting: nobody but the mount's own secret pages holds the key, in any form, at any time we can look."""
import hashlib
import hmac
import os
import resource
import signal
import subprocess
from pathlib import Path

import containers
import pytest
from support import TOOLS, alive, child, forms, kernel_lacks, memscan, run, wait_until

PASSPHRASE = "a passphrase to hunt for"
SLOT_KEY = hashlib.sha256(b"the key of a slot").digest()
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def hkdf(key, info):
    prk = hmac.new(bytes(32), key, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def hunted(master):
    """Everything that opens the volume or a part of it."""
    keys = [master, PASSPHRASE.encode(), hkdf(master, b"AES-GCM file content encryption"),
            hkdf(master, b"EME filename encryption"), SLOT_KEY]
    return sorted(form for key in keys for form in forms(key))


def test_hunted_keys_are_the_right_ones():
    """The derived keys are those of gocryptfs, by known answers; otherwise the hunt would look for nothing."""
    master = bytes(range(32))
    assert hkdf(master, b"AES-GCM file content encryption").hex().startswith("17df772cfec9d28b9ede3c753d0010ba")
    assert hkdf(master, b"EME filename encryption").hex().startswith("59366f708e4d4ed892d6bd6ca0de6e92")


class Hunt:
    def __init__(self, ck, secrets):
        self.path = ck.dir / "patterns"
        self.path.write_text("".join(s.hex() + "\n" for s in secrets))
        self.secrets = secrets

    def scan(self, *args):
        return memscan(self.path, *args)

    def memory(self, pids):
        return self.scan(*pids)

    def files(self, paths):
        return self.scan("-f", *paths)

    def texts(self, pids):
        """argv and environment as the kernel shows them"""
        hits = []
        for pid in pids:
            for name in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{name}").read_bytes()
                hits += [f"{pid} {name}" for s in self.secrets if s in text]
        return hits

    def all(self, pids):
        return self.memory(pids) + self.texts(pids)


def descendants(pid):
    found = []
    try:
        children = [word for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    for child in children:
        found += [int(child), *descendants(int(child))]
    return found


def slot_source(ck, master):
    """A key of its own in a slot, added with the passphrase; -> its specification"""
    spec = f"file:{ck.key_file(SLOT_KEY, name='slot')}?fmt=raw"
    ck.run("key", "add", ck.dir / "cipher", "slot", "--key", f"file:{ck.key_file(PASSPHRASE)}", "--new-key", spec, status=0)
    return spec


SOURCES = {
    "slot": slot_source,
    "file-pass": lambda ck, master: f"file:{ck.key_file(PASSPHRASE)}",
    "file-hex": lambda ck, master: f"file:{ck.key_file(master.hex())}?fmt=hex",
    "file-raw": lambda ck, master: f"file:{ck.key_file(master)}?fmt=raw",
    "exec": lambda ck, master: f"exec:/bin/cat {ck.key_file(PASSPHRASE)}",
}


def keys_as(pid):
    """/proc/keys in the namespaces of pid; a container that is just starting may not have its root yet"""
    def ask():
        done = run("nsenter", "-t", str(pid), "-m", "-p", "cat", "/proc/keys", check=False)
        return (done.stdout,) if done.returncode == 0 else None
    return wait_until(f"/proc/keys as {pid}", ask)[0]


def look_everywhere(ck, hunt, manager, container):
    """Processes of the container, the manager, keeper and server: memory, argv, environment; /proc/keys."""
    state = ck.state()
    inside = [p for p in descendants(container.pid) if alive(p)]
    assert inside, "the container's processes were looked at"
    pids = [manager.pid, *inside, state["keeper_pid"], state["server_pid"]]
    hits = hunt.all(pids)
    for pid in {inside[-1], state["keeper_pid"], os.getpid()}:
        keys = keys_as(pid)
        hits += [f"/proc/keys as {pid}" for s in hunt.secrets if s in keys]
    return hits


@pytest.mark.parametrize("source", SOURCES)
def test_key_is_found_nowhere(ck, source):
    volume = ck.volume(passphrase=PASSPHRASE)
    master = volume.master_key()
    hunt = Hunt(ck, hunted(master))
    ck.volume(passphrase=PASSPHRASE, init=False, key=SOURCES[source](ck, master))
    runtime = containers.runtime("crun", ck.dir)
    script = '"$@" && echo mounted && read wait'  # the manager stays while we look
    with child(["sh", "-c", script, "sh", *ck.argv("mount", "web", ck.mnt)], env=ck.env,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as manager:
        assert manager.stdout.readline() == b"mounted\n"
        ck.remember(ck.mnt)
        (ck.mnt / "f").write_bytes(os.urandom(3 << 20))
        argv = runtime.argv(ck.mnt, "cat /vol/f > /vol/g; echo ready; sleep 1000; true")
        with child(argv, stdout=subprocess.PIPE) as container:
            assert container.stdout.readline() == b"ready\n"
            assert look_everywhere(ck, hunt, manager, container) == []
            os.kill(descendants(container.pid)[-1], signal.SIGKILL)
            container.wait(20)
            for pid in [p for p in descendants(container.pid) if alive(p)]:
                os.kill(pid, signal.SIGKILL)
        manager.stdin.close()
    hits = hunt.files([ck.log, ck.conf]) if ck.log.exists() else []
    assert hits == []
    ck.umount()


def test_status_tells_how_secrets_are_kept(ck):
    """memfd_secret where the kernel has it: then even root cannot read the pages, as the hidden bytes show."""
    ck.volume()
    with ck.mounted():
        state = ck.state()
        kept = state["secret_memory"]
        assert kept in ("memfd_secret", "mlock"), state
        assert kept in ck.run("status", "web").stdout
        if kept != "memfd_secret":
            kernel_lacks("memfd_secret(2)")
        patterns = ck.dir / "patterns"
        patterns.write_text("00" * 8 + "ff" * 8 + "\n")
        done = run(TOOLS / "memscan", patterns, str(state["server_pid"]), check=False)
        hidden = int(done.stdout.split()[-1])
        assert hidden >= 4096


def test_key_passes_through_no_argv_and_no_environment(ck):
    """Every program started on the way to the mount, seen by strace: its argv and environment."""
    volume = ck.volume(passphrase=PASSPHRASE)
    hunt = Hunt(ck, hunted(volume.master_key()))
    ck.volume(passphrase=PASSPHRASE, init=False, key=f"exec:/bin/cat {ck.key_file(PASSPHRASE)}")
    trace = ck.dir / "trace"
    with child(["strace", "-f", "-qq", "-v", "-s", "1000000", "-e", "trace=execve", "-o", trace,
                           *ck.argv("mount", "web", ck.mnt)], env=ck.env) as tracer:
        wait_until("the mount", lambda: os.path.ismount(ck.mnt))
        ck.remember(ck.mnt)
        ck.umount()
        tracer.wait(30)
    assert b"/bin/cat" in trace.read_bytes()
    assert hunt.files([trace]) == []


# ---- core files

@pytest.fixture
def cores(ck):
    """Core files go to a directory of the test; no limit on their size."""
    old, limit = CORE_PATTERN.read_text(), resource.getrlimit(resource.RLIMIT_CORE)
    directory = ck.dir / "cores"
    directory.mkdir()
    directory.chmod(0o777)
    try:
        CORE_PATTERN.write_text(f"{directory}/core.%p\n")
        resource.setrlimit(resource.RLIMIT_CORE, (limit[1], limit[1]))
    except OSError as e:
        kernel_lacks(f"a core_pattern that may be set: {e}")
    if limit[1] == 0:
        kernel_lacks("core files: the hard limit is 0")
    yield directory
    CORE_PATTERN.write_text(old)
    resource.setrlimit(resource.RLIMIT_CORE, limit)


@pytest.mark.parametrize("victim", ["server_pid", "keeper_pid"])
def test_core_of_a_crash_holds_no_key(ck, cores, victim):
    volume = ck.volume(passphrase=PASSPHRASE)
    hunt = Hunt(ck, hunted(volume.master_key()))
    ck.env["ASAN_OPTIONS"] += ":handle_segv=0"  # a sanitizer would report the crash instead of crashing
    ck.env["UBSAN_OPTIONS"] += ":handle_segv=0"
    ck.env["TSAN_OPTIONS"] += ":handle_segv=0"
    ck.mount()
    (ck.mnt / "f").write_bytes(os.urandom(100000))
    pid = ck.state()[victim]
    os.kill(pid, signal.SIGSEGV)
    wait_until("the crash", lambda: not alive(pid))
    found = list(cores.iterdir())
    if found:
        assert hunt.files(found) == []
    ck.umount()


def test_core_of_a_planted_crash_does(ck, cores):
    """The hunt in core files can succeed."""
    secret = os.urandom(32).hex()
    hunt = Hunt(ck, sorted(forms(bytes.fromhex(secret))))
    with child(["sleep", "1000"], env={"PLANTED": secret}) as victim:
        os.kill(victim.pid, signal.SIGSEGV)
        victim.wait()
    found = wait_until("the core file", lambda: list(cores.iterdir()))
    assert hunt.files(found)


# ---- the hunt finds what is planted

PLANTER = """
import os, sys
kept = bytes.fromhex(sys.stdin.readline())
held = {"raw": kept, "hex": kept.hex(), "base64": __import__("base64").b64encode(kept)}[sys.argv[1]]
if sys.argv[1] != "raw":
    del kept
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("form", ["raw", "hex", "base64"])
def test_planted_in_memory_is_found(ck, form):
    secret = os.urandom(32)
    hunt = Hunt(ck, sorted(forms(secret)))
    with child(["/usr/bin/python3", "-c", PLANTER, form], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        p.stdin.write(secret.hex().encode() + b"\n")
        p.stdin.flush()
        assert p.stdout.readline() == b"ready\n"
        assert hunt.memory([p.pid])
        p.stdin.close()


@pytest.mark.parametrize("where", ["argv", "environ", "file", "log", "container"])
def test_planted_elsewhere_is_found(ck, where):
    secret = os.urandom(32)
    hunt = Hunt(ck, sorted(forms(secret)))
    text = secret.hex()
    if where in ("file", "log"):
        path = ck.dir / "planted" if where == "file" else ck.log
        path.write_text("x" * 5000 + text)
        assert hunt.files([path])
        if where == "log":
            ck.keep_secret(secret)
            assert any("holds key bytes" in problem for problem in ck.scan())
            ck.secrets.clear()
        return
    if where == "container":
        argv = containers.runtime("crun", ck.dir).argv(ck.mnt, f"PLANTED={text} sleep 1000 & echo ready; wait")
    else:
        argv = ["sh", "-c", "echo ready; read x", text if where == "argv" else "x"]
    env = dict(os.environ, PLANTED=text) if where == "environ" else None
    with child(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"
        pids = [p.pid, *descendants(p.pid)]
        assert hunt.memory(pids) and (where == "container" or hunt.texts(pids))
        for pid in reversed(pids):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
