# SPDX-License-Identifier: MIT
"""Whose things are: uid-map, gid-map, present-owner, idmapped mounts."""
import contextlib
import ctypes
import json
import os
import stat
import struct
import subprocess

import containers
import pytest
from support import CONFIG, UID, as_user, child, errno_of, kernel_lacks, run

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, AT_EMPTY_PATH, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 0x1000, 4, 0x100000
BASE = 100000


@pytest.fixture(params=["gocryptfs", "plain"])
def volume(request, ck):
    """mount(**options) -> where it is mounted; ck.backing is where its files lie."""
    @contextlib.contextmanager
    def mount(**options):
        if request.param == "gocryptfs":
            ck.backing = ck.volume("vol", init=not (ck.dir / "cipher").exists(), **options).cipher
        else:
            ck.backing = ck.plain("vol", **options)
        ck.backing.chmod(0o777)
        with ck.mounted("vol") as at:
            yield at
    ck.format = request.param
    return mount


def ids(path):
    st = os.lstat(path)
    return st.st_uid, st.st_gid


def lower_ids(ck, of):
    """Ids on the lower of the object that the mount shows as `of`; FUSE shows the lower's inode number."""
    number = os.lstat(of).st_ino
    for where, dirs, files in os.walk(ck.backing):
        for name in dirs + files:
            st = os.lstat(os.path.join(where, name))
            if st.st_ino == number:
                return st.st_uid, st.st_gid
    raise AssertionError(f"{of}: inode {number} is not on the lower")


def make_all(at):
    (at / "file").touch()
    (at / "dir").mkdir()
    (at / "link").symlink_to("file")
    os.mkfifo(at / "fifo")


def test_map_shows_and_creates(ck, volume):
    with volume():
        pass
    os.chown(ck.backing, BASE, BASE)
    with volume(uid_map=f"0:{BASE}:65536", gid_map=f"0:{BASE}:1000, 1000:300000:1000") as at:
        assert ids(at) == (0, 0)
        make_all(at)
        os.mkdir(at / "open", 0o777)
        os.chmod(at / "open", 0o777)
        as_user(lambda: make_all(at / "open"))
        for name in ("file", "dir", "link", "fifo"):
            assert ids(at / name) == (0, 0)
            assert lower_ids(ck, at / name) == (BASE, BASE)
            assert ids(at / "open" / name) == (UID, UID)
            assert lower_ids(ck, at / "open" / name) == (BASE + UID, 300000)
        os.chown(at / "file", 7, 1001, follow_symlinks=False)
        assert ids(at / "file") == (7, 1001) and lower_ids(ck, at / "file") == (BASE + 7, 300001)
        os.chown(at / "file", -1, 5)
        assert lower_ids(ck, at / "file") == (BASE + 7, BASE + 5)
        # What listing returns (readdirplus) is mapped as what looking up returns.
        assert {e.name: e.stat(follow_symlinks=False).st_uid for e in os.scandir(at)} == \
            {"file": 7, "dir": 0, "link": 0, "fifo": 0, "open": 0}


def test_ids_without_a_counterpart(ck, volume):
    """As the kernel does for an idmapped mount; see test_as_the_kernel()."""
    with volume() as at:
        (at / "foreign").write_text("of root on the lower")
        (at / "foreign").chmod(0o644)
    os.chown(ck.backing, BASE, BASE)
    with volume(uid_map=f"0:{BASE}:100", gid_map=f"0:{BASE}:100") as at:
        check_foreign(at)
        assert ids(at / "foreign") == (65534, 65534)
        # The user who has that number by chance owns nothing of it.
        assert as_user_errno(lambda: (at / "foreign").chmod(0o666), 65534) in ("EOVERFLOW", "EPERM")


def as_user_errno(call, uid=UID):
    try:
        as_user(call, uid)
    except AssertionError as e:
        return next((n for n, words in {"EOVERFLOW": "Value too large", "EPERM": "not permitted",
                                        "EACCES": "Permission denied"}.items() if words in str(e)), str(e))
    return None


def check_foreign(at):
    """at holds `foreign` of an owner without counterpart, and belongs to root; UID has no counterpart."""
    st = os.stat(at / "foreign")
    assert (st.st_uid, st.st_gid) == (65534, 65534)
    assert (at / "foreign").read_text() == "of root on the lower"
    assert errno_of(open, at / "foreign", "a") == "EACCES"
    assert errno_of(os.chmod, at / "foreign", 0o600) == "EOVERFLOW"
    assert errno_of(os.chown, at / "foreign", UID, -1) == "EOVERFLOW"
    assert errno_of(os.unlink, at / "foreign") == "EOVERFLOW"
    assert as_user_errno(lambda: (at / "new").touch()) == "EOVERFLOW"
    assert as_user_errno(lambda: (at / "new").mkdir()) == "EOVERFLOW"
    (at / "own").touch()
    assert errno_of(os.chown, at / "own", UID, -1) == "EOVERFLOW"
    assert errno_of(os.chown, at / "own", -1, UID) == "EOVERFLOW"


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def acl_of(user, group, none=0xFFFFFFFF):
    return acl((1, 6, none), (2, 6, user), (4, 4, none), (8, 4, group), (0x10, 6, none), (0x20, 0, none))


