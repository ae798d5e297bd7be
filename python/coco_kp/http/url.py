"""URLs: which may be used, what of them may be shown, which may share credentials."""

from __future__ import annotations

import ipaddress
import re

import urllib3
from urllib3.util import Url, parse_url

from coco_kp.errors import InputError

_DEFAULT_PORTS = {"http": 80, "https": 443}


Origin = tuple[str | None, str | None, int | None]
"""Scheme, host and port."""


def parse_target(url: str, *, user_info: bool = False) -> Url:
    """Parse an absolute http or https URL; raises :class:`InputError` for anything else.

    User names and passwords in it are refused unless ``user_info``: they end up in logs.
    """
    try:
        target = parse_url(url)
    except urllib3.exceptions.LocationParseError:
        raise InputError("expected an http or https URL, found something else") from None
    if target.scheme not in _DEFAULT_PORTS or not target.host:
        raise InputError(f"expected an http or https URL, found '{display_url(url)}'")
    if target.auth is not None and not user_info:
        raise InputError(
            f"'{display_url(url)}' carries a user name or password",
            "leave them out of the URL and pass credentials in their own way",
        )
    return target


def display_url(url: str) -> str:
    """Return scheme, host, port and path: the part of a URL that may stand in a message."""
    try:
        return parse_url(_without_query(url))._replace(auth=None).url
    except urllib3.exceptions.LocationParseError:
        return "(not a URL)"


def same_origin(one: str, other: str) -> bool:
    """Return whether two URLs have scheme, host and port in common: only then share credentials."""
    return _server(one) == _server(other)


def origin(url: Url) -> Origin:
    """Return the server that a URL is of."""
    return url.scheme, url.host, port_of(url)


def is_loopback(host: str) -> bool:
    """Return whether a host (name or address, brackets allowed) is this machine."""
    host = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def port_of(url: Url) -> int | None:
    """Return the port, the scheme's own where none is written."""
    return url.port or _DEFAULT_PORTS.get(url.scheme or "")


def _server(url: str) -> Origin:
    return origin(parse_url(_without_query(url)))


def _without_query(url: str) -> str:
    """Cut off query and fragment, which an upload's URL is mostly made of, and which take long."""
    return re.split(r"[?#]", url, maxsplit=1)[0]
