# SPDX-License-Identifier: MIT
"""Programs that are hard on file systems, on a volume of each kind: SQLite, git in a container, dpkg in a chroot."""
import contextlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import containers
import pytest
from support import child, run, sanitized
from variants import configure, mounted, tmpfs, variant  # noqa: F401

SLOW = bool(sanitized())


@pytest.fixture
def at(ck, variant):  # noqa: F811
    """A mount of each kind; ck.again() unmounts and mounts it again."""
    with tmpfs(ck.dir / "lower") as lower:
        volume = configure(ck, variant, lower, suid="yes", dev="yes")
        with contextlib.ExitStack() as stack:
            ck.target = stack.enter_context(mounted(ck, variant))

            def again():
                stack.pop_all().close()
                return stack.enter_context(mounted(ck, variant))
            ck.again = again
            yield ck.target
        if volume:
            volume.fsck()


# ---- SQLite

WRITER = """
import sqlite3, sys
path, name, mode, rows = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
c = sqlite3.connect(path, timeout=300, isolation_level=None)
c.execute('pragma journal_mode=' + mode)
c.execute('pragma synchronous=normal')
for i in range(rows):
    c.execute('begin immediate')
    c.execute('insert into t values (?, ?, ?)', (name, i, name * 200))
    c.execute('update sums set n = n + 1 where name = ?', (name,))
    c.execute('commit')
    if rows > 1000000 or i == rows - 1:
        print(i, flush=True)
"""


def database(at, mode, names):
    path = at / f"{mode}.db"
    script = f"pragma journal_mode={mode}; create table t (name, i, data); create index ti on t (name, i); create table sums (name, n);"
    run("sqlite3", path, script + "".join(f"insert into sums values ('{n}', 0);" for n in names))
    return path


def asked(path, question):
    return run("sqlite3", path, question).stdout.decode().split()


