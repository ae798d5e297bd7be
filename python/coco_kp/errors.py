"""Every exception of coco-kp, each with the exit code and the hint that a user gets.

The classes are grouped by who is at fault, because that is what the exit code tells a script:
the caller, the input, the key, the data, the other side, or a rule that protects the user.
Messages are lower case, carry no full stop and never a key.
"""

from __future__ import annotations

from coco_kp.redact import looks_like_a_key, printable, redacted


class CocoKpError(Exception):
    """The base of all errors that users see: a fact, and a way out of it.

    ``message`` says what happened; ``hint`` (may be empty) says what to do about it. Both are made
    printable, whoever's words they quote, and lose what looks like a key.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = redacted(message)
        self.hint = redacted(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        """Give message and hint on one line, as a gRPC status text carries them."""
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(CocoKpError):
    """The command line is wrong."""

    exit_code = 2


class InputError(CocoKpError):
    """An image, reference, parameter, message or file does not have the form it must have."""

    exit_code = 3


class MissingManifestError(InputError):
    """A list of images names a manifest that is not there."""


class InPlaceError(InputError):
    """The image has its name, and is not known to be on the disk."""


class UnrecordedError(InputError):
    """A KBS has a key, and the record of registered keys does not say so."""


class KekError(CocoKpError):
    """A key is missing, unreadable, of the wrong length, or does not open the packet."""

    exit_code = 4


class IntegrityError(CocoKpError):
    """A digest, HMAC, tag or diff_id disagrees with the data."""

    exit_code = 5


class RemoteError(CocoKpError):
    """A registry, KBS or key provider is unreachable, refused the request, or failed."""

    exit_code = 6


class ChangedError(RemoteError):
    """Somebody else changed meanwhile what was to be changed: nothing of theirs is undone."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"{reference} changed meanwhile", "nothing was written: run again")


class NotStoredError(RemoteError):
    """A KBS refused before it looked at the key: it does not have it."""


class UnreachableError(RemoteError):
    """The other side did not answer, or the connection broke: a later repeat may succeed."""


class TlsFailedError(UnreachableError):
    """What answered does not speak TLS, or not as we do."""


class DeniedError(RemoteError):
    """A registry does not know the image or the user, or does not let him: no repeat helps."""

    exit_code = 8


class RefusedError(CocoKpError):
    """Going on would leave data unencrypted, lose a key, or overwrite without consent."""

    exit_code = 7


class NotAllowedError(RefusedError):
    """A caller of the provider may not do what he asks for."""


class KeyPathForbiddenError(NotAllowedError):
    """A caller of the provider named a key file outside the folder that the server allows."""


class StreamClosedError(CocoKpError):
    """A sealer or opener was used after ``finalize`` or after an earlier error: a caller's bug."""


class CancelledError(CocoKpError):
    """A copy was ended from another thread before it was complete."""

    exit_code = 130


def shown(value: str, within: str = "") -> str:
    """Quote a value that somebody else wrote, for a message: printable, short, and never a key.

    A text that holds what could be a key (32 bytes as base64 or hex), put where a path or a name
    belongs, is described instead of quoted; so is a part that was cut from such a text, ``within``.
    """
    searched = within[:_LONGEST_SEARCHED] or value[: _SHOWN_CHARACTERS + _LONGEST_KEY]
    if looks_like_a_key(searched):
        return f"({len(value)} characters that look like a key)"
    text = printable(value[:_SHOWN_CHARACTERS])
    return f"'{text}'" if len(value) <= _SHOWN_CHARACTERS else f"'{text}…'"


_SHOWN_CHARACTERS = 120
_LONGEST_KEY = 64
_LONGEST_SEARCHED = 4096
