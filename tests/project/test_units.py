"""The systemd units: systemd understands every line of them, and they give the daemon little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAX_EXPOSURE = 2.5
"""On the scale of `systemd-analyze security`, where 10 is a process that may do everything."""

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
each_unit = pytest.mark.parametrize(("unit", "scope"), [("hfpeerd", "--system"), ("hfpeerd-user", "--user")])


def runnable(root: Path, folder: Path, unit: str) -> Path:
    """A copy of a unit whose program exists on this machine."""
    text = (root / "systemd" / f"{unit}.service").read_text()
    copy = folder / f"{unit}.service"
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE))
    return copy


def analyze(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    command = [str(ANALYZE), *map(str, words)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
@each_unit
def test_systemd_has_nothing_to_say_about_a_unit(root: Path, tmp_path: Path, unit: str, scope: str) -> None:
    verdict = analyze(scope, "verify", runnable(root, tmp_path, unit), folder=tmp_path)
    # The other units of this machine are not ours.
    said = [line for line in (verdict.stdout + verdict.stderr).splitlines() if "hfpeer" in line]
    assert (verdict.returncode, said) == (0, [])


@needs_systemd
@each_unit
def test_systemd_would_notice_a_misspelt_line(root: Path, tmp_path: Path, unit: str, scope: str) -> None:
    copy = runnable(root, tmp_path, unit)
    copy.write_text(copy.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    assert "NoNewPrivilege" in analyze(scope, "verify", copy, folder=tmp_path).stderr


@needs_systemd
def test_the_system_unit_may_do_little(root: Path, tmp_path: Path) -> None:
    verdict = analyze("security", "--offline=yes", runnable(root, tmp_path, "hfpeerd"), folder=tmp_path)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", verdict.stdout)
    assert exposure is not None, verdict.stderr
    assert float(exposure.group(1)) <= MAX_EXPOSURE


def test_the_user_unit_leaves_the_cache_in_the_home_folder_reachable(root: Path) -> None:
    settings = (root / "systemd" / "hfpeerd-user.service").read_text().splitlines()
    hiding = ("ProtectHome=", "ProtectSystem=", "PrivateTmp=", "ReadOnlyPaths=", "InaccessiblePaths=", "PrivateUsers=")
    assert [line for line in settings if line.startswith(hiding)] == []


@each_unit
def test_a_unit_starts_the_daemon_in_the_foreground_and_waits_until_it_is_ready(
    root: Path, unit: str, scope: str
) -> None:
    settings = (root / "systemd" / f"{unit}.service").read_text().splitlines()
    assert "Type=notify" in settings
    assert any(re.fullmatch(r"ExecStart=\S+/hfpeerd --foreground", line) for line in settings)
