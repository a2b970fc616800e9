"""The difference between two environments: only where something follows from it, by names alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfpeer.config.settings import read_settings
from hfpeer.control import environment
from hfpeer.control.environment import (
    ALL_TOPICS,
    CACHE,
    TOKEN,
    digests_of,
    find_difference,
    is_first_time,
    passed_over_hub,
)
from hfpeer.control.holder import Holder, Service

HUB = "origin=https://hub.example"
PROXY = "http://me:sesame@proxy.example:3128"


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    return {"HFPEER_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path / "hub"), "HFPEER_UPSTREAMS": HUB}


def differing(daemon: dict[str, str], shell: dict[str, str]) -> tuple[str, ...]:
    """The names that are told."""
    told = json.loads(json.dumps(digests_of(read_settings(daemon), daemon, "salt").to_json()))
    found = find_difference(read_settings(shell), shell, told)
    return () if found is None else found.variables


@pytest.mark.parametrize(
    ("daemon", "shell", "names"),
    [
        ({}, {"HTTPS_PROXY": PROXY}, ("HTTPS_PROXY",)),
        ({"https_proxy": PROXY}, {}, ("https_proxy",)),
        ({"HTTPS_PROXY": PROXY}, {"HTTPS_PROXY": PROXY.replace("sesame", "other")}, ("HTTPS_PROXY",)),
        ({"HTTPS_PROXY": PROXY}, {"HTTPS_PROXY": PROXY, "NO_PROXY": ".example"}, ("NO_PROXY",)),
        ({}, {"SSL_CERT_FILE": "/etc/company.pem"}, ("SSL_CERT_FILE",)),
        ({"REQUESTS_CA_BUNDLE": "/a.pem"}, {"CURL_CA_BUNDLE": "/a.pem"}, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")),
        ({}, {"HFPEER_UPSTREAMS": "origin=https://other.example"}, ("HFPEER_UPSTREAMS",)),
        ({}, {"HFPEER_OFFLINE": "1"}, ("HFPEER_OFFLINE",)),
        ({}, {"HFPEER_TRUST_ATTESTED": "true"}, ("HFPEER_TRUST_ATTESTED",)),
        ({}, {"HF_HUB_CACHE": "/data/hub"}, ("HF_HUB_CACHE",)),
        ({}, {"HF_TOKEN": "hf_mine"}, ("HF_TOKEN",)),
        ({}, {"HF_HOME": "/data/hf"}, ("HF_HOME",)),
        ({}, {"MODELSCOPE_ENDPOINT": "https://modelscope.ai"}, ("MODELSCOPE_ENDPOINT",)),
        ({}, {"HFPEER_REGISTRY_PASSWORD": "sesame"}, ("HFPEER_REGISTRY_PASSWORD",)),
    ],
)
def test_variables_that_matter_are_named(
    base: dict[str, str], daemon: dict[str, str], shell: dict[str, str], names: tuple[str, ...]
) -> None:
    assert differing(base | daemon, base | shell) == names


@pytest.mark.parametrize(
    ("daemon", "shell"),
    [
        ({}, {"PATH": "/bin", "LANG": "zh_CN.UTF-8"}),
        ({"HTTPS_PROXY": PROXY}, {"https_proxy": PROXY}),
        ({}, {"NO_PROXY": "localhost,127.0.0.1", "HF_ENDPOINT": "http://127.0.0.1:9438"}),
        ({}, {"http_proxy": PROXY}),
        ({}, {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}),
        ({}, {"HFPEER_PROXY": ""}),
        ({}, {"HFPEER_TRUST_ATTESTED": "false"}),
        ({}, {"HF_HUB_CACHE": "BASE/../hub"}),
        ({"HFPEER_UPSTREAMS": "origin=http://hub.example"}, {"HFPEER_UPSTREAMS": "origin=http://hub.example"}),
    ],
)
def test_variables_from_which_nothing_follows_are_not_named(
    base: dict[str, str], tmp_path: Path, daemon: dict[str, str], shell: dict[str, str]
) -> None:
    shell = {name: value.replace("BASE/..", str(tmp_path)) for name, value in shell.items()}
    assert differing(base | daemon, base | shell) == ()


def test_certificates_do_not_matter_for_hubs_without_tls(base: dict[str, str]) -> None:
    base["HFPEER_UPSTREAMS"] = "origin=http://hub.example"
    assert differing(base, base | {"SSL_CERT_FILE": "/etc/company.pem"}) == ()


def test_digests_hold_no_value_and_differ_with_the_salt(base: dict[str, str]) -> None:
    environ = base | {"HTTPS_PROXY": PROXY, "HF_TOKEN": "hf_mine"}
    first, second = (json.dumps(digests_of(read_settings(environ), environ, salt).to_json()) for salt in ("a", "b"))
    assert not any(value in first for value in ("sesame", "proxy.example", "hf_mine", "hub.example"))
    assert first != second and json.loads(first)["variables"]["HF_TOKEN"] not in second


def test_topics_can_be_passed_over(base: dict[str, str]) -> None:
    told = digests_of(read_settings(base), base, "salt").to_json()
    shell = base | {"HF_TOKEN": "hf_mine", "HF_HUB_CACHE": "/data/hub"}
    assert find_difference(read_settings(shell), shell, told, without=(CACHE, TOKEN)) is None


@pytest.mark.parametrize("told", [None, {}, [], {"salt": 1}, {"salt": "a", "effects": [], "variables": 3}])
def test_a_daemon_that_tells_nothing_sensible_differs_in_nothing(base: dict[str, str], told: object) -> None:
    assert find_difference(read_settings(base), base, told) is None


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        (None, "`hfpeer daemon restart`"),
        (Holder(7, "here"), "`hfpeer daemon restart`"),
        (Holder(7, "here", Service("hfpeerd", is_of_user=True), True), "`systemctl --user edit hfpeerd`"),
        (Holder(7, "here", None, True), "where it is started"),
    ],
)
def test_the_hint_is_for_the_way_in_which_the_daemon_runs(
    base: dict[str, str], monkeypatch: pytest.MonkeyPatch, holder: Holder | None, said: str
) -> None:
    """A service that reads its settings anew keeps its environment."""
    monkeypatch.setattr(environment, "find_holder", lambda pid_file: holder)
    told = digests_of(read_settings(base), base, "salt").to_json()
    shell = base | {"HTTPS_PROXY": PROXY}
    found = find_difference(read_settings(shell), shell, told)
    assert found is not None and said in found.hint


def test_a_difference_is_told_once_and_again_when_it_has_changed(base: dict[str, str], tmp_path: Path) -> None:
    told = digests_of(read_settings(base), base, "salt").to_json()
    (tmp_path / "home").mkdir(mode=0o700)

    def is_told(**shell: str) -> bool:
        found = find_difference(read_settings(base | shell), base | shell, told)
        assert found is not None
        return is_first_time(tmp_path / "home", found)

    assert is_told(HTTPS_PROXY=PROXY)
    assert not is_told(HTTPS_PROXY=PROXY)
    assert is_told(HTTPS_PROXY="http://other.example:3128")
    assert not is_told(HTTPS_PROXY=PROXY)
    kept = (tmp_path / "home" / "told.json").read_text()
    assert "proxy" not in kept and "sesame" not in kept


@pytest.mark.parametrize(
    ("endpoint", "is_told"),
    [
        ("https://models.company.example", True),
        ("https://me:sesame@models.company.example/", True),
        ("https://hub.example/", False),
        ("http://127.0.0.1:9438", False),
        ("http://pegasus:9438", False),
        (" https://hub.example ", False),
        ("", False),
    ],
)
def test_an_endpoint_that_is_not_asked_is_told(base: dict[str, str], endpoint: str, is_told: bool) -> None:
    found = passed_over_hub(read_settings(base), base | {"HF_ENDPOINT": endpoint})
    assert (found is not None) == is_told
    if found is not None:
        assert "models.company.example" in found.sentence and "hub.example" in found.sentence
        assert "sesame" not in str(found) and "hfpeer conf set upstreams" in found.hint


@pytest.mark.parametrize("endpoint", ["http://[::1", "hub.company.example", "ftp://hub.example", "http://hub:sesame"])
def test_an_endpoint_that_is_no_address_is_told(base: dict[str, str], endpoint: str) -> None:
    found = passed_over_hub(read_settings(base), base | {"HF_ENDPOINT": endpoint})
    assert found is not None and "HF_ENDPOINT is no address of a hub" in found.sentence and "sesame" not in str(found)


def test_an_endpoint_that_huggingface_hub_cannot_read_does_not_end_a_command(base: dict[str, str]) -> None:
    code = "from hfpeer.upstream.upstream import stored_token; print(stored_token())"
    environ = {**os.environ, **base, "HF_ENDPOINT": "http://hub.example:1 ", "HF_TOKEN": "hf_sesame"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "hf_sesame", done.stderr


def test_every_variable_of_a_topic_is_looked_at(base: dict[str, str]) -> None:
    """`node.session` compares only if a variable is set that begins or ends as one that matters."""
    from hfpeer.node.session import _may_differ

    for names in ALL_TOPICS.values():
        for name in names:
            assert _may_differ(None, {name: "x"}), name
