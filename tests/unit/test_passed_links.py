"""`Link` headers that pass through: our addresses, none to Xet, and one pass over whatever a hub writes there."""

from __future__ import annotations

import time

import httpx
import pytest

from hfpeer.upstream.proxy import _response_headers

HUB, OWN = "https://hub.example", "http://127.0.0.1:9438"


def passed(value: str) -> str | None:
    return dict(_response_headers(httpx.Headers({"Link": value}), HUB, OWN)).get("Link")


@pytest.mark.parametrize(
    ("link", "turned"),
    [
        (f'<{HUB}/api/models?cursor=a>; rel="next"', f'<{OWN}/api/models?cursor=a>; rel="next"'),
        (f'<{HUB}/a,b>; rel="next"', f'<{OWN}/a,b>; rel="next"'),
        (f'<{HUB}/x>; rel="xet-auth", <{HUB}/y>; rel="next"', f'<{OWN}/y>; rel="next"'),
        (f'<{HUB}/y>; rel="next",<{HUB}/x>; rel=xet-reconstruction-info', f'<{OWN}/y>; rel="next"'),
        (f"<{HUB}/x>;rel=xet-auth", None),
        ("<https://other.example/z>; rel=next", "<https://other.example/z>; rel=next"),
        ("nonsense", "nonsense"),
    ],
)
def test_links_name_us_and_none_leads_to_xet(link: str, turned: str | None) -> None:
    assert passed(link) == turned


@pytest.mark.timed
@pytest.mark.parametrize("text", [" ", "<", "<>" + " ", "<>;", ",<", "<,"])
def test_a_link_takes_one_pass(text: str) -> None:
    began_at = time.process_time()
    passed(text * 100_000)
    assert time.process_time() - began_at < 10.0
