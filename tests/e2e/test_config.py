# SPDX-License-Identifier: MIT
"""Configuration through the program: effective values and their origins, errors with file and line, safety."""
import json
import os
import re

import pytest
from support import CONFIG, DONE, NO_VOLUME, REPO, UID, UNSUPPORTED, as_user, run


def write(ck, text, name="ckrfs.conf"):
    path = ck.dir / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def show(ck, name, *more):
    done = ck.run("config", "--show", name, "--json", *more, status=DONE)
    shown = json.loads(done.stdout)
    assert shown["volume"] == name
    return shown["options"]


VOLUME = "[volume photos]\nsource = /srv/photos\n"


@pytest.mark.parametrize("text, line, words", [
    ("[volume a]\nsorce = /x\n", 2, 'unknown option "sorce" (did you mean "source"?)'),
    ("[volume a]\nsource = x\n", 2, 'source = "x": must be an absolute path'),
    ("[volume a]\nsource = /x\nsource = /y\n", 3, "source is already set in line 2"),
    ("[defaults]\nsource = /x\n", 2, "source belongs to one volume and cannot stand in [defaults]"),
    ("[defualts]\nthreads = 1\n", 1, None),
    ("[volume a]\nsource = /x\nformat = gocryptf\n", 3, '(did you mean "gocryptfs"?)'),
    ("[volume a]\nsource = /x\nthreads = many\n", 3, 'threads = "many": must be '),
    ("[volume a]\nsource = /x\nthreads = 65\n", 3, 'threads = "65": must be '),
    ("[volume a]\nsource = /x\nshared = maybe\n", 3, 'shared = "maybe": must be '),
    ("[volume a]\nsource = /x\nkey-timeout = 2x\n", 3, 'key-timeout = "2x": must be '),
    ("[volume a]\nsource = /x\nscrypt-memory = 1T\n", 3, 'scrypt-memory = "1T": must be '),
    ("[volume a]\nsource = /x\nkey = secret\n", 3, None),
    ("[volume a]\nsource = /x\nkey = fil:/k\n", 3, '(did you mean "file:"?)'),
    ("[volume a]\nsource = /x\nlog = somewhere\n", 3, "must be syslog, stderr or the absolute path of a file"),
    ("[volume a]\nsource = /x\nkeyring = mine\n", 3, "must be none, inherit or the serial number of a keyring"),
    ("[volume -a]\nsource = /x\n", 1, None),
    ("[volume a/b]\nsource = /x\n", 1, None),
    ("stray = 1\n", 1, None),
    ("[volume a]\nsource\n", 2, None),
    ("[volume a\nsource = /x\n", 1, None),
])
def test_errors_name_file_and_line(ck, text, line, words):
    path = write(ck, text)
    done = ck.run("config", "--check", status=CONFIG)
    first = done.stderr.splitlines()[0]
    assert re.match(rf"ckrfs: (.*: )?{re.escape(str(path))}:{line}: ", first), first
    assert words is None or words in first
    mounted = ck.run("mount", "a", ck.mnt, status=CONFIG)
    assert f"{path}:{line}: " in mounted.stderr


def test_check_and_list(ck):
    write(ck, VOLUME + "[volume archive]\nsource = /srv/a\n")
    assert ck.run("config", "--list", status=DONE).stdout == "archive\nphotos\n"
    assert ck.run("config", "--check", status=DONE).stdout == f"{ck.conf}: 2 volumes, no errors\n"


def test_values_and_where_they_come_from(ck):
    """-o wins over the section, the section over [defaults], [defaults] over the built-in value."""
    write(ck, "[defaults]\nthreads = 3\nlog-level = error\nshared = yes\n" + VOLUME + "shared = no\nthreads = 4\n")
    options = show(ck, "photos", "-o", "threads=5,ro")
    assert options["threads"] == {"value": "5", "origin": "-o"}
    assert options["read-only"] == {"value": "yes", "origin": "-o"}
    assert options["shared"] == {"value": "no", "origin": f"{ck.conf}:7"}
    assert options["log-level"] == {"value": "error", "origin": f"{ck.conf}:3"}
    assert options["format"] == {"value": "gocryptfs", "origin": "default"}
    text = ck.run("config", "--show", "photos").stdout
    assert re.search(rf"(?m)^threads +=  *4 +# {re.escape(str(ck.conf))}:8$", text)


def test_several_keys_and_their_replacement(ck):
    write(ck, VOLUME + "key = file:/a\nkey = keyring:user:b?fmt=hex\n")
    assert show(ck, "photos")["key"]["value"] == ["file:/a", "keyring:user:b?fmt=hex"]
    assert show(ck, "photos", "-o", "key=cred:c")["key"]["value"] == ["cred:c"]
    assert show(ck, "photos", "-o", r"key=exec:/bin/x a\,b,key=fd:3")["key"]["value"] == ["exec:/bin/x a,b", "fd:3"]


def test_conf_d_is_read_in_order(ck):
    write(ck, "[defaults]\nthreads = 1\n")
    write(ck, "[defaults]\nthreads = 3\n", "conf.d/20.conf")
    write(ck, "[defaults]\nthreads = 2\n" + VOLUME, "conf.d/10.conf")
    write(ck, "[nonsense]\n", "conf.d/ignored.conf.bak")
    write(ck, "[nonsense]\n", "conf.d/.hidden.conf")
    assert show(ck, "photos")["threads"] == {"value": "3", "origin": f"{ck.dir}/conf.d/20.conf:2"}
    write(ck, VOLUME, "conf.d/30.conf")
    done = ck.run("config", "--check", status=CONFIG)
    assert f"{ck.dir}/conf.d/30.conf:1: " in done.stderr, "a volume stands in one file only"


