# SPDX-License-Identifier: MIT
"""lock and unlock: nothing is answered without a key, nothing is lost or left, and open files go on working."""
import contextlib
import ctypes
import errno
import mmap
import os
import signal
import subprocess
import tempfile

import containers
import pytest
from locked import MARK, PAGE, Files, outcome, scan
from support import DONE, PARTLY, UID, UNSUPPORTED, Gocryptfs, child, forms, run, wait_until
from test_mount import in_namespace


# ---- what a process sees

def check(files, uid, refused):
    expected = {name: errno.ENOKEY if refused else 0 for name in files.operations()}
    expected |= {name: -signal.SIGBUS if refused else 0 for name in files.mappings()}
    expected |= {name: 0 for name in files.always()}
    calls = files.operations() | files.mappings() | files.always()
    assert {name: outcome(call, uid) for name, call in calls.items()} == expected


@pytest.fixture
def files(ck):
    """A mount that is to be locked, with open files; all is unmounted after."""
    ck.backing = ck.volume().cipher
    with ck.mounted() as mnt:
        mnt.chmod(0o777)
        opened = Files(mnt)
        yield opened
        opened.close()


@pytest.mark.parametrize("uid", [0, UID], ids=["root", "user"])
def test_every_operation(ck, files, uid):
    check(files, uid, refused=False)
    ck.run("lock", "web", status=DONE)
    check(files, uid, refused=True)
    ck.run("unlock", "web", status=DONE)
    check(files, uid, refused=False)
    assert files.map[:] == files.data[:5 * PAGE]


@pytest.mark.parametrize("options", [{"passthrough": "no"}, {}], ids=["served", "default"])
def test_plain(ck, options):
    """Locked as well, without a key; what is open by kernel passthrough cannot be taken back."""
    ck.plain(**options)
    with ck.mounted("plain") as mnt:
        mnt.chmod(0o777)
        files = Files(mnt)
        if ck.state()["passthrough"] == "active":
            done = ck.run("lock", "plain", status=UNSUPPORTED)
            assert done.stderr == ('ckrfs: cannot lock "plain": files are open by kernel passthrough, and cannot be taken back\n'
                                   "  try: ckrfs mount plain -o passthrough=no\n")
            check(files, 0, refused=False)
        elif options:
            ck.run("lock", "plain", status=DONE)
            check(files, 0, refused=True)
            ck.run("unlock", "plain", status=DONE)
            check(files, 0, refused=False)
        files.close()
        if ck.state()["passthrough"] == "active":  # nothing is open now
            ck.run("lock", "plain", status=DONE)
            assert outcome(lambda: os.stat(mnt / "d"), 0) == errno.ENOKEY
            ck.run("unlock", "plain", status=DONE)
            assert (mnt / "d" / "victim").read_bytes() == b"to be renamed"


def test_not_writeback(ck):
    """Caches that are not trusted are dropped too."""
    ck.volume(writeback="no")
    with ck.mounted() as mnt:
        mnt.chmod(0o777)
        files = Files(mnt)
        ck.run("lock", "web", status=DONE)
        check(files, 0, refused=True)
        ck.run("unlock", "web", status=DONE)
        check(files, 0, refused=False)
        files.close()


def test_report_names_who_holds_files(ck, files):
    done = ck.run("lock", "web", "--report", status=DONE)
    assert f"held by: {os.getpid()} " in done.stdout
    ck.run("unlock", "web", status=DONE)
    assert ck.run("lock", "web", status=DONE).stdout == ""
    ck.run("unlock", "web", status=DONE)


# ---- what was written

