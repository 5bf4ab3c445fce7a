# SPDX-License-Identifier: MIT
"""The manager's side of a mount's keys: a session keyring of the test's own, which what it starts inherits."""
import ctypes
import errno
import os
from pathlib import Path

from support import run, wait_until

DESCRIPTION = "ckrfs-life"
SOURCE = f"keyring:user:{DESCRIPTION}"
PASSPHRASE = b"correct horse"


def join_session():
    """A new anonymous session keyring for this process."""
    library = ctypes.CDLL("libkeyutils.so.1", use_errno=True)
    ring = library.keyctl_join_session_keyring(None)
    assert ring > 0, os.strerror(ctypes.get_errno())
    return ring


def keyctl(*args, data=None, check=True):
    return run("keyctl", *map(str, args), input=data, check=check).stdout.decode().strip()


class Key:
    """A key in the session keyring. add() of one that is there updates it, as keyctl(1) has it."""

    def __init__(self, data=PASSPHRASE, description=DESCRIPTION):
        self.data, self.description = data, description
        self.add()

    def add(self, data=None):
        self.serial = int(keyctl("padd", "user", self.description, "@s", data=self.data if data is None else data))

    def update(self, data=None):
        keyctl("pupdate", self.serial, data=self.data if data is None else data)

    def revoke(self):
        keyctl("revoke", self.serial)

    def unlink(self):
        keyctl("unlink", self.serial, "@s")

    def timeout(self, seconds):
        keyctl("timeout", self.serial, seconds)

    def left(self):
        """As /proc/keys has it: "perm", "expd", "59s"..."""
        for line in Path("/proc/keys").read_text().splitlines():
            if int(line.split()[0], 16) == self.serial:
                return line.split()[3]
        return None


def refusal(path):
    """The errno that a file of the mount answers with, 0 if it answers. Asks the mount, not its keeper."""
    try:
        os.stat(path)
    except OSError as e:
        return e.errno
    return 0


def wait_for_lock(path, error=errno.ENOKEY):
    wait_until(f"{os.strerror(error)} of {path}", lambda: refusal(path) == error)


def wait_for_unlock(path):
    wait_until(f"{path} to be there again", lambda: refusal(path) == 0)
