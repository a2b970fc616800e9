"""The tests run the same in the foreground and in a background job of a shell, which ignores SIGINT."""

from __future__ import annotations

import signal
import subprocess
import sys

SECONDS = 30.0


def test_a_program_that_a_test_starts_hears_ctrl_c() -> None:
    with subprocess.Popen(["sleep", "60"]) as program:
        program.send_signal(signal.SIGINT)
        try:
            assert program.wait(SECONDS) == -signal.SIGINT
        finally:
            program.kill()


def test_a_program_that_a_test_starts_hears_ctrl_c_in_a_background_job() -> None:
    this_test = f"{__file__}::{test_a_program_that_a_test_starts_hears_ctrl_c.__name__}"
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this_test]
    in_background = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *pytest]
    ran = subprocess.run(in_background, capture_output=True, text=True, timeout=2 * SECONDS)
    assert ran.returncode == 0, ran.stdout
