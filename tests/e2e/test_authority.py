# SPDX-License-Identifier: MIT
"""Who may have a mount do what: the control socket's peers, limits of users, and what the audit tells."""
import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import threading

import pytest
from manager import PASSPHRASE
from support import BINARY, CONFIG, DONE, FAILED, REPO, UID, WRONG_KEY, as_user, child, forms, run, wait_until
from test_mount import in_namespace

OTHER = 1001


def connect(ck, name="web"):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(str(ck.runtime / "mounts" / name / "control"))
    return s


def ask(ck, text, name="web"):
    """The answer's line, "" if there is none."""
    with connect(ck, name) as s:
        with contextlib.suppress(BrokenPipeError):  # who is refused has the answer before he asks
            s.sendall(text if isinstance(text, bytes) else json.dumps(text).encode() + b"\n")
        with contextlib.suppress(ConnectionResetError):
            return s.makefile().readline()
    return ""


def audits(ck):
    return [line.partition("audit: ")[2] for line in ck.log_text().splitlines() if "audit: " in line]


# ---- who may

COMMANDS = ["status", "lock", "unlock", "refresh", "check", "umount"]


def test_commands_are_all_of_them(ck):
    """The list above, by which the tests below walk, is the table's."""
    table = re.search(r"commands\[\] = \{(.*?)\};", (REPO / "src" / "message.c").read_text(), re.S)[1]
    assert sorted(re.findall(r'"(\w+)"', table)) == sorted(COMMANDS)


@pytest.mark.parametrize("owner", [None, UID])
def test_others_are_refused_by_their_credentials(ck, owner):
    """Not by the socket's permissions alone: with those wide open each command of another user gets EPERM and words."""
    ck.volume(**({"owner": owner} if owner else {}))
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"content")
        (ck.runtime / "mounts" / "web" / "control").chmod(0o666)

        def tries():
            for command in [*COMMANDS, "key"]:
                answer = json.loads(ask(ck, {"version": 1, "command": command, "key": "file:/etc/shadow"}))
                assert answer == {"version": 1, "ok": False, "error": {
                    "code": -errno.EPERM, "status": FAILED, "text": "only root and the mount's owner may do that", "hint": ""}}

        as_user(tries, uid=OTHER)
        assert ck.state()["state"] == "unlocked" and (mnt / "f").read_bytes() == b"content"
        refused = [line for line in audits(ck) if line.startswith("control ")]
        assert len(refused) == len(COMMANDS) + 1
        assert all(re.fullmatch(rf'control "web" by uid={OTHER} pid=\d+ comm="[^"]*": refused', line) for line in refused)


def test_owner_acts_but_only_on_his_own(ck):
    """Two mounts of two owners: each may lock and unlock his, and give the other's no key."""
    other = ck.dir / "mnt2"
    other.mkdir()
    ck.volume("one", owner=UID)
    ck.volume("two", cipher=ck.dir / "cipher2", owner=OTHER)
    with ck.mounted("one"), ck.mounted("two", other):
        for name in ("one", "two"):
            (ck.runtime / "mounts" / name / "control").chmod(0o666)

        def acts():
            for command in ("lock", "unlock", "refresh", "status"):
                assert json.loads(ask(ck, {"version": 1, "command": command}, "one"))["ok"]
                answer = json.loads(ask(ck, {"version": 1, "command": command}, "two"))
                assert answer["error"]["code"] == -errno.EPERM

        as_user(acts)
        ck.run("lock", "one", "two", status=DONE)

        def gives():
            assert json.loads(ask(ck, {"version": 1, "command": "unlock"}, "two"))["error"]["code"] == -errno.EPERM
            named = {"version": 1, "command": "unlock", "key": f"file:{ck.dir}/key"}
            assert json.loads(ask(ck, named, "one"))["error"]["code"] == -errno.EPERM

        as_user(gives)
        assert [m["state"] for m in ck.states()] == ["locked", "locked"]


def test_no_answer_holds_a_key(ck):
    """Every command in every state, right and wrong: no form of the key or passphrase in what comes back, or in the audit."""
    volume = ck.volume()
    master = volume.master_key()
    secrets = forms(PASSPHRASE) | forms(master)
    raw = ck.key_file(master, "raw")
    answers = []

    def walk():
        for command in COMMANDS[:-1]:
            for extra in ({}, {"key": f"file:{raw}?fmt=raw"}, {"key": "file:/nowhere"}, {"lazy": True}, {"timeout_ms": 1000}):
                answers.append(ask(ck, {"version": 1, "command": command, **extra}))

    ck.mount()
    walk()
    ask(ck, {"version": 1, "command": "lock"})
    walk()
    ck.key_file("wrong")
    ask(ck, {"version": 1, "command": "lock"})
    walk()
    answers.append(ask(ck, {"version": 1, "command": "umount", "lazy": True}))
    assert len(answers) == 3 * 5 * 5 + 1 and all(answers)
    text = "".join(answers).encode() + ck.log.read_bytes()
    assert not any(s in text for s in secrets)
    wait_until("its end", lambda: not ck.processes())


