"""Which proxy a request to a hub goes through: every form of the variables that occurs, and none that stops a node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.net.proxies import Proxy, ProxyRules, UnusableProxy, read_proxy

PROXY = "http://proxy.test:3128"
ALL = {"http_proxy": PROXY, "https_proxy": PROXY}


def goes_direct(no_proxy: str, host: str, port: int | None = None) -> bool:
    return ProxyRules({**ALL, "no_proxy": no_proxy}).proxy_for("https", host, port) is None


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("huggingface.co", ["huggingface.co", "cdn.huggingface.co", "HuggingFace.co"], ["xhuggingface.co", "hf.co"]),
        (".corp.example", ["corp.example", "a.b.corp.example"], ["example"]),
        ("*.corp.example", ["a.corp.example"], ["corp.other"]),
        ("localhost,10.0.0.0/8", ["localhost", "10.1.2.3"], ["11.0.0.1", "host10.test"]),
        ("192.168.1.7", ["192.168.1.7", "::ffff:192.168.1.7"], ["192.168.1.70"]),
        ("[::1]", ["::1", "[::1]"], ["::2"]),
        ("::1", ["::1"], ["::2"]),
        ("fd00::/8", ["fd12::1"], ["fe80::1"]),
        ("[fd00::]/8", ["fd12::1"], ["2001:db8::1"]),
        ("fe80::1%eth0", ["fe80::1"], ["fe80::2"]),
        ("a.test b.test\tc.test", ["a.test", "b.test", "c.test"], ["d.test"]),
        ("http://hub.test/", ["hub.test"], ["other.test"]),
        ("hub.test.", ["hub.test"], ["other.test"]),
        ("*", ["anything.test", "10.0.0.1"], []),
    ],
)
def test_each_form_of_no_proxy_means_what_curl_and_python_make_of_it(
    no_proxy: str, direct: list[str], proxied: list[str]
) -> None:
    rules = ProxyRules({**ALL, "no_proxy": no_proxy})
    assert [host for host in direct if not goes_direct(no_proxy, host)] == []
    assert [host for host in proxied if goes_direct(no_proxy, host)] == []
    assert rules.notes == []


def test_an_entry_with_a_port_covers_that_port() -> None:
    assert goes_direct("hub.test:8443", "hub.test", 8443) and not goes_direct("hub.test:8443", "hub.test")
    assert goes_direct("hub.test:443", "hub.test")  # the port of https
    assert goes_direct("[fd00::1]:80", "fd00::1", 80) and not goes_direct("[fd00::1]:80", "fd00::1", 81)


@pytest.mark.parametrize("entry", ["fd00::/129", "[::1", "300.0.0.1", "a b!", "10.0.0.0/33", "host:port"])
def test_an_entry_that_cannot_be_read_is_passed_over_with_a_word(entry: str) -> None:
    rules = ProxyRules({**ALL, "NO_PROXY": f"good.test,{entry}"})
    assert rules.proxy_for("https", "good.test", None) is None
    assert rules.proxy_for("https", "hub.test", None) == Proxy(PROXY, "https_proxy")
    assert rules.notes and "NO_PROXY" in rules.notes[0]


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:7890", "http://127.0.0.1:7890"),
        ("socks5://127.0.0.1:7891", "socks5://127.0.0.1:7891"),
        ("socks5h://127.0.0.1:7891", "socks5h://127.0.0.1:7891"),
        ("socks://127.0.0.1:7891", "socks5://127.0.0.1:7891"),
        ("http://u:p%40@proxy.test:1", "http://u:p%40@proxy.test:1"),
        ("http://[::1]:3128", "http://[::1]:3128"),
    ],
)
def test_each_form_of_a_proxy_is_read(value: str, url: str) -> None:
    assert read_proxy(value, "all_proxy") == Proxy(url, "all_proxy")


@pytest.mark.parametrize(
    "value",
    ["http://[::1", "http://u:p@127.0.0.1:port", "http://127.0.0.1:99999", "socks4://a:1", "http://", "http://:0"],
)
def test_a_proxy_that_cannot_be_used_stops_only_what_has_no_other_way(value: str) -> None:
    rules = ProxyRules({"https_proxy": value, "no_proxy": "near.test"})
    assert rules.proxy_for("https", "near.test", None) is None
    assert rules.proxy_for("http", "hub.test", None) is None
    with pytest.raises(UnusableProxy, match="https_proxy") as refused:
        rules.proxy_for("https", "hub.test", None)
    assert "u:p" not in str(refused.value)
    other = ProxyRules({"https_proxy": value, "all_proxy": PROXY})
    assert other.proxy_for("https", "hub.test", None) == Proxy(PROXY, "all_proxy")


def test_small_letters_go_before_capitals_and_a_cgi_header_is_no_proxy() -> None:
    rules = ProxyRules({"http_proxy": "", "HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY})
    assert rules.proxy_for("http", "hub.test", None) is None
    assert rules.proxy_for("https", "hub.test", None) == Proxy(PROXY, "HTTPS_PROXY")
    cgi = ProxyRules({"REQUEST_METHOD": "GET", "HTTP_PROXY": PROXY})
    assert cgi.proxy_for("http", "hub.test", None) is None


def test_the_setting_goes_before_the_environment() -> None:
    environ = {**ALL, "no_proxy": "*"}
    assert ProxyRules(environ, "none").proxy_for("https", "hub.test", None) is None
    named = ProxyRules(environ, "socks5://127.0.0.1:7891").proxy_for("https", "hub.test", None)
    assert named is not None and named.url == "socks5://127.0.0.1:7891" and "setting" in named.named_by


def test_no_password_is_shown() -> None:
    found = read_proxy("http://user:secret@proxy.test:3128", "https_proxy")
    assert isinstance(found, Proxy) and found.address == "http://proxy.test:3128"


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_text_in_the_environment_is_too_odd(value: str, host: str) -> None:
    rules = ProxyRules({"no_proxy": value, "https_proxy": value, "all_proxy": value})
    try:
        rules.proxy_for("https", host, None)
    except UnusableProxy as refused:
        assert str(refused)
