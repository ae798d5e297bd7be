"""An AWS in this process that refuses as it is told: the emulators know no access control.

Speaks AWS JSON 1.1, in which KMS and Secrets Manager answer (smithy.io, "AWS JSON 1.1 protocol").
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.sim.http_server import Reply, Request, http_server

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY_ARN: Final = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

REFUSALS: Final = {
    "AccessDeniedException": (
        "User: arn:aws:iam::111122223333:user/ci is not authorized to perform: kms:Encrypt on "
        f"resource: {KEY_ARN} because no identity-based policy allows the kms:Encrypt action"
    ),
    "DisabledException": f"{KEY_ARN} is disabled.",
    "ExpiredTokenException": "The security token included in the request is expired",
    "InvalidCiphertextException": "",
    "KMSInvalidStateException": f"{KEY_ARN} is pending deletion.",
    "NotFoundException": f"Key '{KEY_ARN}' does not exist",
    "ResourceNotFoundException": "Secrets Manager can't find the specified secret.",
    "ThrottlingException": "Rate exceeded",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}
"""What AWS says, by the name of the error."""


@dataclass
class RefusingAws:
    """At the URL ``endpoint``; the variables of `tests.peers.aws.RunningAws` lead to it."""

    endpoint: str = ""
    refusals: dict[str, str] = field(default_factory=dict)
    """The name of the error by operation (``Encrypt``); any other one breaks (500)."""
    operations: list[str] = field(default_factory=list)
    """What was asked, in order: a client that tries again does so here, too."""

    def answer(self, request: Request) -> Reply:
        """Refuse."""
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.operations.append(operation)
        error = self.refusals.get(operation, "InternalFailure")
        document = {"__type": error, "message": REFUSALS.get(error, "")}
        return Reply(
            400 if error in REFUSALS else 500,
            {"Content-Type": "application/x-amz-json-1.1"},
            json.dumps(document).encode(),
        )


@contextmanager
def refusing_aws() -> Iterator[RefusingAws]:
    """Run one while the block runs."""
    aws = RefusingAws()
    with http_server(aws.answer) as aws.endpoint:
        yield aws
