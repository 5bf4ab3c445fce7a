# SPDX-License-Identifier: MIT
"""What tests of lock and unlock share: files in use, what processes get of them, and a look into memory."""
import faulthandler
import fcntl
import mmap
import os
import shutil

from support import UID, memscan

PAGE = mmap.PAGESIZE
MARK = b"plaintext that is hunted in memory: 0123456789abcdef"


def outcome(call, uid):
    """Runs call in a child: 0, the errno of its OSError, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        status = 255
        faulthandler.disable()
        try:
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            call()
            status = 0
        except OSError as e:
            status = e.errno
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Files:
    """A directory with files that are open, mapped and cached."""

    def __init__(self, mnt):
        self.at = at = mnt / "d"
        self.mnt = mnt
        at.mkdir()
        self.data = os.urandom(5 * PAGE + 17)
        (at / "f").write_bytes(self.data)
        (at / "victim").write_bytes(b"to be renamed")
        shutil.copy("/bin/true", at / "true")
        os.symlink("f", at / "link")
        os.setxattr(at / "f", "user.name", b"value")
        for path in (at, *at.iterdir()):
            os.chown(path, UID, UID, follow_symlinks=False)
        self.fd = os.open(at / "f", os.O_RDWR)
        self.append = os.open(at / "f", os.O_WRONLY | os.O_APPEND)
        self.other = os.open(at / "copy", os.O_RDWR | os.O_CREAT, 0o666)
        os.fchown(self.other, UID, UID)
        self.dir = os.open(at, os.O_RDONLY | os.O_DIRECTORY)
        self.path = os.open(at / "f", os.O_PATH)
        self.map = mmap.mmap(self.fd, 5 * PAGE)
        assert self.map[:] == self.data[:5 * PAGE]

    def close(self):
        self.map.close()
        for fd in (self.fd, self.append, self.other, self.dir, self.path):
            os.close(fd)

    def made(self, make, remove):
        make()
        remove()

    def fresh_map(self):
        with mmap.mmap(self.fd, PAGE, prot=mmap.PROT_READ) as m:
            assert m[0] == self.data[0]

    def store_map(self):
        self.map[7] = self.data[7]

    def execute(self):
        os.execv(self.at / "true", ["true"])

    def absent(self):
        try:
            os.stat(self.at / "absent")
        except FileNotFoundError:
            return
        raise AssertionError("it is there")

    def operations(self):
        at, fd, dir_fd = self.at, self.fd, self.dir
        f, new = at / "f", at / "new"
        return {
            # by path
            "stat": lambda: os.stat(f),
            "lstat of a link": lambda: os.lstat(at / "link"),
            "stat of a directory": lambda: os.stat(at),
            "stat of a name known to be absent": self.absent,
            "open": lambda: os.open(f, os.O_RDONLY),
            "open to write": lambda: os.open(f, os.O_WRONLY),
            "open O_PATH": lambda: os.open(f, os.O_PATH),
            "open a directory": lambda: os.open(at, os.O_RDONLY | os.O_DIRECTORY),
            "create": lambda: self.made(lambda: os.open(new, os.O_CREAT | os.O_WRONLY), lambda: os.unlink(new)),
            "mkdir": lambda: self.made(lambda: os.mkdir(new), lambda: os.rmdir(new)),
            "mkfifo": lambda: self.made(lambda: os.mkfifo(new), lambda: os.unlink(new)),
            "symlink": lambda: self.made(lambda: os.symlink("f", new), lambda: os.unlink(new)),
            "link": lambda: self.made(lambda: os.link(f, new), lambda: os.unlink(new)),
            "rename": lambda: self.made(lambda: os.rename(at / "victim", new), lambda: os.rename(new, at / "victim")),
            "readlink": lambda: os.readlink(at / "link"),
            "follow a link": lambda: os.stat(at / "link"),
            "truncate": lambda: os.truncate(f, len(self.data)),
            "chmod": lambda: os.chmod(f, 0o644),
            "chown": lambda: os.chown(f, UID, UID),
            "utime": lambda: os.utime(f),
            "chdir": lambda: os.chdir(at),
            "list": lambda: os.listdir(at),
            "list the root": lambda: os.listdir(self.mnt),
            "getxattr": lambda: os.getxattr(f, "user.name"),
            "setxattr": lambda: os.setxattr(f, "user.name", b"value"),
            "listxattr": lambda: os.listxattr(f),
            "removexattr": lambda: self.made(lambda: os.setxattr(f, "user.x", b"1"),
                                             lambda: os.removexattr(f, "user.x")),
            "execute what is cached": self.execute,
            # by what is open
            "read": lambda: os.pread(fd, 10, 0),
            "read the end": lambda: os.pread(fd, 100, 5 * PAGE),
            "write": lambda: os.pwrite(fd, self.data[3:5], 3),
            "write whole pages": lambda: os.pwrite(fd, self.data[:2 * PAGE], 0),
            "append": lambda: os.write(self.append, b"x"),
            "fstat": lambda: os.fstat(fd),
            "fstat of a directory": lambda: os.fstat(dir_fd),
            "fstat of O_PATH": lambda: os.fstat(self.path),
            "ftruncate": lambda: os.ftruncate(fd, len(self.data)),
            "fchmod": lambda: os.fchmod(fd, 0o644),
            "futimens": lambda: os.utime(fd, (1, 1)),
            "fsync": lambda: os.fsync(fd),
            "fdatasync": lambda: os.fdatasync(fd),
            "fsync of a directory": lambda: os.fsync(dir_fd),
            # The kernel moves the time before it asks, and reports by the next fsync that it could not.
            "fallocate": lambda: os.posix_fallocate(self.other, 0, PAGE),
            "seek to data": lambda: os.lseek(fd, 0, os.SEEK_DATA),
            "copy_file_range": lambda: os.copy_file_range(fd, self.other, 100, 0, 0),
            "fgetxattr": lambda: os.getxattr(fd, "user.name"),
            "open anew by /proc/self/fd": lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY),
            "open beneath a directory": lambda: os.open("f", os.O_RDONLY, dir_fd=dir_fd),
            "list an open directory": lambda: os.listdir(dir_fd),
            "fchdir": lambda: os.fchdir(dir_fd),
        }

    def mappings(self):
        return {
            "load": lambda: self.map[3 * PAGE],
            "store": self.store_map,
            "load from a new mapping": self.fresh_map,
        }

    def always(self):
        return {
            "statfs": lambda: os.statvfs(self.mnt),
            "stat of the root": lambda: os.stat(self.mnt),
            "close": lambda: os.close(os.dup(self.fd)),
            "lock of the kernel": lambda: fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
        }


def scan(ck, patterns, pids):
    path = ck.dir / "patterns"
    path.write_text("".join(p.hex() + "\n" for p in patterns))
    return memscan(path, *pids)
