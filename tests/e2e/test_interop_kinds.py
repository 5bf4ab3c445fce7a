# SPDX-License-Identifier: MIT
"""Every kind of volume, both ways: what one of ckrfs and gocryptfs writes and changes, the other reads back, and so does
a model on a bare file system that went through the same operations."""
import base64
import ctypes
import errno
import json
import os
import random
import stat

import pytest
from support import DONE, NO_KEY, UNSUPPORTED, USAGE, WRONG_KEY, Gocryptfs, errno_of, run
from test_interop import LIBC, assert_same, content, make_tree, picture, random_name

#     name                options of gocryptfs -init                        of ckrfs init
KINDS = {
    "siv": (["-aessiv"], ["--cipher", "aes-siv"]),
    "xchacha": (["-xchacha"], ["--cipher", "xchacha"]),
    "plaintext": (["-plaintextnames"], ["--names", "plaintext"]),
    "plaintext-siv": (["-plaintextnames", "-aessiv"], ["--names", "plaintext", "--cipher", "aes-siv"]),
    "plaintext-xchacha": (["-plaintextnames", "-xchacha"], ["--names", "plaintext", "--cipher", "xchacha"]),
    "deterministic": (["-deterministic-names"], ["--names", "deterministic"]),
    "deterministic-siv": (["-deterministic-names", "-aessiv"], ["--names", "deterministic", "--cipher", "aes-siv"]),
    "long-62": (["-longnamemax", "62"], ["--longname-max", "62"]),
    "long-254-deterministic-xchacha": (["-longnamemax", "254", "-deterministic-names", "-xchacha"],
                                       ["--longname-max", "254", "--names", "deterministic", "--cipher", "xchacha"]),
}

NAMED = ["DirIV", "EMENames", "LongNames"]
#     name                 feature flags                                     options beside -masterkey
OLD = {
    "old": (["GCMIV128", *NAMED], ["-hkdf=false", "-raw64=false"]),
    "old-siv": (["GCMIV128", "AESSIV", *NAMED], ["-hkdf=false", "-raw64=false", "-aessiv"]),
    "old-plaintext": (["GCMIV128", "PlaintextNames"], ["-hkdf=false", "-raw64=false", "-plaintextnames"]),
    "no-hkdf": (["GCMIV128", "Raw64", *NAMED], ["-hkdf=false"]),
    "no-raw64": (["HKDF", "GCMIV128", *NAMED], ["-raw64=false"]),
    "no-raw64-long-100": (["HKDF", "XChaCha20Poly1305", "LongNameMax", *NAMED],
                          ["-raw64=false", "-xchacha", "-longnamemax", "100"]),
}


class ByMasterKey(Gocryptfs):
    """A kind that gocryptfs 2.3 does not make any more: it opens one by its master key and options."""

    def __init__(self, directory, flags, options):
        super().__init__(directory)
        self.key = None
        self.init(*(["-plaintextnames"] if "PlaintextNames" in flags else []))
        self.key = self.master_key().hex()
        self.options = options
        path = self.cipher / "gocryptfs.conf"
        conf = json.loads(path.read_text())
        conf["FeatureFlags"] = flags
        if "LongNameMax" in flags:
            conf["LongNameMax"] = 100
        if "HKDF" not in flags:  # wrapped otherwise; who has the master key does not look at it
            conf["EncryptedKey"] = base64.b64encode(bytes(60)).decode()
        path.chmod(0o600)
        path.write_text(json.dumps(conf))

    def extpass(self):
        return ["-masterkey", self.key, *self.options] if self.key else super().extpass()


def new_volume(ck, kind, maker):
    cipher = ck.dir / "cipher"
    if kind in OLD:
        volume = ByMasterKey(cipher, *OLD[kind])
        ck.keep_secret(bytes.fromhex(volume.key))
        ck.configure("volume web", source=cipher, key=f"file:{ck.key_file(volume.key)}?fmt=hex")
        return volume
    volume = Gocryptfs(cipher)
    key = f"file:{ck.key_file(volume.passphrase)}"
    if maker == "gocryptfs":
        volume.init(*KINDS[kind][0])
    else:
        cipher.mkdir()
        ck.run("init", cipher, "--key", key, "--scrypt-n", "10", *KINDS[kind][1], status=DONE)
    ck.keep_secret(volume.master_key())
    ck.configure("volume web", source=cipher, key=key)
    return volume


