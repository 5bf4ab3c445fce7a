# SPDX-License-Identifier: MIT
"""A normal user with an own volume: fusermount3, own configuration and runtime directory, few fds; user namespaces."""
import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from support import BINARY, DONE, UID, Ckrfs, as_user, mounts_under, wait_until

MISSING = {"capabilities", "empty-root", "private-ipc", "private-net", "private-lower", "file-handles", "caller-ids",
           "other-users"}


LIBC = ctypes.CDLL(None, use_errno=True)
AT_SYMLINK_FOLLOW = 0x400
CLONE_NEWNS, MS_BIND, MS_REC, MS_SLAVE = 0x20000, 4096, 16384, 1 << 19


def libc(name, *args):
    if getattr(LIBC, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)


@pytest.fixture(scope="module", autouse=True)
def fuse_for_all(tmp_path_factory):
    """Distributions let everybody open /dev/fuse. Where it is not so, it is so in a mount namespace of these tests."""
    if os.stat("/dev/fuse").st_mode & 0o006 == 0o006:
        yield
        return
    device = tmp_path_factory.mktemp("dev") / "fuse"
    os.mknod(device, 0o020666, os.makedev(10, 229))
    device.chmod(0o666)
    cwd = os.getcwd()
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    libc("unshare", CLONE_NEWNS)
    try:
        libc("mount", None, b"/", None, MS_REC | MS_SLAVE, None)
        libc("mount", os.fsencode(device), b"/dev/fuse", None, MS_BIND, None)
        yield
    finally:
        libc("setns", home, CLONE_NEWNS)
        os.chdir(cwd)
        os.close(home)


