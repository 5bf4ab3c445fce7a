# SPDX-License-Identifier: MIT
"""Fixtures, and the rule that where CKRFS_MUST_WORK=1 is set a skip is a failure."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import fscrypt  # noqa: E402
import manager  # noqa: E402
import support  # noqa: E402


def pytest_sessionstart(session):
    if os.geteuid():
        pytest.exit("the end to end tests mount file systems and start containers: run them as root", 2)
    if not support.BINARY.exists():
        pytest.exit(f"no {support.BINARY}: build first, or set CKRFS_BUILD_DIR", 2)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if not report.skipped or os.environ.get("CKRFS_MUST_WORK") != "1":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if "kernel lacks: " not in reason:
        report.outcome = "failed"
        report.longrepr = f"skipped where everything must work: {reason}"


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"skipped: {report.nodeid}: {report.longrepr[2]}")


@pytest.fixture
def ck():
    environment = support.Ckrfs()
    yield environment
    problems = environment.close()
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def key():
    """A key in a session keyring of the test's own (manager.SOURCE)"""
    manager.join_session()
    yield manager.Key()
    manager.join_session()


@pytest.fixture
def fs(ck):
    """A file system that encrypts directories"""
    system = fscrypt.Encrypting(ck)
    yield system
    system.close()


@pytest.fixture(params=["gocryptfs", "plain"])
def mounted(request, ck):
    """A mount of each format; -> its path. ck.backing is where its files lie."""
    if request.param == "gocryptfs":
        ck.backing = ck.volume("vol").cipher
    else:
        ck.backing = ck.plain("vol")
    ck.backing.chmod(0o755)
    ck.format = request.param
    with ck.mounted("vol") as at:
        at.chmod(0o777)
        yield at