@contextlib.contextmanager
def armed(ck, *args):
    """A command that begins when it is called: a fork by then would close its copies of our files, which writes back
    what is dirty. -> (exit status, stderr)"""
    with child(["sh", "-c", 'echo ready && read x && exec "$@"', "sh", *ck.argv(*args)], env=ck.env, stdin=subprocess.PIPE,
               stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        assert p.stdout.readline() == b"ready\n"

        def fire():
            _, text = p.communicate(b"\n", timeout=60)
            return p.returncode, text.decode()
        yield fire


def test_dirty_data_is_on_disk(ck):
    """Written and mapped, never synced: gocryptfs reads it from the locked mount's source."""
    volume = ck.volume()
    with ck.mounted() as mnt, armed(ck, "lock", "web") as lock:
        contents, fds = {}, []
        for i in range(50):
            contents[f"f{i}"] = os.urandom(i * 4000 + 1)
            (mnt / f"f{i}").write_bytes(contents[f"f{i}"])
            fds.append(os.open(mnt / f"f{i}", os.O_RDWR))
            os.pwrite(fds[-1], b"again", i * 1000)
            contents[f"f{i}"] = os.pread(fds[-1], 1 << 20, 0)
        with mmap.mmap(fds[49], 0) as m:
            m[PAGE:PAGE + 5] = b"by it"
            contents["f49"] = m[:]
            times = {name: os.stat(mnt / name).st_mtime_ns for name in contents if name != "f49"}
            assert lock() == (DONE, "")
            with volume.mounted(ck.dir / "peer", read_only=True) as peer:
                assert {name: (peer / name).read_bytes() for name in contents} == contents
                assert {name: os.stat(peer / name).st_mtime_ns for name in times} == times
            ck.run("unlock", "web", status=DONE)
            assert m[PAGE:PAGE + 5] == b"by it"
            m[PAGE:PAGE + 5] = b"after"
        for i, fd in enumerate(fds):
            os.pwrite(fd, b"unlocked", 0)
            os.close(fd)
    volume.fsck()
    with ck.mounted() as mnt:
        assert (mnt / "f49").read_bytes()[PAGE:PAGE + 5] == b"after"
        assert all((mnt / name).read_bytes()[:8] == b"unlocked" for name in contents)


@pytest.fixture
def memory():
    """A directory in memory: 10,000 files are not made on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ckrfs-e2e-") as at:
        yield at


def test_many_cached_files(ck, memory):
    """10,000 that the kernel knows; made below the mount, where that is quick."""
    volume = Gocryptfs(memory).init("-plaintextnames")
    ck.volume(cipher=memory, init=False)
    for d in range(10):
        (volume.cipher / str(d)).mkdir()
        for i in range(1000):
            os.close(os.open(volume.cipher / str(d) / str(i), os.O_CREAT | os.O_WRONLY))
    with ck.mounted() as mnt:
        paths = [f"{mnt}/{d}/{i}" for d in range(10) for i in range(1000)]
        assert all(os.stat(p).st_size == 0 for p in paths)
        for p in paths[::100]:
            with open(p, "w") as f:
                f.write(p)
        ck.run("lock", "web", status=DONE)

        def refused():
            for p in paths:
                try:
                    os.stat(p)
                except OSError as e:
                    assert e.errno == errno.ENOKEY
                else:
                    raise AssertionError(p)

        assert outcome(refused, 0) == 0
        ck.run("unlock", "web", status=DONE)
        assert [os.stat(p).st_size for p in paths] == [len(p) if i % 100 == 0 else 0 for i, p in enumerate(paths)]
        assert all(open(p).read() == p for p in paths[::100])


WRITER = """
import os, sys
path, size = sys.argv[1], int(sys.argv[2])
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
block, taken = bytes(range(256)) * (size // 256), 0
print("ready", flush=True)
try:
    while True:
        taken += os.write(fd, block)
except OSError as e:
    print(e.errno, taken, flush=True)
sys.stdin.readline()
try:
    print(os.write(fd, b"end"), os.fsync(fd), flush=True)
except OSError as e:
    print("after unlock:", e, flush=True)
"""


def workers(stack, program, argvs):
    started = [stack.enter_context(child(["/usr/bin/python3", "-c", program, *map(str, argv)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)) for argv in argvs]
    for p in started:
        assert p.stdout.readline() == b"ready\n"
    return started


@pytest.mark.parametrize("how", [["--timeout", "30s"], ["--timeout", "1ms"], ["--wait"]], ids=" ".join)
def test_under_write_load(ck, how):
    """Whatever write(2) has taken is there after unlock, unless the lock says that something was lost."""
    volume = ck.volume()
    with ck.mounted() as mnt, contextlib.ExitStack() as stack:
        argvs = [(mnt / f"w{i}", size) for i, size in enumerate([256, 4096, 65536, 1 << 20])]
        writers = workers(stack, WRITER, argvs)
        wait_until("some load", lambda: all(os.stat(path).st_size > 1 << 20 for path, _ in argvs))
        done = ck.run("lock", "web", *how)
        status = done.returncode
        assert "as the time was over" not in done.stderr or how != ["--wait"], done.stderr
        assert status == DONE or (status == PARTLY and " that could not be stored" in done.stderr)
        taken = []
        for p in writers:
            error, n = map(int, p.stdout.readline().split())
            assert error == errno.ENOKEY
            taken.append(n)
        ck.run("unlock", "web", status=DONE)
        for p in writers:
            p.stdin.write(b"\n")
            p.stdin.flush()
            answer = p.stdout.readline()
            assert answer == b"3 None\n" or status == PARTLY, answer
        for (path, _), n in zip(argvs, taken):
            if status == DONE:
                data = path.read_bytes()
                assert len(data) == n + 3 and data[:n] == bytes(range(256)) * (n // 256), path
        for p in writers:
            p.stdin.close()
            p.wait(20)
    volume.fsck()


def test_what_cannot_be_stored_is_told(ck):
    """The disk below is full: the lock says so, and locks; with room again the same file is written."""
    small = ck.dir / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small)
    try:
        ck.volume(cipher=small / "cipher")
        with ck.mounted() as mnt, armed(ck, "lock", "web") as lock, open(mnt / "f", "wb", buffering=0) as f:
            f.write(b"x")
            os.fsync(f.fileno())
            with pytest.raises(OSError), open(small / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            os.pwrite(f.fileno(), b"lost", 100 * PAGE)
            assert lock() == (PARTLY, 'ckrfs: "web" is locked; cached writes that could not be stored and are lost: 1\n')
            assert ck.state()["state"] == "locked"
            (small / "filler").unlink()
            ck.run("unlock", "web", status=DONE)
            with pytest.raises(OSError):
                os.fsync(f.fileno())
            os.pwrite(f.fileno(), b"kept", 0)
            os.fsync(f.fileno())
            assert (mnt / "f").read_bytes()[:4] == b"kept"
    finally:
        run("umount", small)


RENAMER = """
import os, sys
print("ready", flush=True)
i = 0
try:
    while True:
        os.rename(f"{sys.argv[1]}/{sys.argv[2]}.{i}", f"{sys.argv[1]}/{sys.argv[2]}.{i + 1}")
        i += 1
except OSError as e:
    print(e.errno, i, flush=True)
"""


def test_during_renames(ck):
    volume = ck.volume()
    with ck.mounted() as mnt, contextlib.ExitStack() as stack:
        for i in range(4):
            (mnt / f"{i}.0").write_bytes(b"%d" % i)
        renamers = workers(stack, RENAMER, [(mnt, i) for i in range(4)])
        wait_until("some renames", lambda: not any((mnt / f"{i}.0").exists() for i in range(4)))
        ck.run("lock", "web", status=DONE)
        names = []
        for i, p in enumerate(renamers):
            error, n = map(int, p.stdout.readline().split())
            assert error == errno.ENOKEY
            names.append(f"{i}.{n}")
            p.wait(20)
        ck.run("unlock", "web", status=DONE)
        assert sorted(os.listdir(mnt)) == sorted(names)
        assert [(mnt / name).read_bytes() for name in names] == [b"%d" % i for i in range(4)]
    volume.fsck()


def test_container_goes_on(ck):
    """A shell in a container with an open file and its directory there: nothing of it has to begin anew."""
    volume = ck.volume()
    with ck.mounted() as mnt:
        (mnt / "d").mkdir()
        argv = containers.runtime("crun", ck.dir).argv(
            mnt, 'cd /vol/d; exec 3>>f; while read c; do eval "$c" 2>&1; echo "status $?"; done')
        with child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
            def tell(command):
                container.stdin.write(command.encode() + b"\n")
                container.stdin.flush()
                lines = []
                while not lines or not lines[-1].startswith("status "):
                    lines.append(container.stdout.readline().decode().rstrip())
                    assert lines[-1], "it lives"
                return lines

            assert tell("echo before >&3") == ["status 0"]
            ck.run("lock", "web", status=DONE)
            assert tell("cat f")[-1] == "status 1"
            assert tell("echo refused >&3")[-1] != "status 0"
            ck.run("unlock", "web", status=DONE)
            assert tell("echo after >&3") == ["status 0"]
            assert tell("cat f") == ["before", "after", "status 0"]
            assert tell("cat /vol/d/f") == ["before", "after", "status 0"]
            assert tell("ls .")[:-1] == ["f"]
            container.stdin.close()
            container.wait(20)
    volume.fsck()


def test_unprivileged_user(ck):
    """A mount through fusermount3, whose keeper has no privilege."""
    ck.volume()
    run("chown", "-R", f"{UID}:{UID}", ck.dir)
    done = in_namespace(ck, rf"""
echo "ckrfstest:x:{UID}:{UID}::/:/bin/sh" >> /etc/passwd
mknod $1/fuse c 10 229; chmod 666 $1/fuse; mount --bind $1/fuse /dev/fuse
asuser() {{ setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps -all "$@"; }}
asuser $2 mount --config $1/ckrfs.conf web $1/mnt
asuser sh -c "echo mine > $1/mnt/f"
asuser $2 lock web
asuser $2 status web --json
asuser cat $1/mnt/f 2>&1 || echo refused
asuser $2 unlock web
asuser cat $1/mnt/f
asuser $2 umount $1/mnt
rm $1/fuse
""").stdout.decode()
    assert '"state":"locked"' in done.replace(" ", "")
    assert "Required key not available\nrefused\nmine\n" in done


# ---- nothing is left

def resident(mapped, size):
    libc = ctypes.CDLL(None, use_errno=True)
    pages = (ctypes.c_ubyte * (size // PAGE))()
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
    return sum(p & 1 for p in pages)


def test_page_cache_is_empty(ck, files):
    assert resident(files.map, 5 * PAGE) == 5
    ck.run("lock", "web", status=DONE)
    assert resident(files.map, 5 * PAGE) == 0
    ck.run("unlock", "web", status=DONE)


def test_memory_is_clean(ck):
    """No plaintext, name or key in the server and the keeper; before the lock there is."""
    volume = ck.volume()
    master = volume.master_key()
    name = "a name that is hunted too, in memory"
    with ck.mounted() as mnt:
        (mnt / name).write_bytes(MARK * 40000)
        os.setxattr(mnt / name, "user.x", MARK)
        os.symlink(MARK, mnt / "link")
        ck.run("lock", "web", status=DONE)
        ck.run("unlock", "web", status=DONE)
        assert (mnt / name).read_bytes() == MARK * 40000
        assert os.readlink(mnt / "link").encode() == MARK
        assert name in os.listdir(mnt)
        pids = [ck.state()["server_pid"], ck.state()["keeper_pid"]]
        assert scan(ck, [MARK], pids)
        ck.run("lock", "web", status=DONE)
        assert scan(ck, [MARK, name.encode(), *sorted(forms(master))], pids) == []
        ck.run("unlock", "web", status=DONE)
        assert os.getxattr(mnt / name, "user.x") == MARK


def test_memory_is_clean_of_what_was_refused(ck):
    """Data that programs go on sending while it is locked, past the page cache too."""
    ck.volume()
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"here")
        fd = os.open(mnt / "f", os.O_RDWR | os.O_DIRECT)
        ck.run("lock", "web", status=DONE)
        with mmap.mmap(-1, 64 * PAGE) as data:
            data.write(MARK * (64 * PAGE // len(MARK)))
            assert outcome(lambda: os.pwrite(fd, data, 0), 0) == errno.ENOKEY
        for call in (lambda: os.setxattr(fd, "user.x", MARK), lambda: os.symlink(MARK, mnt / "link"), lambda: os.stat(mnt / MARK.hex())):
            assert outcome(call, 0) == errno.ENOKEY
        state = ck.state()
        assert scan(ck, [MARK, MARK.hex().encode()], [state["server_pid"], state["keeper_pid"]]) == []
        ck.run("unlock", "web", status=DONE)
        assert (mnt / "f").read_bytes() == b"here"
        os.close(fd)