class User(Ckrfs):
    """As UID, with nothing but HOME and XDG_RUNTIME_DIR."""

    def __init__(self):
        super().__init__()
        self.home = self.dir / "home"
        self.config_dir = self.home / ".config" / "ckrfs"
        self.config_dir.mkdir(parents=True)
        self.xdg = self.dir / "xdg"
        self.xdg.mkdir(mode=0o700)
        self.env.update(HOME=str(self.home), XDG_RUNTIME_DIR=str(self.xdg))
        del self.env["CKRFS_RUNTIME_DIR"]
        self.env.pop("XDG_CONFIG_HOME", None)
        self.limit = None

    def own(self):
        for where, dirs, files in os.walk(self.dir):
            for name in [".", *dirs, *files]:
                os.chown(os.path.join(where, name), UID, UID, follow_symlinks=False)

    def argv(self, command, *args):
        return [str(BINARY), command, *[str(a) for a in args]]

    def run(self, command, *args, **kw):
        kw.setdefault("user", UID)
        kw.setdefault("group", UID)
        kw.setdefault("extra_groups", [])
        if self.limit:
            kw["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (self.limit, self.limit))
        return super().run(command, *args, **kw)

    def leftovers(self):
        left = super().leftovers()
        for where, _, files in os.walk(self.xdg / "ckrfs"):
            left += [f"in the runtime directory: {where}/{name}" for name in files]
        return left


@pytest.fixture(params=["gocryptfs", "plain"])
def user(request):
    u = User()
    options = {"target": u.mnt}
    if request.param == "gocryptfs":
        u.backing = u.volume("own", **options).cipher
    else:
        u.backing = u.plain("own", **options)
    u.format = request.param
    # Not where --config would say, but where it is looked for.
    shutil.move(u.conf, u.config_dir / "ckrfs.conf")
    u.own()
    yield u
    problems = u.close()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@contextlib.contextmanager
def mounted(u):
    u.run("mount", "own", status=DONE)
    try:
        u.remember(u.mnt)
        yield u.mnt
    finally:
        wait_until("unmounting", lambda: u.run("umount", "own").returncode == DONE)


def test_own_volume(user):
    with mounted(user) as at:
        def use():
            (at / "f").write_text("mine")
            assert (at / "f").read_text() == "mine"
            assert os.stat(at / "f").st_uid == UID
            (at / "f").rename(at / "g")
            (at / "g").unlink()
        as_user(use)
        assert (user.xdg / "ckrfs" / "mounts" / "own" / "control").is_socket()
        state = user.state()
        assert set(state["missing"]) >= MISSING and not set(state["missing"]) & set(state["protections"])
        assert state["owner"] == UID
        shown = user.run("status", "own", status=DONE).stdout
        line = next(x for x in shown.splitlines() if x.startswith("missing:"))
        assert line.split()[1:] == state["missing"]
    assert mounts_under(user.dir) == []


def test_ephemeral(user):
    """In a directory for everybody, too; and without any capability directories that nobody may enter are removed."""
    pool = user.dir / "pool"
    pool.mkdir()
    pool.chmod(0o1777)
    strange = pool / ("ckrfs-ephemeral-" + "0" * 16)
    strange.mkdir(mode=0o700)  # root's
    for _ in range(2):
        user.run("mount", pool, user.mnt, "-o", "ephemeral", status=DONE)
        user.remember(user.mnt)

        def use():
            assert os.listdir(user.mnt) == []
            (user.mnt / "f").write_text("mine")
            (user.mnt / "d" / "e").mkdir(parents=True)
            (user.mnt / "d" / "e").chmod(0)
            (user.mnt / "d").chmod(0)
        as_user(use)
        mine = next(p for p in pool.iterdir() if p != strange)
        assert os.stat(mine).st_uid == os.stat(mine / "volume").st_uid == UID
        user.umount(user.mnt)
        assert list(pool.iterdir()) == [strange]


def test_own_conf_d(user):
    (user.config_dir / "conf.d").mkdir()
    shutil.move(user.config_dir / "ckrfs.conf", user.config_dir / "conf.d" / "one.conf")
    user.own()
    done = user.run("config", "--check", status=DONE)
    assert done.stdout == f"{user.config_dir}/ckrfs.conf: 1 volume, no errors\n"
    with mounted(user):
        pass


def test_configuration_of_others_is_refused(user):
    os.chown(user.config_dir / "ckrfs.conf", UID + 1, UID + 1)
    (user.config_dir / "ckrfs.conf").chmod(0o644)
    done = user.run("mount", "own", status=14)
    assert f"ckrfs.conf belongs to uid {UID + 1}" in done.stderr


def test_config_home(user):
    moved = user.dir / "elsewhere"
    shutil.move(user.home / ".config", moved)
    user.env["XDG_CONFIG_HOME"] = str(moved)
    assert "own" in user.run("config", "--list", status=DONE).stdout


FILES, FDS = {"gocryptfs": 5000, "plain": 1000}, 256


def fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_more_files_than_fds(user):
    """Each is looked up, then all are used: with one fd an inode, as it was, number 256 would fail."""
    user.limit = FDS
    each = FILES[user.format] // 50

    def use(at):
        for d in range(50):
            (at / f"d{d}").mkdir()
            for f in range(each):
                (at / f"d{d}" / f"f{f}").write_text(f"{d}/{f}")
        paths = [at / f"d{d}" / f"f{f}" for d in range(50) for f in range(each)]
        for p in paths:
            assert p.stat().st_size > 0
        for d in range(50):
            (at / f"d{d}").rename(at / f"e{d}")
        for d in range(50):
            for f in range(each):
                p = at / f"e{d}" / f"f{f}"
                assert p.read_text() == f"{d}/{f}"
                p.rename(at / f"e{(d + 1) % 50}" / f"g{f}")
        held = open(at / "e1" / "g0", "r+")
        for d in range(50):
            for f in range(each):
                p = at / f"e{d}" / f"g{f}"
                p.chmod(0o640)
                os.utime(p, (1, 1))
                p.unlink()
            (at / f"e{d}").rmdir()
        assert held.read() == "0/0"
        held.write("more")
        held.flush()
        os.fchmod(held.fileno(), 0o600)
        assert os.fstat(held.fileno()).st_nlink == 0
        held.close()
        assert os.listdir(at) == []

    with mounted(user) as at:
        as_user(lambda: use(at))
        assert fds(user.state()["server_pid"]) < FDS // 2


def test_replaced_while_open(user):
    def use(at):
        (at / "old").write_text("old")
        (at / "new").write_text("new")
        with open(at / "old") as held:
            os.rename(at / "new", at / "old")
            assert held.read() == "old"
            assert os.fstat(held.fileno()).st_size == 3
            assert (at / "old").read_text() == "new"

    with mounted(user) as at:
        as_user(lambda: use(at))


def test_file_without_a_name(user):
    """It has no place where it could be found again, until it gets a name."""
    def use(at):
        fd = os.open(at, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(fd, b"text")
        os.fchmod(fd, 0o640)
        assert Path(f"/proc/self/fd/{fd}").read_bytes() == b"text"
        libc("linkat", -100, f"/proc/self/fd/{fd}".encode(), -100, os.fsencode(at / "named"), AT_SYMLINK_FOLLOW)
        os.close(fd)
        assert (at / "named").read_bytes() == b"text"
        assert (at / "named").stat().st_mode == 0o100640

    with mounted(user) as at:
        as_user(lambda: use(at))
    with mounted(user) as at:
        as_user(lambda: (at / "named").read_bytes() == b"text" or 1 / 0)


# ---- as root of a user namespace

SCRIPT = r"""
exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps -all unshare -Urm sh -e <<'END'
{ckrfs} mount own
echo content > {at}/f
mkdir {at}/d
mv {at}/f {at}/d/g
test "$(cat {at}/d/g)" = content
test "$(stat -c %u {at}/d/g)" = 0
{ckrfs} status --json own
{ckrfs} umount own
END
"""


def test_in_a_user_namespace(user):
    """mount(2) works there; the runtime directory and the configuration are still the user's."""
    script = SCRIPT.format(uid=UID, ckrfs=BINARY, at=user.mnt)
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, env=user.env,
                          timeout=60)
    user.transcript.append(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    state = json.loads(done.stdout)["mounts"][0]
    assert state["state"] == "unlocked" and state["target"] == str(user.mnt)
    assert {"empty-root", "capabilities"} <= set(state["protections"])
    assert (user.xdg / "ckrfs" / "mounts").is_dir()
    assert any(p.stat().st_uid == UID for p in user.backing.iterdir() if p.is_dir())