def punch_hole(path, offset, length):
    fd = os.open(path, os.O_RDWR)
    try:
        if LIBC.fallocate64(fd, 3, ctypes.c_long(offset), ctypes.c_long(length)) and \
                ctypes.get_errno() == errno.EOPNOTSUPP:
            os.pwrite(fd, bytes(length), offset)  # as cp and tar do where it is not to be had
    finally:
        os.close(fd)


class Operations:
    """The same seed does the same to every tree that is the same."""

    def __init__(self, root, seed, over_empty):
        self.rng = random.Random(seed)
        self.over_empty = over_empty
        self.files, self.directories = [], [os.fsencode(root)]
        for where, directories, files in os.walk(os.fsencode(root)):
            directories.sort()
            self.directories += [os.path.join(where, d) for d in directories]
            self.files += [p for p in (os.path.join(where, f) for f in sorted(files)) if stat.S_ISREG(os.lstat(p).st_mode)]

    def run(self, steps):
        calls = [self.create, self.overwrite, self.append, self.truncate, self.punch, self.rename, self.rename_over,
                 self.link, self.symlink, self.xattr, self.chmod, self.unlink, self.directory, self.move_directory]
        for i in range(steps):
            calls[i % len(calls)]()

    def new_path(self):
        while True:
            path = os.path.join(self.rng.choice(self.directories), random_name(self.rng, self.rng.choice([3, 30, 40, 180, 255])))
            if not os.path.lexists(path):
                return path

    def some_file(self):
        return self.rng.choice(self.files)

    def create(self):
        path = self.new_path()
        with open(path, "xb") as f:
            f.write(content(self.rng))
        self.files.append(path)

    def overwrite(self):
        path = self.some_file()
        with open(path, "r+b") as f:
            f.seek(self.rng.randrange(os.path.getsize(path) + 5000))
            f.write(self.rng.randbytes(self.rng.choice([1, 100, 4096, 10000])))

    def append(self):
        with open(self.some_file(), "ab") as f:
            f.write(content(self.rng))

    def truncate(self):
        for _ in range(3):
            os.truncate(self.some_file(), self.rng.choice([0, 1, 4095, 4096, 4097, 12288, self.rng.randrange(300000)]))

    def punch(self):
        path = self.some_file()
        os.truncate(path, 50000)
        punch_hole(path, self.rng.choice([0, 4096, 5000]), self.rng.choice([4096, 20000]))

    def rename(self):
        path, new = self.some_file(), self.new_path()
        os.rename(path, new)
        self.files[self.files.index(path)] = new

    def rename_over(self):
        path, new = self.rng.sample(self.files, 2)
        if not os.path.samefile(path, new):
            os.rename(path, new)
            self.files.remove(path)

    def link(self):
        new = self.new_path()
        os.link(self.some_file(), new)
        self.files.append(new)

    def symlink(self):
        os.symlink(self.rng.randbytes(self.rng.choice([1, 50, 1000])).hex(), self.new_path())

    def xattr(self):
        path = self.some_file()
        os.setxattr(path, "user.one", self.rng.randbytes(self.rng.choice([0, 1, 300])))
        os.setxattr(path, "user.two", b"goes")
        os.removexattr(path, "user.two")

    def chmod(self):
        os.chmod(self.some_file(), self.rng.choice([0o600, 0o640, 0o755]))

    def unlink(self):
        os.unlink(self.files.pop(self.rng.randrange(len(self.files))))

    def directory(self):
        kept, gone = self.new_path(), self.new_path()
        os.mkdir(kept, 0o750)
        os.mkdir(gone)
        os.rmdir(gone)
        self.directories.append(kept)

    def move_directory(self):
        """With something in it; onto an empty one, but for gocryptfs, which goes on showing that one."""
        old, new = self.new_path(), self.new_path()
        os.mkdir(old)
        if self.over_empty:
            os.mkdir(new)
        with open(os.path.join(old, b"inside" * 30), "wb") as f:
            f.write(b"inside")
        os.rename(old, new)


def look(root):
    """What does not depend on when it happened."""
    return {name: entry[:4] + entry[5:] for name, entry in picture(root).items()}


def act(at, model, seed, over_empty=True):
    """-> what a tree is after the operations, which is also what becomes of the model"""
    for root in (at, model):
        Operations(root, seed, over_empty).run(56)
    wanted = look(model)
    assert_same(look(at), wanted)
    return wanted