@pytest.mark.parametrize("which", ["access", "default"])
def test_acls_are_mapped(ck, volume, which):
    name = f"system.posix_acl_{which}"
    with volume():
        pass
    os.chown(ck.backing, BASE, 200000)
    with volume(uid_map=f"0:{BASE}:65536", gid_map="0:200000:65536") as at:
        (at / "d").mkdir()
        os.setxattr(at / "d", name, acl_of(UID, 77))
        assert os.getxattr(at / "d", name) == acl_of(UID, 77)
        (lower,) = [p for p in ck.backing.iterdir() if p.stat().st_ino == (at / "d").stat().st_ino]
        assert os.getxattr(lower, name) == acl_of(BASE + UID, 200077)
        assert errno_of(os.setxattr, at / "d", name, acl_of(70000, 77)) == "EINVAL"
        assert errno_of(os.setxattr, at / "d", name, acl_of(UID, 70000)) == "EINVAL"
        assert os.getxattr(lower, name) == acl_of(BASE + UID, 200077)
    os.setxattr(lower, name, acl_of(5, 200077))
    with volume(uid_map=f"0:{BASE}:65536", gid_map="0:200000:65536") as at:
        shown = os.getxattr(at / "d", name)
        assert struct.unpack_from("<HHI", shown, 12) == (2, 0, 65534)
        assert struct.unpack_from("<HHI", shown, 28) == (8, 4, 77)


def test_acl_counts_for_the_mapped_user(ck, volume):
    with volume():
        pass
    os.chown(ck.backing, BASE, BASE)
    with volume(uid_map=f"0:{BASE}:65536", gid_map=f"0:{BASE}:65536") as at:
        (at / "f").write_text("for one")
        (at / "f").chmod(0o600)
        assert as_user_errno(lambda: (at / "f").read_text()) == "EACCES"
        os.setxattr(at / "f", "system.posix_acl_access", acl_of(UID, 77))
        as_user(lambda: (at / "f").read_text())


def test_present_owner(ck, volume):
    with volume() as at:
        (at / "old").touch()
        os.chown(at / "old", 1234, 1234)
    with volume(present_owner=f"{UID}:4242") as at:
        assert ids(at) == ids(at / "old") == (UID, 4242)
        as_user(lambda: make_all(at))
        make = {name: (ids(at / name), lower_ids(ck, at / name)) for name in ("file", "dir", "link", "fifo")}
        assert make == dict.fromkeys(make, ((UID, 4242), (0, 0)))
        for owner in ((0, -1), (-1, 0), (1, 1)):
            assert errno_of(os.chown, at / "file", *owner) == "EPERM"
        os.chown(at / "file", UID, 4242)
        assert lower_ids(ck, at / "file") == (0, 0) and lower_ids(ck, at / "old") == (1234, 1234)
        as_user(lambda: (at / "old").chmod(0o600))
        assert stat.S_IMODE((at / "old").stat().st_mode) == 0o600


@pytest.mark.parametrize("options, words", [
    ({"uid_map": "0:1"}, 'uid-map = "0:1": must be ranges INSIDE:LOWER:COUNT of numbers, like 0:100000:65536'),
    ({"gid_map": "0:0:4294967296"}, "must be ranges INSIDE:LOWER:COUNT of numbers"),
    ({"gid_map": "1:0:4294967295"}, "all of them below 4294967295"),
    ({"uid_map": "0:1:10 5:100:1"}, "must be ranges that do not overlap, neither inside nor on the lower"),
    ({"present_owner": "root"}, 'present-owner = "root": must be UID or UID:GID, numbers below 4294967295'),
    ({"present_owner": "0", "uid_map": "0:1:1"}, "exclude each other"),
])
def test_bad_values(ck, options, words):
    ck.plain(**options)
    done = ck.run("mount", "plain", ck.mnt, status=CONFIG)
    assert words in done.stderr


def test_by_option_words(ck):
    """-o carries several ranges, with blanks or commas."""
    ck.plain()
    os.chown(ck.dir / "plain", 5, 6)
    ck.mount("plain", None, "-o", r"uid-map=0:5:1\,10:50:2,gid-map=1:6:1 2:7:1")
    assert ids(ck.mnt) == (0, 1)
    ck.umount()
    shown = ck.run("config", "--show", "plain", status=0).stdout
    assert "uid-map" in shown and "present-owner" in shown


# ---- idmapped by the kernel

