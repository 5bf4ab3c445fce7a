# SPDX-License-Identifier: MIT
"""Every transcript of the documentation is run, and what it prints is compared.

A transcript is what stands in an indented or fenced block from a line `$ COMMAND` on: the lines up to the next one are what the
command prints. All blocks of a file with such a line are one session of bash, as root, in a mount namespace of its own: /srv and
/root are empty, /etc and /usr/sbin are the machine's with ckrfs in them, and what is changed there is gone afterwards. Dates, long
hexadecimal numbers and the width of gaps may differ. A line `...` stands for any lines. What a transcript has mounted it unmounts.

To add a file, name it in DOCS.
"""
import re
import shutil
import subprocess

import pytest

from support import BINARY, REPO, run

# By the programs that a file takes besides ckrfs; where one is missing the test is skipped, which CI does not allow.
DOCS = {
    "README.md": (),
    "docs/fscrypt.md": ("fscrypt", "mkfs.ext4"),
    "docs/move-from-gocryptfs.md": ("gocryptfs",),
    "docs/systemd.md": (),
}
MARK = "\x1e"
NOISE = ("Unix syslog delivery error",)  # of gocryptfs, where the machine has no syslog
BLANK_TREE = ("/srv", "/root", "/run/ckrfs")
COPIED = ("/etc", "/usr/sbin")


def blocks(text):
    """Lines of code blocks, without their indentation; one list each."""
    found, block, fenced = [], [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fenced = not fenced
            found.append(block)
            block = []
        elif fenced:
            block.append(line)
        elif line.startswith("    "):
            block.append(line[4:])
        elif block:
            found.append(block)
            block = []
    return [b for b in found if b]


def transcript(text):
    """-> [(command, lines that it prints)]"""
    steps = []
    for block in blocks(text):
        inside = False
        for line in block:
            if line.startswith("$ "):
                steps.append((line[2:], []))
                inside = True
            elif inside and line.startswith("> ") and not steps[-1][1]:
                steps[-1] = (steps[-1][0] + "\n" + line[2:], [])
            elif inside:
                steps[-1][1].append(line)
    return steps


def plain(line):
    """Without what differs each time."""
    line = re.sub(r"\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d)?)?(?: [+-]\d{4})?", "DATE", line.rstrip())
    line = re.sub(r"\b[0-9a-f]{16,}\b", "HEX", line)
    return re.sub(r"  +", "  ", line)


def matches(wanted, got):
    """Both lists of lines; "..." in wanted is any number of them."""
    if not wanted:
        return not got
    if wanted[0] == "...":
        return any(matches(wanted[1:], got[i:]) for i in range(len(got) + 1))
    return bool(got) and plain(wanted[0]) == plain(got[0]) and matches(wanted[1:], got[1:])


def sandbox(where):
    """Commands that make the session's world."""
    lines = ["set -e", f"mkdir -p {where}/over /run/ckrfs"]
    for i, path in enumerate(COPIED):
        over = f"{where}/over/{i}"
        lines += [f"mkdir -p {over}", f"mount -t tmpfs ckrfs-docs {over}", f"mkdir {over}/upper {over}/work",
                  f"mount -t overlay overlay -o lowerdir={path},upperdir={over}/upper,workdir={over}/work {path}"]
    lines += [f"mount -t tmpfs -o mode=755 ckrfs-docs {path}" for path in BLANK_TREE]
    lines += [f"ln -sf {BINARY} /usr/sbin/{name}" for name in
              ("ckrfs", "mount.ckrfs", "umount.ckrfs", "mount.fuse.ckrfs", "umount.fuse.ckrfs")]
    lines += ["rm -rf /etc/ckrfs /etc/fscrypt.conf", "mkdir -p /etc/ckrfs/conf.d",
              f"printf '[defaults]\\nlog = {where}/log\\n' >/etc/ckrfs/ckrfs.conf", "cd /root", "set +e"]
    return lines


def run_session(ck, steps):
    """-> what each command printed, as lines"""
    script = sandbox(ck.dir)
    for i, (command, _) in enumerate(steps):
        script += [f"printf '\\n{MARK}{i}\\n'", command]
    script += [f"printf '\\n{MARK}left\\n'", "ckrfs status --names", "ckrfs umount --lazy --all"]
    env = {k: v for k, v in ck.env.items() if k != "CKRFS_RUNTIME_DIR"}
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "bash"], input="\n".join(script) + "\n", text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, timeout=120)
    parts = re.split(rf"\n{MARK}(\w+)\n", done.stdout)
    assert parts[-2:-1] == ["left"], f"the session ended early:\n{done.stdout}"
    assert not parts[0], parts[0]
    assert not parts[-1], f"still mounted: {parts[-1]}"
    return [[line for line in part.splitlines() if not any(n in line for n in NOISE)] for part in parts[2:-2:2]]


@pytest.mark.parametrize("name", DOCS)
def test_transcript(ck, name):
    missing = [p for p in DOCS[name] if not shutil.which(p)]
    if missing:
        pytest.skip(f"not installed: {missing}")
    steps = transcript((REPO / name).read_text())
    assert steps, f"{name} has no transcript"
    for (command, wanted), got in zip(steps, run_session(ck, steps), strict=True):
        assert matches(wanted, got), f"{name}: $ {command}\nprints\n" + "\n".join(got) + "\nand not\n" + "\n".join(wanted)


# ---- the gate itself

def test_a_wrong_transcript_is_found(ck):
    text = "Text:\n\n    $ echo one\n    one\n    $ cd /srv\n    $ pwd\n    /srv\n\n```\n$ false || echo 2026-11-22\n2026-01-01\n```\n"
    steps = transcript(text)
    assert [c for c, _ in steps] == ["echo one", "cd /srv", "pwd", "false || echo 2026-11-22"]
    got = run_session(ck, steps)
    assert all(matches(wanted, g) for (_, wanted), g in zip(steps, got, strict=True))
    assert not matches(["one", "two"], got[0]) and not matches([], got[0]) and not matches(["2"], got[0])
    assert matches(["a", "...", "c"], ["a", "b", "b", "c"]) and not matches(["a", "..."], ["b"])


def test_the_machine_is_not_changed(ck):
    run_session(ck, [("touch /etc/ckrfs-docs /srv/ckrfs-docs /usr/sbin/ckrfs-docs", [])])
    for path in ("/etc/ckrfs-docs", "/srv/ckrfs-docs", "/usr/sbin/ckrfs-docs"):
        assert run("ls", path, check=False).returncode != 0
