#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fails when a C file is not as clang-format with the tree's .clang-format would write it. usage: formatting.py [FILE...]"""
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
PLACES = ["src", "bench", "tests", "tools"]


def sources():
    return sorted(p for place in PLACES for p in (REPO / place).rglob("*.[ch]"))


def check(files):
    """-> what clang-format would change, as it says it"""
    done = subprocess.run(["clang-format", f"--style=file:{REPO}/.clang-format", "--dry-run", "-Werror", *map(str, files)],
                          capture_output=True, text=True)
    return done.stderr.splitlines() if done.returncode else []


def main():
    files = sys.argv[1:] or sources()
    wrong = check(files)
    print("\n".join(wrong) or f"format: {len(files)} files are formatted")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
