"""Addresses of programs that speak no HTTP."""

from __future__ import annotations

import pytest

from coco_kp.model.host_port import HostPort
from tests.support.refusals import refusals


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50000", "127.0.0.1", 50000),
        ("simple-kbs.example:1", "simple-kbs.example", 1),
        ("_h.a-b." + "h" * 63 + ":1", "_h.a-b." + "h" * 63, 1),
        ("[::1]:65535", "::1", 65535),
        ("[2001:DB8::0:1]:443", "2001:db8::1", 443),
    ],
)
def test_host_port_parses_and_round_trips(text: str, host: str, port: int) -> None:
    address = HostPort.parse(text, "it")
    assert (address.host, address.port) == (host, port)
    assert HostPort.parse(str(address), "it") == address


test_host_port_refuses_malformed_address = refusals(
    lambda text: HostPort.parse(text, "it"),
    {
        "it 'host' is not host:port": ["host"],
        "is not host:port": [
            *("", "host:", ":1", "host:0", "host:65536", "host:1x", "::1:1", "[::1]"),
            *("[::g]:1", "http://host:1", "a b:1", "host:1\n", "unix:///run/x", "host.:1"),
            *("a..b:1", ".a:1", "-a:1", "a-.b:1", "h" * 64 + ":1", "h." * 127 + "h:1"),
        ],
        "it '[1::2::3]:1' has no valid IPv6 address": ["[1::2::3]:1"],
    },
)
