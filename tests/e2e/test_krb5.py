# SPDX-License-Identifier: MIT
"""Tickets for AFS from a real KDC: what they become, where they may come from, and the words when there is none."""
import hashlib
import hmac
import json
import os
import socket
import struct
import shutil
import subprocess
import time

import pytest
from kdc import CELL, REALM, Kdc
from support import BINARY, COMPANION, CONFIG, DONE, NO_KEY, TOOLS, USAGE, WRONG_KEY, child, forms, run, wait_until

USER = f"web@{REALM}"
AES256, AES128, AES256_SHA2 = 18, 17, 20


@pytest.fixture
def kdc(ck):
    k = Kdc(ck.dir)
    k.admin(f"modprinc -maxrenewlife 1day krbtgt/{REALM}")
    k.user = k.add("web", options="-maxrenewlife 1day")
    k.service = k.add(f"afs/{CELL}")
    yield k
    k.close()


def ticket(ck, kdc, spec, *args, cell=CELL, status=DONE):
    """-> the object that is shown, or the error's text"""
    done = subprocess.run(kdc.inside(BINARY, "ticket", cell, "--key", spec, *args, "--json"), env={**ck.env, **kdc.env},
                          capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)
    ck.transcript.append(done.stdout + done.stderr)
    assert done.returncode == status, done
    return json.loads(done.stdout) if status == DONE else done.stderr


def from_keytab(kdc, keytab=None, principal=USER):
    return f"krb5:keytab={keytab or kdc.user},principal={principal}"


def kinit(kdc, *args, cache="cc"):
    path = kdc.dir / cache
    kdc.run("kinit", "-k", "-t", kdc.user, "-c", path, *args, "web")
    return path


# ---- what a ticket becomes

def rxkad_key(key):
    """draft-kaduk-afs3-rxkad-k5-kdf-00, a second time; no test meets a weak key."""
    digest = hmac.new(key, b"\1rxkad\0" + struct.pack(">I", 64), hashlib.md5).digest()[:8]
    return bytes((b & 0xfe) | (1 - bin(b >> 1).count("1") % 2) for b in digest)


class Asked:
    """A process that has asked and let go of the payload, which is in a file."""

    def __init__(self, ck, kdc, stack_child):
        self.process = stack_child
        assert self.process.stdout.readline() == b"ready\n"
        self.payload = (ck.dir / "payload").read_bytes()
        client, enctype, key = kdc.run(TOOLS / "afspayload", "open", ck.dir / "payload", kdc.service).stdout.split()
        self.client, self.enctype, self.key = client.decode(), int(enctype), bytes.fromhex(key.decode())