def check_database(path, names):
    assert asked(path, "pragma integrity_check") == ["ok"]
    for n in names:
        count = f"select count(*) from t where name = '{n}'"
        assert asked(path, count) == asked(path, f"select n from sums where name = '{n}'"), "a transaction is whole or is not"
        assert asked(path, count) == asked(path, f"select coalesce(max(i) + 1, 0) from t where name = '{n}'")


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_sqlite_of_several_processes(ck, at, mode):
    names, rows = ["a", "b", "c"], 10 if SLOW else 60
    path = database(at, mode, names)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(child([sys.executable, "-c", WRITER, path, n, mode, str(rows)], stdout=subprocess.DEVNULL)) for n in names]
        assert [w.wait(timeout=300) for w in writers] == [0] * len(names)
    check_database(path, names)
    assert asked(path, "select n from sums") == [str(rows)] * len(names)
    path = ck.again() / path.name
    check_database(path, names)
    run("sqlite3", path, "delete from t where i % 2; vacuum;")
    assert asked(path, "pragma integrity_check") == ["ok"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_sqlite_writer_is_killed(ck, at, mode):
    """kill -9 in the middle of transactions: what was committed is there, nothing is by halves."""
    path = database(at, mode, ["a", "b"])
    for turn in range(3):
        with contextlib.ExitStack() as stack:
            run("sqlite3", path, "delete from t; update sums set n = 0;")
            writers = [stack.enter_context(child([sys.executable, "-c", WRITER, path, n, mode, "100000000"], stdout=subprocess.PIPE)) for n in "ab"]
            told = -1
            while told < 5 + 7 * turn:
                told = int(writers[0].stdout.readline())
            for w in writers:
                w.send_signal(signal.SIGKILL)
                w.wait()
        check_database(path, ["a", "b"])
        assert int(asked(path, "select n from sums where name = 'a'")[0]) > told
    check_database(ck.again() / path.name, ["a", "b"])


# ---- git

GIT = """set -e
export HOME=/vol/home PATH=/bin:/usr/bin GIT_CONFIG_NOSYSTEM=1 GIT_EXEC_PATH=/usr/lib/git-core
mkdir -p $HOME
git config --global user.name x; git config --global user.email x@y; git config --global safe.directory '*'
git config --global init.defaultBranch main; git config --global gc.auto 0
cd /vol; git init -q one; cd one
for i in $(seq COMMITS); do
	mkdir -p d$((i % 5))
	seq $i $((i * 37)) >d$((i % 5))/f$i
	seq 1 $i >changes
	chmod +x d$((i % 5))/f$i
	ln -sf f$i d$((i % 5))/last
	git add -A
	git commit -q -m "commit $i"
done
git branch side HEAD~3
git worktree add -q ../tree side
cd ../tree; echo more >more; git add more; git commit -q -m side; cd ../one
git merge -q -m merge side
git clone -q /vol/one /vol/two
git clone -q --no-hardlinks /vol/one /vol/three
git tag -a -m tag v1; git rm -q -r d1; git commit -q -m removed; git reset -q --hard HEAD~1; git reflog expire --expire=now --all
git gc -q --aggressive --prune=now
for n in one two three; do
	git -C /vol/$n fsck --full --strict
	test -z "$(git -C /vol/$n status --porcelain)"
done
git worktree remove ../tree; git worktree prune
git -C /vol/two pull -q /vol/one main
test "$(git -C /vol/one rev-parse HEAD)" = "$(git -C /vol/two rev-parse HEAD)"
git -C /vol/two repack -q -a -d; git -C /vol/two fsck --full
echo all is well
"""


def test_git_in_a_container(ck, at):
    runtime = containers.Bubblewrap(ck.dir) if SLOW else containers.runtime("crun", ck.dir)
    containers.add_program(runtime.root, "/usr/bin/git")
    core = runtime.root / "usr/lib/git-core"
    core.mkdir(parents=True)
    for name in os.listdir("/usr/lib/git-core"):
        if os.path.realpath(f"/usr/lib/git-core/{name}") in ("/usr/bin/git", "/usr/lib/git-core/git"):
            os.symlink("/usr/bin/git", core / name)
    (runtime.root / "usr/share").mkdir()
    run("cp", "-r", "/usr/share/git-core", runtime.root / "usr/share")
    seen = containers.run_in(runtime, at, GIT.replace("COMMITS", "6" if SLOW else "25"))
    assert seen.splitlines()[-1] == "all is well", seen
    mnt = ck.again()
    for name in ("one", "two", "three"):
        run("git", "-c", "safe.directory=*", "-C", mnt / name, "fsck", "--full")
        assert run("git", "-c", "safe.directory=*", "-C", mnt / name, "status", "--porcelain").stdout == b""


# ---- dpkg

def package(where, name, version, files, conffiles=(), scripts=(), fields=""):
    """A .deb made of files: path -> function of the path that makes it."""
    top = where / f"{name}-{version}"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "DEBIAN" / "control").write_text(f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@y>\n{fields}Description: x\n")
    if conffiles:
        (top / "DEBIAN" / "conffiles").write_text("".join(f"/{c}\n" for c in conffiles))
    for script, text in dict(scripts).items():
        (top / "DEBIAN" / script).write_text("#!/bin/sh\nset -e\n" + text)
        (top / "DEBIAN" / script).chmod(0o755)
    for path, make in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        make(top / path)
    run("dpkg-deb", "--build", "-Znone", top, where / f"{name}_{version}.deb")


def text(content, mode=0o644, owner=0):
    def make(path):
        path.write_text(content)
        os.chown(path, owner, owner)
        path.chmod(mode)
    return make


def link_to(target):
    return lambda path: os.symlink(target, path)


def hard_link_to(name):
    return lambda path: os.link(path.parent / name, path)


def packages(where):
    """Two versions of a package with all kinds of files, one whose program another one diverts, and one that depends."""
    for version in ("1", "2"):
        package(where, "tool", version, {
            "usr/bin/tool": text(f"#!/bin/sh\necho tool {version}\n", 0o4755), "usr/bin/group": text("x", 0o2755, 7),
            "usr/bin/twin": hard_link_to("tool"), "usr/bin/alias": link_to("tool"), "usr/share/tool/data": text(version * 100000),
            "usr/share/tool/" + "n" * 200: text("long"), f"usr/share/tool/only{version}": text(version), "etc/tool.conf": text(f"setting = {version}\n"),
            "etc/tool.d/kept.conf": text(f"kept = {version}\n"), "var/lib/tool/state": text("", 0o600, 1000)},
            ["etc/tool.conf", "etc/tool.d/kept.conf"],
            {"postinst": "echo configured >>/var/lib/tool/state; chown 1000:7 /usr/share/tool/data\n",
             "postrm": 'if [ "$1" = purge ]; then rm -rf /var/lib/tool; fi\n'})
    package(where, "other", "1", {"usr/bin/other": text("#!/bin/sh\necho other\n", 0o755), "usr/share/empty/x/y/z": text("")})
    package(where, "diverter", "1", {"usr/bin/other": text("#!/bin/sh\necho diverted\n", 0o755)}, fields="Depends: tool, other\n", scripts={
        "preinst": "dpkg-divert --package diverter --add --rename --divert /usr/bin/other.real /usr/bin/other\n",
        "postrm": 'if [ "$1" = remove ]; then dpkg-divert --package diverter --remove --rename /usr/bin/other; fi\n'})


DPKG = [["-i", "tool_1.deb", "other_1.deb"], ["-i", "diverter_1.deb"], "echo changed >>/etc/tool.conf; rm /etc/tool.d/kept.conf",
        ["-i", "--force-confold", "tool_2.deb"], ["-V"], ["-r", "diverter"], ["-i", "--force-confmiss", "--force-confnew", "tool_2.deb"],
        ["-r", "tool"], ["-P", "tool"], ["-P", "other", "diverter"]]


def chroot(root, where):
    """A busybox root file system with dpkg in it and the packages at /debs."""
    containers.make_rootfs(root)
    for program in ("dpkg", "dpkg-deb", "dpkg-divert", "dpkg-split", "tar", "diff", "rm"):
        path = "/usr/bin/" + program if os.path.exists("/usr/bin/" + program) else "/bin/" + program
        (root / path.lstrip("/")).unlink(missing_ok=True)
        containers.add_program(root, path)
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "debs", "etc/dpkg", "usr/share/dpkg", "sbin", "usr/sbin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("ldconfig", "start-stop-daemon"):
        (root / "usr/sbin" / name).symlink_to("/bin/true")
    (root / "var/lib/dpkg/status").touch()
    run("cp", "-r", "/usr/share/dpkg/.", root / "usr/share/dpkg")
    for deb in where.glob("*.deb"):
        (root / "debs" / deb.name).write_bytes(deb.read_bytes())


def picture(root):
    """What is where, without times and without what differs by itself."""
    seen = {}
    for path in sorted(Path(root).rglob("*")):
        st, name = path.lstat(), str(path.relative_to(root))
        content = None
        if stat.S_ISREG(st.st_mode) and not name.startswith("var/log"):
            content = path.read_bytes()
        elif stat.S_ISLNK(st.st_mode):
            content = os.readlink(path)
        nlink = st.st_nlink if stat.S_ISREG(st.st_mode) else 0
        seen[name] = oct(st.st_mode), st.st_uid, st.st_gid, nlink, hash(content), [(a, os.getxattr(path, a)) for a in os.listxattr(path, follow_symlinks=False)]
    return seen


def install_all(root, where):
    """What dpkg said and left after each step."""
    chroot(root, where)
    seen = []
    for step in DPKG:
        argv = ["/bin/sh", "-c", step] if isinstance(step, str) else \
            ["dpkg", *(f"/debs/{a}" if a.endswith(".deb") else a for a in step)]
        done = run("chroot", root, *argv, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
                   stdin=subprocess.DEVNULL)
        seen.append((step, done.returncode, done.stdout, done.stderr, picture(root)))
    return seen


def test_dpkg_in_a_chroot(ck, at):
    """Each step of installing, changing, upgrading, diverting, removing and purging leaves what it leaves elsewhere."""
    where = ck.dir / "packages"
    where.mkdir()
    packages(where)
    with tmpfs(ck.dir / "native") as native:
        (native / "root").mkdir()
        wanted = install_all(native / "root", where)
    (at / "root").mkdir()
    got = install_all(at / "root", where)
    for (step, status, out, err, files), (_, status_here, out_here, err_here, files_here) in zip(wanted, got):
        assert status == 0 or step == ["-V"], (step, err)
        assert (status_here, out_here, err_here) == (status, out, err), step
        assert files_here == files, step
    assert wanted[3][4]["usr/bin/tool"][0] == "0o104755" and wanted[3][4]["usr/bin/twin"][3] == 2
    assert "usr/bin/other.real" in wanted[1][4] and "usr/bin/tool" not in wanted[-1][4]