class MountAttr(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def call(number, *args):
    done = LIBC.syscall(number, *args)
    if done < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return done


@contextlib.contextmanager
def idmapped(source, target, base=BASE):
    """A clone of the mount at source, on target, where the id n of source's files is base + n."""
    target.mkdir()
    with child(["unshare", "-U", "sleep", "600"], stdin=subprocess.DEVNULL) as sleeper:
        while os.readlink(f"/proc/{sleeper.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
            pass
        for which in ("uid_map", "gid_map"):
            with open(f"/proc/{sleeper.pid}/{which}", "w") as f:
                f.write(f"0 {base} 1000\n")
        ns = os.open(f"/proc/{sleeper.pid}/ns/user", os.O_RDONLY)
    tree = call(SYS_OPEN_TREE, -100, os.fsencode(source), OPEN_TREE_CLONE)
    try:
        attr = MountAttr(attr_set=MOUNT_ATTR_IDMAP, userns_fd=ns)
        call(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attr), ctypes.sizeof(attr))
        call(SYS_MOVE_MOUNT, tree, b"", -100, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)
        os.close(ns)
    try:
        yield target
    finally:
        run("umount", target)


def release():
    return tuple(int(n) for n in os.uname().release.split(".")[:2])


def test_idmapped_mount(ck, volume):
    if release() < (6, 12):
        kernel_lacks("idmapped mounts of FUSE")
    def change_names():
        os.rename(mapped / "file", mapped / "renamed")
        os.link(mapped / "renamed", mapped / "second")
        (mapped / "renamed").write_text("x")
        os.unlink(mapped / "second")

    with volume(idmap="yes") as at, idmapped(at, ck.dir / "mapped") as mapped:
        at.chmod(0o777)
        (at / "old").touch()
        assert ids(at / "old") == (0, 0) and ids(mapped / "old") == (BASE, BASE)
        as_user(lambda: make_all(mapped), BASE + 5)
        for name in ("file", "dir", "link", "fifo"):
            assert ids(mapped / name) == (BASE + 5, BASE + 5)
            assert ids(at / name) == lower_ids(ck, at / name) == (5, 5)
        os.chown(mapped / "file", BASE + 9, BASE + 8)
        assert lower_ids(ck, at / "file") == (9, 8)
        # What creates nothing comes without ids.
        as_user(change_names, BASE + 9)
        assert as_user_errno(lambda: (mapped / "none").touch(), 5) == "EOVERFLOW"
        os.setxattr(mapped / "dir", "system.posix_acl_access", acl_of(BASE + 3, BASE + 4))
        assert os.getxattr(mapped / "dir", "system.posix_acl_access") == acl_of(BASE + 3, BASE + 4)
        assert os.getxattr(at / "dir", "system.posix_acl_access") == acl_of(3, 4)


def test_idmapped_and_mapped(ck, volume):
    if release() < (6, 12):
        kernel_lacks("idmapped mounts of FUSE")
    with volume():
        pass
    os.chown(ck.backing, 500000, 500000)
    with volume(idmap="yes", uid_map="0:500000:1000", gid_map="0:500000:1000") as at, \
            idmapped(at, ck.dir / "mapped") as mapped:
        at.chmod(0o777)
        as_user(lambda: (mapped / "f").touch(), BASE + 5)
        assert ids(mapped / "f") == (BASE + 5, BASE + 5)
        assert ids(at / "f") == (5, 5)
        assert lower_ids(ck, at / "f") == (500005, 500005)


def test_not_idmapped_unless_asked_for(ck, volume):
    with volume() as at, pytest.raises(OSError):
        with idmapped(at, ck.dir / "mapped"):
            pass


def test_as_the_kernel(ck):
    """What test_ids_without_a_counterpart() expects is what the kernel does for other file systems."""
    source = ck.dir / "source"
    source.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", source)
    try:
        (source / "foreign").write_text("of root on the lower")
        (source / "foreign").chmod(0o644)
        os.chown(source / "foreign", 5000, 5000)
        source.chmod(0o777)
        # ids 0 to 999 of it are shown as 0 to 999; 1000 and 5000 have no counterpart
        with idmapped(source, ck.dir / "mapped", 0) as mapped:
            check_foreign(mapped)
    finally:
        run("umount", source)


def test_crun_with_idmap(ck, volume):
    """A container with a user namespace of its own sees the volume's ids as they are: option "idmap" of its mount."""
    if release() < (6, 12):
        kernel_lacks("idmapped mounts of FUSE")

    class Mapped(containers.Oci):
        def argv(self, volume, script, **options):
            argv = super().argv(volume, script, user_namespace=True, **options)
            config = self.dir / f"bundle{self.count}" / "config.json"
            oci = json.loads(config.read_text())
            oci["mounts"][2]["options"].append("idmap")
            config.write_text(json.dumps(oci))
            return argv

    script = "touch /vol/by-root; su app -s /bin/sh -c 'touch /vol/by-app'; cat /proc/self/uid_map; " \
             "stat -c '%n %u' /vol/by-root /vol/by-app /vol/old"
    with volume(idmap="yes") as at:
        at.chmod(0o777)
        (at / "old").touch()
        os.chown(at / "old", 7, 7)
        (ck.dir / "run-crun").mkdir()
        out = containers.run_in(Mapped("crun", ck.dir / "run-crun"), at, script)
        assert out.split()[:3] == ["0", str(containers.BASE_ID), str(containers.IDS)]
        assert out.splitlines()[1:] == ["/vol/by-root 0", f"/vol/by-app {UID}", "/vol/old 7"]
        assert lower_ids(ck, at / "by-root") == (0, 0) and lower_ids(ck, at / "by-app") == (UID, UID)
