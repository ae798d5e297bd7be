"""How a registry is reached: skopeo's ``--creds``, ``--authfile``, ``--cert-dir`` and so on."""

from __future__ import annotations

from typing import Literal

from coco_kp.errors import InputError
from coco_kp.files import StrPath
from coco_kp.model.reference import ImageReference, RegistryReference
from coco_kp.unpacking import Unpacking
from coco_kp.values import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or a token in their stead. No repr shows them.

    Attributes:
        username: The user's name.
        password: The password.
        identity_token: An OAuth2 refresh token, which a token server exchanges.
        registry_token: A token that the registry is sent as it is.
        origin: Where they are from, for messages: an option, a file, a helper.
    """

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    origin: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Access:
    """How a registry is reached; whatever is left out, the user's own files decide, as for skopeo.

    Attributes:
        credentials: Who asks; None looks into the files where logins are kept.
        authfile: The one file that is looked into for logins.
        cert_dir: The directory of certificates in place of those in ``certs.d``.
        tls_verify: False accepts any certificate, and plain http where there is no TLS at all; None
            leaves it to ``registries.conf``, and verifies if that says nothing.
        max_unpacked: Bytes that compressed archives and layers may unpack to on top of 100 times
            their own size.
        retries: How many failures in a row a registry is forgiven.
        side: Which side of a copy this is, for errors (``side`` of their fields): empty for an only
            one, None where the caller has no say in it.
    """

    credentials: Credentials | None = None
    authfile: StrPath | None = None
    cert_dir: StrPath | None = None
    tls_verify: bool | None = None
    max_unpacked: int = Unpacking.FREE
    retries: int = 4
    side: Literal["", "src-", "dest-"] | None = ""

    def elsewhere(self) -> Access:
        """Return what of this holds for another registry: nothing that was said of this one."""
        return Access(
            authfile=self.authfile,
            max_unpacked=self.max_unpacked,
            retries=self.retries,
            side=None,
        )


def access_beside(
    reference: ImageReference, *sides: tuple[ImageReference, Access | None]
) -> Access | None:
    """Return how an image beside those of a command is reached.

    ``sides`` are the command's images with their options, the first of the same registry decides:
    options are about a registry, and one registry's credentials go to no other.
    """
    if isinstance(reference, RegistryReference):
        for side, access in sides:
            if isinstance(side, RegistryReference) and side.host == reference.host:
                return access
    *_, (_, last) = sides
    return (last or Access()).elsewhere()


def parse_credentials(text: str, origin: str = "") -> Credentials:
    """Read ``user:password``; ``origin`` says where it is from. Raises ``InputError``, unquoted."""
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise InputError(
            f"the credentials{f' from {origin}' if origin else ''} are not 'user:password'"
        )
    return Credentials(username, password, origin=origin)
