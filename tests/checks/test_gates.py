# SPDX-License-Identifier: MIT
"""A gate that cannot fail is a defect: each check is made to fail, and to pass."""
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import docs  # noqa: E402
import formatting  # noqa: E402
import layers  # noqa: E402
import messages  # noqa: E402

HERE = Path(__file__).resolve().parent

TABLE = """
| layer | files in src/ | the only place that includes |
|---|---|---|
| 2 top | `top.c` `part_a.c` | `fuse_lowlevel.h` |
| 1 middle | `middle.c` | `openssl/*.h` |
| 0 base | `base.c` | – |
"""


@pytest.mark.parametrize("name, text, word", [
    ("base.c", '#include "base.h"\n#include <stdio.h>\n', None),
    ("top.c", '#include "middle.h"\n#include <fuse_lowlevel.h>\n#include <sys/stat.h>\n', None),
    ("middle.c", '#include <openssl/evp.h>\n#include "base.h"\n', None),
    ("part_a.c", '#include "part.h"\n', None),
    ("base.c", '#include "middle.h"\n', "layer 0 includes middle.h of layer 1"),
    ("middle.h", '# include "top.h"\n', "layer 1 includes top.h of layer 2"),
    ("base.c", '#include "part.h"\n', "layer 0 includes part.h of layer 2"),
    ("top.c", "#include <openssl/sha.h>\n", "belongs to layer 1 alone"),
    ("base.c", "#include <fuse_lowlevel.h>\n", "belongs to layer 2 alone"),
    ("base.c", "#include <curl/curl.h>\n", "a library that the table does not name"),
    ("base.c", '#include "unknown.h"\n', "which is in no layer"),
    ("stray.c", "\n", "in no layer of the table"),
])
def test_layers(tmp_path, name, text, word):
    for file in ("base", "middle", "top", "part_a"):
        (tmp_path / f"{file}.c").touch()
    (tmp_path / "part.h").touch()
    (tmp_path / name).write_text(text)
    wrong = layers.check(tmp_path, TABLE)
    assert wrong == [] if word is None else len(wrong) == 1 and word in wrong[0], wrong


def test_layers_misses_a_file(tmp_path):
    (tmp_path / "base.c").touch()
    assert "top.c: in the table, but not in src/" in layers.check(tmp_path, TABLE)
    assert layers.check(tmp_path, "no table") == ["the table of layers was not found"]


def test_formatting(tmp_path):
    good, bad = tmp_path / "good.c", tmp_path / "bad.c"
    good.write_text("int main(void)\n{\n\treturn 0;\n}\n")
    bad.write_text("int main(void) {\n  return 0; }\n")
    assert formatting.check([good]) == []
    assert formatting.check([good, bad])


@pytest.mark.parametrize("text, status", [
    ("[1/2] Compiling C object a.o\n", 0),
    ("../src/a.c:3:5: warning: unused variable 'x' [-Wunused-variable]\n", 1),
    ("WARNING: Deprecated features used\n", 1)])
def test_build_log(tmp_path, text, status):
    log = tmp_path / "log"
    log.write_text(text)
    assert subprocess.run([sys.executable, HERE / "build_log.py", log]).returncode == status


OVERVIEW = """usage: ckrfs COMMAND

commands:
  mount NAME [TARGET]   mounts
  umount NAME           unmounts

options:
  --config FILE   configuration
"""
HELPS = {"mount": "usage: ckrfs mount\n\n  -o, --options OPTS  options\n  -f, --foreground    stays\n      --config FILE  file\n",
         "umount": "usage: ckrfs umount\n\n      --lazy   detaches\n"}
PAGE = r""".SH OPTIONS
.TP
\fB\-\-config\fR \fIFILE\fR
configuration
.SH COMMANDS
.SS mount NAME
.TP
\fB\-o\fR, \fB\-\-options\fR \fIOPTS\fR
options
.TP
.BR \-f ", " \-\-foreground
stays
.SS "umount NAME"
.TP
.B \-\-lazy
detaches, unlike \-\-other
"""


@pytest.mark.parametrize("change, word", [
    (lambda o, h, p: (o, h, p), None),
    (lambda o, h, p: (o, h, p.replace("lazy", "lazily")), "--lazily: in the manual page"),
    (lambda o, h, p: (o, h, p.replace("lazy", "lazily")), "--lazy: in --help"),
    (lambda o, h, p: (o, dict(h, umount=h["umount"] + "  --force  x\n"), p), "umount --force: in --help"),
    (lambda o, h, p: (o.replace("  umount", "  unmount"), dict(h, unmount=""), p), "unmount: in --help"),
    (lambda o, h, p: (o.replace("  umount NAME           unmounts\n", ""), h, p), "umount: has a section"),
    (lambda o, h, p: ("", {}, p), "no commands found"),
])
def test_docs(change, word):
    wrong = docs.compare(*change(OVERVIEW, HELPS, PAGE))
    assert wrong == [] if word is None else any(word in w for w in wrong), wrong


MESSAGE = 'log_msg(LOG_LEVEL_ERROR, "the server of \\"%s\\" died: %" PRIu64 " [CK900]", name, n);\n'
TITLE = '### the server of "NAME" died: N [CK900]\n'


@pytest.mark.parametrize("source, doc, word", [
    (MESSAGE, TITLE, None),
    (MESSAGE.replace("died", "ended"), TITLE, "no message says"),
    (MESSAGE.replace(" [CK900]", ""), TITLE, "no identifier"),
    (MESSAGE, TITLE + "### something else\n", "no message says: something else"),
    (MESSAGE, "### died\n", "has no title"),
    ("", TITLE, "no messages"),
])
def test_messages(source, doc, word):
    wrong = list(messages.problems({"a.c": source}, doc))
    assert wrong == [] if word is None else any(word in w for w in wrong), wrong


def test_one_identifier_for_two_messages():
    wrong = list(messages.problems({"a.c": MESSAGE, "b.c": MESSAGE}, TITLE))
    assert wrong == ["b.c: CK900 is also in a.c"]
