# SPDX-License-Identifier: MIT
"""ckrfs check: a healthy volume is clean, every damage is found and nothing else, repair and undo."""
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from check_volume import (BLOCK, DIRS, FILES, GROUPS, LINKS, LONGS, NOTES, PASSPHRASE, Volume, attribute_damages,
                          block_at, change, diriv_damages, file_damages, fill, link_damages, overwrite, plant_all,
                          replace, tell, template, volume, walk)
from support import BUSY, DAMAGED, DONE, FAILED, NO_VOLUME, REPAIRED, REPO, USAGE, WRONG_KEY, Gocryptfs, run

VECTORS = Path(os.environ.get("CKRFS_SHARED", REPO.parent / "shared")) / "vectors" / "gocryptfs"


def ours(ck, at):
    """The same tree in a volume that ckrfs made and wrote."""
    at.mkdir()
    key = f"file:{ck.key_file(PASSPHRASE)}"
    ck.run("init", at, "--key", key, "--scrypt-n", "10", status=DONE)
    ck.configure("volume ours", source=at, key=key)
    with ck.mounted("ours") as mnt:
        fill(mnt)
    return at


@pytest.mark.parametrize("maker", ["gocryptfs", "ckrfs"])
def test_healthy_is_clean_and_left_alone(ck, template, maker):
    v = Volume(ck, *template)
    if maker == "ckrfs":
        shutil.rmtree(v.root)
        ours(ck, v.root)
    # our own files in the root of a volume, and ext4's
    (v.root / "gocryptfs.longname.ckrfs-keys.name").write_text("{}")
    (v.root / "gocryptfs.longname.ckrfs-later.name").write_text("{}")
    (v.root / "lost+found").mkdir()
    before, times = v.snapshot(), {p: (v.root / p).lstat().st_mtime_ns for p in walk(v.root)}
    answer = v.check(status=DONE)
    assert answer["findings"] == [] and answer["summary"]["complete"]
    assert answer["volume"] == str(v.root)
    done = v.check("--repair", status=DONE)
    assert done["findings"] == [] and done["repairs"] == [] and "log" not in done
    assert v.snapshot() == before
    assert {p: (v.root / p).lstat().st_mtime_ns for p in walk(v.root)} == times
    counted = answer["summary"]
    assert counted["files"] == sum(1 for _ in range(FILES)) + LONGS + 1 + 3 * DIRS + 8 + 1 + 1 + 30 + 1 + 40
    assert counted["links"] == LINKS and counted["others"] == 1


@pytest.mark.parametrize("group", GROUPS)
def test_each_damage_is_found(volume, group):
    planted = sorted(group(volume), key=str)
    assert planted
    status = DONE if all(kind in NOTES for kind, *_ in planted) else DAMAGED
    got = sorted((tell(f) for f in volume.check(status=status)["findings"]), key=str)
    assert got == planted


def test_all_at_once_repair_and_undo(volume):
    """Everything is found, none more; after a repair only what cannot be repaired is left; undo restores all."""
    planted = plant_all(volume)
    before = volume.snapshot()
    answer = volume.check("--repair", status=DAMAGED)
    assert sorted(map(tell, answer["findings"]), key=str) == sorted(planted, key=str)
    assert answer["summary"]["damages"] == sum(kind not in NOTES for kind, *_ in planted)
    left = {(r["kind"], r["path"]) for r in answer["repairs"] if r["action"] == "left"}
    lost = [p[:-5] for k, p, *_ in planted if k == "name-damaged"]
    restored = [r["path"][:-5] for r in answer["repairs"] if r["action"] == "restored"]
    assert len(restored) == 2  # the two that were exchanged
    missing = {p for k, p, *_ in planted if k == "name-missing"} | set(lost) - set(restored)
    assert left == {(k, p) for k, p, *_ in planted if k in ("name-missing", "header-only")}
    after = volume.found(status=DAMAGED)
    assert {(k, p) for k, p, *_ in after} == {("name-missing", p) for p in missing} | \
        {(k, p) for k, p, *_ in planted if k == "header-only"}
    volume.ck.run("check", "--undo", answer["log"], volume.root, status=DONE)
    assert volume.snapshot() == before
    assert not list(volume.root.glob("*quarantine*"))


