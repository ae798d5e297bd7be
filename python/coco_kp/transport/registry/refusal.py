"""What a registry says when it does not do as asked (distribution-spec, error codes)."""

from __future__ import annotations

import contextlib
from typing import Final

from coco_kp.errors import DeniedError, Hint, InputError, NotThereError, RemoteError
from coco_kp.http import Response
from coco_kp.http.response import SAID_LIMIT
from coco_kp.model.encoding import parse_json_object
from coco_kp.transport.access import Access, Credentials
from coco_kp.transport.registry.advice import logging_in

_HINTS: Final = {
    403: "ask for the right to do this, or log in as somebody who has it",
    404: "check the name; some registries say this too where the right to read is missing",
    429: "the registry limits how often it may be asked: try again later",
}

_ERRORS: Final = {401: DeniedError, 403: DeniedError, 404: NotThereError}
_SHORT_OF: Final = {401: "were refused", 403: "do not suffice"}


def refused(
    response: Response, access: Access, what: str = "", credentials: Credentials | None = None
) -> RemoteError:
    """Make the error for an answer of the wrong status, with what the registry said; close it.

    ``credentials`` are those that did not suffice.
    """
    said = codes(response)
    fact = f"{what}: " if what else ""
    hint = Hint(_HINTS.get(response.status, ""))
    if response.status == 401:
        hint = logging_in(access)
    text = hint.text
    if credentials is not None and credentials.origin and response.status in _SHORT_OF:
        text = f"the credentials from {credentials.origin} {_SHORT_OF[response.status]}: {text}"
    return _ERRORS.get(response.status, RemoteError)(
        f"{fact}{response.request}: {response.outcome}" + (f": {said}" if said else ""),
        text,
        code=hint.code,
        **dict(hint.fields),
    )


def codes(response: Response) -> str:
    """Return the registry's own words, its error codes first; other text as it is."""
    text = response.said(SAID_LIMIT)
    errors = None
    with contextlib.suppress(InputError):
        errors = parse_json_object(text, "the answer").get("errors")
    if isinstance(errors, list):
        found = [error for error in errors if isinstance(error, dict)]
        text = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in found) or text
    return response.quote(text)  # again: JSON can spell out what was not there before
