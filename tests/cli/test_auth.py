"""auth: the token is huggingface_hub's to keep, and only the origin sees it. Real processes, real huggingface_hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.hub import HubSimulator
from fakes.json_schema import check_output

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        yield hub


@pytest.fixture
def auth(hub: HubSimulator, environ: dict[str, str], tmp_path: Path) -> Cli:
    """`auth("whoami")` in a clean Hugging Face home; HF_ENDPOINT is an address without a listener."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    ours |= environ | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": NOBODY,
        "HFPEER_UPSTREAMS": f"mirror={NOBODY},origin={hub.endpoint}",
        "NO_PROXY": "127.0.0.1",
    }

    def run(*words: str, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "auth", *words]
        ran = subprocess.run(
            command, capture_output=True, text=True, input=input, env=ours | more, check=False, timeout=60
        )
        check_output(("auth", *words), ran.stdout)
        return ran

    return run


def test_login_logout_whoami(auth: Cli, hub: HubSimulator, tmp_path: Path) -> None:
    assert auth("whoami").returncode == 5

    logged_in = auth("login", input=f"{hub.valid_token}\n")
    assert (logged_in.returncode, logged_in.stderr) == (0, "")
    assert logged_in.stdout == f"Logged in to {hub.endpoint} as owner.\n"
    assert (tmp_path / "hf" / "token").read_text() == hub.valid_token
    home = tmp_path / "home"
    assert not any(hub.valid_token.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())

    who = auth("whoami", "--json")
    assert json.loads(who.stdout) == {
        "user": "owner",
        "organizations": ["acme"],
        "token_name": "owner-token",
        "role": "read",
        "endpoint": hub.endpoint,
    }

    assert auth("logout").returncode == 0
    assert not (tmp_path / "hf" / "token").exists()
    assert auth("logout").stdout == "You were not logged in.\n"


def test_a_token_that_the_hub_refuses_is_not_kept(auth: Cli, hub: HubSimulator, tmp_path: Path) -> None:
    refused = auth("login", "--token", hub.bad_token)
    assert refused.returncode == 5
    assert "does not accept this token" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert hub.bad_token not in refused.stderr
    assert not (tmp_path / "hf" / "token").exists()


def test_no_token_given_is_exit_2(auth: Cli) -> None:
    assert auth("login").returncode == 2


def test_a_hub_that_does_not_answer_is_exit_6(auth: Cli) -> None:
    silent = auth("login", "--token", "hf_x", HFPEER_UPSTREAMS=f"origin={NOBODY}")
    assert silent.returncode == 6
    assert f"{NOBODY} does not answer" in silent.stderr


def test_without_an_origin_no_token_is_sent(auth: Cli, hub: HubSimulator) -> None:
    hub.clear()
    nowhere = auth("login", "--token", hub.valid_token, HFPEER_UPSTREAMS=f"mirror={hub.endpoint}")
    assert nowhere.returncode == 6
    assert hub.requests == []


def test_a_logout_names_the_token_that_the_environment_still_has(auth: Cli, hub: HubSimulator) -> None:
    remaining = auth("logout", HF_TOKEN=hub.valid_token)
    assert remaining.returncode == 5
    assert "Unset HF_TOKEN" in remaining.stderr


def test_a_token_is_kept_unchecked_only_if_the_origin_is_silent_and_the_user_says_so(
    auth: Cli, hub: HubSimulator, tmp_path: Path
) -> None:
    kept = tmp_path / "hf" / "token"
    silent = {"HFPEER_UPSTREAMS": f"origin={NOBODY}"}
    failed = auth("login", input=f"{hub.valid_token}\n", **silent)
    assert failed.returncode == 6 and "hfpeer auth login --unchecked" in failed.stderr
    assert not kept.exists()

    unchecked = auth("login", "--unchecked", "--json", input=f"{hub.valid_token}\n", **silent)
    assert json.loads(unchecked.stdout) == {"user": "", "endpoint": NOBODY, "is_checked": False}
    assert kept.read_text() == hub.valid_token and kept.stat().st_mode & 0o777 == 0o600
    assert "kept, but not checked" in auth("login", "--unchecked", input=f"{hub.valid_token}\n", **silent).stdout
    assert hub.valid_token not in unchecked.stderr + failed.stderr
    assert auth("whoami").stdout == "owner\n"  # huggingface_hub finds it
    assert auth("logout").returncode == 0 and not kept.exists()

    assert auth("login", "--unchecked", "--token", hub.bad_token).returncode == 5
    assert auth("login", "--unchecked", "--token", "no token", **silent).returncode == 5
    assert not kept.exists()


def test_a_mirror_that_may_see_tokens_checks_them_where_there_is_no_origin(auth: Cli, hub: HubSimulator) -> None:
    only = {"HFPEER_UPSTREAMS": f"mirror={hub.endpoint}"}
    assert auth("login", "--token", hub.valid_token, **only).returncode == 6
    logged_in = auth("login", "--token", hub.valid_token, **only, HFPEER_MIRROR_SEND_TOKEN="1")
    assert logged_in.stdout == f"Logged in to {hub.endpoint} as owner.\n"
