# SPDX-License-Identifier: MIT
"""Each key source end to end, in each format, and what each says when it fails: word for word as in ckrfs.conf(5)."""
import base64
import os
import re
import socket
import threading

import pytest
from support import CONFIG, NO_KEY, REPO, UID, WRONG_KEY, run

PASSPHRASE = b"correct horse"


def in_session(ck, script, *args, **kw):
    """Runs a shell script in a session keyring of its own, as a manager would; $mount mounts with what follows."""
    mount = " ".join(ck.argv("mount", "web", ck.mnt))
    return run("keyctl", "session", "-", "sh", "-c", f"mount='{mount}'\n{script}", "sh", *args, env=ck.env, **kw)


def contents(volume):
    """What a source gives for each format."""
    master = volume.master_key()
    return {"": PASSPHRASE, "?fmt=pass": PASSPHRASE + b"\n", "?fmt=raw": master, "?fmt=hex": master.hex().encode() + b"\n",
            "?fmt=base64": base64.b64encode(master)}


class UnixServer:
    """Sends its content to whoever connects, as many times as asked."""

    def __init__(self, path, content):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.content = content
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self.content)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


def mount_and_check(ck, **kw):
    ck.mount(**kw)
    (ck.mnt / "f").write_text("x")
    source = ck.state()["key_source"]
    ck.umount()
    return source


@pytest.mark.parametrize("form", ["", "?fmt=pass", "?fmt=raw", "?fmt=hex", "?fmt=base64"])
@pytest.mark.parametrize("scheme", ["file", "fd", "cred", "unix", "exec", "keyring"])
def test_every_source_in_every_format(ck, scheme, form):
    volume = ck.volume()
    content = contents(volume)[form]
    path = ck.key_file(content, name="content")
    kw, server = {}, None
    if scheme == "file":
        spec = f"file:{path}"
    elif scheme == "fd":
        fd = os.open(path, os.O_RDONLY)
        spec, kw = f"fd:{fd}", {"pass_fds": [fd]}
    elif scheme == "cred":
        spec, kw = "cred:content", {"env": dict(ck.env, CREDENTIALS_DIRECTORY=str(ck.dir))}
    elif scheme == "unix":
        server = UnixServer(ck.dir / "sock", content)
        spec = f"unix:{ck.dir}/sock"
    elif scheme == "exec":
        spec = f"exec:/bin/cat {path}"
    else:
        spec = "keyring:user:ckrfs-e2e"
    ck.volume(init=False, key=spec + form)
    if scheme == "keyring":
        in_session(ck, 'keyctl padd user ckrfs-e2e @s < "$1" >/dev/null; $mount -o keyring=inherit', path)
        ck.remember(ck.mnt)
        served = ck.state()["key_source"]
        ck.umount()
    else:
        served = mount_and_check(ck, **kw)
    assert served == spec + form
    if server:
        server.close()


def test_sources_are_tried_in_order(ck):
    ck.volume()
    good = ck.key_file(PASSPHRASE)
    specs = [f"file:{ck.dir}/missing", "exec:/bin/false", f"file:{good}", f"file:{ck.key_file('wrong', name='wrong')}"]
    ck.volume(init=False, key=specs)
    assert mount_and_check(ck) == f"file:{good}"


def test_a_key_that_does_not_open_is_not_skipped(ck):
    """The first source that gives a key serves: a wrong one is said, not papered over."""
    ck.volume()
    good = ck.key_file(PASSPHRASE)
    ck.volume(init=False, key=[f"file:{ck.key_file('wrong', name='wrong')}", f"file:{good}"])
    ck.run("mount", "web", ck.mnt, status=WRONG_KEY)


# ---- keyrings

def test_keyring_by_serial(ck):
    """A ring of the manager's own; its session may be gone afterwards."""
    ck.volume(key="keyring:user:ckrfs-e2e")
    in_session(ck, """
ring=$(keyctl newring handed @s)
keyctl padd user ckrfs-e2e $ring < "$1" >/dev/null
$mount -o keyring=$ring""", ck.key_file(PASSPHRASE))
    ck.remember(ck.mnt)
    (ck.mnt / "f").write_text("x")
    ck.umount()


def test_key_in_the_session_is_not_seen_without_keyring(ck):
    ck.volume(key="keyring:user:ckrfs-e2e")
    done = in_session(ck, 'keyctl padd user ckrfs-e2e @s < "$1" >/dev/null; $mount', ck.key_file(PASSPHRASE), check=False)
    assert done.returncode == NO_KEY


