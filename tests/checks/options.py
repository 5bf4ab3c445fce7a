#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the option table of the program with conf/ckrfs.conf and docs/ckrfs.conf.5.

usage: options.py CKRFS_BINARY

Every option must be in both, with its default (and its type in the manual page), once, and nothing else may be.
In the file an option is a commented-out line `#NAME = DEFAULT`; one without default has an empty or an example value.
In the page it is a tag in OPTIONS, ended by a line `Type TYPE, default \\fBDEFAULT\\fP`, "-" where unset.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program_options(binary):
    out = subprocess.run([binary, "complete", "options"], check=True, capture_output=True, text=True).stdout
    options = {}
    for line in out.splitlines():
        name, kind, default = line.split("\t")
        options[name] = (kind, default)
    return options


def file_options(text):
    """(section, name, value) of each line, commented out or not."""
    section = None
    for line in text.splitlines():
        header = re.fullmatch(r"#?\[(.*)\]", line)
        if header:
            section = header[1]
        option = re.fullmatch(r"(#?)([a-z-]+)\s*=\s*(.*)", line)
        if option:
            yield section, option[2], option[3], option[1] == ""


def check_file(options, text):
    seen = {}
    for section, name, value, active in file_options(text):
        if name not in options:
            yield f"{name}: not an option"
            continue
        if active:
            yield f"{name}: is not commented out"
        default = options[name][1]
        if default != "-" and value != default:
            yield f"{name}: default is {default}, not {value}"
        if default == "-" and value and section == "defaults":
            yield f"{name}: has no default, but {value} stands in [defaults]"
        key = (section, name)
        if key in seen and options[name][0] != "key":
            yield f"{name}: twice in [{section}]"
        seen[key] = True
    for name in options.keys() - {name for _, name in seen}:
        yield f"{name}: missing"


def page_options(text):
    """(name, what follows up to the next tag) of each tag in OPTIONS."""
    section = re.search(r"^\.SH OPTIONS\n(.*?)^\.SH ", text, re.M | re.S)
    for part in (section[1] if section else "").split(".TP\n")[1:]:
        tag, _, body = part.partition("\n")
        name = re.match(r'\.[BIR]+ "([a-z\\-]+) = "', tag)
        yield (name[1].replace("\\-", "-") if name else tag), body


def check_page(options, text):
    seen = set()
    for name, body in page_options(text):
        if name not in options:
            yield f"{name}: not an option"
            continue
        if name in seen:
            yield f"{name}: twice"
        seen.add(name)
        stated = re.findall(r"^Type (\S+), default \\fB(\S+)\\fP", body, re.M)
        if stated != [options[name]]:
            yield f"{name}: type and default are {options[name]}, not {stated}"
    for name in options.keys() - seen:
        yield f"{name}: missing"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    options = program_options(sys.argv[1])
    problems = []
    if not options:
        problems.append(f"{sys.argv[1]} complete options: printed no options")
    for path, check in (("conf/ckrfs.conf", check_file), ("docs/ckrfs.conf.5", check_page)):
        text = (ROOT / path).read_text(encoding="utf-8")
        problems += [f"{path}: {problem}" for problem in check(options, text)]
    print("\n".join(sorted(problems)) or f"{len(options)} options agree")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
