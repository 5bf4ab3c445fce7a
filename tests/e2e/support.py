# SPDX-License-Identifier: MIT
"""What the end to end tests share: one ckrfs environment per test, gocryptfs as the peer, waiting without sleeps."""
import base64
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("CKRFS_BUILD_DIR", REPO / "build")).resolve()
BINARY = BUILD / "ckrfs"
COMPANION = BUILD / "ckrfs-net"
TOOLS = Path(os.environ.get("CKRFS_TOOLS_DIR", BUILD / "tests" / "tools"))
UID = 1000  # the unprivileged user of the tests; needs no entry in /etc/passwd

DONE, FAILED, USAGE, PARTLY, DAMAGED, REPAIRED = range(6)
NO_VOLUME, BUSY, WRONG_KEY, NO_KEY, CONFIG, UNSUPPORTED = 10, 11, 12, 13, 14, 15

SANITIZER_WORDS = (b"ERROR: AddressSanitizer", b"runtime error:", b"WARNING: ThreadSanitizer",
                   b"ERROR: LeakSanitizer", b"ERROR: UndefinedBehaviorSanitizer")


def sanitized():
    """Which sanitizers the binary was built with, as text: "address,undefined", "thread" or ""."""
    info = BUILD / "meson-info" / "intro-buildoptions.json"
    options = json.loads(info.read_text()) if info.exists() else []
    return next((o["value"] for o in options if o["name"] == "b_sanitize" and o["value"] != "none"), "")


def kernel_lacks(reason):
    """The one skip that is allowed where everything must work: the running kernel has no such thing."""
    pytest.skip("kernel lacks: " + reason)


def wait_until(what, true, seconds=15):
    """Polls; returns true's value. For things that send no event, such as a process's end seen from outside."""
    end = time.monotonic() + seconds
    while True:
        value = true()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.005)


def forms(secret):
    """The ways in which key bytes could be written somewhere."""
    return {secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret),
            base64.urlsafe_b64encode(secret).rstrip(b"=")}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def mounts_under(path):
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(path) or point.startswith(f"{path}/"):
            found.append(point)
    return found


def mount_line(point):
    """mountinfo of one mount point as (options, type, source, super options), or None"""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        left, _, right = line.partition(" - ")
        if left.split()[4].encode().decode("unicode_escape") == str(point):
            return left.split()[5].split(","), *right.split(" ")
    return None


def errno_of(call, *args, **kw):
    """Name of the errno that the call fails with, or None."""
    try:
        call(*args, **kw)
    except OSError as e:
        return "EOPNOTSUPP" if e.errno == errno.EOPNOTSUPP else errno.errorcode[e.errno]
    return None


def run(*argv, check=True, **kw):
    kw.setdefault("timeout", 120)
    done = subprocess.run([os.fspath(a) if isinstance(a, Path) else a for a in argv], capture_output=True, **kw)
    if check and done.returncode:
        raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")
    return done


def memscan(patterns, *args):
    """Looks for the patterns in a file (hex, one a line) in processes, or with -f in files; -> a line for each that is there"""
    done = run(TOOLS / "memscan", patterns, *map(str, args), check=False, timeout=600)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.decode().splitlines() if ": pattern" in line]


