# SPDX-License-Identifier: MIT
"""The Debian package: built twice to the same bytes, without errors of lintian; installed, upgraded and removed in an overlay
over this machine's root, where a mount goes on through all of it. And `meson dist`.

Run by `scripts/test package`, as root. CKRFS_PACKAGE_DIR keeps what is built.
"""
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent.parent
# What a build takes besides the section [build]: it is on every machine that builds packages, or for the unit tests.
EVERYWHERE = {"gcc", "libc6-dev", "linux-libc-dev"}
FOR_PACKAGES = {"debhelper-compat", "libcmocka-dev"}


def run(*argv, **kw):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=600, **kw)
    assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def copy_source(to):
    """The files of the tree as they are, without what builds have left."""
    shutil.copytree(REPO, to, ignore=lambda d, names: [
        n for n in names if n in (".git", "__pycache__") or (Path(d) == REPO and n.startswith("build"))])
    return to


@pytest.fixture(scope="session")
def room():
    kept = os.environ.get("CKRFS_PACKAGE_DIR")
    base = Path(kept or tempfile.mkdtemp(prefix="ckrfs-package-"))
    base.mkdir(exist_ok=True)
    yield base
    if not kept:
        shutil.rmtree(base)


@pytest.fixture(scope="session")
def debs(room):
    """-> [directory of each build]; their paths, times and process ids differ."""
    env = dict(os.environ, DEB_BUILD_OPTIONS="nocheck parallel=2", LC_ALL="C.UTF-8")
    found = []
    for name in ("one", "another-place"):
        shutil.rmtree(room / name, ignore_errors=True)
        tree = copy_source(room / name / "ckrfs")
        run("dpkg-buildpackage", "-us", "-uc", "-b", cwd=tree, env=env)
        shutil.rmtree(tree)
        found.append(room / name)
    return found


def wait_for_end(pid):
    """umount(8) does not wait for the keeper, and without the package nobody is there who would."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"the keeper, {pid}, does not end")


def only(directory, pattern):
    [path] = directory.glob(pattern)
    return path


def test_needs_what_the_list_says():
    """debian/control and scripts/packages.txt cannot drift apart."""
    listed = re.search(r"(?m)^\[build\]\n(.*?)^\[", (REPO / "scripts" / "packages.txt").read_text(), re.S)[1]
    wanted = {line.split()[0] for line in listed.splitlines() if line.strip()} - EVERYWHERE
    field = re.search(r"(?m)^Build-Depends:\n((?: .*\n)+)", (REPO / "debian" / "control").read_text())[1]
    stated = {re.match(r"[a-z0-9.+-]+", word.strip())[0] for word in field.split(",") if word.strip()} - FOR_PACKAGES
    assert stated == wanted


def test_version_is_that_of_meson():
    version = re.search(r"version: '([^']+)'", (REPO / "meson.build").read_text())[1]
    assert (REPO / "debian" / "changelog").read_text().startswith(f"ckrfs ({version})")


def test_two_builds_are_the_same(debs):
    names = [sorted(p.name for p in d.glob("*.deb")) for d in debs]
    assert names[0] == names[1] and len(names[0]) >= 1
    for name in names[0]:
        assert (debs[0] / name).read_bytes() == (debs[1] / name).read_bytes(), f"{name} is not reproducible"


def test_lintian_finds_no_errors(debs):
    run("lintian", "--fail-on", "error", "--suppress-tags", "bogus-mail-host", only(debs[0], "ckrfs_*.changes"))


def test_nothing_is_started_or_stopped(debs):
    """The scripts of the package touch no unit: units of mounts are somebody's mounts."""
    scripts = debs[0] / "scripts"
    run("dpkg-deb", "-e", only(debs[0], "ckrfs_*.deb"), scripts)
    for name in ("preinst", "postinst", "prerm", "postrm"):
        if (scripts / name).exists():
            assert not re.search(r"systemctl|deb-systemd|invoke-rc\.d|ckrfs u?mount", (scripts / name).read_text())
    assert (scripts / "conffiles").read_text().split() == ["/etc/ckrfs/ckrfs.conf"]


# ---- installed

