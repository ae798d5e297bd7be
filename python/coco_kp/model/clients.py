"""What a caller of the key provider may do: the decision, over values.

- Who started the process, who reaches a Unix socket (its mode says who that is), and who reaches a
  plain port, which is loopback's unless the owner says otherwise: everything.
- Over TLS, without a list of clients: to wrap.
- Over TLS, with one: what it grants to a name in the caller's certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from coco_kp.errors import NotAllowedError
from coco_kp.model.client import CertificateNames, ClientIdentity
from coco_kp.model.protocol import Operation
from coco_kp.redact import shown

if TYPE_CHECKING:
    from coco_kp.model.pattern import Pattern

_VERBS: Final[dict[Operation, str]] = {"keywrap": "wrap", "keyunwrap": "unwrap"}


class Grant(NamedTuple):
    """Operations, the key IDs they are for, and the keys that the caller may name for them.

    None stands for any.
    """

    operations: frozenset[Operation]
    kids: tuple[Pattern, ...] | None = None
    kek_from: tuple[Pattern, ...] | None = None


EVERYTHING: Final = Grant(frozenset({"keywrap", "keyunwrap"}))
WRAPPING: Final = Grant(frozenset({"keywrap"}))


class Clients(NamedTuple):
    """The clients of a provider: what each name of a certificate is granted."""

    by_name: Mapping[str, Grant]

    def grants(self, certificate: CertificateNames) -> tuple[Grant, ...]:
        """Return what all names of a certificate are granted."""
        return tuple(self.by_name[name] for name in certificate.names if name in self.by_name)


class Rights(NamedTuple):
    """What a caller is granted."""

    identity: ClientIdentity
    grants: tuple[Grant, ...]

    def check(self, operation: Operation, kid: str = "", kek_from: str = "") -> None:
        """Raise ``NotAllowedError`` unless one grant allows all of it.

        An empty ``kid`` is one that is not known yet, an empty ``kek_from`` no key of the
        caller's.
        """
        if not self.grants:
            raise NotAllowedError(
                f"{self._who} is not a client of this provider",
                "its owner names clients by their certificates, in its file of clients",
            )
        grants = [grant for grant in self.grants if operation in grant.operations]
        if not grants:
            raise NotAllowedError(
                f"{self._who} may not {_VERBS[operation]} here",
                "over TLS its owner says who may, in its file of clients",
            )
        grants = [grant for grant in grants if not kid or _among(kid, grant.kids)]
        if not grants:
            raise NotAllowedError(
                f"{self._who} may not {_VERBS[operation]} for the key ID {shown(kid)}",
                "the provider's owner says for which: kids in its file of clients",
            )
        if kek_from and not any(_among(kek_from, grant.kek_from) for grant in grants):
            raise NotAllowedError(
                f"{self._who} may not {_VERBS[operation]} with the key that it names",
                "the provider's owner says with which: kek-from in its file of clients",
            )

    @property
    def _who(self) -> str:
        return shown(str(self.identity))


def rights_of(identity: ClientIdentity, clients: Clients | None) -> Rights:
    """Return what a caller is granted; ``clients`` None: the provider has no list of them."""
    if identity.transport != "tls":
        return Rights(identity, (EVERYTHING,))
    if clients is None:
        return Rights(identity, (WRAPPING,))
    if identity.certificate is None:
        return Rights(identity, ())
    return Rights(identity, clients.grants(identity.certificate))


def _among(text: str, patterns: tuple[Pattern, ...] | None) -> bool:
    return patterns is None or any(pattern.matches(text) for pattern in patterns)