# ---- peers that misbehave

def test_bad_peers_do_not_stop_the_keeper(ck):
    """Garbage, half messages, giants, peers that never read or never say anything: others are answered meanwhile."""
    ck.volume()
    with ck.mounted() as mnt, contextlib.ExitStack() as stack:
        keeper = ck.state()["keeper_pid"]
        fds = len(os.listdir(f"/proc/{keeper}/fd"))
        for text in (b"", b"{", b'{"version":1,"command":"status"', b"x" * 60000):
            for _ in range(4):
                s = stack.enter_context(connect(ck))
                s.sendall(text)
        assert ck.state()["state"] == "unlocked"
        for text in (b"\n", b"garbage\n", os.urandom(3000) + b"\n", b"\0" * 100 + b"\n", b"[" * 1000 + b"\n", b"{}\n",
                     b'{"version":1}\n', b'{"version":1,"command":"\\u0000"}\n', b'{"version":9,"command":"lock"}\n'):
            answer = ask(ck, text)
            assert json.loads(answer)["ok"] is False, (text, answer)
        for size in (65536, 65537, 1 << 20):
            with connect(ck) as s, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(b"x" * size)
                assert json.loads(s.makefile().readline())["error"]["code"] == -errno.EMSGSIZE
        (mnt / "f").write_bytes(b"content")
        assert ck.state()["state"] == "unlocked"
        stack.close()
        wait_until("its descriptors", lambda: len(os.listdir(f"/proc/{keeper}/fd")) <= fds)


def test_five_hundred_connections(ck):
    """They say nothing, and stay. Commands of root and the owner are answered all the same, and nothing is left."""
    ck.volume(owner=UID)
    with ck.mounted() as mnt, contextlib.ExitStack() as stack:
        (mnt / "f").write_bytes(b"content")
        keeper = ck.state()["keeper_pid"]
        fds = len(os.listdir(f"/proc/{keeper}/fd"))
        flood = ("import socket, sys\nheld = []\nfor _ in range(500):\n    s = socket.socket(socket.AF_UNIX)\n"
                 "    s.connect(sys.argv[1])\n    held.append(s)\nprint('ready', flush=True)\nsys.stdin.read()")
        argv = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "/usr/bin/python3", "-c", flood,
                str(ck.runtime / "mounts" / "web" / "control")]
        floods = [stack.enter_context(child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) for _ in range(2)]
        for _ in range(5):
            ck.run("lock", "web", status=DONE)
            assert ck.state()["state"] == "locked"
            ck.run("unlock", "web", status=DONE)
        for p in floods:
            assert p.stdout.readline() == b"ready\n"
        ck.run("lock", "web", status=DONE)
        ck.run("unlock", "web", status=DONE)
        assert (mnt / "f").read_bytes() == b"content"
        for p in floods:
            p.stdin.close()
            p.wait(30)
        wait_until("its descriptors", lambda: len(os.listdir(f"/proc/{keeper}/fd")) <= fds)


def test_request_is_heard_in_a_flood(ck):
    """Who has said what he wants before there were too many is answered."""
    ck.volume()
    with ck.mounted(), contextlib.ExitStack() as stack:
        keeper = ck.state()["keeper_pid"]
        os.kill(keeper, 19)  # SIGSTOP: all of these wait for it together
        try:
            first = stack.enter_context(connect(ck))
            first.sendall(b'{"version":1,"command":"status"}\n')
            for _ in range(40):
                stack.enter_context(connect(ck))
        finally:
            os.kill(keeper, 18)
        assert json.loads(first.makefile().readline())["ok"]


def test_client_that_leaves(ck):
    """What it has asked for goes on, and is told to the audit."""
    ck.volume()
    with ck.mounted() as mnt:
        (mnt / "f").write_bytes(b"x" * 1000000)
        with connect(ck) as s:
            s.sendall(b'{"version":1,"command":"lock"}\n')
        wait_until("the lock", lambda: ck.state()["state"] == "locked")
        wait_until("the audit", lambda: any(line.startswith('lock "web" by uid=0') for line in audits(ck)))


