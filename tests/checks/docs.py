#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Compares `ckrfs --help` and `ckrfs COMMAND --help` with ckrfs(8), both ways.

Every command of the overview has a `.SS` of its own below `.SH COMMANDS` in docs/ckrfs.8 whose first word is the command's name, and
the options tagged there (`.TP` lines) are exactly those of the command's help. Options that every command has are
tagged once, in the section OPTIONS. usage: docs.py [BINARY [MANPAGE]]
"""
import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-[a-zA-Z])(?![\w-])")


def help_of(binary, *command):
    return subprocess.run([str(binary), *command, "--help"], capture_output=True, text=True, check=True).stdout


def commands_in(overview):
    """Words at the start of the indented lines below "commands:"."""
    part = re.split(r"(?im)^commands?:\s*$", overview, maxsplit=1)[-1]
    part = re.split(r"(?m)^\S", part, maxsplit=1)[0]
    return re.findall(r"(?m)^ {1,8}(?:ckrfs )?([a-z][a-z-]+)\b", part)


def options_in(text):
    """Options at the start of indented lines: "  -o, --options OPTS  what it does"."""
    found = set()
    for line in re.findall(r"(?m)^\s+(-.*)$", text):
        found |= set(OPTION.findall(re.split(r"\s{2,}", line)[0]))
    return found


def plain(roff):
    """Without font changes and escapes."""
    roff = re.sub(r"\\f(\[\w*\]|\(..|.)", "", roff)
    return roff.replace("\\-", "-").replace("\\&", "")


def sections(roff):
    """-> {heading of .SH, or "COMMANDS/heading" of .SS: tags of its .TP entries}"""
    found, heading, lines = {}, "", plain(roff).splitlines()
    for i, line in enumerate(lines):
        if re.match(r"\.S[HS]\s", line):
            words = line[3:].strip().strip('"')
            heading = words if line.startswith(".SH") else heading.partition("/")[0] + "/" + words
            found.setdefault(heading, [])
        elif line.startswith(".TP") and i + 1 < len(lines):
            found.setdefault(heading, []).append(re.sub(r"^\.[A-Z]+\s", "", lines[i + 1]))
        elif line.startswith(".TQ") and i + 1 < len(lines):
            found[heading].append(re.sub(r"^\.[A-Z]+\s", "", lines[i + 1]))
    return found


def command_of(heading):
    return heading.partition("/")[2].replace("ckrfs ", "").split()[0]


def tagged_options(tags):
    return {o for tag in tags for o in OPTION.findall(tag.replace('"', " ")) if tag.lstrip().startswith("-")}


def compare(overview, helps, roff):
    """helps: {command: its --help}. -> list of differences"""
    found = sections(roff)
    common = tagged_options(found.get("OPTIONS", []))
    described = {command_of(h): tagged_options(tags) for h, tags in found.items()
                 if h.startswith("COMMANDS/")}
    commands = commands_in(overview)
    wrong = [] if commands else ["no commands found in ckrfs --help"]
    wrong += [f"{c}: in --help, but without a section in the manual page" for c in commands if c not in described]
    wrong += [f"{c}: has a section in the manual page, but is not in --help" for c in described if c not in commands]
    for command in set(commands) & set(described):
        shown = options_in(helps[command])
        wrong += [f"{command} {o}: in --help, but not in the manual page"
                  for o in sorted(shown - described[command] - common)]
        wrong += [f"{command} {o}: in the manual page, but not in --help" for o in sorted(described[command] - shown)]
    return wrong


def main():
    build = Path(os.environ.get("CKRFS_BUILD_DIR", REPO / "build"))
    binary = Path(sys.argv[1]) if len(sys.argv) > 1 else build / "ckrfs"
    page = Path(sys.argv[2]) if len(sys.argv) > 2 else REPO / "docs" / "ckrfs.8"
    overview = help_of(binary)
    wrong = compare(overview, {c: help_of(binary, c) for c in commands_in(overview)}, page.read_text())
    print("\n".join(wrong) or "docs: --help and ckrfs(8) say the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
