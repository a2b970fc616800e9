"""Whose connection it is: the system's table of sockets, over IPv4, IPv6, and IPv4 within IPv6."""

from __future__ import annotations

import os
import socket
import sys
from ipaddress import ip_address

import pytest

from hfpeer.system.tcp_table import LISTENING, Place, tcp_sockets, user_of_client

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")


def place(name: tuple[object, ...]) -> Place:
    return ip_address(str(name[0])), int(str(name[1]))


@pytest.mark.parametrize(
    ("listens", "asks"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::ffff:127.0.0.1")]
)
def test_the_user_of_a_client_is_found_by_both_ends(listens: str, asks: str) -> None:
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((asks, port)) as client:
            accepted, address = listener.accept()
            with accepted:
                ends = place(address), place(accepted.getsockname())
                assert user_of_client(*ends) == os.geteuid()
                assert user_of_client(place(client.getsockname()), place(client.getpeername())) == os.geteuid()
                elsewhere = (ip_address("127.0.0.2"), ends[0][1])
                assert user_of_client(elsewhere, ends[1]) is None, "the port alone says nothing"
        assert port in {one.local[1] for one in tcp_sockets(LISTENING)}
