# SPDX-License-Identifier: MIT
"""File systems that encrypt: an ext4 image of the test's own, the ioctls as the kernel has them, and the fscrypt tool."""
import contextlib
import errno
import fcntl
import hashlib
import hmac
import json
import os
import struct

from support import DONE, kernel_lacks, run

ADD, REMOVE, STATUS, GET_POLICY_EX, SET_POLICY = 0xC0506617, 0xC0406618, 0xC080661A, 0xC0096616, 0x800C6613
DESCRIPTOR, IDENTIFIER = 1, 2
ABSENT, PRESENT, LEAVING = 1, 2, 3
BUSY, USERS = 1, 2


def identifier(key):
    """HKDF-SHA512 without salt, 16 bytes of it"""
    prk = hmac.new(bytes(64), key, hashlib.sha512).digest()
    return hmac.new(prk, b"fscrypt\0\1\1", hashlib.sha512).digest()[:16]


def specifier(ident):
    return struct.pack("<II32s", IDENTIFIER if len(ident) == 16 else DESCRIPTOR, 0, ident)


@contextlib.contextmanager
def opened(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def add_key(path, key):
    with opened(path) as fd:
        fcntl.ioctl(fd, ADD, bytearray(specifier(identifier(key)) + struct.pack("<II32x", len(key), 0) + key))


def remove_key(path, ident):
    """What is left: BUSY, USERS"""
    arg = bytearray(specifier(ident) + bytes(24))
    with opened(path) as fd:
        fcntl.ioctl(fd, REMOVE, arg)
    return struct.unpack_from("<I", arg, 40)[0]


def key_status(path, ident):
    """(ABSENT..., how many users have added it)"""
    arg = bytearray(specifier(ident) + bytes(88))
    with opened(path) as fd:
        fcntl.ioctl(fd, STATUS, arg)
    state, _, users = struct.unpack_from("<III", arg, 64)
    return state, users


def policy(path):
    """version, contents mode, names mode, flags, key; None: not encrypted"""
    arg = bytearray(struct.pack("<Q", 24) + bytes(24))
    with opened(path) as fd:
        try:
            fcntl.ioctl(fd, GET_POLICY_EX, arg)
        except OSError as e:
            if e.errno == errno.ENODATA:
                return None
            raise
    version, contents, names, flags = arg[8:12]
    return (2, contents, names, flags, bytes(arg[16:32])) if version == 2 else (1, contents, names, flags, bytes(arg[12:20]))


class Encrypting:
    """An ext4 file system in a file, mounted in the test's directory; and the fscrypt tool with settings of its own."""

    def __init__(self, ck, feature=True):
        self.ck = ck
        self.image = ck.dir / "image"
        self.dir = ck.dir / "fs"
        self.dir.mkdir()
        with open(self.image, "wb") as f:
            f.truncate(48 << 20)
        run("mkfs.ext4", "-q", "-F", *(["-O", "encrypt"] if feature else []), self.image)
        done = run("losetup", "-f", "--show", self.image, check=False)
        if done.returncode:
            kernel_lacks(f"loop devices: {done.stderr!r}")
        self.device = done.stdout.decode().strip()
        self.mount()

    def mount(self):
        run("mount", self.device, self.dir)
        if not os.path.exists("/sys/fs/ext4/features/encryption"):
            kernel_lacks("fscrypt")

    def loop(self):
        """The block device, mounted nowhere any more"""
        run("umount", self.dir)
        return self.device

    def close(self):
        run("umount", "-l", self.dir, check=False)
        run("losetup", "-d", self.device, check=False)

    def make(self, name="enc"):
        path = self.dir / name
        path.mkdir()
        return path

    # -- the tool

    def tool(self, *args, check=True, version=2, passphrase=None, parallelism=1):
        """Reads /etc/fscrypt.conf, which only it sees."""
        conf = self.ck.dir / "fscrypt.conf"
        conf.write_text(json.dumps({
            "source": "custom_passphrase",
            "hash_costs": {"time": "1", "memory": "8192", "parallelism": str(parallelism), "truncation_fixed": True},
            "options": {"padding": "32", "contents": "AES_256_XTS", "filenames": "AES_256_CTS",
                        "policy_version": str(version)},
            "use_fs_keyring_for_v1_policies": True, "allow_cross_user_metadata": False}))
        place = self.ck.dir / "etc"
        place.mkdir(exist_ok=True)
        script = ('mount -t tmpfs etc "$1" && mkdir "$1/upper" "$1/work" && '
                  'mount -t overlay etc -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc && '
                  'cp "$2" /etc/fscrypt.conf && shift 2 && exec fscrypt "$@"')
        return run("unshare", "-m", "sh", "-c", script, "sh", place, conf, *args, "--quiet", check=check,
                   input=passphrase.encode() + b"\n" if passphrase else b"")

    def setup(self):
        self.tool("setup", self.dir)

    def encrypt(self, path, passphrase=None, key_file=None, **kw):
        """Protected by a passphrase or by a raw key of 32 bytes; unlocked then."""
        source = ["--source=raw_key", f"--key={key_file}"] if key_file else ["--source=custom_passphrase"]
        self.tool("encrypt", path, *source, f"--name={path.name}", passphrase=passphrase, **kw)

    def lock(self, path):
        self.tool("lock", path)

    def unlock(self, path, passphrase=None, key_file=None):
        self.tool("unlock", path, *([f"--key={key_file}"] if key_file else []), passphrase=passphrase)

    def is_locked(self, path):
        """Its names cannot be read."""
        return key_status(self.dir, policy(path)[4])[0] == ABSENT


# ---- volumes in it

def raw_key(ck, name="raw", size=64):
    key = os.urandom(size)
    ck.keep_secret(key)
    return key, f"file:{ck.key_file(key, name=name)}?fmt=raw"


def directory(ck, fs, name="enc", spec=None):
    """A directory made by ckrfs init, with its section; -> path, key's identifier"""
    if not spec:
        _, spec = raw_key(ck, name)
    path = fs.make(name)
    ck.run("init", "--lower", "fscrypt", path, "--key", spec, status=DONE)
    ck.configure(f"volume {name}", source=path, lower="fscrypt", key=spec)
    return path, policy(path)[4]


def gocryptfs_inside(ck, fs):
    """The volume "inner", whose directory is encrypted as well; -> path, identifier of the directory's key"""
    path, ident = directory(ck, fs)
    lower_spec = ck.sections["volume enc"]["key"]
    volume = ck.volume("inner", cipher=path / "cipher", init=False)
    with ck.mounted("enc") as at:
        (at / "cipher").mkdir()
        volume.cipher = at / "cipher"
        volume.init()
        ck.keep_secret(volume.master_key())
    # the directory itself is the volume's source: the names above it can be read only with the key
    ck.configure("volume inner", source=path, lower="fscrypt", lower_key=lower_spec, key=f"file:{ck.dir}/key",
                 format="gocryptfs")
    with ck.mounted("enc") as at:
        for entry in os.listdir(at / "cipher"):
            os.rename(at / "cipher" / entry, at / entry)
        os.rmdir(at / "cipher")
    return path, ident


def target(ck, name):
    path = ck.dir / f"mnt-{name}"
    path.mkdir(exist_ok=True)
    return path


def state_of(fs, ident):
    return key_status(fs.dir, ident)[0]


def left_in_keys(ck):
    keys = ck.runtime / "keys"
    return sorted(p.name for p in keys.iterdir()) if keys.exists() else []
