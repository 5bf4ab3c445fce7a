#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Checks the #include lines of src/ against the table of docs/layers.md.

A file includes its own layer or a lower one; a header that the table names is included by files of its layer only;
every file of src/ is in the table and the other way round; libraries not named there are not included at all.

usage: layers.py [SRC LAYERS.md]      prints what is wrong, exit status 1
"""
import fnmatch
import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
GENERATED = {"version.h", "seccomp_filter.h"}

# What the C library and the kernel give; everything else in <> is a library and must be in the table.
SYSTEM = re.compile(r"^(assert|ctype|dirent|dlfcn|endian|err|errno|fcntl|fnmatch|getopt|glob|grp|inttypes|libgen|limits|malloc|"
                    r"mntent|netdb|poll|pthread|pwd|sched|search|semaphore|signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|"
                    r"stdio|stdlib|stdnoreturn|string|strings|syslog|termios|threads|time|unistd|"
                    r"(sys|linux|arpa|netinet|asm)/[a-z0-9_/-]+)\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


class Table:
    def __init__(self, text):
        self.layer_of_file = {}
        self.headers = {}  # pattern -> layer
        for line in text.splitlines():
            row = re.match(r"^\|\s*(\d)\s[^|]*\|([^|]*)\|([^|]*)\|$", line)
            if not row:
                continue
            layer = int(row[1])
            for name in re.findall(r"`([^`]+)`", row[2]):
                self.layer_of_file[name] = layer
            for name in re.findall(r"`([^`]+)`", row[3]):
                self.headers[name] = layer

    def layer(self, name):
        """A header is of the layer of its .c file, or of those that have its stem and an underscore."""
        if name in self.layer_of_file:
            return self.layer_of_file[name]
        if name.endswith(".h"):
            stem = name[:-2]
            if stem + ".c" in self.layer_of_file:
                return self.layer_of_file[stem + ".c"]
            layers = {v for k, v in self.layer_of_file.items() if k.startswith(stem + "_")}
            if len(layers) == 1:
                return layers.pop()
        return None

    def layer_of_library(self, name):
        found = [v for k, v in self.headers.items() if fnmatch.fnmatch(name, k)]
        return found[0] if found else None


def check_include(table, name, layer, kind, included):
    if kind == '"':
        if included in GENERATED:
            return None
        other = table.layer(included)
        if other is None:
            return f"includes {included}, which is in no layer"
        return f"layer {layer} includes {included} of layer {other}" if other > layer else None
    owner = table.layer_of_library(included)
    if owner is not None:
        return f"layer {layer} includes <{included}>, which belongs to layer {owner} alone" if owner != layer else None
    return None if SYSTEM.match(included) else f"includes <{included}>, a library that the table does not name"


def check(src, text):
    """-> list of what is wrong"""
    table = Table(text)
    if not table.layer_of_file or not table.headers:
        return ["the table of layers was not found"]
    wrong = []
    files = sorted(p for p in Path(src).iterdir() if p.suffix in (".c", ".h"))
    wrong += [f"{name}: in the table, but not in src/" for name in table.layer_of_file
              if not (Path(src) / name).exists()]
    for path in files:
        layer = table.layer(path.name)
        if layer is None:
            wrong.append(f"{path.name}: in no layer of the table")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = INCLUDE.match(line)
            problem = found and check_include(table, path.name, layer, found[1], found[2])
            if problem:
                wrong.append(f"{path.name}:{number}: {problem}")
    return wrong


def main():
    src, table = sys.argv[1:3] if len(sys.argv) == 3 else (REPO / "src", REPO / "docs" / "layers.md")
    wrong = check(src, Path(table).read_text())
    print("\n".join(wrong) or "layers: all includes point down")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
