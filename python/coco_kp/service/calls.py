"""One call of the key provider, whichever door it came through: bytes in, bytes out, one event."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from coco_kp.deadline import caller_has_gone, within
from coco_kp.errors import CocoKpError
from coco_kp.keyprovider.call import Call, MalformedRequestError
from coco_kp.model.protocol import (
    WrapRequest,
    parse_request,
    write_unwrap_response,
    write_wrap_response,
)
from coco_kp.observe import event
from coco_kp.provider import Provider

LONGEST_CALL: Final = 30.0
"""Seconds for one call, whatever it asks of others, and of how many."""

# Python parses no faster in several threads, and a hostile message takes 15 times its size while it
# is parsed: one at a time.
_parsing = threading.Lock()


def answer(provider: Provider, call: Call) -> bytes:
    """Answer a call in the protocol's JSON, within ``LONGEST_CALL``.

    Raises ``MalformedRequestError``, or what the provider raises. Each call leaves one event; it
    never holds anything of the request but a kid.
    """
    with within(LONGEST_CALL):
        return _answer(provider, call)


def _answer(provider: Provider, call: Call) -> bytes:
    began = time.monotonic()
    method, kid = call.operation or "call", ""
    try:
        try:
            with _parsing:
                request = parse_request(call.request, call.operation)
        except CocoKpError as error:
            raise MalformedRequestError(error.message, error.hint) from None
        if isinstance(request, WrapRequest):
            method = "keywrap"
            wrapped = provider.wrap(request)
            kid = wrapped.kid
            for warning in wrapped.warnings:
                event(logging.WARNING, "warning", message=warning)
            response = write_wrap_response(wrapped.packet)
        else:
            method = "keyunwrap"
            unwrapped = provider.unwrap(request)
            kid = str(unwrapped.kid)
            response = write_unwrap_response(unwrapped.private_options)
    except CocoKpError as error:
        seconds = time.monotonic() - began
        why = "the caller has gone" if caller_has_gone() else str(error)
        event(logging.INFO, "refused", method=method, message=why, seconds=seconds)
        raise
    event(logging.INFO, "answered", method=method, kid=kid, seconds=time.monotonic() - began)
    return response