@pytest.mark.parametrize("search", ["first", "last"])
def test_keyring_search(ck, search):
    """Nothing but the mount fills its own ring, so the manager's key serves either way (the order: test_keyring.c)."""
    ck.volume(key="keyring:user:ckrfs-e2e", keyring_search=search)
    in_session(ck, 'keyctl padd user ckrfs-e2e @s < "$1" >/dev/null; $mount -o keyring=inherit', ck.key_file(PASSPHRASE))
    ck.remember(ck.mnt)
    ck.umount()


def test_program_cannot_reach_the_keyrings(ck):
    """What exec: runs has a session keyring of its own: it can neither read the manager's keys nor put keys in."""
    program = ck.key_file("#!/bin/sh\nkeyctl padd user ckrfs-e2e @s < /etc/hostname\nkeyctl print %user:manager-e2e && "
                          f"touch {ck.dir}/found\nexit 1\n", name="prog", mode=0o700)
    ck.volume()
    ck.configure("volume web", source=ck.dir / "cipher", key=[f"exec:{program}", "keyring:user:ckrfs-e2e"])
    done = in_session(ck, "echo secret | keyctl padd user manager-e2e @s >/dev/null; $mount -o keyring=inherit", check=False)
    assert done.returncode == NO_KEY and b"no key in keyring:user:ckrfs-e2e" in done.stderr
    assert not (ck.dir / "found").exists()


def keys_listed():
    """What /proc/keys shows root, without the times"""
    with open("/proc/keys") as f:
        return {" ".join([line.split()[0], *line.split()[4:]]) for line in f}


def test_mount_ring_is_listed_nowhere(ck):
    """It is anonymous and possessor-only: to every other process, root's included, it does not exist."""
    ck.volume()
    before = keys_listed()
    with ck.mounted():
        assert keys_listed() - before == set()


# ---- what a source says when it fails: the words are those of ckrfs.conf(5)

def directory(ck):
    (ck.dir / "d").mkdir()
    return f"file:{ck.dir}/d"


def with_mode(mode):
    return lambda ck: f"file:{ck.key_file('x', mode=mode)}"


def foreign(ck):
    path = ck.key_file("x")
    os.chown(path, UID, UID)
    return f"file:{path}"


def socket_file(scheme):
    def make(ck):
        s = socket.socket(socket.AF_UNIX)
        s.bind(str(ck.dir / "sock"))
        s.close()
        return f"{scheme}:{ck.dir}/sock"
    return make


def silent_socket(ck):
    ck.listener = socket.socket(socket.AF_UNIX)
    ck.listener.bind(str(ck.dir / "sock"))
    ck.listener.listen()
    return f"unix:{ck.dir}/sock"


def fifo(ck):
    os.mkfifo(ck.dir / "fifo", 0o600)
    return f"file:{ck.dir}/fifo"


def script(text):
    return lambda ck: f"exec:{ck.key_file(f'#!/bin/sh{chr(10)}{text}{chr(10)}', name='prog', mode=0o700)}"


def holding(data, form=""):
    return lambda ck: f"file:{ck.key_file(data)}{form}"


def spec(text):
    return lambda ck: text.replace("DIR", str(ck.dir))


KEY = spec("keyring:user:ckrfs-e2e")
PADD = "id=$(echo x | keyctl padd user ckrfs-e2e @s)\n"
MIB = 1 << 20

