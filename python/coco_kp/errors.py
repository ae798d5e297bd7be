"""Every exception of coco-kp: a fact, a stable code, and the exit code of the command line.

The classes are grouped by who is at fault, because that is what the exit code tells a script:
the input, the key, the data, the other side, or a rule that protects the user. Messages are lower
case, carry no full stop and never a key. docs/errors.md lists the codes.

Nothing here, nor in what raises these errors, knows of a command or an option: ``cli.hints`` turns
codes into advice for the command at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple, Self, TypeVar

from coco_kp.redact import redacted

E = TypeVar("E", bound="CocoKpError")


class Hint(NamedTuple):
    """What to do about a fault that may come later: an error's hint, code and fields."""

    text: str
    code: str = ""
    fields: tuple[tuple[str, str], ...] = ()


class CocoKpError(Exception):
    """The base of all errors that users see. No text in them has a key, or what looks like one.

    Attributes:
        message: What happened, in lower case and without a full stop.
        hint: What to do about it, whoever calls; may be empty.
        code: The kind of fault, for programs; it never changes. That of the class, or a more
            precise one given where the error is raised (docs/errors.md lists all).
        fields: The values that go with the code.
        exit_code: What the command line ends with, for this class.
        severity: Of several faults of one image that with the highest is reported.
    """

    exit_code: ClassVar[int] = 1
    severity: ClassVar[int] = 0
    code: str = "failed"

    def __init__(self, message: str, hint: str = "", *, code: str = "", **fields: str) -> None:
        super().__init__(redacted(message))
        self.hint = redacted(hint)
        self.code = code or type(self).code
        self.fields = {name: redacted(value) for name, value in fields.items()}

    @property
    def message(self) -> str:
        """What happened; `within` and `adding` say more."""
        message: str = self.args[0]
        return message

    def __str__(self) -> str:
        """Return message and hint on one line, as a gRPC status text carries them."""
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message

    def to_json(self, advice: Advice | None = None) -> dict[str, object]:
        """Return the error as documents have it; ``advice`` words its hint, None takes its own."""
        hint = advice(self) if advice else self.hint
        return {"code": self.code, "message": self.message, "hint": hint or None}

    def at_rest(self) -> Self:
        """Return the same error to be kept: of where it was raised, frames hold buffers."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def again(self) -> Self:
        """Return another such error, for another thread to raise."""
        return self._saying(self.message)

    def within(self, where: str, hint: str = "") -> Self:
        """Return the same error with where it happened before the message: ``where: message``.

        ``hint`` is for an error that has none.
        """
        same = self._saying(f"{redacted(where)}: {self.message}")
        same.hint = same.hint or redacted(hint)
        return same

    def adding(self, *remarks: str) -> Self:
        """Return the same error with what became of the work behind it: ``message; remark``."""
        return self._saying("; ".join((self.message, *map(redacted, remarks))))

    def blaming(self, kind: type[E], message: str = "") -> E:
        """Return an error of another class, because of this one, with the same way out.

        So advice for a precise code is not lost; a code that the class alone gives does not stay.
        """
        code = "" if self.code == type(self).code else self.code
        return kind(message or self.message, self.hint, code=code, **self.fields)

    def _saying(self, message: str) -> Self:
        # Not by the class: subclasses have parameters of their own.
        same = type(self).__new__(type(self), message)
        vars(same).update(vars(self))
        return same


Advice = Callable[[CocoKpError], str]
"""Returns what a user is told to do about an error, in the words of the program that he runs."""


class InputError(CocoKpError):
    """An image, reference, parameter, message or file does not have the form it must have."""

    exit_code = 3
    severity = 1
    code = "invalid-input"


class ContentTooLargeError(InputError):
    """Compressed bytes became more than is allowed. The native module raises it."""

    code = "content-too-large"


class MissingManifestError(InputError):
    """An index names a manifest that is not there."""

    code = "manifest-missing"


class InPlaceError(InputError):
    """The image has its name, and is not known to be on the disk."""

    code = "in-place-unsynced"


class UnrecordedError(InputError):
    """A KBS has a key, and the record of registered keys does not say so."""

    code = "key-unrecorded"


class KekError(CocoKpError):
    """A key is missing, unreadable, of the wrong length, or does not open the packet."""

    exit_code = 4
    severity = 4
    code = "key-unusable"


class IntegrityError(CocoKpError):
    """A digest, HMAC, tag or diff_id disagrees with the data."""

    exit_code = 5
    severity = 5
    code = "data-damaged"


class RemoteError(CocoKpError):
    """A registry, KBS or key provider is unreachable, refused the request, or failed."""

    exit_code = 6
    severity = 2
    code = "remote-failed"


class ChangedError(RemoteError):
    """Somebody else changed meanwhile what was to be changed: nothing of theirs is undone."""

    code = "changed-meanwhile"

    def __init__(self, reference: str) -> None:
        super().__init__(f"{reference} changed meanwhile", "nothing was written: run again")


class NotStoredError(RemoteError):
    """A KBS refused before it looked at the key: it does not have it."""

    code = "key-not-stored"


class UnreachableError(RemoteError):
    """The other side did not answer, or the connection broke: a later repeat may succeed."""

    code = "unreachable"


class TlsFailedError(UnreachableError):
    """What answered does not speak TLS, or not as we do."""

    code = "tls-failed"


class DeniedError(RemoteError):
    """A registry does not know the image or the user, or does not let him: no repeat helps."""

    exit_code = 8
    severity = 3
    code = "access-denied"


class NotThereError(DeniedError):
    """A registry does not know the image, or says so to who may not read it."""

    code = "not-there"


class RefusedError(CocoKpError):
    """Going on would leave data unencrypted, lose a key, or overwrite without consent."""

    exit_code = 7
    severity = 6
    code = "refused"


class NotAllowedError(RefusedError):
    """A caller of the provider may not do what he asks for."""

    code = "not-allowed"


class KeyPathForbiddenError(NotAllowedError):
    """A caller of the provider named a key file outside the directory that the server allows."""

    code = "key-path-forbidden"


class StreamClosedError(CocoKpError):
    """A sealer or opener was used after ``finalize`` or after an earlier error: a caller's bug."""

    code = "stream-closed"


class CancelledError(CocoKpError):
    """A call, or the copy of a layer, was ended from another thread before it was complete."""

    exit_code = 130
    code = "cancelled"