def test_repair_then_clean(volume):
    """Without lost names all is repaired, gocryptfs agrees, and sees nothing of the quarantine."""
    for group in (file_damages, link_damages, diriv_damages, attribute_damages):
        list(group(volume))
    assert volume.check("--repair", status=REPAIRED)["log"]
    assert {k for k, *_ in volume.found(status=DONE)} == {"header-only"}
    assert volume.check("--repair", status=DONE)["repairs"]  # told of, and left
    g = Gocryptfs(volume.root, PASSPHRASE)
    with g.mounted(volume.ck.dir / "peer", read_only=True) as at:
        assert not [n for n in os.listdir(at) if "quarantine" in n]
        assert len(os.listdir(at / "files")) < FILES
        for path in walk(at):
            if (at / path).is_file() and not (at / path).is_symlink():
                (at / path).read_bytes()


def test_quarantine_elsewhere_and_undo(volume):
    disk = volume.disk["files/f01"]
    change(volume.root / disk, 200)
    before = volume.snapshot()
    away = volume.ck.dir / "away"
    away.mkdir()
    answer = volume.check("--repair", "--quarantine", away, status=REPAIRED)
    assert Path(answer["log"]).parent.parent == away and not (volume.root / disk).exists()
    lines = [json.loads(line) for line in Path(answer["log"]).read_text().splitlines()]
    assert [(x["action"], x["path"]) for x in lines] == [("found", disk), ("move", disk)]
    assert lines[0]["first_block"] == 0 and lines[0]["blocks"] == 1
    # something new is in its place: it is not overwritten, and nothing is lost
    (volume.root / disk).write_text("new")
    done = volume.ck.run("check", "--undo", answer["log"], volume.root, status=FAILED)
    assert "1 could not be taken back" in done.stderr
    assert (volume.root / disk).read_text() == "new"
    (volume.root / disk).unlink()
    assert "took back 1 change\n" in volume.ck.run("check", "--undo", answer["log"], volume.root, status=DONE).stdout
    assert volume.snapshot() == before and not list(away.iterdir())


def test_undo_after_a_crash(volume):
    """The log says what was about to be done; what was not done is passed over, and so is half a line."""
    disk = volume.disk["files/f01"]
    change(volume.root / disk, 200)
    log = Path(volume.check("--repair", status=REPAIRED)["log"])
    os.rename(log.parent / "1", volume.root / disk)
    log.write_text(log.read_text() + '{"action":"move","pa')
    volume.ck.run("check", "--undo", log, volume.root, status=DONE)
    assert (volume.root / disk).exists() and not log.exists()


@pytest.mark.parametrize("line", ['{"action":"move","path":"../../x","to":"1"}',
                                  '{"action":"move","path":"x/../../y","to":"../1"}',
                                  '{"action":"create","path":"gocryptfs.conf","text":"x"}',
                                  '{"action":"attribute","path":".","attribute":"user.other","value":""}',
                                  '{"action":"rename","path":"/tmp/x","to":"gocryptfs.conf"}',
                                  "[" * 10000, '{"action":1}', '{"action":"move","path":"\\\\x00","to":"1"}'])
def test_undo_believes_nothing(volume, line):
    """A log that the volume's owner wrote moves nothing out of the volume."""
    before = volume.snapshot()
    place = volume.ck.dir / "place"
    place.mkdir()
    (place / "1").write_text("x")
    (place / "log").write_text('{"action":"found","path":"x"}\n' + line + "\n")
    volume.ck.run("check", "--undo", place / "log", volume.root, status=FAILED)
    assert volume.snapshot() == before and (place / "1").exists()


