#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Compares docs/troubleshooting.md with the messages in the sources.

Each title (###) is a message of src/: capital letters in it stand for conversions (%s, %d). Each warning and error of log_msg()
ends with an identifier [CKnnn] that no other message has, and has a title with it. usage: messages.py [SRC TROUBLESHOOTING.md]
"""
import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
STRING = r'"(?:[^"\\]|\\.)*"'
PLACE = re.compile(r"\b[A-Z]{1,}\b(?!\w)")
CONVERSION = r"%[-+ #0]*\d*(?:\.(?:\d+|\*))?(?:l|ll|z)?[a-z]"
WORDS = ("CREDENTIALS_DIRECTORY",)  # in capitals in the message, too


def strings(text):
    """String literals, adjacent ones as one; PRIu64 as the conversion that it is."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r'"\s*PRI[udx]64\s*"', "lu", text)
    text = re.sub(r'"\s*GCFS_CONF_FILE', 'gocryptfs.conf"', text)
    for run in re.findall(rf"{STRING}(?:\s*{STRING})*", text):
        joined = "".join(s[1:-1] for s in re.findall(STRING, run))
        yield joined.replace('\\"', '"').replace("\\\\", "\\")


def pattern(title):
    """What a message with that title looks like in the sources."""
    parts, at = [], 0
    for m in PLACE.finditer(title):
        if m[0].startswith("CK") or title[m.start() - 1:m.start()] == "$" or m[0] in WORDS:
            continue
        parts += [re.escape(title[at:m.start()]), CONVERSION]
        at = m.end()
    parts.append(re.escape(title[at:]))
    return re.compile("".join(parts))


def log_calls(text):
    """Format strings of warnings and errors"""
    for call in re.findall(rf"log_msg\(LOG_LEVEL_(?:WARNING|ERROR),\s*({STRING}(?:\s*(?:PRI[udx]64)?\s*{STRING})*)", text):
        yield next(strings(call))


def problems(sources, doc):
    """sources: {name: text}"""
    found = [s for text in sources.values() for s in strings(text)]
    titles = re.findall(r"(?m)^### (.*)$", doc)
    for title in titles:
        if not any(pattern(title).search(s) for s in found):
            yield f"docs/troubleshooting.md: no message says: {title}"
    seen = {}
    for name, text in sources.items():
        for message in log_calls(text):
            ident = re.search(r" \[(CK\d{3})\]$", message)
            if not ident:
                yield f"{name}: no identifier at the end of: {message}"
                continue
            if seen.setdefault(ident[1], name) != name:
                yield f"{name}: {ident[1]} is also in {seen[ident[1]]}"
            if not any(t.endswith(f"[{ident[1]}]") for t in titles):
                yield f"{name}: {ident[1]} has no title in docs/troubleshooting.md"
    if not seen or not titles:
        yield "no messages, or no titles"


def main():
    src = Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "src"
    doc = Path(sys.argv[2]) if len(sys.argv) > 2 else REPO / "docs" / "troubleshooting.md"
    wrong = list(problems({p.name: p.read_text() for p in sorted(src.glob("*.[ch]"))}, doc.read_text()))
    print("\n".join(wrong) or "messages: titles and identifiers agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
