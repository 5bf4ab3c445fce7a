# SPDX-License-Identifier: MIT
"""What `ckrfs status` and `ckrfs metrics` show: JSON that stays, the table, watching it, counters that Prometheus takes."""
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import stat
import struct
import subprocess
import termios
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from support import BINARY, DONE, FAILED, REPO, USAGE, child, run, wait_until

# What a version has had, later ones have: never take a line out.
MEMBERS = {
    "name": str, "state": str, "source": str, "target": str, "lower": str, "format": str, "read_only": bool,
    "shared": bool, "owner": int, "key_identifier": str, "key_source": str, "keyring": int, "since": int,
    "expires": int, "next_refresh": int, "key_watch": str, "last_error": str, "requests": int, "read_bytes": int,
    "written_bytes": int, "errors": int, "damages": int, "keeper_pid": int, "server_pid": int, "secret_memory": str,
    "passthrough": str, "protections": list, "missing": list, "latency": list, "latency_ns": int, "refreshes": int,
    "refresh_failures": int, "ephemeral": bool,
}
FAMILIES = {
    "ckrfs_build_info": "gauge", "ckrfs_mounts": "gauge", "ckrfs_mount_state": "gauge", "ckrfs_mount_info": "gauge",
    "ckrfs_requests": "counter", "ckrfs_read_bytes": "counter", "ckrfs_written_bytes": "counter",
    "ckrfs_errors": "counter", "ckrfs_damages": "counter", "ckrfs_key_refreshes": "counter",
    "ckrfs_key_refresh_failures": "counter", "ckrfs_mount_since_timestamp_seconds": "gauge",
    "ckrfs_key_expiry_timestamp_seconds": "gauge", "ckrfs_key_expires_in_seconds": "gauge",
    "ckrfs_request_duration_seconds": "histogram",
}


def documented_members():
    """-> {member: type as docs/cli-abi.md has it}"""
    text = (REPO / "docs" / "cli-abi.md").read_text()
    part = text.partition("## `ckrfs status --json`")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (string|integer|boolean|array of \w+) \|", part, re.M))


def test_json_has_what_is_promised(ck):
    ck.volume()
    with ck.mounted():
        (ck.mnt / "f").write_text("x")
        state = ck.state()
    words = {str: "string", int: "integer", bool: "boolean", list: "array of "}
    documented = documented_members()
    assert set(documented) == set(state) == set(MEMBERS)
    for name, kind in MEMBERS.items():
        assert type(state[name]) is kind, name
        assert documented[name].startswith(words[kind]), name
    assert len(state["latency"]) == 13 and sum(state["latency"]) > 0 and state["latency_ns"] > 0


def test_old_json_of_dead_mounts_has_the_same_members(ck):
    ck.volume()
    ck.mount()
    os.kill(ck.state()["keeper_pid"], signal.SIGKILL)
    wait_until("it to be dead", lambda: ck.state()["state"] == "dead")
    assert set(ck.state()) == set(MEMBERS)
    ck.umount()


def test_a_keeper_that_dies_while_it_is_asked_is_dead(ck):
    """Not gone: its mount is still there."""
    ck.volume()
    ck.mount()
    keeper = ck.state()["keeper_pid"]
    os.kill(keeper, signal.SIGSTOP)
    with child(ck.argv("status", "--json"), env=ck.env, stdout=subprocess.PIPE) as asking:
        wait_until("it to wait for the answer", lambda: "poll" in Path(f"/proc/{asking.pid}/wchan").read_text())
        os.kill(keeper, signal.SIGKILL)
        said, _ = asking.communicate(timeout=30)
    assert [m["state"] for m in json.loads(said)["mounts"]] in (["dead"], ["silent"])
    wait_until("it to be dead", lambda: ck.state()["state"] == "dead")
    ck.umount()


def test_stopped_keepers_are_waited_for_together(ck):
    """Each of them would take 5 s: one after the other they would take longer than anybody waits."""
    names = [f"s{i}" for i in range(12)]
    pids = []
    for name in names:
        (ck.dir / name).mkdir()
        (ck.dir / f"{name}.plain").mkdir()
        ck.configure(f"volume {name}", source=ck.dir / f"{name}.plain", format="plain")
        ck.mount(name, ck.dir / name)
    pids = [m["keeper_pid"] for m in ck.states()]
    try:
        for pid in pids[:-1]:
            os.kill(pid, signal.SIGSTOP)
        done = ck.run("status", "--json", status=DONE, timeout=30)
        assert sorted(m["state"] for m in json.loads(done.stdout)["mounts"]) == ["silent"] * 11 + ["unlocked"]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    ck.run("umount", "--all", status=DONE)


# ---- the table

def terminal(ck, columns, rows, *args):
    """ckrfs at a terminal of that size: (process, the terminal's other end)"""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen([BINARY, *args], stdin=subprocess.DEVNULL, stdout=theirs, env=ck.env)
    os.close(theirs)
    return process, ours


def read_all(fd):
    text = b""
    try:
        while block := os.read(fd, 65536):
            text += block
    except OSError:  # the terminal's last user has gone
        pass
    os.close(fd)
    return text.decode().replace("\r\n", "\n")


def test_table_fits_the_terminal(ck):
    """Paths keep their end, and a pipe gets everything."""
    deep = ck.dir / ("directory-" * 4) / "end"
    deep.mkdir(parents=True)
    ck.volume()
    with ck.mounted("web", deep):
        process, fd = terminal(ck, 90, 24, "status")
        lines = read_all(fd).splitlines()
        assert process.wait() == DONE
        assert max(map(len, lines)) <= 90
        assert re.search(r" \.\.\.\S*-/end  ", lines[1])
        assert str(deep) in ck.run("status", status=DONE).stdout