@pytest.mark.parametrize("empty", [True, False])
def test_interrupted_rmdir_is_mended(volume, empty):
    path, disk = volume.at("dirs/d00"), volume.disk["dirs/d00"]
    if empty:
        for entry in path.iterdir():
            if entry.name != "gocryptfs.diriv":
                entry.unlink()
    parked = os.path.join(os.path.dirname(disk), "gocryptfs.diriv.rmdir.123")
    before = volume.snapshot()
    os.rename(path / "gocryptfs.diriv", volume.root / parked)
    assert volume.found(status=DAMAGED) == {("diriv-missing", disk, None, None), ("parked-diriv", parked, None, None)}
    answer = volume.check("--repair", status=REPAIRED)
    assert {r["action"] for r in answer["repairs"]} == {"put-back"}
    Path(answer["log"]).unlink()
    Path(answer["log"]).parent.rmdir()
    assert volume.snapshot() == before


def test_doubtful_iv_is_left(volume):
    """The IV beside a directory without one does not fit: nobody guesses."""
    path, disk = volume.at("dirs/d00"), volume.disk["dirs/d00"]
    parked = volume.root / os.path.dirname(disk) / "gocryptfs.diriv.rmdir.9"
    (path / "gocryptfs.diriv").unlink()
    parked.write_bytes(b"x" * 16)
    before = volume.snapshot()
    answer = volume.check("--repair", status=DAMAGED)
    assert {r["action"] for r in answer["repairs"]} == {"left"} and volume.snapshot() == before


def test_lost_name_is_restored_from_the_quarantine(volume):
    """A .name file whose text is in an earlier quarantine comes back."""
    disk = volume.disk["long/00" + "n" * 198]
    name, text = volume.root / (disk + ".name"), (volume.root / (disk + ".name")).read_bytes()
    (volume.root / disk).rename(volume.root / "kept")
    (volume.root / "kept").rename(volume.ck.dir / "kept")
    volume.check("--repair", status=REPAIRED)
    assert not name.exists()
    (volume.ck.dir / "kept").rename(volume.root / disk)
    assert volume.found(status=DAMAGED) == {("name-missing", disk, None, None)}
    assert volume.check("--repair", status=REPAIRED)["repairs"][0]["action"] == "restored"
    assert name.read_bytes() == text and volume.found(status=DONE) == set()


def test_words(volume):
    disk = volume.disk["files/f01"]
    change(volume.root / disk, block_at(1) + 5)
    change(volume.root / disk, block_at(2) + 5)
    (volume.root / "R\x1bEADME").touch()
    done = volume.ck.run("check", volume.root, "--key", volume.key, status=DAMAGED)
    assert ("damage: files/f01: parts of the file do not authenticate: blocks 1 to 2\n"
            f"  on disk: {disk}\n"
            "  these parts of the file cannot be read, the others can\n") in done.stdout
    assert "damage: <R\\x1bEADME>: not part of the volume\n" in done.stdout
    assert ": 2 damages\n" in done.stdout and done.stdout.startswith("damage: ")
    done = volume.ck.run("check", volume.root, "--key", volume.key, "--repair", status=REPAIRED)
    assert f"moved: {disk}: parts of the file do not authenticate\n" in done.stdout
    assert "log of the repair: " in done.stdout


def deep_chain(fd, levels):
    for i in range(levels):
        name = "x" * 200
        os.mkdir(name, dir_fd=fd)
        fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    return fd


