from __future__ import annotations

import inspect

import pytest

from coco_kp import errors
from coco_kp.errors import ChangedError, CocoKpError, DeniedError, Hint, InputError, KekError

# docs/cli.md, "Exit codes"
EXIT_CODES = {
    "CocoKpError": 1,
    "StreamClosedError": 1,
    "InputError": 3,
    "InPlaceError": 3,
    "ContentTooLargeError": 3,
    "MissingManifestError": 3,
    "UnrecordedError": 3,
    "KekError": 4,
    "IntegrityError": 5,
    "RemoteError": 6,
    "ChangedError": 6,
    "NotStoredError": 6,
    "TlsFailedError": 6,
    "UnreachableError": 6,
    "RefusedError": 7,
    "NotAllowedError": 7,
    "KeyPathForbiddenError": 7,
    "DeniedError": 8,
    "NotThereError": 8,
    "CancelledError": 130,
}

KEY = bytes(range(200, 232))


def test_error_exit_codes_match_the_contract() -> None:
    members = [member for _, member in inspect.getmembers(errors, inspect.isclass)]
    classes = [member for member in members if issubclass(member, CocoKpError)]
    ours = {one for one in members if one.__module__ == errors.__name__}
    assert ours == {*classes, Hint}
    assert {error.__name__: error.exit_code for error in classes} == EXIT_CODES


def test_error_text_joins_message_and_hint() -> None:
    assert str(CocoKpError("no such file", "make it")) == "no such file (hint: make it)"
    assert str(CocoKpError("no such file")) == "no such file"


def test_error_within_keeps_class_code_fields_and_hint() -> None:
    error = ChangedError("oci:a")
    error.fields["side"] = "src-"
    inside = error.within("layer 0 of linux/amd64").adding("nothing was written")
    assert type(inside) is ChangedError
    assert inside.message == "layer 0 of linux/amd64: oci:a changed meanwhile; nothing was written"
    assert (inside.code, inside.hint, inside.fields) == (error.code, error.hint, error.fields)
    assert error.message == "oci:a changed meanwhile"
    assert inside.args == (inside.message,)


def test_error_within_takes_hint_where_it_has_none() -> None:
    assert InputError("no file").within("a", "make it").hint == "make it"
    assert InputError("no file", "name one").within("a", "make it").hint == "name one"


def test_error_message_cannot_be_set() -> None:
    """Nothing would redact it, and ``args`` would say something else."""
    with pytest.raises(AttributeError):
        InputError("no file").message = "x"  # type: ignore[misc]


def test_error_that_blames_another_keeps_its_way_out() -> None:
    cause = InputError("no file", "name one", code="keys-file-missing", path="/keys")
    error = cause.blaming(KekError, "no packet opens: no file")
    assert type(error) is KekError
    assert (error.message, error.hint) == ("no packet opens: no file", "name one")
    assert (error.code, error.fields) == ("keys-file-missing", {"path": "/keys"})


def test_error_that_blames_another_has_the_code_of_its_own_class() -> None:
    """Else a program would read of bad input, beside the exit code of another fault."""
    assert InputError("no file").blaming(KekError).code == "key-unusable"


def test_error_within_hides_what_looks_like_a_key() -> None:
    assert KEY.hex() not in str(CocoKpError("x").within(KEY.hex()))
    assert KEY.hex() not in CocoKpError("x", code="bug", path=KEY.hex()).fields["path"]


def test_every_error_of_a_kind_of_its_own_has_a_severity() -> None:
    """The gravest of several findings is reported: no exit code is unknown there."""
    ranks = {error.exit_code: error.severity for error in CocoKpError.__subclasses__()}
    ranks |= {DeniedError.exit_code: DeniedError.severity}
    assert sorted((7, 5, 4, 8, 6, 3), key=lambda code: ranks[code], reverse=True) == [
        *(7, 5, 4, 8, 6, 3)
    ]


def test_error_that_is_kept_holds_nothing_of_where_it_was_raised() -> None:
    def fail() -> None:
        try:
            raise ValueError
        except ValueError as error:
            raise InputError("it failed", "a hint", code="x", name="y") from error

    with pytest.raises(InputError) as caught:
        fail()
    kept = caught.value.at_rest()
    assert (kept.__traceback__, kept.__context__, kept.__cause__) == (None, None, None)
    assert (kept.message, kept.hint, kept.code, kept.fields) == (
        "it failed",
        "a hint",
        "x",
        {"name": "y"},
    )