def test_watch(ck):
    ck.volume()
    ck.plain("two")
    second = ck.dir / "second"
    second.mkdir()
    with ck.mounted(), ck.mounted("two", second):
        process, fd = terminal(ck, 200, 6, "status", "--watch=50ms")
        seen = b""
        try:
            while b"2 mounts: 2 unlocked" not in seen:
                seen += os.read(fd, 65536)
            ck.run("lock", "web", status=DONE)
            while b"1 locked" not in seen:
                seen += os.read(fd, 65536)
        finally:
            process.terminate()
            process.wait()
            seen += read_all(fd).encode()
        last = seen.decode().partition("1 locked")[0].rpartition("\033[H\033[2J")[2].splitlines()
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", last[0])
        assert last[2].startswith("web   locked"), "one row has room: that in trouble"
        assert last[3] == "... and 1 more"
        ck.run("unlock", "web", status=DONE)


def test_watch_without_a_terminal(ck):
    ck.plain("web")
    with ck.mounted():
        with child([BINARY, "status", "web", "--watch=10ms"], stdout=subprocess.PIPE, env=ck.env, text=True) as process:
            seen = [line for line, _ in zip(process.stdout, range(80))]
        assert sum(line == "name:           web\n" for line in seen) > 1
        assert not any("\033" in line for line in seen)


def test_wrong_watches(ck):
    assert ck.run("status", "--watch=0", status=USAGE).stderr.startswith("ckrfs: --watch=0 is not a time such as 2s\n")
    assert ck.run("status", "--watch", "--json", status=USAGE).stderr.startswith("ckrfs: one of --json, --names and --watch\n")


# ---- metrics

def samples(text):
    """-> {(name, labels): value}, after the parser of Prometheus's own library has taken it"""
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert {name: f.type for name, f in families.items()} == FAMILIES
    assert all(f.documentation for f in families.values())
    return {(s.name, frozenset(s.labels.items())): s.value for f in families.values() for s in f.samples}


def sample(found, metric, **labels):
    return found[metric, frozenset(labels.items())]


def test_metrics(ck):
    volume = ck.volume()
    with ck.mounted():
        (ck.mnt / "a-file-name").write_bytes(b"x" * 50000)
        run("sync", "-f", ck.mnt)
        text = ck.run("metrics", status=DONE).stdout
        found, state = samples(text), ck.state()
        assert sample(found, "ckrfs_mounts") == 1
        assert sample(found, "ckrfs_mount_state", name="web", state="unlocked") == 1
        assert sample(found, "ckrfs_mount_state", name="web", state="locked") == 0
        assert sample(found, "ckrfs_mount_info", name="web", format="gocryptfs", lower="directory", read_only="0") == 1
        assert 0 < sample(found, "ckrfs_requests_total", name="web") <= state["requests"]
        assert sample(found, "ckrfs_written_bytes_total", name="web") == state["written_bytes"] >= 50000
        count = sample(found, "ckrfs_request_duration_seconds_count", name="web")
        assert count == sample(found, "ckrfs_request_duration_seconds_bucket", name="web", le="+Inf") > 0
        assert sample(found, "ckrfs_request_duration_seconds_sum", name="web") > 0
        for hidden in (volume.cipher, ck.mnt, ck.dir / "key", "a-file-name", state["key_identifier"]):
            assert str(hidden) not in text
        if shutil.which("promtool"):
            run("promtool", "check", "metrics", input=text.encode())
        ck.run("lock", "web", status=DONE)
        found = samples(ck.run("metrics", status=DONE).stdout)
        assert sample(found, "ckrfs_mount_state", name="web", state="locked") == 1
        ck.run("unlock", "web", status=DONE)
    assert samples(ck.run("metrics", status=DONE).stdout) == {
        ("ckrfs_build_info", frozenset({("version", run(BINARY, "--version").stdout.decode().split()[1])})): 1,
        ("ckrfs_mounts", frozenset()): 0}


def test_metrics_tell_of_refreshes(ck):
    ck.volume(key_lifetime="1h")
    with ck.mounted():
        ck.run("refresh", "web", status=DONE)
        ck.run("refresh", "web", status=DONE)
        (ck.dir / "key").rename(ck.dir / "gone")
        ck.run("refresh", "web", status=13)
        found = samples(ck.run("metrics", status=DONE).stdout)
        assert sample(found, "ckrfs_key_refreshes_total", name="web") == 2
        assert sample(found, "ckrfs_key_refresh_failures_total", name="web") == 1
        assert 3500 < sample(found, "ckrfs_key_expires_in_seconds", name="web") <= 3600
        assert sample(found, "ckrfs_mount_state", name="web", state="degraded") == 1


def test_metrics_into_a_file(ck):
    """In one step, readable by node_exporter, and nothing is left of what failed."""
    where = ck.dir / "collector"
    where.mkdir()
    out = where / "ckrfs.prom"
    out.write_text("old\n")
    before = out.stat().st_ino
    ck.run("metrics", "--output", out, status=DONE)
    assert "ckrfs_mounts 0\n" in out.read_text()
    assert out.stat().st_ino != before and stat.S_IMODE(out.stat().st_mode) == 0o644
    assert os.listdir(where) == ["ckrfs.prom"]
    done = ck.run("metrics", "--output", where / "no" / "such", status=FAILED)
    assert done.stderr == f"ckrfs: cannot write the metrics to {where}/no/such: No such file or directory\n"
    target = where / "directory"
    target.mkdir()
    ck.run("metrics", "--output", target, status=FAILED)
    assert sorted(os.listdir(where)) == ["ckrfs.prom", "directory"]
