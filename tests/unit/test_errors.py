from __future__ import annotations

import inspect
import time
from base64 import b64encode, urlsafe_b64encode

import pytest

from coco_kp import errors
from coco_kp.errors import (
    ChangedError,
    CocoKpError,
    DeniedError,
    Hint,
    InputError,
    KekError,
    shown,
)

# docs/cli.md, "Exit codes"
EXIT_CODES = {
    "CocoKpError": 1,
    "StreamClosedError": 1,
    "InputError": 3,
    "InPlaceError": 3,
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
PADDED = b64encode(KEY).decode()


def test_error_exit_codes_match_the_contract() -> None:
    members = [member for _, member in inspect.getmembers(errors, inspect.isclass)]
    classes = [member for member in members if issubclass(member, CocoKpError)]
    ours = {one for one in members if one.__module__ == errors.__name__}
    assert ours == {*classes, Hint}
    assert {error.__name__: error.exit_code for error in classes} == EXIT_CODES


def test_error_text_joins_message_and_hint() -> None:
    assert str(CocoKpError("no such file", "make it")) == "no such file (hint: make it)"
    assert str(CocoKpError("no such file")) == "no such file"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "key_id1",
        "/home/ä/keys and more/key",
        "/srv/confidential-images/keys/of/the/base/1",  # 43 characters, as a key has
        "/srv/Confidential-Images/keys/of/the/base/k",
        "kbs:///default/key/key_id1",
        "docker://registry.example/image@sha256:" + KEY.hex(),
        "oci:/images/base/blobs/sha256/" + KEY.hex(),
        KEY.hex() + "0",
        PADDED[:42],
        "x" * 120,
    ],
)
def test_shown_quotes_value(value: str) -> None:
    assert shown(value) == f"'{value}'"


@pytest.mark.parametrize(
    "key",
    [
        PADDED,
        PADDED.rstrip("="),
        urlsafe_b64encode(KEY).decode(),
        urlsafe_b64encode(KEY).decode().rstrip("="),
        KEY.hex(),
        KEY.hex().upper(),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "key={}",
        "'{}'",
        "{}\n",
        "a word, {} and others",
        "é{}",
        "/k/{}",
        "kbs:///a/b/{}",
        "kbs://{}/a/b",
    ],
)
def test_shown_hides_value_that_could_hold_a_key(key: str, form: str) -> None:
    value = form.format(key)
    assert shown(value) == f"({len(value)} characters that look like a key)"


@pytest.mark.parametrize("form", ["/run/keys/{}", "kbs:///default/key/{}", "x" * 110 + "{}"])
def test_shown_hides_padded_key_wherever_it_stands(form: str) -> None:
    assert PADDED[:10] not in shown(form.format(PADDED))


def test_shown_hides_key_that_begins_near_the_cut() -> None:
    value = "-" * 100 + " " + KEY.hex()
    assert KEY.hex()[:10] not in shown(value)


def test_shown_hides_part_of_what_could_be_a_key() -> None:
    key = "QUtgNcL7Y/yghNM5KsJTZKJ7ITXNwYV90ZFdogqZXc8="
    assert shown("QUtgNcL7Y", key) == "(9 characters that look like a key)"
    assert shown("yghNM5", "x" * 1000 + f" {key}") == "(6 characters that look like a key)"
    assert shown("b c", "kbs:///a/b c/d") == "'b c'"


def test_shown_truncates_long_value() -> None:
    assert shown("y" * 121) == f"'{'y' * 120}…'"
    began = time.process_time()
    assert len(shown("y" * 4_000_000)) == 123
    assert time.process_time() - began < 1  # what is not shown is not searched


@pytest.mark.parametrize(
    "character",
    ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x9b", "\N{RIGHT-TO-LEFT OVERRIDE}", "\ud800"],
)
def test_shown_replaces_control_characters(character: str) -> None:
    assert shown(f"a{character}b") == "'a?b'"


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