@pytest.mark.parametrize("kind, maker", [*zip(KINDS, ["ckrfs", "gocryptfs"] * 9), *((k, "hand") for k in OLD)])
def test_both_ways(ck, kind, maker):
    volume = new_volume(ck, kind, maker)
    model, peer = ck.dir / "model", ck.dir / "peer"
    model.mkdir()
    model.chmod(0o755)
    volume.cipher.chmod(0o755)
    make_tree(model, kind, 40)
    with ck.mounted() as at:
        make_tree(at, kind, 40)
        wanted = act(at, model, 1)
    volume.fsck()
    # Without this option gocryptfs shows sizes of hard links that are no more.
    with volume.mounted(peer, "-sharedstorage"):
        assert_same(look(peer), wanted)
        wanted = act(peer, model, 2, over_empty=False)
    with ck.mounted() as at:
        assert_same(look(at), wanted)
        wanted = act(at, model, 3)
    with volume.mounted(peer, read_only=True):
        assert_same(look(peer), wanted)
    volume.fsck()


@pytest.mark.parametrize("kind", ["default", *KINDS])
def test_init_makes_what_gocryptfs_makes(ck, kind):
    """The same flags, and the same files beside the configuration."""
    theirs, ours = KINDS.get(kind, ([], []))
    (ck.dir / "ours").mkdir()
    ck.run("init", ck.dir / "ours", "--key", f"file:{ck.key_file('correct horse')}", "--scrypt-n", "10", *ours, status=DONE)
    Gocryptfs(ck.dir / "theirs").init(*theirs)
    confs = [json.loads((ck.dir / who / "gocryptfs.conf").read_text()) for who in ("ours", "theirs")]
    assert [confs[0].get(k) for k in ("FeatureFlags", "LongNameMax", "Version")] == \
        [confs[1].get(k) for k in ("FeatureFlags", "LongNameMax", "Version")]
    assert sorted(os.listdir(ck.dir / "ours")) == sorted(os.listdir(ck.dir / "theirs"))


@pytest.mark.parametrize("options, words", [
    (["--cipher", "aes-sif"], '--cipher has no value "aes-sif" (did you mean aes-siv?)'),
    (["--cipher", "blowfish"], '--cipher must be aes-gcm, aes-siv or xchacha, not "blowfish"'),
    (["--names", "none"], '--names must be encrypted, deterministic or plaintext, not "none"'),
    (["--longname-max", "61"], '--longname-max must be 62 to 254, not "61"'),
    (["--longname-max", "255"], '--longname-max must be 62 to 254, not "255"'),
    (["--scrypt-n", "9"], '--scrypt-n must be 10 to 28, not "9"'),
    (["--names", "plaintext", "--longname-max", "100"],
     "--longname-max is about encrypted names: there are none with --names plaintext"),
])
def test_init_refuses_wrong_kinds(ck, options, words):
    source = ck.dir / "new"
    source.mkdir()
    done = ck.run("init", source, "--key", f"file:{ck.key_file('x')}", *options, status=USAGE)
    assert done.stderr == f"ckrfs: {words}\n  try: ckrfs init --help\n"
    assert os.listdir(source) == []


def test_plaintext_names_on_disk(ck):
    """Seen from below: everything under its own name, and the volume's file out of reach from above."""
    volume = new_volume(ck, "plaintext", "ckrfs")
    ours = ["gocryptfs.diriv", "gocryptfs.longname.x", "gocryptfs.longname.x.name", "n" * 255]
    with ck.mounted() as at:
        for name in ours:
            (at / name).write_text(name)
        (at / "sub").mkdir()
        (at / "sub" / "gocryptfs.conf").write_text("mine")
        (at / "link").symlink_to("target")
        assert sorted(os.listdir(at)) == sorted([*ours, "sub", "link"])
        conf = at / "gocryptfs.conf"
        calls = [(os.stat, conf), (os.unlink, conf), (os.mkdir, conf), (os.rename, conf, at / "x"), (os.rename, at / "link", conf),
                 (open, conf, "w"), (os.link, at / ours[0], conf), (os.symlink, "x", conf)]
        assert {errno_of(*c) for c in calls} == {"EPERM"}
        with volume.mounted(ck.dir / "peer", read_only=True) as peer:
            assert errno_of(os.stat, peer / "gocryptfs.conf") == "EPERM"
    assert sorted(os.listdir(volume.cipher)) == sorted([*ours, "sub", "link", "gocryptfs.conf"])
    assert os.readlink(volume.cipher / "link") == "target"
    with volume.mounted(ck.dir / "peer", read_only=True) as peer:
        assert sorted(os.listdir(peer)) == sorted([*ours, "sub", "link"])
        assert (peer / "sub" / "gocryptfs.conf").read_text() == "mine"


