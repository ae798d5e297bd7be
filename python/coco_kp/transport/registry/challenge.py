"""What a registry asks for: the ``WWW-Authenticate`` header (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from coco_kp.values import dataclass

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(
    rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?:,|$)', re.ASCII
)
_SCHEME: Final = re.compile(rf"[\s,]*({_TOKEN})(?=[\s,]|$)", re.ASCII)
_TOKEN68: Final = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?:,|$)", re.ASCII)
"""What schemes such as Negotiate have in place of parameters."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A scheme in lower case (``bearer``, ``basic``) and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Read all challenges; what is malformed is left out, for others may still be of use."""
    challenges = []
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        if blob := _TOKEN68.match(header, position):
            position = blob.end()
        parameters = {}
        while parameter := _PARAMETER.match(header, position):
            position = parameter.end()
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[parameter[1].lower()] = value
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges
