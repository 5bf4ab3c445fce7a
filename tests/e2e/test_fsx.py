# SPDX-License-Identifier: MIT
"""Random operations on a file against a model in memory (tests/tools/fsx.c), on a volume of each kind.

CKRFS_FSX_OPS=1000000 for as many as that; CKRFS_FSX_SEED for another run."""
import os

import pytest
from support import TOOLS, run, sanitized
from variants import configure, ext4, mounted, tmpfs, variant  # noqa: F401

OPERATIONS = int(os.environ.get("CKRFS_FSX_OPS", "6000" if sanitized() else "50000"))
SEED = os.environ.get("CKRFS_FSX_SEED", "2026")


@pytest.mark.parametrize("lower", [ext4, tmpfs])
def test_model_in_memory(ck, variant, lower):  # noqa: F811
    with lower(ck.dir / "lower") as below:
        volume = configure(ck, variant, below)
        with mounted(ck, variant) as at:
            done = run(TOOLS / "fsx", at / "f", SEED, str(OPERATIONS // 2), "260000", timeout=OPERATIONS / 25 + 300)
            assert b"without O_DIRECT" not in done.stdout
            content = (at / "f").read_bytes()
        with mounted(ck, variant) as at:
            assert (at / "f").read_bytes() == content
        if volume:
            volume.fsck()
