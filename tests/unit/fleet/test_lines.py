"""Lines of plans and results: read as they were written, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from coco_kp.errors import InputError
from coco_kp.fleet.lines import (
    MAX_LINE,
    Failure,
    LayerCounts,
    Options,
    PlanLine,
    ResultLine,
    parse_plan_line,
    parse_result_line,
    read_plan,
)
from coco_kp.model.digest import Digest
from coco_kp.model.reference import RegistryReference
from tests.support.schema import check_schema

KEY = "keyid=kbs:///default/key/app,keypath=/run/keys/app"
DIGEST = Digest.of(b"a manifest")
MOUNTING = "containers-storage:[overlay@/tmp/a+/tmp/b:overlay.mount_program=/tmp/c]base"
ENCRYPT = PlanLine(
    "encrypt",
    RegistryReference("registry.example", "team/app", "1.2"),
    DIGEST,
    RegistryReference("new.example", "team/app", "1.2"),
    (KEY,),
    ("keypath=/run/keys/old",),
    (RegistryReference("new.example", "team/base", "1"),),
    Options(platforms=("linux/amd64",), zstd="keep"),
)
REWRAP = PlanLine("rewrap", ENCRYPT.source, DIGEST, keys=(KEY,), old_keys=ENCRYPT.old_keys)
VERIFY = PlanLine("verify", ENCRYPT.source, DIGEST, options=Options(target="coco"))
RESULT = ResultLine(
    ENCRYPT,
    "refused",
    "encrypt",
    DIGEST,
    "2026-01-31T12:00:00Z",
    1.5,
    ("kbs:///default/key/app",),
    LayerCounts(1, 2, 3),
    (Failure(7, "odd"),),
    Failure(7, "no", "do else", "key-path-forbidden"),
    10,
    20,
)


def schema(name: str) -> dict[str, Any]:
    found = files("coco_kp").joinpath("schemas", f"fleet-{name}.schema.json")
    document: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return document


def with_member(of: PlanLine | ResultLine, /, **members: object) -> bytes:
    return json.dumps({**of.document(), **members}).encode()


@pytest.mark.parametrize("line", [ENCRYPT, REWRAP, VERIFY])
def test_plan_line_reads_back_as_written_and_fits_its_schema(line: PlanLine) -> None:
    text = line.to_json()
    assert text.endswith("}\n")
    assert text.count("\n") == 1
    assert parse_plan_line(text.encode()) == line
    Draft202012Validator.check_schema(schema("plan"))
    Draft202012Validator(schema("plan")).validate(json.loads(text))


def test_plan_line_and_schema_have_the_same_members() -> None:
    described = schema("plan")
    assert set(described["required"]) == set(described["properties"]) == ENCRYPT.document().keys()
    options = described["properties"]["options"]["properties"]
    assert list(options) == list(Options.__dataclass_fields__)


@pytest.mark.parametrize(
    "line",
    [RESULT, ResultLine(VERIFY, "done", "verify", None, "2026-01-31T12:00:00Z", 0)],
)
def test_result_line_reads_back_as_written_and_fits_its_schema(line: ResultLine) -> None:
    assert parse_result_line(line.to_json().encode()) == line
    check_schema(line.document(), schema("result"))


def test_result_line_of_unprintable_text_is_one_printable_line() -> None:
    line = ResultLine(
        VERIFY, "done", "verify", None, "2026-01-31T12:00:00Z", 0, ("a\n\x1b[2J\u2028",)
    )
    assert line.to_json()[:-1].isprintable()
    assert parse_result_line(line.to_json().encode()) == line


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("extra", 1, "unknown member 'extra'"),
        ("action", "delete", "'action' of the line is 'delete'"),
        ("source", "oci:/tmp/app", "not an image of a registry"),
        ("source", "registry.example/app", "does not start with a transport"),
        ("digest", None, "'digest' of the line is not a string"),
        ("digest", "sha256:00", "64 lower-case hex digits"),
        ("destination", None, "has no destination"),
        ("destination", "docker://registry.example/team/app:1.2", "in place"),
        ("destination", "docker://Registry.example:443/team/app:1.2", "in place"),
        ("destination", f"docker://new.example/app@{DIGEST}", "has no tag"),
        ("keys", [], "names no key"),
        ("keys", ["keypath=/run/keys/app"], "lacks its key or key ID"),
        ("keys", [1], "not a list"),
        ("keys", ["keyid=kbs:///a/b/c,kek-from=exec:reboot"], "names a program to run"),
        ("old_keys", ["kek-from=exec:reboot"], "names a program to run"),
        ("old_keys", ["wrap-with=pkcs11:object=a?module-path=/tmp/a.so"], "a library to load"),
        ("old_keys", ["kek-from=pkcs11:object=a?pin-source=file:/a"], "a library to load"),
        ("keys", ["keyid=kbs:///a/b/c,kek-from=vault://v.example/kv/a"], "names the server"),
        ("keys", ["wrap-with=awskms://kms.example/alias/a"], "names the server"),
        ("keys", ["wrap-with=acmekms://kms.example/a"], "names a plug-in to load"),
        ("old_keys", ["wrap-with=acmekms://kms.example/a"], "names a plug-in to load"),
        ("reuse", [f"docker://new.example/app@{DIGEST}"], "has no tag"),
        ("options", {"target": "coco"}, "has the option 'target'"),
        ("options", {"zstd": "lz4"}, "'zstd' of the line"),
        ("options", {"platforms": ["linux"]}, "is not a platform"),
        ("options", {"allow_foreign": "yes"}, "'allow_foreign' of the line"),
        ("options", {"skip_base": 1}, "another value"),
        ("options", {"skip_base": "nginx"}, "does not start with a transport"),
        ("options", {"skip_base": "oci-archive:/srv/base.tar"}, "not an image of a registry"),
        ("options", {"skip_base": MOUNTING}, "not an image of a registry"),
    ],
)
def test_plan_line_with_wrong_member_is_refused(member: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_plan_line(with_member(ENCRYPT, **{member: value}))


@pytest.mark.parametrize(
    ("line", "member", "value", "words"),
    [
        (VERIFY, "destination", "docker://new.example/app:1", "has a destination"),
        (VERIFY, "reuse", ["docker://new.example/app:1"], "takes layers over"),
        (REWRAP, "old_keys", [], "names no old key"),
        (REWRAP, "source", f"docker://new.example/app@{DIGEST}", "in place that has no tag"),
    ],
)
def test_plan_line_that_contradicts_itself_is_refused(
    line: PlanLine, member: str, value: object, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        parse_plan_line(with_member(line, **{member: value}))


@pytest.mark.parametrize("name", ["keys", "reuse", "options"])
def test_plan_line_without_a_member_is_refused(name: str) -> None:
    document = ENCRYPT.document()
    del document[name]
    with pytest.raises(InputError, match=f"has no '{name}'"):
        parse_plan_line(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("extra", 1, "unknown member"),
        ("outcome", "won", "'outcome' of the line is 'won'"),
        ("did", "decrypt", "'did' of the line"),
        ("exit_code", 0, "not that of its error"),
        ("seconds", -1, "number of seconds"),
        ("seconds", True, "number of seconds"),
        pytest.param("seconds", 10**400, "number of seconds", id="seconds-no-float-holds"),
        ("seconds", 1e300, "number of seconds"),
        ("finished", "today", "is not a time"),
        ("bytes_read", -1, "negative"),
        ("bytes_read", 1.5, "not an integer"),
        pytest.param("bytes_read", 10**4000, "more than can be", id="bytes-beyond-all-files"),
        ("outcome", "done", "'outcome' of the line does not go with its error"),
        ("layers", {"encrypted": 1}, "has no 'readable'"),
        ("findings", [{"code": "refused", "message": "a", "hint": None}], "has no 'exit_code'"),
        ("findings", [{"exit_code": 7, "message": "a", "hint": None}], "has no 'code'"),
        ("findings", [1], "'findings' of the line"),
        ("findings", [{"exit_code": 7, "message": "a", "hint": None}] * 101, "at most 100"),
        ("line", {}, "'line' of the line has no"),
    ],
)
def test_result_line_with_wrong_member_is_refused(member: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_result_line(with_member(RESULT, **{member: value}))


def test_result_line_of_failure_without_an_error_is_refused() -> None:
    """An error is what is counted: such a line would be taken for one that is done."""
    failed = with_member(RESULT, outcome="failed", error=None, exit_code=0)
    with pytest.raises(InputError, match="does not go with its error"):
        parse_result_line(failed)


def test_result_line_with_too_many_findings_is_written_with_the_first() -> None:
    many = tuple(Failure(7, str(number)) for number in range(150))
    line = ResultLine(VERIFY, "done", "verify", None, "2026-01-31T12:00:00Z", 0, findings=many)
    assert parse_result_line(line.to_json().encode()).findings == many[:100]


@pytest.mark.parametrize(("count", "length"), [(1500, 20), (200, 16000)])
def test_result_line_with_too_many_recipients_says_how_many_it_leaves_out(
    count: int, length: int
) -> None:
    names = tuple(str(number).rjust(length, "\u200b") for number in range(count))
    line = ResultLine(VERIFY, "done", "verify", None, "2026-01-31T12:00:00Z", 0, names)
    *kept, last = parse_result_line(line.to_json().encode()).recipients
    assert tuple(kept) == names[: len(kept)] != ()
    assert last == f"and {count - len(kept)} more"


def test_result_line_with_long_messages_can_be_read() -> None:
    long = tuple(Failure(7, "a" * 20_000) for _ in range(100))
    line = ResultLine(VERIFY, "done", "verify", None, "2026-01-31T12:00:00Z", 0, findings=long)
    read = parse_result_line(line.to_json().encode())
    assert [finding.message for finding in read.findings] == [f"{'a' * 2000}…"] * 100


def test_read_plan_gives_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_text(ENCRYPT.to_json() + VERIFY.to_json())
    assert list(read_plan(path)) == [ENCRYPT, VERIFY]


@pytest.mark.parametrize(
    "change",
    [lambda _: b"\n", lambda text: text[:-20], lambda text: b" " * (MAX_LINE + 1) + text],
)
def test_read_plan_names_the_line_that_is_wrong(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "plan.jsonl"
    text = ENCRYPT.to_json().encode()
    path.write_bytes(text + change(text))
    with pytest.raises(InputError, match=r"line 2 of .*plan\.jsonl"):
        list(read_plan(path))


def test_read_plan_names_the_line_of_a_wrong_digest(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    path.write_bytes(with_member(ENCRYPT, digest="sha256:00"))
    with pytest.raises(InputError, match=r"line 1 of .*64 lower-case hex digits"):
        list(read_plan(path))


def test_read_plan_of_no_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        list(read_plan(tmp_path / "none"))
