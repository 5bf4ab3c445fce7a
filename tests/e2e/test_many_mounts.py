# SPDX-License-Identifier: MIT
"""200 volumes on one machine, as a host of many containers has them."""
import os
import shutil

from support import DONE, sanitized

COUNT = 12 if sanitized() else 200
KEYS = 8


def test_many_mounts(ck):
    """Each has a source, a target and a keyring of its own; what is done with all of them reaches all of them."""
    keys, points = {}, {}
    ck.sections["defaults"] = {}
    for i in range(COUNT):
        name = f"v{i:03d}"
        keys[name] = f"{i % KEYS}.key"
        cipher, points[name] = ck.dir / f"{name}.cipher", ck.dir / name
        points[name].mkdir()
        ck.sections[f"volume {name}"] = {"source": cipher, "target": points[name],
                                         "key": f"file:{ck.dir}/{keys[name]}?fmt=raw"}
        if i < KEYS:
            key = os.urandom(32)
            ck.key_file(key, keys[name])
            ck.keep_secret(key)
            cipher.mkdir()
            ck.run("init", cipher, "--key", f"file:{ck.dir}/{keys[name]}?fmt=raw", status=DONE)
        else:
            shutil.copytree(ck.dir / f"v{i % KEYS:03d}.cipher", cipher)
    ck.configure("defaults")
    for name in keys:
        ck.run("mount", name, status=DONE)
        (points[name] / "who").write_text(name)
    states = {m["name"]: m for m in ck.states()}
    ck.pids |= {m[p] for m in states.values() for p in ("keeper_pid", "server_pid")}
    assert sorted(states) == sorted(keys)
    assert len({m["key_identifier"] for m in states.values()}) == KEYS
    assert len({m["keyring"] for m in states.values()}) == COUNT
    lines = ck.run("status", status=DONE).stdout.splitlines()
    assert len(lines) == COUNT + 2 and lines[-1] == f"{COUNT} mounts: {COUNT} unlocked"
    assert len({line.index("unlocked") for line in lines[1:-1]}) == 1, "columns are straight"
    assert ck.run("metrics", status=DONE).stdout.count("\nckrfs_requests_total{") == COUNT
    assert ck.run("status", "--names", status=DONE).stdout.split() == sorted(keys)

    ck.run("lock", "--all", status=DONE)
    assert {m["state"] for m in ck.states()} == {"locked"}
    for point in points.values():
        try:
            (point / "who").read_text()
        except OSError as e:
            assert e.errno == 126  # ENOKEY
        else:
            raise AssertionError(f"{point} is not locked")
    ck.run("unlock", *keys, status=DONE)
    assert all((points[name] / "who").read_text() == name for name in keys)
    ck.run("umount", "--all", status=DONE)
    assert ck.states() == []
    assert not any(os.path.ismount(p) for p in points.values())