def asking(ck, kdc):
    """By the library, as a keeper does: ckrfs-net is beside the program."""
    (ck.dir / "bin").mkdir()
    for program in (TOOLS / "afspayload", COMPANION):
        shutil.copy(program, ck.dir / "bin")
    return child(kdc.inside(ck.dir / "bin/afspayload", "ask", from_keytab(kdc), CELL, ck.dir / "payload"), env={**os.environ, **kdc.env},
                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("enctype,name", [(AES256, "aes256-cts"), (AES128, "aes128-cts"), (AES256_SHA2, "aes256-sha2")])
def test_payload_is_what_the_service_reads(ck, kdc, enctype, name):
    """Its ticket is opened with the service's key, by libkrb5 alone; the session key in it is derived a second time."""
    kdc.admin(f"setstr afs/{CELL} session_enctypes {name}")
    with asking(ck, kdc) as process:
        got = Asked(ck, kdc, process)
        ck.keep_secret(got.key, rxkad_key(got.key))
        assert got.client == USER and got.enctype == enctype
        version, index, length, expires, kvno = struct.unpack_from("=IHHII", got.payload)
        assert (version, index, kvno) == (1, 2, 256) and len(got.payload) == 24 + length
        assert got.payload[16:24] == rxkad_key(got.key)
        assert abs(expires - time.time() - 3600) < 120


def test_nothing_of_the_key_stays_in_the_process(ck, kdc):
    """Neither Kerberos's session key nor AFS's, nor the user's own from the keytab, once the payload was let go."""
    with asking(ck, kdc) as process:
        got = Asked(ck, kdc, process)
        patterns = ck.dir / "patterns"
        user = user_key(kdc)
        wanted = [*forms(got.key), *forms(user)]
        patterns.write_text("".join(p.hex() + "\n" for p in wanted) + rxkad_key(got.key).hex() + "\n")
        done = run(TOOLS / "memscan", patterns, str(process.pid), check=False)
        assert done.returncode == 0 and b"scanned" in done.stdout, done.stdout
        assert run(TOOLS / "memscan", patterns, "-f", ck.dir / "payload", check=False).returncode == 1, "the hunt can succeed"


def user_key(kdc):
    """The last key in its keytab: klist -K shows it in hex"""
    line = kdc.run("klist", "-ketK", kdc.user).stdout.decode().splitlines()[-1]
    return bytes.fromhex(line.rpartition("(0x")[2].rstrip(")"))


def test_what_is_told(ck, kdc):
    told = ticket(ck, kdc, from_keytab(kdc))
    assert {k: told[k] for k in ("client", "service", "session_enctype", "ticket_enctype", "kvno")} == {
        "client": USER, "service": f"afs/{CELL}@{REALM}", "session_enctype": "aes256-cts-hmac-sha1-96",
        "ticket_enctype": "aes256-cts-hmac-sha1-96", "kvno": 2}
    assert abs(told["start"] - time.time()) < 120 and told["expires"] - told["start"] == 3600 and told["size"] > 200
    done = subprocess.run(kdc.inside(BINARY, "ticket", CELL, "--key", from_keytab(kdc)), env={**ck.env, **kdc.env}, text=True,
                          capture_output=True, timeout=100)
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert set(lines) == {"client", "service", "session key", "ticket", "valid from", "expires"}
    assert lines["ticket"].split(", ")[1:] == ["key version 2", f"{told['size']} bytes"]


def test_principal_beyond_ascii(ck, kdc):
    """Names come out as they went in, not byte by byte."""
    keytab = kdc.add("zoë", keytab="zoe")
    assert ticket(ck, kdc, from_keytab(kdc, keytab, f"zoë@{REALM}"))["client"] == f"zoë@{REALM}"


def test_afs_without_an_instance(ck, kdc):
    """afs@REALM serves where the KDC does not know afs/CELL@REALM; where it knows neither, both are named."""
    kdc.admin(f"delprinc -force afs/{CELL}")
    text = ticket(ck, kdc, from_keytab(kdc), status=NO_KEY)
    assert text == f'ckrfs: no ticket for the cell "{CELL}": the KDC knows neither afs/{CELL}@{REALM} nor afs@{REALM}\n'
    kdc.add("afs")
    assert ticket(ck, kdc, from_keytab(kdc))["service"] == f"afs@{REALM}"


def test_realm_of_the_cell(ck, kdc):
    """The cell's name in capitals, unless it is given."""
    kdc.add("afs/another.test")
    assert "neither afs/another.test@ANOTHER.TEST nor afs@ANOTHER.TEST" in ticket(ck, kdc, from_keytab(kdc), cell="another.test", status=NO_KEY)
    assert ticket(ck, kdc, from_keytab(kdc), "--realm", REALM, cell="another.test")["service"] == f"afs/another.test@{REALM}"


# ---- from a cache

def test_cache_is_only_read(ck, kdc):
    cache = kinit(kdc)
    before = cache.read_bytes()
    for spec in (f"krb5:ccache={cache}", f"krb5:ccache=FILE:{cache}"):
        assert ticket(ck, kdc, spec)["client"] == USER
    assert cache.read_bytes() == before


def test_cache_in_a_directory_and_in_a_keyring(ck, kdc):
    (kdc.dir / "ccs").mkdir(mode=0o700)
    kinit(kdc, cache="one")
    kdc.run("kinit", "-k", "-t", kdc.user, "-c", f"DIR:{kdc.dir}/ccs", "web")
    assert ticket(ck, kdc, f"krb5:ccache=DIR:{kdc.dir}/ccs")["client"] == USER
    script = f'kinit -k -t {kdc.user} -c KEYRING:session:ck web && exec "$@"'
    done = subprocess.run(["keyctl", "session", "-", *kdc.inside("sh", "-c", script, "sh", BINARY, "ticket", CELL, "--key",
                           "krb5:ccache=KEYRING:session:ck", "--json")], env={**ck.env, **kdc.env}, capture_output=True, timeout=100)
    assert json.loads(done.stdout)["client"] == USER, done


def test_cache_that_is_missing_empty_or_expired(ck, kdc):
    missing = kdc.dir / "none"
    text = ticket(ck, kdc, f"krb5:ccache={missing}", status=NO_KEY)
    assert f"there is no ticket in the credential cache {missing}\n  try: kinit -c {missing}\n" in text
    cache = kinit(kdc, "-l", "2s")
    wait_until("its end", lambda: kdc.run("klist", "-s", "-c", cache, check=False).returncode != 0, 60)
    assert f"the ticket in the credential cache {cache} has expired" in ticket(ck, kdc, f"krb5:ccache={cache}", status=NO_KEY)
    cache.write_bytes(b"")
    assert "no ticket" in ticket(ck, kdc, f"krb5:ccache={cache}", status=NO_KEY)


def test_renewed_in_the_second_half_of_its_life(ck, kdc):
    """A ticket that can be renewed gives one that lives on; the cache stays as it is."""
    cache = kinit(kdc, "-l", "8s", "-r", "1h")
    before, end = cache.read_bytes(), ticket(ck, kdc, f"krb5:ccache={cache}")["expires"]
    wait_until("its second half", lambda: time.time() > end - 4, 60)
    told = ticket(ck, kdc, f"krb5:ccache={cache}")
    assert told["expires"] > end and cache.read_bytes() == before


def test_ticket_of_the_service_in_the_cache_is_not_used(ck, kdc):
    """One that aklog left there would be had again at each refresh, until it has ended."""
    cache = kinit(kdc)
    kdc.run("kvno", "-c", cache, f"afs/{CELL}@{REALM}")
    had = int(time.time())
    wait_until("the next second", lambda: time.time() > had + 1, 60)
    assert ticket(ck, kdc, f"krb5:ccache={cache}")["start"] > had


# ---- no ticket

def test_keytab_that_others_can_read(ck, kdc):
    kdc.user.chmod(0o644)
    text = ticket(ck, kdc, from_keytab(kdc), status=NO_KEY)
    assert f"keytab {kdc.user} can be read by others (mode 0644)\n  try: chmod 600 {kdc.user}\n" in text


def test_keytab_that_is_none(ck, kdc):
    for path, words in ((kdc.dir / "none", "No such file"), (kdc.dir, "is no file")):
        assert words in ticket(ck, kdc, from_keytab(kdc, path), status=NO_KEY)
    fifo = kdc.dir / "fifo"
    os.mkfifo(fifo, 0o600)
    assert "is no file" in ticket(ck, kdc, from_keytab(kdc, fifo), status=NO_KEY)
    garbage = kdc.dir / "garbage"
    garbage.write_bytes(os.urandom(1000))
    garbage.chmod(0o600)
    assert "no ticket for" in ticket(ck, kdc, from_keytab(kdc, garbage), status=NO_KEY)


def test_principal_that_is_not_in_the_keytab(ck, kdc):
    kdc.add("other")
    text = ticket(ck, kdc, from_keytab(kdc, principal=f"other@{REALM}"), status=NO_KEY)
    assert f"keytab {kdc.user} has no key of other@{REALM}\n  try: klist -kt {kdc.user}\n" in text


def test_keytab_older_than_the_key(ck, kdc):
    old = kdc.user.rename(kdc.dir / "old.keytab")
    kdc.extract("web", "web")
    for option in ("-requires_preauth", "+requires_preauth"):
        kdc.admin(f"modprinc {option} web")
        text = ticket(ck, kdc, from_keytab(kdc, old), status=WRONG_KEY)
        assert f"the KDC does not take the key of {USER} in keytab {old}: it has another one by now" in text


def test_principal_unknown_or_locked(ck, kdc):
    ghost = kdc.add("ghost")
    kdc.admin("modprinc -allow_tix ghost")
    assert "is locked or has expired" in ticket(ck, kdc, from_keytab(kdc, ghost, f"ghost@{REALM}"), status=NO_KEY)
    kdc.admin("delprinc -force ghost")
    assert f"does not know the principal ghost@{REALM}" in ticket(ck, kdc, from_keytab(kdc, ghost, f"ghost@{REALM}"), status=NO_KEY)


def test_no_kdc(ck, kdc):
    kdc.stop()
    assert f"no KDC can be reached for {USER}" in ticket(ck, kdc, from_keytab(kdc), status=NO_KEY)


def test_clocks_that_differ(ck, kdc):
    """Where libkrb5 may not take the clock of the KDC for its own (kdc_timesync)."""
    kdc.write_config(["kdc_timesync = 0"])
    kdc.stop()
    kdc.start(env={"LD_PRELOAD": str(TOOLS / "clockshift.so"), "CLOCKSHIFT": "7200"})
    text = ticket(ck, kdc, from_keytab(kdc), status=NO_KEY)
    assert "the clocks of this machine and of the KDC differ too much\n  try: timedatectl status\n" in text


def test_kdc_that_does_not_answer(ck, kdc):
    """Bounded by --timeout, whatever libkrb5 would wait for."""
    kdc.stop()
    hold = "import socket; s = [socket.socket(socket.AF_INET, k) for k in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]; " \
           "[x.bind(('127.0.0.1', 88)) for x in s]; s[1].listen(5); print('here', flush=True); input()"
    with child(kdc.inside("/usr/bin/python3", "-c", hold), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
        assert silent.stdout.readline() == b"here\n"
        text = ticket(ck, kdc, from_keytab(kdc), "--timeout", "700ms", status=NO_KEY)
        assert text == f'ckrfs: no ticket for the cell "{CELL}": the KDC did not answer within 0.700 s\n'


def test_realm_that_nobody_knows(ck, kdc):
    text = ticket(ck, kdc, from_keytab(kdc, principal="web@NOWHERE.TEST"), status=NO_KEY)
    assert "has no key of web@NOWHERE.TEST" in text
    kdc.write_config([], kdc="127.0.0.1\n")
    (kdc.dir / "krb5.conf").write_text("[libdefaults]\ndefault_realm = EXAMPLE.TEST\ndns_lookup_kdc = false\n")
    assert "krb5.conf" in ticket(ck, kdc, from_keytab(kdc), status=CONFIG)


@pytest.mark.parametrize("args,words", [
    ([], "one cell is needed"),
    ([CELL], "--key is needed"),
    ([CELL, "other.test", "--key", "krb5:ccache=/x"], "one cell is needed"),
    (["../x", "--key", "krb5:ccache=/x"], "is not the name of a cell"),
    (["a@B", "--key", "krb5:ccache=/x"], "is not the name of a cell"),
    ([CELL, "--realm", "A B", "--key", "krb5:ccache=/x"], "is not the name of a realm"),
    ([CELL, "--timeout", "soon", "--key", "krb5:ccache=/x"], "is not a time"),
    ([CELL, "--key", "krb5:ccache=/x", "--key", "krb5:ccache=/y"], "two times --key"),
])
def test_usage(ck, args, words):
    assert words in ck.run("ticket", *args, status=USAGE).stderr


def test_specification_that_is_none(ck):
    assert 'krb5: has no "keytap" (did you mean "keytab"?)' in \
        ck.run("ticket", CELL, "--key", "krb5:keytap=/x,principal=y", status=CONFIG).stderr