# name: (source, shell commands in the manager's session before the mount or None, words; SPEC is the source)
FAILURES = {
    "file-missing": (spec("file:DIR/none"), None, "cannot read SPEC: No such file or directory"),
    "file-directory": (directory, None, "SPEC is a directory, not a file"),
    "file-device": (spec("file:/dev/zero"), None, "SPEC is a device, not a file"),
    "file-socket": (socket_file("file"), None, "SPEC is a socket, not a file"),
    "file-fifo-silent": (fifo, None, "SPEC did not answer within 1 s"),
    "file-readable": (with_mode(0o644), None, "SPEC can be read by others (mode 0644)"),
    "file-group-readable": (with_mode(0o640), None, "SPEC can be read by others (mode 0640)"),
    "file-writable": (with_mode(0o620), None, "SPEC is open to others (mode 0620)"),
    "file-foreign": (foreign, None, f"SPEC belongs to uid {UID}, neither to root nor to uid 0"),
    "file-empty": (holding(b""), None, "SPEC is empty"),
    "first-line-empty": (holding(b"\nsecond"), None, "the first line of SPEC is empty"),
    "file-too-long": (holding(b"x" * (MIB + 1)), None, f"SPEC is longer than {MIB} bytes"),
    "pass-too-long": (holding(b"x" * 2049), None, "the passphrase in SPEC is longer than 2048 bytes"),
    "hex": (holding(b"0123x", "?fmt=hex"), None, "SPEC is not hexadecimal"),
    "hex-odd": (holding(b"012", "?fmt=hex"), None, "SPEC is not hexadecimal"),
    "base64": (holding(b"!!!!", "?fmt=base64"), None, "SPEC is not base64"),
    "fd": (spec("fd:999"), None, "SPEC was not handed over, or was read before"),
    "cred": (spec("cred:name"), None, "SPEC needs $CREDENTIALS_DIRECTORY, which is not set"),
    "unix-missing": (spec("unix:DIR/none"), None, "cannot connect to SPEC: No such file or directory"),
    "unix-refused": (socket_file("unix"), None, "cannot connect to SPEC: Connection refused"),
    "unix-silent": (silent_socket, None, "SPEC did not answer within 1 s"),
    "exec-missing": (spec("exec:DIR/none"), None, "cannot run SPEC: No such file or directory"),
    "exec-status": (script("exit 3"), None, "SPEC exited with status 3"),
    "exec-status-with-output": (script("echo correct horse; exit 1"), None, "SPEC exited with status 1"),
    "exec-killed": (script("kill -KILL $$"), None, "SPEC was killed by SIGKILL"),
    "exec-empty": (script(":"), None, "SPEC is empty"),
    "exec-slow": (script("exec sleep 100"), None, "SPEC did not answer within 1 s"),
    "exec-too-long": (script("exec head -c 2000000 /dev/zero"), None, f"SPEC is longer than {MIB} bytes"),
    "key-missing": (KEY, "true", "no key in SPEC"),
    "key-denied": (KEY, PADD + "keyctl setperm $id 0x37000000", "the key in SPEC does not grant Search"),
    "key-expired": (KEY, PADD + "keyctl timeout $id 1; while keyctl pipe $id >/dev/null 2>&1; do sleep 0.1; done",
                    "the key in SPEC has expired"),
    "key-revoked": (KEY, PADD + "keyctl revoke $id", "the key in SPEC was revoked"),
    "key-logon": (spec("keyring:logon:ckrfs:e2e"), "keyctl add logon ckrfs:e2e x @s >/dev/null",
                  "the key in SPEC is of a type that only the kernel can read"),
}


def said_by_mount(ck, session, *options):
    """-> exit status and the lines on stderr"""
    if session is None:
        done = ck.run("mount", "web", ck.mnt, *options)
        return done.returncode, done.stderr.splitlines()
    done = in_session(ck, session + "\n$mount -o keyring=inherit", check=False)
    return done.returncode, [line for line in done.stderr.decode().splitlines() if not line.startswith("Joined session")]


@pytest.mark.parametrize("name", FAILURES)
def test_words_of_a_failing_source(ck, name):
    source, session, words = FAILURES[name]
    ck.volume()
    source = source(ck)
    ck.configure("volume web", source=ck.dir / "cipher", key=source, key_timeout="1s")
    status, lines = said_by_mount(ck, session)
    assert lines[0] == f'ckrfs: cannot mount "web": {words.replace("SPEC", source)}'
    assert status == NO_KEY


def manual_text():
    """ckrfs.conf(5) as a reader sees it, in one line."""
    done = run("mandoc", "-T", "utf8", "-O", "width=1000", REPO / "docs" / "ckrfs.conf.5")
    return " ".join(re.sub(r".\x08", "", done.stdout.decode()).split())


@pytest.mark.parametrize("name", FAILURES)
def test_words_are_in_the_manual(name):
    """Word for word, where the manual has SPEC and, for numbers and errors, N, MODE, UID and ERROR in capitals."""
    words = FAILURES[name][2].replace("SPEC", "SOURCE")
    text = re.sub(r"(?<=: )[A-Z][a-z]+( [a-z]+)+$", "ERROR", words)
    assert words in manual_text() or pattern(text).search(manual_text()), words