@contextlib.contextmanager
def child(*argv, **kw):
    """A process that ends with the block, whatever happens in it."""
    process = subprocess.Popen(*argv, **kw)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def as_user(call, uid=UID):
    """Runs call in a child with that uid and gid and no capabilities; its exception becomes ours."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = b""
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            call()
        except BaseException as e:  # whatever it is, the parent shall see it
            text = repr(e).encode() or b"?"
        os.write(w, text[:60000])
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        text = f.read()
    os.waitpid(pid, 0)
    assert not text, text.decode()


class Gocryptfs:
    """A volume handled by the real gocryptfs."""

    def __init__(self, directory, passphrase="correct horse", scryptn=10):
        self.cipher = Path(directory)
        self.passphrase = passphrase
        self.scryptn = scryptn

    def extpass(self):
        return ["-extpass", "echo " + self.passphrase]

    def init(self, *options):
        self.cipher.mkdir(exist_ok=True)
        run("gocryptfs", "-q", "-init", "-scryptn", str(self.scryptn), *self.extpass(), *options, self.cipher)
        return self

    def master_key(self):
        done = run("gocryptfs-xray", "-dumpmasterkey", self.cipher / "gocryptfs.conf",
                   input=self.passphrase.encode() + b"\n")
        return bytes.fromhex(done.stdout.split()[-1].decode())

    def fsck(self):
        done = run("gocryptfs", "-fsck", *self.extpass(), self.cipher, check=False, timeout=600)
        assert done.returncode == 0, f"gocryptfs -fsck: exit {done.returncode}\n{done.stdout!r}\n{done.stderr!r}"

    @contextlib.contextmanager
    def mounted(self, at, *options, read_only=False):
        at = Path(at)
        at.mkdir(exist_ok=True)
        run("gocryptfs", "-q", "-allow_other", "-acl", *(["-ro"] if read_only else []), *self.extpass(), *options,
            self.cipher, at)
        try:
            yield at
        finally:
            wait_until("gocryptfs to unmount", lambda: run("fusermount3", "-u", at, check=False).returncode == 0)


class Ckrfs:
    """ckrfs in a private place: own config, runtime directory, log. Nothing of it may be left after the test."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="ckrfs-e2e-"))
        self.dir.chmod(0o755)
        self.runtime = self.dir / "run"
        self.runtime.mkdir(mode=0o755)
        self.conf = self.dir / "ckrfs.conf"
        self.log = self.dir / "log"
        self.mnt = self.dir / "mnt"
        self.mnt.mkdir()
        self.secrets = set()
        self.transcript = []
        self.pids = set()
        self.sections = {}
        self.env = dict(os.environ, CKRFS_RUNTIME_DIR=str(self.runtime), LC_ALL="C.UTF-8",
                        ASAN_OPTIONS=f"detect_leaks=0:log_path={self.dir}/san",
                        UBSAN_OPTIONS=f"print_stacktrace=1:log_path={self.dir}/san",
                        TSAN_OPTIONS=f"halt_on_error=0:log_path={self.dir}/san")
        self.configure("defaults")

    # -- configuration

    def configure(self, section, **options):
        """Replaces one section; option_name becomes option-name, a list becomes several lines."""
        self.sections[section] = options
        lines = []
        for name, values in self.sections.items():
            lines.append(f"[{name}]")
            if name == "defaults":
                lines += [f"log = {self.log}", "log-level = debug"]
            for key, value in values.items():
                for one in value if isinstance(value, list) else [value]:
                    lines.append(f"{key.replace('_', '-')} = {one}")
        self.conf.write_text("\n".join(lines) + "\n")
        self.conf.chmod(0o600)

    def key_file(self, content, name="key", mode=0o600):
        path = self.dir / name
        if path.exists():
            path.unlink()
        path.touch(mode=mode)
        path.chmod(mode)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def keep_secret(self, *secrets):
        for s in secrets:
            self.secrets.add(s if isinstance(s, bytes) else s.encode())

    def volume(self, name="web", cipher=None, passphrase="correct horse", init=True, **options):
        """A gocryptfs volume made by gocryptfs, with its section; -> Gocryptfs"""
        g = Gocryptfs(cipher or self.dir / "cipher", passphrase)
        if init:
            g.init()
            self.keep_secret(g.master_key())
        self.keep_secret(passphrase)
        if "key" not in options:
            options["key"] = f"file:{self.key_file(passphrase)}"
        self.configure(f"volume {name}", source=g.cipher, **options)
        return g

    def plain(self, name="plain", **options):
        source = self.dir / "plain"
        source.mkdir(exist_ok=True)
        self.configure(f"volume {name}", source=source, format="plain", **options)
        return source

    # -- commands

    def argv(self, command, *args):
        return [str(BINARY), command, *(["--config", str(self.conf)] if command in ("mount", "config") else []),
                *[str(a) for a in args]]

    def run(self, command, *args, status=None, **kw):
        """status: the exit status it must have, None for any."""
        kw.setdefault("timeout", 120)
        kw.setdefault("env", self.env)
        kw.setdefault("stdin", subprocess.DEVNULL)
        if "input" in kw:
            del kw["stdin"]
        done = subprocess.run(self.argv(command, *args), capture_output=True, text=True, errors="surrogateescape", **kw)
        self.transcript.append(done.stdout + done.stderr)
        if status is not None:
            assert done.returncode == status, \
                f"ckrfs {command} {args}: exit {done.returncode}, not {status}\n{done.stdout}{done.stderr}"
        return done

    def mount(self, name="web", target=None, *more, status=DONE, **kw):
        target = Path(target or self.mnt)
        done = self.run("mount", name, target, *more, status=status, **kw)
        if done.returncode == DONE:
            self.remember(target)
        return target

    def remember(self, target):
        state = self.state(target)
        self.pids |= {p for p in (state["keeper_pid"], state["server_pid"]) if p}
        return state

    def umount(self, what=None, *more, status=DONE):
        return self.run("umount", what or self.mnt, *more, status=status)

    @contextlib.contextmanager
    def mounted(self, name="web", target=None, *more, **kw):
        target = self.mount(name, target, *more, **kw)
        try:
            yield target
        finally:
            self.umount(target)

    def states(self):
        return json.loads(self.run("status", "--json", status=DONE).stdout)["mounts"]

    def state(self, target=None):
        target = str(target or self.mnt)
        found = [m for m in self.states() if m["target"] == target]
        assert len(found) == 1, f"{target} in {found}"
        return found[0]

    def log_text(self):
        return self.log.read_text(errors="surrogateescape") if self.log.exists() else ""

    def wait_for_log(self, words):
        wait_until(f"{words!r} in the log", lambda: words in self.log_text())

    # -- the end of a test

    def processes(self):
        """pids of every live ckrfs process of this environment"""
        mark = str(self.dir).encode()
        found = {p for p in self.pids if alive(p)}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.readlink(entry / "exe") in (str(BINARY), str(COMPANION)) and alive(int(entry.name)) and \
                        mark in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
        return found

    def leftovers(self):
        left = [f"mounted: {m}" for m in mounts_under(self.dir)]
        for p in self.processes():
            with contextlib.suppress(OSError):  # it ends meanwhile
                left.append(f"running: {p} {Path(f'/proc/{p}/cmdline').read_bytes()!r}")
        for where, _, files in os.walk(self.runtime):  # unlike rglob, it does not mind what goes away meanwhile
            left += [f"in the runtime directory: {where}/{name}" for name in files]
        return left

    def close(self):
        """Unmounts what the test left on purpose, then reports what should not be there, and removes it."""
        for point in mounts_under(self.dir):
            line = mount_line(point)
            if line and "ckrfs" in line[1] + line[2]:
                self.run("umount", point, "--lazy")
        with contextlib.suppress(AssertionError):
            wait_until("nothing left", lambda: not self.leftovers(), 10)
        problems = self.leftovers() + self.scan()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in reversed(mounts_under(self.dir)):
            run("umount", "-l", point, check=False)
        if problems:
            return problems + [f"kept: {self.dir}", self.log_text()[-3000:]]
        shutil.rmtree(self.dir, ignore_errors=True)
        return []

    def scan(self):
        problems = []
        texts = {str(p): p.read_bytes() for p in [self.log, *self.dir.glob("san.*")] if p.exists()}
        texts["what ckrfs printed"] = "".join(self.transcript).encode(errors="surrogateescape")
        for where, text in texts.items():
            for word in SANITIZER_WORDS:
                if word in text:
                    at = text.index(word)
                    problems.append(f"{where}: {text[at:at + 3000].decode(errors='replace')}")
            for secret in self.secrets:
                if any(form in text for form in forms(secret)):
                    problems.append(f"{where}: holds key bytes")
        return problems