def test_deeper_than_a_path(ck):
    """Two hundred levels of long names: over 40,000 bytes of path. A damage at the bottom is found and repaired."""
    g = ck.volume()
    with ck.mounted() as at:
        fd = deep_chain(os.open(at, os.O_RDONLY), 200)
        f = os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd)
        os.write(f, b"x" * 100)
        os.close(f)
        os.close(fd)
    assert json.loads(ck.run("check", "web", "--config", ck.conf, "--json", status=DONE).stdout)["summary"]["directories"] == 201
    fd = os.open(g.cipher, os.O_RDONLY)
    try:
        for i in range(200):
            name = next(n for n in os.listdir(fd) if n.startswith("gocryptfs.longname.") and not n.endswith(".name"))
            fd, old = os.open(name, os.O_RDONLY, dir_fd=fd), fd
            os.close(old)
        name = next(n for n in os.listdir(fd) if not n.startswith("gocryptfs."))
        f = os.open(name, os.O_WRONLY, dir_fd=fd)
        os.pwrite(f, b"xxx", 40)
        os.close(f)
    finally:
        os.close(fd)
    limited = ["prlimit", "--nofile=40:40", ck.argv("check")[0], "check", "web", "--config", str(ck.conf), "--json"]
    done = subprocess.run(limited, env=ck.env, capture_output=True, timeout=60)
    assert done.returncode == DAMAGED, done.stderr
    found = json.loads(done.stdout)["findings"]
    assert len(found) == 1 and found[0]["name"] == ("x" * 200 + "/") * 200 + "f"
    ck.run("check", "web", "--config", ck.conf, "--repair", status=REPAIRED)
    ck.run("check", "web", "--config", ck.conf, status=DONE)
    run("rm", "-rf", g.cipher)


def test_large_file_is_shared_and_exact(ck):
    """Damages at the seams of what threads take; a giant sparse file takes no time."""
    g = ck.volume()
    blocks = 8192
    with ck.mounted() as at:
        (at / "large").write_bytes(os.urandom(BLOCK) * blocks)
        with open(at / "giant", "wb") as f:
            f.truncate(1 << 40)
    large = next(p for p in g.cipher.iterdir() if (1 << 20) < p.stat().st_size < (1 << 30))
    giant = next(p for p in g.cipher.iterdir() if p.stat().st_size > (1 << 30))
    bad = [0, 63, 64, 255, 256, 257, 4000, 4001, 8191]
    for b in bad:
        change(large, block_at(b) + 77)
    overwrite(giant, block_at(1000000) + 100, b"x")
    found = json.loads(ck.run("check", "web", "--config", ck.conf, "--json", status=DAMAGED).stdout)["findings"]
    runs = {(f["first_block"], f["blocks"]) for f in found if f["name"] == "large"}
    assert runs == {(0, 1), (63, 2), (255, 3), (4000, 2), (8191, 1)}
    assert [(f["first_block"], f["blocks"]) for f in found if f["name"] == "giant"] == [(1000000, 1)]


@pytest.mark.parametrize("config, words", [
    (lambda p: os.truncate(p, 1 << 30), "larger than"), (lambda p: p.write_text("[" * 200000), ""),
    (lambda p: p.write_text(""), ""), (lambda p: replace(p, os.mkfifo), "not a regular file"),
    (lambda p: replace(p, os.mkdir), "not a regular file"), (lambda p: p.unlink(), "not a gocryptfs volume")])
def test_config_that_cannot_be_read(volume, config, words):
    path = volume.root / "gocryptfs.conf"
    path.chmod(0o600)
    config(path)
    done = volume.ck.run("check", volume.root, "--key", volume.key, status=FAILED)
    assert done.stderr.startswith(f'ckrfs: cannot check "{volume.root}": ') and words in done.stderr
    assert done.stdout == ""


def test_statuses(volume):
    ck = volume.ck
    wrong = ck.key_file("wrong", name="other")
    assert "wrong" in ck.run("check", volume.root, "--key", f"file:{wrong}", status=WRONG_KEY).stderr
    ck.run("check", ck.dir / "nowhere", "--key", volume.key, status=NO_VOLUME)
    ck.run("check", "nothing", "--config", ck.conf, status=NO_VOLUME)
    ck.run("check", status=USAGE)
    ck.run("check", volume.root, "--quarantine", "x", status=USAGE)
    ck.run("check", volume.root, "--undo", ck.dir / "nolog", status=FAILED)