# ---- the audit

def test_audit_tells_who_what_and_result(ck):
    ck.volume(owner=UID)
    ck.mount()
    ck.key_file("wrong", "wrong")
    ck.run("lock", "web", status=DONE)
    ck.run("unlock", "web", "--key", f"file:{ck.dir}/wrong", status=WRONG_KEY)
    as_user(lambda: ask(ck, {"version": 1, "command": "unlock"}))
    ck.run("refresh", "web", status=DONE)
    ck.state()
    ck.umount()
    said = [re.sub(r"pid=\d+", "pid=N", line) for line in audits(ck)]
    me = open("/proc/self/comm").read().strip()
    assert said == ['mount "web" by uid=0, owner uid=1000: done',
                    'lock "web" by uid=0 pid=N comm="ckrfs": done',
                    'unlock "web" by uid=0 pid=N comm="ckrfs": failed: cannot unlock "web": wrong passphrase',
                    f'unlock "web" by uid={UID} pid=N comm="{me}": done',
                    'refresh "web" by uid=0 pid=N comm="ckrfs": done',
                    'umount "web" by uid=0 pid=N comm="ckrfs": done']


def test_audit_of_a_failed_mount(ck):
    ck.volume()
    ck.key_file("wrong")
    ck.run("mount", "web", ck.mnt, status=WRONG_KEY)
    assert audits(ck) == ['mount "web" by uid=0: failed: cannot mount "web": wrong passphrase']


def test_audit_is_told_whatever_the_level(ck):
    ck.volume(log_level="error")
    with ck.mounted():
        ck.run("lock", "web", status=DONE)
        ck.run("unlock", "web", status=DONE)
    assert len(audits(ck)) == 4 and "is locked" not in ck.log_text()


def test_name_of_a_program_cannot_forge_a_line(ck):
    ck.volume()
    with ck.mounted():
        forge = ("import socket, sys\nopen('/proc/self/comm', 'w').write('x\": done\\naudit')\n"
                 "s = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
                 "s.sendall(b'{\"version\":1,\"command\":\"refresh\"}\\n')\ns.makefile().readline()")
        run("/usr/bin/python3", "-c", forge, ck.runtime / "mounts" / "web" / "control")
        told = [line for line in audits(ck) if line.startswith("refresh")]
        assert len(told) == 1 and told[0].endswith(': done') and told[0].count('"') == 4, told


def test_users_cannot_fill_the_log(ck):
    """60 lines a minute, and how many there were besides; root's are all there."""
    ck.volume(owner=UID)
    with ck.mounted():
        def many():
            for _ in range(100):
                assert json.loads(ask(ck, {"version": 1, "command": "refresh"})) or True

        ck.run("lock", "web", status=DONE)
        as_user(many)
        assert sum(f"by uid={UID} " in line for line in audits(ck)) == 60
        for _ in range(70):
            ask(ck, {"version": 1, "command": "lock"})
        assert sum("by uid=0 " in line for line in audits(ck)) == 71


def test_syslog_has_it_in_authpriv(ck):
    """A /dev/log of the test's own: audit lines are authpriv.notice (85), others daemon."""
    ck.volume(log="syslog")
    lines, log = [], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dev = ck.dir / "dev"
    dev.mkdir()
    log.bind(str(dev / "log"))
    log.settimeout(0.2)
    ended = threading.Event()

    def listen():
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                lines.append(log.recv(4096).decode())

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        run("unshare", "-m", "--propagation", "private", "sh", "-ec", """
for d in null zero random urandom fuse cpu_dma_latency; do [ ! -e /dev/$d ] || cp -a /dev/$d $1/dev/$d; done
mount --bind $1/dev /dev
shift
"$1" mount --config "$2" web "$3"; "$1" lock web; "$1" unlock web; "$1" umount web
""", "sh", ck.dir, BINARY, ck.conf, ck.mnt, env=ck.env)
        wait_until("the last line", lambda: any("has ended" in line for line in lines))
    finally:
        ended.set()
        listener.join()
        log.close()
    told = [line for line in lines if "audit: " in line]
    assert len(told) == 4 and all(line.startswith("<85>") and " ckrfs[" in line for line in told), lines
    assert all(line.startswith(("<30>", "<31>", "<28>")) for line in lines if "audit: " not in line), lines
    for node in dev.iterdir():
        node.unlink()


# ---- limits