@pytest.mark.parametrize("options, words", [
    ("thread=3", 'unknown option "thread" (did you mean "threads"?)'), ("threads", "threads needs a value"),
    ("noatime=3", "noatime takes no value"), ("format=tar", 'format = "tar": must be '),
    ("threads=1,,bogus", 'unknown option "bogus"')])
def test_wrong_words_behind_o(ck, options, words):
    write(ck, VOLUME)
    done = ck.run("config", "--show", "photos", "-o", options, status=CONFIG)
    assert done.stderr.startswith("ckrfs: -o: ") and words in done.stderr


def test_mount_words_are_known(ck):
    write(ck, VOLUME)
    words = "rw,nosuid,nodev,noexec,relatime,_netdev,nofail,noauto,user,x-systemd.automount,comment=hi"
    options = show(ck, "photos", "-o", words)
    assert options["exec"]["value"] == "no" and options["suid"]["value"] == "no"
    assert ck.run("config", "--show", "photos", "-o", "remount").returncode == UNSUPPORTED


def test_volume_that_does_not_exist(ck):
    write(ck, VOLUME)
    done = ck.run("config", "--show", "phottos", status=NO_VOLUME)
    assert f'no volume "phottos" in {ck.conf} (did you mean "photos"?)' in done.stderr


def test_contradictions(ck):
    write(ck, "[volume a]\nkey = file:/k\n")
    assert 'volume "a" has no source' in ck.run("config", "--show", "a", status=CONFIG).stderr
    write(ck, "[volume a]\nsource = /x\nformat = plain\nkey = file:/k\n")
    assert "uses no key" in ck.run("config", "--show", "a", status=CONFIG).stderr


def make_group_writable(ck):
    ck.conf.chmod(0o620)


def make_foreign(ck):
    os.chown(ck.conf, UID, -1)


def make_directory_writable(ck):
    ck.dir.chmod(0o757)


def make_conf_d_writable(ck):
    write(ck, VOLUME, "conf.d/x.conf")
    (ck.dir / "conf.d").chmod(0o777)


def make_symlink(ck):
    ck.conf.rename(ck.dir / "real")
    ck.conf.symlink_to(ck.dir / "real")


@pytest.mark.parametrize("spoil, words", [
    (make_group_writable, "can be written by others (mode 0620)"), (make_foreign, f"belongs to uid {UID}, not to root"),
    (make_directory_writable, "can be written by others (mode 0757)"),
    (make_conf_d_writable, "can be written by others (mode 0777)"), (make_symlink, "is a symbolic link")])
def test_config_that_others_may_write_is_refused(ck, spoil, words):
    """As sudo and ssh do; the message names the file and, where there is one, the command that mends it."""
    write(ck, "[defaults]\n")
    spoil(ck)
    for command in (("config", "--list"), ("mount", "photos", ck.mnt)):
        done = ck.run(*command, status=CONFIG)
        assert words in done.stderr and str(ck.dir) in done.stderr, done.stderr
    if "written" in words:
        assert done.stderr.splitlines()[1].startswith("  try: chmod go-w ")
    ck.dir.chmod(0o755)


def test_a_user_s_own_config(ck):
    """The mounting user's file is fine for that user, and root's is readable to all if its mode says so."""
    write(ck, VOLUME)
    ck.conf.chmod(0o644)
    as_user(lambda: ck.run("config", "--list", status=DONE))
    os.chown(ck.conf, UID, UID)
    os.chown(ck.dir, UID, UID)
    as_user(lambda: ck.run("config", "--list", status=DONE))
    assert ck.run("config", "--list").returncode == CONFIG
    os.chown(ck.dir, 0, 0)
    os.chown(ck.conf, 0, 0)


def test_missing_file(ck):
    ck.conf.unlink()
    assert f"{ck.conf} does not exist" in ck.run("config", "--list", status=CONFIG).stderr


def test_the_shipped_file_is_valid(ck):
    """conf/ckrfs.conf as it is, and with every commented option switched on where it may stand."""
    text = (REPO / "conf" / "ckrfs.conf").read_text()
    write(ck, text)
    ck.run("config", "--check", status=DONE)
    assert all(line.startswith("#") or not line.strip() or line.startswith("[") for line in text.splitlines())


@pytest.mark.parametrize("shell, check", [("bash", ["bash", "-n"]), ("zsh", None), ("fish", None)])
def test_completion_scripts(ck, shell, check):
    done = ck.run("complete", shell, status=DONE)
    for word in ("mount", "umount", "status", "init", "config", "--lazy", "--json"):
        assert word.lstrip("-") in done.stdout
    if check:
        path = write(ck, done.stdout, "completion")
        run(*check, path)
    assert ck.run("complete", "tcsh").returncode == 2


def test_bash_completes_commands_and_volumes(ck):
    write(ck, VOLUME + "[volume archive]\nsource = /srv/a\n")
    script = write(ck, ck.run("complete", "bash").stdout, "completion")

    def complete(*words):
        line = "; ".join([f". {script}", "complete -p ckrfs >/dev/null",
                          f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words)}",
                          "COMP_LINE=\"${COMP_WORDS[*]}\"; COMP_POINT=${#COMP_LINE}",
                          "f=$(complete -p ckrfs | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f ckrfs '' \"${COMP_WORDS[COMP_CWORD-1]}\"",
                          "printf '%s\\n' \"${COMPREPLY[@]}\""])
        env = dict(ck.env, PATH=f"{os.path.dirname(ck.argv('x')[0])}:{os.environ['PATH']}")
        return {w.strip() for w in run("bash", "-c", line, env=env).stdout.decode().split("\n")}

    assert {"mount", "umount", "status"} <= complete("ckrfs")
    assert {"photos", "archive"} <= complete("ckrfs", "--config", str(ck.conf), "mount")
