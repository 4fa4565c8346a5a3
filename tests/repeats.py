"""Tests on Ray that fail once and pass when repeated are reported as unsteady, not as failures.

A thousand tests start, kill and interrupt the processes of a cluster. A test that fails because the machine is busy
would stop a change that has nothing to do with it. Such a test is repeated immediately, which shows whether it fails
without other load too. Its first failure is printed in either case: an unsteady test is a fault, of the test or of the
package, that must be mended.
"""

import subprocess
import sys
from pathlib import Path

import pytest

TIMES = 3  # one that fails every second time passes this with a chance of one in eight


class Repeats:
    """Repeats the tests of a session that have failed.

    Args:
        limit: how many may have failed; when there are more, the change is at fault, and none is repeated.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failed: dict[str, bool] = {}
        self._unsteady: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure, and whether a repetition could tell more about it."""
        if report.failed:
            on_ray = "ray" in report.keywords or "cluster" in report.keywords
            # What a test has left behind, such as a process, is not there when it is repeated.
            can_repeat = on_ray and report.when != "teardown"
            self._failed[report.nodeid] = can_repeat and self._failed.get(report.nodeid, True)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Repeat what has failed, and let the session succeed if it has passed each time."""
        failed = self._failed
        if exitstatus != pytest.ExitCode.TESTS_FAILED or len(failed) > self._limit or not all(failed.values()):
            return
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *failed]
        for _ in range(TIMES):
            if subprocess.run(command, cwd=Path(session.config.rootpath), check=False).returncode:
                return
        self._unsteady = list(failed)
        session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests that have failed once."""
        if self._unsteady:
            terminalreporter.section(f"unsteady: failed once, and passed {TIMES} times when repeated")
            for name in self._unsteady:
                terminalreporter.line(name)
