"""`hfpeer env` and `hfpeer run`: the text for a shell, and the environment of a command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpeer.net.address import Address
from hfpeer_cli.commands.shell.environment import environment, exports, lan_urls

Run = Callable[..., Any]
LOCAL = Address("127.0.0.1", 9438)


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("sh", "export HF_ENDPOINT=http://127.0.0.1:9438"),
        ("fish", "set -gx HF_ENDPOINT http://127.0.0.1:9438;"),
        ("powershell", "$Env:HF_ENDPOINT = 'http://127.0.0.1:9438'"),
    ],
)
def test_every_shell_gets_its_own_syntax(hfpeer: Run, shell: str, line: str) -> None:
    ran = hfpeer("env", "--shell", shell)
    assert (ran.code, ran.out) == (0, line + "\n")
    assert "hfpeer daemon start" in ran.err


def test_a_shell_takes_what_is_printed() -> None:
    text = "\n".join(exports({"A": "it's $HOME"}, "sh"))
    out = subprocess.run(["sh", "-c", f'{text}\nprintf %s "$A"'], capture_output=True, text=True, check=True).stdout
    assert out == "it's $HOME"


def test_json_has_the_variables(hfpeer: Run) -> None:
    assert hfpeer("env", "--json").document == {"HF_ENDPOINT": "http://127.0.0.1:9438"}


def test_a_proxy_is_passed_by_and_earlier_exceptions_stay() -> None:
    found = environment(LOCAL, {"HTTP_PROXY": "http://proxy", "no_proxy": "corp.example"})
    assert found["NO_PROXY"] == found["no_proxy"] == "corp.example,127.0.0.1"


@pytest.mark.parametrize(("listens", "url"), [("0.0.0.0", "http://127.0.0.1:9438"), ("::", "http://[::1]:9438")])
def test_an_open_endpoint_is_asked_over_loopback(listens: str, url: str) -> None:
    assert environment(Address(listens, 9438), {})["HF_ENDPOINT"] == url


def test_without_a_daemon_nothing_is_run(hfpeer: Run) -> None:
    ran = hfpeer("run", "--", "true")
    assert ran.code == 9 and "daemon start" in ran.err


def test_lan_names_the_setting_that_opens_the_endpoint(hfpeer: Run) -> None:
    ran = hfpeer("env", "--lan")
    assert ran.code == 4
    assert "endpoint.listen 0.0.0.0:9438" in ran.err


def test_lan_prints_the_address_at_which_the_endpoint_listens(hfpeer: Run) -> None:
    assert lan_urls(LOCAL) == []
    assert lan_urls(Address("192.0.2.7", 9438)) == ["http://192.0.2.7:9438"]
    assert not any("fe80" in url or "127.0" in url for url in lan_urls(Address("0.0.0.0", 9438)))


def test_a_session_can_have_a_cache_folder_of_its_own(hfpeer: Run, tmp_path: Path) -> None:
    ran = hfpeer("env", "--shell", "sh", "--cache", str(tmp_path / "my models"))
    assert f"export HF_HUB_CACHE='{tmp_path / 'my models'}'" in ran.out and "export HF_ENDPOINT=" in ran.out
    assert (tmp_path / "my models").is_dir()
    assert hfpeer("env", "--cache", str(tmp_path / "x"), "--json").document["HF_HUB_CACHE"] == str(tmp_path / "x")
    assert hfpeer("env", "--lan", "--cache", str(tmp_path / "y")).code == 2
    assert hfpeer("env", "--cache", "D:\\models").code == 2