def test_mounted_is_busy(ck):
    ck.volume()
    with ck.mounted():
        for option in ([], ["--repair"]):
            done = ck.run("check", "web", "--config", ck.conf, *option, status=BUSY)
            hint = "ckrfs umount web" if option else "ckrfs check --online web"
            assert f'"web" is mounted on {ck.mnt}' in done.stderr and done.stderr.endswith(f"  try: {hint}\n")
    ck.run("check", "web", "--config", ck.conf, status=DONE)


def test_unreadable_is_told_and_the_walk_goes_on(ck, template):
    """As somebody who may not read all; others' files are no reason to stop."""
    v = Volume(ck, *template)
    run("chown", "-R", "1000:1000", v.root)
    v.at("files/f01").chmod(0)
    change(v.at("files/f02"), 300)
    v.at("dirs/d00").chmod(0)
    ck.dir.chmod(0o755)
    os.chown(ck.dir / "key", 1000, 1000)
    runtime = ck.dir / "userrun"
    runtime.mkdir()
    os.chown(runtime, 1000, 1000)
    done = ck.run("check", v.root, "--key", v.key, "--json", status=DAMAGED, user=1000, group=1000, extra_groups=[],
                  env=dict(ck.env, CKRFS_RUNTIME_DIR=str(runtime)))
    assert {tell(f) for f in json.loads(done.stdout)["findings"]} == {
        ("unreadable", v.disk["files/f01"], None, None), ("unreadable", v.disk["dirs/d00"], None, None),
        ("blocks", v.disk["files/f02"], 0, 1)}


def test_log_of_a_killed_mount(ck):
    """What a crash leaves is a note; a mount, or a repair, is done with it."""
    volume = ck.volume()
    key = f"file:{ck.dir}/key"

    def kill():
        with open(ck.mnt / "f", "r+b") as f:
            os.pwrite(f.fileno(), b"new", 10)
            os.fsync(f.fileno())
            for pid in (ck.state()["keeper_pid"], ck.state()["server_pid"]):
                os.kill(pid, signal.SIGKILL)
        ck.umount()

    for end in ("mount", "repair"):
        ck.mount()
        (ck.mnt / "f").write_bytes(os.urandom(10000))
        with open(ck.mnt / "f", "rb") as f:
            os.fsync(f.fileno())
        kill()
        done = ck.run("check", volume.cipher, "--key", key, "--json", status=DONE)
        assert [f["kind"] for f in json.loads(done.stdout)["findings"]] == ["redo-log"]
        volume.fsck()
        if end == "mount":
            with ck.mounted():
                assert (ck.mnt / "f").read_bytes()[10:13] == b"new"
        else:
            ck.run("check", volume.cipher, "--key", key, "--repair", status=DONE)
        assert "no damage" in ck.run("check", volume.cipher, "--key", key, status=DONE).stdout
        assert not [n for n in os.listdir(volume.cipher) if "redo" in n]


def test_corrupt_block_vector(ck):
    where = VECTORS if (VECTORS / "corrupt-block").exists() else REPO / "tests" / "vectors"
    vector = json.loads((where / "corrupt-block" / "expected.json").read_text())
    run("tar", "--xattrs", "--xattrs-include=*", "-C", ck.dir, "-xpJf", where / "corrupt-block" / "cipher.tar.xz")
    ck.keep_secret(vector["password"])
    key = ck.key_file(vector["password"])
    done = ck.run("check", ck.dir / "cipher", "--key", f"file:{key}", "--json", status=DAMAGED)
    found = json.loads(done.stdout)["findings"]
    expected = {(n, b) for n, e in vector["entries"].items() for b in e.get("bad", [])}
    assert {(f["name"], f["first_block"]) for f in found if f["kind"] == "blocks"} == expected and expected
    assert [f["path"] for f in found if f["kind"] != "blocks"] == ["not-ours.txt"]
