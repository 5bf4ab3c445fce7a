# SPDX-License-Identifier: MIT
"""ckrfs check --online: of a volume while it is mounted and used."""
import json
import os
import socket
import subprocess

from check_volume import NOTES, Volume, block_at, change, tell, template, volume
from support import BUSY, DAMAGED, DONE, NO_VOLUME, USAGE, alive

LOAD = r"""
import os, random, sys
at, seconds = sys.argv[1], float(sys.argv[2])
import time
end = time.monotonic() + seconds
rng = random.Random(int(sys.argv[3]))
os.makedirs(at, exist_ok=True)
n = 0
print("begun", flush=True)
while time.monotonic() < end:
    n += 1
    name = os.path.join(at, rng.choice("abcdef") * rng.choice([3, 200]))
    what = rng.randrange(8)
    try:
        if what == 0:
            with open(name, "wb") as f:
                f.write(os.urandom(rng.randrange(1, 200000)))
        elif what == 1:
            with open(name, "r+b") as f:
                for _ in range(20):
                    f.seek(rng.randrange(0, 200000))
                    f.write(os.urandom(rng.randrange(1, 9000)))
                    f.flush()
        elif what == 2:
            os.truncate(name, rng.randrange(0, 200000))
        elif what == 3:
            os.unlink(name)
        elif what == 4:
            os.mkdir(name + "d")
            with open(name + "d/f", "w") as f:
                f.write("x")
        elif what == 5:
            os.unlink(name + "d/f")
            os.rmdir(name + "d")
        elif what == 6:
            os.rename(name, name[::-1] + "r")
        else:
            os.symlink("target", name + "l")
            os.rename(name + "l", name + "m")
    except OSError:
        pass
print(n, flush=True)
"""


def online(ck, *options, **kw):
    done = ck.run("check", "--online", "web", "--json", *options, **kw)
    return json.loads(done.stdout) if done.stdout else None


def test_online_finds_damage_and_nothing_else(ck, template):
    """Under load there is no false finding; a planted damage is found; only the damaged file is told of."""
    v = Volume(ck, *template)
    ck.configure("volume web", source=v.root, key=v.key)
    change(v.at("files/f01"), block_at(2) + 50)
    v.at("dirs/d03").joinpath("gocryptfs.diriv").unlink()
    planted = {("blocks", v.disk["files/f01"], 2, 1), ("diriv-missing", v.disk["dirs/d03"], None, None)}
    with ck.mounted() as at:
        writers = [subprocess.Popen(["/usr/bin/python3", "-c", LOAD, str(at / f"load{i}"), "6", str(i)],
                                    stdout=subprocess.PIPE, text=True) for i in range(2)]
        try:
            for w in writers:
                assert w.stdout.readline() == "begun\n"
            rounds = 0
            while rounds < 2 or any(w.poll() is None for w in writers):
                answer = online(ck, status=DAMAGED)
                assert {tell(f) for f in answer["findings"] if f["severity"] == "damage"} == planted
                assert answer["summary"]["complete"] and answer["volume"] == str(v.root)
                rounds += 1
        finally:
            for w in writers:
                w.kill() if w.poll() is None else None
                out, _ = w.communicate()
        assert all(w.returncode == 0 for w in writers) and int(out) > 50
    assert {t for t in v.found(status=DAMAGED) if t[0] not in NOTES} == planted


def ask_with_pipe(ck, name="web"):
    """-> the answer of the keeper, the end of the pipe to read from"""
    r, w = os.pipe()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(ck.runtime / "mounts" / name / "control"))
        socket.send_fds(s, [b'{"version":1,"command":"check"}\n'], [w])
        os.close(w)
        answer = json.loads(s.makefile().readline())
    return answer, r


def many_damages(v, n=700):
    """More findings than a pipe holds."""
    for i in range(n):
        (v.root / f"foreign-{i:05}").touch()


def test_online_one_at_a_time_and_umount_at_once(ck, template):
    """A reader that does not read holds up its check, and neither the mount nor its end."""
    v = Volume(ck, *template)
    many_damages(v)
    ck.configure("volume web", source=v.root, key=v.key)
    at = ck.mount("web")
    answer, r = ask_with_pipe(ck)
    assert answer == {"version": 1, "ok": True}
    assert os.read(r, 1)
    done = ck.run("check", "--online", "web", status=BUSY)
    assert done.stderr == 'ckrfs: cannot check "web": "web" is being checked already\n'
    (at / "new").write_text("works")
    pids = [ck.state()["keeper_pid"], ck.state()["server_pid"]]
    ck.umount()
    assert not any(alive(p) for p in pids)
    os.close(r)


def test_online_reader_that_goes(ck, template):
    """It ends its check; the next one is not refused, and complete."""
    v = Volume(ck, *template)
    many_damages(v)
    ck.configure("volume web", source=v.root, key=v.key)
    with ck.mounted():
        for _ in range(3):
            answer, r = ask_with_pipe(ck)
            assert answer["ok"]
            os.close(r)
            ck.wait_for_log("check stopped")
            ck.log.write_text("")
        assert len(online(ck, status=DAMAGED)["findings"]) == 700
        assert ck.state()["state"] == "unlocked"


def test_online_mistakes(ck):
    ck.volume()
    ck.plain()
    ck.run("check", "--online", "web", status=NO_VOLUME)
    ck.run("check", "--online", "web", "--repair", status=USAGE)
    with ck.mounted():
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(ck.runtime / "mounts" / "web" / "control"))
            s.sendall(b'{"version":1,"command":"check"}\n')
            assert json.loads(s.makefile().readline())["error"]["code"] == -74
        with socket.socket(socket.AF_UNIX) as s, open(ck.dir / "file", "wb") as f:
            s.connect(str(ck.runtime / "mounts" / "web" / "control"))
            socket.send_fds(s, [b'{"version":1,"command":"check"}\n'], [f.fileno()] * 3)
            assert json.loads(s.makefile().readline())["error"]["code"] == -22
        keeper = ck.state()["keeper_pid"]
        before = len(os.listdir(f"/proc/{keeper}/fd"))
        assert "no damage" in ck.run("check", "--online", ck.mnt, status=DONE).stdout
        assert len(os.listdir(f"/proc/{keeper}/fd")) == before
    with ck.mounted("plain"):
        assert "nothing to check" in ck.run("check", "--online", "plain", status=15).stderr


def test_online_check_is_ended_by_a_lock(ck, template):
    """It uses the key. A locked volume is not checked, an unlocked one is again."""
    v = Volume(ck, *template)
    many_damages(v)
    ck.configure("volume web", source=v.root, key=v.key)
    with ck.mounted():
        answer, r = ask_with_pipe(ck)
        assert answer["ok"] and os.read(r, 1)
        ck.run("lock", "web", status=DONE)
        ck.wait_for_log("check stopped")
        os.close(r)
        done = ck.run("check", "--online", "web", status=13)
        assert done.stderr == 'ckrfs: cannot check "web": "web" is locked\n  try: ckrfs unlock web\n'
        ck.run("unlock", "web", status=DONE)
        assert len(online(ck, status=DAMAGED)["findings"]) == 700
