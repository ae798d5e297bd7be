"""The handshake that makes a session: request, challenge, attestation, response.

Source: docs/protocols.md 5.3. The messages themselves are in ``coco_kp.model.rcar``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coco_kp.errors import RemoteError
from coco_kp.kbs.session import Session
from coco_kp.kbs.tee_key import TeeKey
from coco_kp.model.rcar import (
    PROTOCOL_VERSION,
    Challenge,
    Evidence,
    attestation,
    device_report_data,
    parse_token,
    report_data,
    request,
)
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from coco_kp.kbs.attester import Attester
    from coco_kp.kbs.client import Kbs
    from coco_kp.kbs.refusal import Refusal

_COOKIE = "kbs-session-id"


@dataclass(frozen=True, slots=True)
class Handshake:
    """Makes sessions with one KBS by showing it an attester's evidence.

    ``key_kind`` is one of ``coco_kp.kbs.tee_key.KINDS``.
    """

    kbs: Kbs
    attester: Attester
    key_kind: str = "P-256"

    def __call__(self) -> Session:
        """Go through one handshake. Raises ``RemoteError``."""
        key = TeeKey.generate(self.key_kind)
        challenge, cookie = ask_for_challenge(self.kbs, self.attester.tee)
        # The evidence of devices first: the TEE's own binds it.
        devices = self.attester.additional_evidence(device_report_data(challenge, key.public))
        own = self.attester.primary_evidence(report_data(challenge, key.public, devices))
        answer = self.kbs.call(
            "POST",
            "attest",
            cookie=cookie,
            body=attestation(challenge, key.public, Evidence(own, devices)),
        )
        if answer.refusal:
            raise _refused(
                answer.refusal,
                f"attest this machine as '{self.attester.tee}'",
                "its log says why the evidence was not accepted",
            )
        return Session(parse_token(answer.document(), f"the KBS {self.kbs.url}"), key)


def ask_for_challenge(kbs: Kbs, tee: str) -> tuple[Challenge, str]:
    """Open a session; return the challenge and the session's cookie. Raises ``RemoteError``."""
    answer = kbs.call("POST", "auth", body=request(tee), repeatable=True)
    if answer.refusal:
        raise _refused(
            answer.refusal,
            f"begin the attestation of a '{tee}' machine",
            f"this program speaks protocol version {PROTOCOL_VERSION}, which Trustee speaks since "
            "July 2025",
        )
    cookie = answer.headers.get("Set-Cookie", "").partition(";")[0].strip()
    if not cookie.startswith(f"{_COOKIE}=") or not cookie.isascii():
        raise RemoteError(f"the KBS {kbs.url} opened no session (no cookie {_COOKIE})")
    return Challenge.parse(answer.document()), cookie


def _refused(refusal: Refusal, what: str, hint: str) -> RemoteError:
    """Return the error; ``hint`` only helps where the KBS rejected the attestation."""
    return refusal.error(what, hint if refusal.variant == "AttestationError" else "")