LIMITED = rf"""
echo "ckrfstest:x:{UID}:{UID}::/:/bin/sh" >> /etc/passwd
mknod $1/fuse c 10 229; chmod 666 $1/fuse; mount --bind $1/fuse /dev/fuse
asuser() {{ setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps -all "$@"; }}
limits() {{ printf '[defaults]\n%s\n%s\n' "$1" "$2" > /etc/ckrfs/ckrfs.conf; chmod 644 /etc/ckrfs/ckrfs.conf; }}
set +e
m() {{ asuser "$b" mount --config $d/ckrfs.conf $1 $d/$1 2>&1 && echo "$1 is mounted"; }}
b=$2 d=$1
"""


@pytest.fixture
def three(ck):
    """Three volumes of a user, one of them plain."""
    for i, name in enumerate(("one", "two")):
        ck.volume(name, cipher=ck.dir / f"cipher{i}")
        (ck.dir / name).mkdir()
    ck.plain("three")
    (ck.dir / "three").mkdir()
    run("chown", "-R", f"{UID}:{UID}", ck.dir)
    return ck


def test_limit_of_mounts(three):
    """Root's word, for a user's own configuration and runtime directory too; root has no limit."""
    ck = three
    (ck.dir / "run2").mkdir()
    os.chown(ck.dir / "run2", UID, UID)
    said = in_namespace(ck, LIMITED + r"""
limits "max-mounts = 2"
m one; m two; m three
CKRFS_RUNTIME_DIR=$d/run2; export CKRFS_RUNTIME_DIR; m three; CKRFS_RUNTIME_DIR=$d/run
asuser $b umount $d/one
m three
asuser $b umount $d/two $d/three
export CKRFS_RUNTIME_DIR=$d/run3; mkdir $d/run3
for i in 1 2 3; do mkdir $d/s$i $d/t$i; $b mount -o format=plain,log=$d/log $d/s$i $d/t$i && echo "root's $i"; done
$b umount $d/t1 $d/t2 $d/t3
rm -r $d/fuse
""").stdout.decode().splitlines()
    refused = f'ckrfs: cannot mount "three": uid {UID} has 2 mounts, and may have no more than 2 (max-mounts in /etc/ckrfs/ckrfs.conf)'
    assert said == ["one is mounted", "two is mounted", refused, refused, "three is mounted", "root's 1", "root's 2", "root's 3"]


def test_limit_of_keys(three):
    """A locked mount has none, and cannot take one again while others have them; a plain one never has."""
    said = in_namespace(three, LIMITED + r"""
limits "max-keys = 1"
m one; m two; m three
asuser $b lock one
m two
asuser $b unlock one 2>&1
asuser $b lock two
asuser $b unlock one 2>&1 && echo unlocked
asuser $b umount $d/one $d/two $d/three
rm $d/fuse
""").stdout.decode().splitlines()
    words = f"uid {UID} has 1 keys in use, and may have no more than 1 (max-keys in /etc/ckrfs/ckrfs.conf)"
    assert said == ["one is mounted", f'ckrfs: cannot mount "two": {words}', "three is mounted", "two is mounted",
                    f'ckrfs: cannot unlock "one": {words}', "unlocked"]


def test_limits_stand_only_in_the_default_file(three):
    """Neither in a user's file nor behind -o, and not for one volume."""
    said = in_namespace(three, LIMITED + r"""
limits "max-mounts = 1"
asuser $b mount --config $d/ckrfs.conf one $d/one -o max-mounts=5 2>&1; echo $?
sed "s/^log-level.*/max-mounts = 5/" $d/ckrfs.conf > $d/mine; chmod 600 $d/mine; chown %d $d/mine
asuser $b mount --config $d/mine one $d/one 2>&1; echo $?
limits "[volume x]" "max-keys = 5"
asuser $b mount x $d/one 2>&1; echo $?
limits "max-mounts = many"
m one
rm $d/fuse $d/mine
""" % UID).stdout.decode().splitlines()
    words = "max-mounts can stand only in [defaults] of /etc/ckrfs/ckrfs.conf"
    assert said == [f"ckrfs: -o: {words}", str(CONFIG), f"ckrfs: {three.dir}/mine:3: {words}", str(CONFIG),
                    "ckrfs: /etc/ckrfs/ckrfs.conf:3: max-keys can stand only in [defaults] of /etc/ckrfs/ckrfs.conf", str(CONFIG),
                    'ckrfs: /etc/ckrfs/ckrfs.conf:2: max-mounts = "many": must be a whole number, from 0 to 1000000']