def pattern(text):
    """Numbers and single words that differ from case to case may be a word in capitals."""
    parts = [re.escape(word) if not re.search(r"\d|SIG|ERROR|directory|device|socket", word)
             else rf"(?:{re.escape(word)}|\(?(?:mode )?[A-Z]+\)?,?)" for word in text.split()]
    return re.compile(r"\s".join(parts))


def test_all_sources_fail(ck):
    """Each says why; the hint of the first that has one is shown."""
    ck.volume()
    bad = ck.key_file("x", name="open", mode=0o644)
    ck.configure("volume web", source=ck.dir / "cipher", key=[f"file:{ck.dir}/a", f"file:{bad}", "exec:/bin/false"])
    status, lines = said_by_mount(ck, None)
    assert status == NO_KEY
    assert lines == [f'ckrfs: cannot mount "web": no key source served (3 tried): cannot read file:{ck.dir}/a: No such '
                     f"file or directory; file:{bad} can be read by others (mode 0644); exec:/bin/false exited with "
                     "status 1", f"  try: chmod 600 {bad}"]


def test_key_file_check_can_be_switched_off(ck):
    ck.volume()
    path = ck.key_file(PASSPHRASE, mode=0o644)
    ck.configure("volume web", source=ck.dir / "cipher", key=f"file:{path}", key_file_check="no")
    mount_and_check(ck)


@pytest.mark.parametrize("text, words", [
    ("secret", "a key source needs a scheme, as in file:/run/key"),
    ("fil:/x", 'unknown key source "fil:" (did you mean "file:"?)'),
    ("vault:/x", 'unknown key source "vault:"'),
    ("file:/x?fmt=hx", 'unknown key format "hx" (did you mean "hex"?)'),
    ("file:/x?fmt=binary", 'unknown key format "binary"'),
    ("file:key", "file:key does not name an absolute path"),
    ("fd:1", "fd:1 does not name a descriptor (0, or 3 and above)"),
    ("cred:../x", 'cred:../x does not name a credential (a file name, without "/")'),
    ("keyring:user", "keyring:user does not name a key as TYPE:DESCRIPTION"),
    ("unix:/" + "x" * 120, "is too long for the path of a socket"),
    ("exec:/bin/cat 'x", "exec:/bin/cat 'x has a quote that is not closed"),
])
def test_specification_that_is_wrong(ck, text, words):
    """Found when the configuration is read, not when the key is needed. A key written there by mistake is not shown."""
    ck.volume()
    ck.configure("volume web", source=ck.dir / "cipher", key=text)
    done = ck.run("mount", "web", ck.mnt, status=CONFIG)
    assert words in done.stderr.splitlines()[0]
    assert text != "secret" or "secret" not in done.stderr


@pytest.mark.parametrize("setup, words", [
    ("ring=1999999999", "there is no keyring RING"),
    ("ring=$(keyctl newring r @s); keyctl revoke $ring", "keyring RING was revoked"),
    ("ring=$(echo x | keyctl padd user k @s)", "key RING is not a keyring"),
    ("ring=$(keyctl newring r @s); keyctl setperm $ring 0x00000000", "keyring RING does not grant "),
])
def test_ring_that_cannot_be_handed_over(ck, setup, words):
    ck.volume(key=KEY(ck))
    done = in_session(ck, setup + "\necho $ring; $mount -o keyring=$ring", check=False)
    ring = done.stdout.decode().split()[0]
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("ckrfs: ")]
    assert done.returncode == NO_KEY and words.replace("RING", ring) in lines[0], lines


def test_exec_gets_no_shell_and_no_secrets(ck):
    """Blanks separate words, quotes keep them together, nothing is expanded; stdin is empty; our fds are not its."""
    program = ck.key_file("#!/bin/sh\nprintf '%s|' \"$@\" > " + f"{ck.dir}/seen\nls /proc/self/fd >> {ck.dir}/seen\n"
                          "cat >&2\nprintf 'correct horse'\n", name="prog", mode=0o700)
    ck.volume()
    ck.configure("volume web", source=ck.dir / "cipher", key=f"exec:{program} a '$HOME *' \"b c\"")
    mount_and_check(ck)
    seen, *fds = (ck.dir / "seen").read_text().split("|")[:3], *(ck.dir / "seen").read_text().split("|")[3].split()
    assert seen == ["a", "$HOME *", "b c"]
    assert set(fds) <= {"0", "1", "2", "3"}, "3 is ls's own"
