"""Recorded calls of key providers, made to ours."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

from coco_kp.keyprovider.call import Call
from coco_kp.service.calls import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from coco_kp.model.protocol import Operation
    from coco_kp.provider import Provider
    from tests.replay.recording import Recorded


def call(
    provider: Provider, recorded: Recorded, change: Callable[[str], str] = lambda text: text
) -> bytes:
    """Make a recorded call and return the packet or the private options that it yields.

    ``change`` puts a path or an address of today into a parameter; all else is sent to the byte.
    """
    operation: Operation = "keywrap" if recorded["method"] == "WrapKey" else "keyunwrap"
    document = json.loads(answer(provider, Call(changed(request(recorded), change), operation)))
    results = document.get("keywrapresults") or document["keyunwrapresults"]
    return bytes(results.get("annotation") or results["optsdata"])


def request(recorded: Recorded) -> bytes:
    """Return the request of a recorded call, in the protocol's JSON."""
    message = recorded["request"]
    if "json_base64" in message:
        return b64decode(message["json_base64"])
    return str(message["json"]).encode()


def changed(data: bytes, change: Callable[[str], str]) -> bytes:
    """Change the parameters in a request, and no other byte."""
    for element in parameters(data):
        try:
            text = b64decode(element, validate=True).decode()
        except ValueError:
            continue
        data = data.replace(element.encode(), b64encode(change(text).encode()))
    return data


def parameters(data: bytes) -> list[str]:
    """Return the parameters in a request as they stand there; none in one that is malformed."""
    try:
        document: dict[str, Any] = json.loads(data)
    except ValueError:
        return []
    configs = [
        (document.get(call) or {}).get(config) or {}
        for call, config in (("keywrapparams", "ec"), ("keyunwrapparams", "dc"))
    ]
    lists = [elements for config in configs for elements in config.get("Parameters", {}).values()]
    return [element for elements in lists for element in elements]
