"""KBS resource URIs: the name of a KEK, as users write it and as guests read it.

Users write it in several ways; guests parse only ``kbs://[addr]/<repository>/<type>/<tag>`` and
``kbs+<plugin>://…`` (docs/protocols.md 3.4), so one canonical spelling leaves this module.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from coco_kp.errors import InputError
from coco_kp.redact import looks_like_a_key, shown
from coco_kp.values import dataclass, replace

MAX_LENGTH: Final = 1024
"""Characters of a URI at the most. Our bound; the KBS stores a resource in one file name."""

EXTERNAL: Final = "external"
"""The plugin with which a KBS asks another service (Trustee's ``kbs.plugin.v1``)."""

KEY_ID_HINT: Final = (
    "write kbs:///<repository>/<type>/<tag>, for example kbs:///default/key/1; "
    "also accepted: kbs://<addr>/<repository>/<type>/<tag>, /<repository>/<type>/<tag>, "
    "<addr>/<repository>/<type>/<tag>, kbs+<plugin>://[addr]/<path>"
)

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", re.ASCII)  # Trustee's rule for each part
_SCHEME = re.compile(r"kbs(?:\+([a-z0-9][a-z0-9.-]*))?", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?",
    re.ASCII,
)
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ResourceUri:
    """The name of a resource that a KBS serves, such as a KEK: a key ID.

    Attributes:
        plugin: ``resource``, unless the scheme names another.
        address: ``host``, ``host:port``, or empty.
        segments: The parts of the path, three for a ``resource``.
        query: What follows the question mark, or empty.
    """

    plugin: str
    address: str
    segments: tuple[str, ...]
    query: str = ""

    @property
    def path(self) -> str:
        """The path without a leading slash: the key under which KBCs look a KEK up (3.3)."""
        return "/".join(self.segments)

    def __str__(self) -> str:
        """Return the canonical spelling, the only one that goes into a packet."""
        scheme = "kbs" if self.plugin == "resource" else f"kbs+{self.plugin}"
        query = f"?{self.query}" if self.query else ""
        return f"{scheme}://{self.address}/{self.path}{query}"


def without_ciphertext(uri: ResourceUri) -> ResourceUri:
    """Return a key ID without the wrapped KEK that it may hold, which each image has its own of.

    It is the query of a key ID of the KBS's plugin ``external`` (:mod:`coco_kp.keys.external`).
    """
    return replace(uri, query="") if uri.plugin == EXTERNAL else uri


def parse_key_id(text: str) -> ResourceUri:
    """Read a key ID in any form that users write.

    These are ``kbs:///<repository>/<type>/<tag>``, the same with the address of a KBS behind the
    second slash, both without ``kbs://``, and ``kbs+<plugin>://[addr]/<path>`` (docs/protocols.md
    3.4).

    Raises:
        InputError: It has none of the forms; or it holds what looks like a key, which would be
            published with the image.
    """
    uri = _parse_written(text)
    if any(map(looks_like_a_key, (uri.address, uri.query, *uri.segments))):
        raise InputError(
            f"key ID {shown(text)} cannot be used: everybody who has the image can read it",
            "name the key by other words than the key itself, of less than 43 characters",
        )
    return uri


def _parse_written(text: str) -> ResourceUri:
    if "://" in text:
        return _parse(text, text)
    # Without a scheme: /<r>/<t>/<g>, or the same behind an address.
    address, slash, path = text.partition("/")
    if not slash or (address and path.count("/") != 2):
        raise _refused(text, _without_scheme_reason(text))
    return _parse(f"kbs://{text}", text)


def parse_resource_path(text: str) -> ResourceUri:
    """Read a path alone, as keys files have it: ``default/key/1``. Raises ``InputError``."""
    return _parse(f"kbs:///{text}", text)


def parse_resource_uri(text: str) -> ResourceUri:
    """Read a URI with its scheme, as it stands in a packet. Raises ``InputError``."""
    return _parse(text, text)


def _parse(uri: str, text: str) -> ResourceUri:
    """Read a URI that somebody gave as ``text``, which is what errors quote."""
    if len(text) > MAX_LENGTH:
        raise _refused(text, f"it has more than {MAX_LENGTH} characters")
    scheme, separator, rest = uri.partition("://")
    match = _SCHEME.fullmatch(scheme)
    if not separator or not match:
        raise _refused(text, "its scheme is not kbs or kbs+<plugin>")
    plugin = (match[1] or "resource").lower()
    if "#" in rest:
        raise _refused(text, "a fragment has no meaning in it")
    rest, question_mark, query = rest.partition("?")
    if question_mark and not _QUERY.fullmatch(query):
        raise _refused(text, "its query is empty or has a character that must be %-encoded")
    address, slash, path = rest.partition("/")
    segments = tuple(path.split("/")) if slash else ()
    for segment in segments:
        if not _SEGMENT.fullmatch(segment):
            raise _refused(
                text,
                f"the part {shown(segment, text)} is not letters, digits, '_', '-' and "
                "(not first) '.'",
            )
    if plugin == "resource" and len(segments) != 3:
        raise _refused(text, f"its path must have three parts, not {len(segments)}")
    if not segments:
        raise _refused(text, "it has no path")
    return ResourceUri(plugin, _canonical_address(address, text), segments, query)


def _canonical_address(address: str, text: str) -> str:
    if not address:
        return ""
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise _refused(text, f"{shown(address, text)} is not host, host:port or [IPv6]:port")
    host = match["host"]
    if match["ipv6"]:
        try:
            host = f"[{ipaddress.IPv6Address(match['ipv6']).compressed}]"
        except ValueError:
            raise _refused(text, f"{shown(host, text)} is not an IPv6 address") from None
    port = match["port"]
    if port and int(port) > 65535:
        raise _refused(text, f"the port {port} is greater than 65535")
    return f"{host}:{port}" if port else host


def _without_scheme_reason(text: str) -> str:
    if not text:
        return "it is empty"
    if text.count("/") == 2:
        return "it has neither a scheme nor a leading slash"
    return "it has none of the accepted forms"


def _refused(text: str, reason: str) -> InputError:
    return InputError(f"key ID {shown(text)} cannot be used: {reason}", KEY_ID_HINT)
