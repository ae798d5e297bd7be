"""Questions that tell whether a KBS can be used as it is meant to. None changes anything in it."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING, Final

from coco_kp.errors import RemoteError
from coco_kp.kbs.rcar import ask_for_challenge
from coco_kp.model.rcar import PROTOCOL_VERSION

if TYPE_CHECKING:
    from coco_kp.kbs.admin import Admin
    from coco_kp.kbs.client import Answer, Kbs

_SKEW: Final = 60  # seconds: what a KBS forgives a token (docs/protocols.md 5.6)


def reach(kbs: Kbs) -> Answer:
    """Get any answer of which only a KBS is capable. Raises ``RemoteError``, ``RefusedError``."""
    answer = kbs.call("POST", "auth", body=b"{}")
    if answer.refusal and not answer.refusal.variant:
        raise answer.refusal.error("answer as a KBS does")
    return answer


def check_protocol(kbs: Kbs) -> str:
    """Begin an attestation, as a guest would. Raises ``RemoteError``."""
    ask_for_challenge(kbs, "sample")
    return f"version {PROTOCOL_VERSION} on both sides"


def check_clock(answer: Answer) -> str:
    """Compare the KBS's clock with ours: it judges tokens by its own. Raises ``RemoteError``."""
    try:
        date = email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
        skew = date.timestamp() - time.time()
    except (ValueError, OverflowError):
        raise RemoteError(
            "the KBS does not tell its time", "a proxy before it may hide it"
        ) from None
    if abs(skew) > _SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        raise RemoteError(
            f"the clock of the KBS is {abs(skew):.0f} s {direction} this machine's",
            "set both by NTP: tokens that are valid here may be expired, or not yet valid, there",
        )
    return f"within {_SKEW} s of this machine's"


def check_admin(admin: Admin) -> str:
    """Ask for something that only an administrator may see. Raises ``RemoteError``."""
    admin.list_policies()
    return f"that of {admin.token.source} is accepted" if admin.token else "none is needed"
