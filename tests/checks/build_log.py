#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fails when a compiler's log has a warning. usage: build_log.py LOG..."""
import re
import sys
from pathlib import Path

WARNING = re.compile(r"\bwarning: |^WARNING: ", re.M)


def check(text):
    """-> lines with warnings"""
    return [line for line in text.splitlines() if WARNING.search(line)]


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    found = [f"{log}: {line}" for log in sys.argv[1:] for line in check(Path(log).read_text(errors="replace"))]
    print("\n".join(found) or "warnings: none")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