def test_old_values_of_attributes(ck):
    """Before 1.3 gocryptfs wrote them as base64 text."""
    volume = new_volume(ck, "old", "hand")
    with ck.mounted() as at:
        (at / "f").touch()
        os.setxattr(at / "f", "user.old", b"a value")
    path, = [p for p in volume.cipher.iterdir() if "." not in p.name]
    name, = os.listxattr(path)
    os.setxattr(path, name, base64.urlsafe_b64encode(os.getxattr(path, name)))
    with ck.mounted() as at:
        assert os.getxattr(at / "f", "user.old") == b"a value"
    with volume.mounted(ck.dir / "peer") as peer:
        assert os.getxattr(peer / "f", "user.old") == b"a value"


# ---- FIDO2: gocryptfs asks the token through programs of libfido2, which a test can replace

TOKEN = """#!/bin/sh
cat > /dev/null
printf 'one\\ntwo\\nthree\\nfour\\n%s\\n' {}
"""


class WithToken(Gocryptfs):
    secret = bytes(range(100, 140))

    def __init__(self, ck):
        super().__init__(ck.dir / "cipher")
        (ck.dir / "bin").mkdir()
        for name, answer in (("fido2-cred", b"credential"), ("fido2-assert", self.secret)):
            path = ck.dir / "bin" / name
            path.write_text(TOKEN.format(base64.b64encode(answer).decode()))
            path.chmod(0o755)
        self.environment = dict(os.environ, PATH=f"{ck.dir}/bin:{os.environ['PATH']}")
        self.cipher.mkdir()
        run("gocryptfs", "-q", "-init", "-scryptn", "10", "-fido2", "/dev/null", self.cipher, env=self.environment)

    def conf(self):
        return json.loads((self.cipher / "gocryptfs.conf").read_text())


def test_fido2(ck):
    """The token's secret opens the volume that gocryptfs made with it, and nothing else does."""
    volume = WithToken(ck)
    ck.keep_secret(volume.secret)
    assert "FIDO2" in volume.conf()["FeatureFlags"] and volume.conf()["FIDO2"]["CredentialID"]
    program = ck.dir / "bin" / "ask"
    program.write_text(f"#!/bin/sh\n{ck.dir}/bin/fido2-assert < /dev/null | tail -n 1\n")
    program.chmod(0o755)
    raw = ck.key_file(volume.secret)
    for key in (f"exec:{program}?fmt=base64", f"file:{raw}?fmt=raw"):
        ck.configure("volume web", source=volume.cipher, key=key)
        with ck.mounted() as at:
            (at / "file").write_text("behind a token")

    def refused(status, **options):
        ck.configure("volume web", source=volume.cipher, **options)
        return ck.run("mount", "web", ck.mnt, status=status).stderr

    wanted = ('ckrfs: cannot mount "web": volume uses the feature flag "FIDO2": its key is the hmac-secret of a token, not a '
              "passphrase, and must come as ?fmt=raw, hex or base64 from a program that asks the token (ckrfs-volumes(7), "
              "FIDO2)\n  try: key = exec:/path/to/program ARGS?fmt=base64\n")
    assert refused(UNSUPPORTED, key=f"file:{ck.key_file('a passphrase')}") == wanted
    assert refused(UNSUPPORTED) == wanted
    assert "wrong hmac-secret" in refused(WRONG_KEY, key=f"file:{ck.key_file(bytes(40))}?fmt=raw")
    assert "32 bytes or more, not 31" in refused(WRONG_KEY, key=f"file:{ck.key_file(bytes(31))}?fmt=raw")
    assert "no such file" in refused(NO_KEY, key="file:/nowhere?fmt=raw").lower()


def test_fido2_volume_without_its_token(ck):
    """The master key opens it where files prove that it is the one: an empty volume could not tell it from a wrong secret."""
    volume = WithToken(ck)
    done = run("gocryptfs-xray", "-dumpmasterkey", "-fido2", "/dev/null", volume.cipher / "gocryptfs.conf",
               env=volume.environment)
    master = bytes.fromhex(done.stdout.split()[-1].decode())
    ck.keep_secret(volume.secret, master)
    ck.configure("volume web", source=volume.cipher, key=f"file:{ck.key_file(master)}?fmt=raw")
    assert "wrong hmac-secret" in ck.run("mount", "web", ck.mnt, status=WRONG_KEY).stderr
    ck.configure("volume web", source=volume.cipher, key=f"file:{ck.key_file(volume.secret)}?fmt=raw")
    with ck.mounted() as at:
        (at / "file").write_text("x")
    ck.configure("volume web", source=volume.cipher, key=f"file:{ck.key_file(master)}?fmt=raw")
    with ck.mounted() as at:
        assert (at / "file").read_text() == "x"
