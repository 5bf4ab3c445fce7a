# SPDX-License-Identifier: MIT
"""lower = afs as far as no AFS is needed: its configuration, and the words of a kernel without a client. The rest is in
tests/vm/test_afs.py."""
import json

import pytest
from support import CONFIG, DONE, NO_VOLUME, UNSUPPORTED, run

VOLUME = "[volume a]\nsource = %example.test:root.cell\nlower = afs\nkey = file:/k\n"


def write(ck, text):
    path = ck.dir / "ckrfs.conf"
    path.write_text(text)
    path.chmod(0o600)


@pytest.mark.parametrize("text, words", [
    (VOLUME.replace("%example.test:root.cell", "/srv/x"), "source must be %CELL:VOLUME or #CELL:VOLUME"),
    (VOLUME.replace("%example.test:root.cell", "%example.test:"), "must be an absolute path"),
    (VOLUME.replace(":root.cell", ":a,b"), "must be an absolute path"),
    (VOLUME.replace("lower = afs\n", "").replace("key = file:/k\n", ""), "goes with lower = afs only"),
    (VOLUME.replace("key = file:/k\n", ""), "lower = afs needs a key"),
    (VOLUME + "format = gocryptfs\n", "lower = afs needs lower-key"),
    (VOLUME + "passthrough = yes\n", "passthrough = yes does not go with lower = afs"),
    (VOLUME + "idmap = yes\n", "idmap = yes does not go with lower = afs"),
    (VOLUME + "hide-lower = yes\n", "hide-lower = yes: AFS is mounted for the volume alone anyway"),
    (VOLUME + "afs-servers = afs1.example.test\n", 'must be IP addresses with "," between them'),
    (VOLUME + "afs-servers = 10.0.0.1 10.0.0.2\n", 'must be IP addresses with "," between them'),
])
def test_what_cannot_be(ck, text, words):
    write(ck, text)
    assert words in ck.run("mount", "a", ck.mnt, status=CONFIG).stderr


@pytest.mark.parametrize("source", ["%example.test:root.cell", "#example.test:root.cell.readonly"])
def test_what_is_made_of_it(ck, source):
    write(ck, VOLUME.replace("%example.test:root.cell", source) + "afs-servers = 10.0.0.1,10.0.0.2\nsubtree = /a/b\n")
    values = json.loads(ck.run("config", "--show", "a", "--json", status=DONE).stdout)["options"]
    assert {name: values[name]["value"] for name in ("source", "format", "shared", "writeback", "afs-servers", "subtree")} == {
        "source": source, "format": "plain", "shared": "yes", "writeback": "no", "afs-servers": "10.0.0.1,10.0.0.2",
        "subtree": "/a/b"}


def test_netns_that_is_none(ck):
    write(ck, VOLUME + "netns = /nowhere/at/all\n")
    assert "cannot open network namespace /nowhere/at/all" in ck.run("mount", "a", ck.mnt, status=NO_VOLUME).stderr
    write(ck, VOLUME + "netns = /proc/self/ns/mnt\n")
    assert "netns /proc/self/ns/mnt is no network namespace" in ck.run("mount", "a", ck.mnt, status=CONFIG).stderr
    write(ck, VOLUME + "netns = /etc/passwd\n")
    assert "is no network namespace" in ck.run("mount", "a", ck.mnt, status=CONFIG).stderr


def has_client():
    run("modprobe", "kafs", check=False)
    return any(line.split()[-1] == "afs" for line in open("/proc/filesystems"))


def test_kernel_without_a_client(ck):
    """Or one in which nobody knows the cell: then that is said."""
    write(ck, VOLUME.replace("example.test", "nowhere.invalid"))
    if has_client():
        assert "no servers are known for cell nowhere.invalid" in ck.run("mount", "a", ck.mnt, status=NO_VOLUME).stderr
        return
    done = ck.run("mount", "a", ck.mnt, status=UNSUPPORTED)
    assert "this kernel has no client for AFS (CONFIG_AFS_FS, the module kafs)" in done.stderr
    assert "  try: modprobe kafs" in done.stderr.splitlines()


def test_user_namespace(ck):
    write(ck, VOLUME)
    done = run("unshare", "-Urm", *ck.argv("mount", "a", ck.mnt), check=False, env=ck.env, text=True)
    assert done.returncode == UNSUPPORTED and "AFS" in done.stderr, done.stderr
