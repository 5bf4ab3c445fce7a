# SPDX-License-Identifier: MIT
"""A volume of each kind on a file system of its own: plain read by the kernel, plain read by the server, gocryptfs."""
import contextlib
import os

import pytest
from support import kernel_lacks, run

VARIANTS = ["passthrough", "plain", "gocryptfs"]
SIZE = 256 << 20


@contextlib.contextmanager
def ext4(at, size=SIZE, options=(), mount_options="loop"):
    """An ext4 in a file in memory."""
    image = f"/dev/shm/ckrfs-{os.getpid()}-{at.name}"
    at.mkdir()
    with open(image, "wb") as f:
        f.truncate(size)
    try:
        run("mkfs.ext4", "-q", "-m", "0", "-b", "4096", *options, image)
        run("mount", "-o", mount_options, image, at)
        yield at
        run("umount", at)
    finally:
        run("umount", "-l", at, check=False)
        os.unlink(image)


@contextlib.contextmanager
def tmpfs(at, size=SIZE):
    at.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", at)
    try:
        yield at
    finally:
        run("umount", "-l", at)


def configure(ck, variant, lower, **options):
    """The volume "vol" of that kind in a directory of lower."""
    source = lower / "volume"
    if variant == "gocryptfs":
        return ck.volume("vol", cipher=source, **options)
    source.mkdir()
    ck.configure("volume vol", source=source, format="plain", passthrough="auto" if variant == "passthrough" else "no",
                 **options)
    return None


def check(ck, variant):
    """Is what is mounted what the variant's name says?"""
    state = ck.state()["passthrough"]
    if variant == "passthrough" and state.startswith("the kernel does not offer it"):
        kernel_lacks("FUSE passthrough")
    assert (state == "active") == (variant == "passthrough"), state


@contextlib.contextmanager
def mounted(ck, variant, *options):
    with ck.mounted("vol", None, *options) as at:
        check(ck, variant)
        yield at


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param
