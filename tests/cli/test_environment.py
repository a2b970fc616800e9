"""`hfpeer env` and `hfpeer run`: what a shell is told, and what a command sees."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from hfpeer.names import Address
from hfpeer_cli.environment import environment, exports, lan_urls

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
def test_every_shell_is_told_in_its_language(hfpeer: Run, shell: str, line: str) -> None:
    ran = hfpeer("env", "--shell", shell)
    assert (ran.code, ran.out) == (0, line + "\n")
    assert "hfpeer daemon start" in ran.err


def test_a_shell_takes_what_is_printed() -> None:
    text = exports({"A": "it's $HOME"}, "sh")
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


def test_other_machines_are_told_how_to_be_let_in(hfpeer: Run) -> None:
    ran = hfpeer("env", "--lan")
    assert ran.code == 4
    assert "endpoint.listen 0.0.0.0:9438" in ran.err


def test_other_machines_are_given_the_address_that_is_listened_at(hfpeer: Run) -> None:
    assert lan_urls(LOCAL) == []
    assert lan_urls(Address("192.0.2.7", 9438)) == ["http://192.0.2.7:9438"]
    assert not any("fe80" in url or "127.0" in url for url in lan_urls(Address("0.0.0.0", 9438)))
