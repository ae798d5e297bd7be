"""What a KBS means when it says no (docs/protocols.md 5.2).

Nearly every refusal is a 401, and its text often names the wrong part. What helps is the *variant*,
the last word of the error's type: each gets a hint at what to check.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from coco_kp.errors import InputError, RemoteError
from coco_kp.model.encoding import parse_json_object
from coco_kp.redact import shown
from coco_kp.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION_VARIANTS: Final = frozenset({"TokenNotFound", "TokenVerifierError", "AttestationError"})
"""Refusals that a new session may turn."""

_ADMIN = (
    "check the admin token: not expired, signed by a key that the KBS trusts, and with the issuer, "
    "audience and role that its [admin] configuration wants for this path"
)

_HINTS: Final = {
    "AdminAuthInitialization": _ADMIN,
    "AdminAuthAccess": _ADMIN,
    "AttestationError": "check whether the KBS accepts evidence of this TEE",
    "TokenNotFound": "the KBS does not know the session: it may have expired",
    "TokenVerifierError": "the attestation token may have expired, or be that of another KBS",
    "PolicyDeny": "check the resource policy of the KBS: the one that it comes with refuses all "
    "evidence of the sample attester",
    "PluginInternalError": "most often there is no such resource: check the key ID, and whether "
    "its key was registered with this KBS",
    "PluginNotFound": "the KBS runs without this plugin: check the scheme of the key ID",
    "InvalidRequestPath": "a key ID has the form kbs:///<repository>/<type>/<tag>",
}

_MISLEADING: Final = "failed to initialize [admin] configuration: "  # what follows is the reason

_VARIANT = re.compile(r"[A-Z][A-Za-z]{1,40}")

_LIMIT: Final = 64 * 1024  # bytes of an error document


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than success.

    ``variant`` is empty where the body is not a KBS's error document. ``said`` is the other side's
    own text, fit to be printed.
    """

    kbs: str
    status: int
    variant: str
    said: str

    @classmethod
    def of(cls, kbs: str, status: int, body: bytes, quote: Callable[[str], str]) -> Refusal:
        """Read the body of an answer; ``quote`` makes foreign text fit for a message."""
        try:
            document = parse_json_object(body, "error", _LIMIT)
        except InputError:
            return cls(kbs, status, "", quote(body[:_LIMIT].decode("utf-8", "replace")))
        variant = str(document.get("type", "")).rpartition("/")[2]
        variant = variant if _VARIANT.fullmatch(variant) else ""
        said = str(document.get("detail", "")).removeprefix(_MISLEADING)
        return cls(kbs, status, variant, quote(said))

    def error(self, what: str, hint: str = "") -> RemoteError:
        """Say that ``what`` was refused, and why; ``hint`` replaces the variant's own."""
        reason = f"{self.variant or 'HTTP'} {self.status}"
        said = f": {self.said}" if self.said else ""
        return RemoteError(
            f"the KBS {self.kbs} refused to {what} ({reason}){said}", hint or self._hint()
        )

    def without_text(self) -> Refusal:
        """Leave out the other side's text, which could repeat what we sent.

        Only what it says of the admin token stays, unless it looks like a key: a KBS judges that
        before it looks at the body.
        """
        said = shown(self.said) if self.is_about_admin else ""
        return Refusal(self.kbs, self.status, self.variant, said)

    @property
    def is_about_admin(self) -> bool:
        """Whether it was the admin token that the KBS did not like."""
        return self.variant in ("AdminAuthInitialization", "AdminAuthAccess")

    def _hint(self) -> str:
        if self.variant:
            return _HINTS.get(self.variant, "the log of the KBS says more")
        match self.status:
            case 404:
                return "no KBS answers here: check host, port and path prefix of its address"
            case 413:
                return "the KBS takes bodies up to payload_request_size (2 MB unless configured)"
            case 301 | 302 | 303 | 307 | 308:
                return "redirects are not followed: give the final address of the KBS"
            case _:
                return "the log of the KBS, or of the proxy before it, says more"