class Root:
    """An overlay over /, with /dev, /proc and a /run, /tmp of its own; a tmpfs below, so that it works anywhere."""

    def __init__(self, base):
        self.path = base / "root"
        self.env = dict(os.environ, LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive")
        self.env.pop("CKRFS_RUNTIME_DIR", None)
        layers = base / "layers"
        for d in (self.path, layers):
            d.mkdir()
        self.mounted = []
        self.mount("-t", "tmpfs", "ckrfs-package", layers)
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        self.mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work", self.path)
        for kind, where in (("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            self.mount("-t", kind, "ckrfs-package", self.path / where)
        self.mount("--bind", "/dev", self.path / "dev")

    def mount(self, *words):
        run("mount", *words)
        self.mounted.append(words[-1])

    def sh(self, text, check=True):
        done = subprocess.run(["chroot", self.path, "/bin/sh", "-ec", text], capture_output=True, text=True, timeout=120, env=self.env)
        assert not check or done.returncode == 0, f"{text}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if check else done

    def close(self):
        with contextlib.suppress(Exception):
            self.sh("umount -l /tmp/mnt", check=False)
        for where in reversed(self.mounted):
            subprocess.run(["umount", "-l", where], check=False)


@pytest.fixture
def root(debs, tmp_path_factory):
    root = Root(tmp_path_factory.mktemp("overlay"))
    try:
        shutil.copy(only(debs[0], "ckrfs_*.deb"), root.path / "tmp" / "new.deb")
        root.sh("dpkg --purge ckrfs >/dev/null 2>&1 || true; rm -rf /etc/ckrfs")
        yield root
    finally:
        root.close()


def older(root):
    """The same package with a lower version, and another default configuration."""
    root.sh("dpkg-deb -R /tmp/new.deb /tmp/old && sed -i 's/^Version:.*/Version: 0.0.1/' /tmp/old/DEBIAN/control && "
            "echo '# older' >>/tmp/old/etc/ckrfs/ckrfs.conf && rm -f /tmp/old/DEBIAN/md5sums && dpkg-deb -b /tmp/old /tmp/old.deb")


def test_smoke(root):
    root.sh("dpkg -i /tmp/new.deb")
    shutil.copy(REPO / "debian" / "tests" / "smoke", root.path / "tmp" / "smoke")
    assert "smoke: passed" in root.sh("/tmp/smoke")
    for path in ("/usr/share/man/man8/ckrfs.8.gz", "/usr/share/bash-completion/completions/ckrfs", "/etc/ckrfs/conf.d"):
        root.sh(f"test -e {path}")


def test_mounts_and_volumes_outlive_upgrade_and_removal(root):
    older(root)
    root.sh("dpkg -i /tmp/old.deb; mkdir /tmp/cipher /tmp/mnt; head -c 32 /dev/urandom >/tmp/key; chmod 600 /tmp/key; "
            "ckrfs init /tmp/cipher --key 'file:/tmp/key?fmt=raw'; "
            "printf '[volume web]\\nsource = /tmp/cipher\\ntarget = /tmp/mnt\\nkey = file:/tmp/key?fmt=raw\\n' >/etc/ckrfs/conf.d/web.conf; "
            "echo '# mine' >>/etc/ckrfs/ckrfs.conf; ckrfs mount web; echo before >/tmp/mnt/f")
    keeper = root.sh("ckrfs status web | sed -n 's/^keeper: *//p'").strip()

    root.sh("dpkg --force-confold -i /tmp/new.deb")
    assert root.sh("dpkg-query -W -f='${Version}' ckrfs") != "0.0.1"
    assert root.sh("tail -n 1 /etc/ckrfs/ckrfs.conf") == "# mine\n", "what the administrator has changed stays"
    assert root.sh("cat /tmp/mnt/f") == "before\n"
    assert root.sh("ckrfs status web | sed -n 's/^keeper: *//p'").strip() == keeper, "the same mount, asked by the new program"
    root.sh("ckrfs lock web && ckrfs unlock web && echo after >>/tmp/mnt/f")

    root.sh("dpkg -r ckrfs; ! command -v ckrfs")
    assert root.sh("cat /tmp/mnt/f") == "before\nafter\n", "a removed package's mounts go on"
    root.sh("echo removed >>/tmp/mnt/f; umount /tmp/mnt; ! test -e /tmp/mnt/f")
    wait_for_end(keeper)
    root.sh("dpkg -P ckrfs; test -e /etc/ckrfs/conf.d/web.conf; test -e /tmp/cipher/gocryptfs.conf")
    root.sh("dpkg -i /tmp/new.deb; ckrfs mount web")
    assert root.sh("cat /tmp/mnt/f") == "before\nafter\nremoved\n"
    root.sh("ckrfs umount web")


# ---- the tarball

def test_meson_dist(room):
    """It has what a build takes, and nothing that is not in the repository."""
    tree = room / "dist"
    shutil.rmtree(tree, ignore_errors=True)
    copy_source(tree)
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", tree)
    run(*git, "init", "-q")
    run(*git, "add", "-A")
    run(*git, "commit", "-qm", "x")
    run("meson", "setup", tree / "build", tree, "-Dtests=false")
    run("meson", "dist", "-C", tree / "build", "--no-tests", "--formats", "gztar")
    names = run("tar", "-tzf", only(tree / "build" / "meson-dist", "*.tar.gz")).split()
    assert only(tree / "build" / "meson-dist", "*.tar.gz").name.startswith("ckrfs-")
    inside = {n.partition("/")[2] for n in names}
    assert {"meson.build", "src/ckrfs.c", "debian/control", "tests/e2e/support.py", "LICENSE"} <= inside
    assert not any(n.startswith("build") or "__pycache__" in n for n in inside)
    shutil.rmtree(tree)
