"""The border between library and command line: below ``cli`` nobody speaks of flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from coco_kp.cli.commands import root
from coco_kp.cli.hints import ADVICE, advice_for
from coco_kp.errors import CocoKpError
from tests.support.cli_options import CONTEXT, options
from tests.support.markdown import ROOT

PACKAGE = ROOT / "python" / "coco_kp"
MODULES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] != "cli" and not path.stem.endswith(("_pb2", "_grpc"))
)

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(rf"coco-kp ({'|'.join(root.list_commands(CONTEXT))})\b")
OF_OTHERS = re.compile(r"(?:pkcs11-tool|aws kms|basenc|base64|tar) [^;,]*")
"""Programs whose options a hint may name: they are not ours to rename."""

SCRIPTS = {"fleet/report.py": 1, "fleet/kubernetes.py": 2}
"""Modules that write shell commands, which are run and not read, with how many texts."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts in a module that somebody could read, with their lines: no docstrings.

    A word without a blank is no text, but an argument of a program that is run.
    """
    tree = ast.parse(path.read_bytes())
    spoken = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(str(text)) if " " in text and id(node) not in spoken:
                yield node.lineno, text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_library_text_names_an_option_or_a_command(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for line, text in texts(path)
        if OPTION.search(OF_OTHERS.sub("", text)) or COMMAND.search(text)
    ]
    assert len(found) == SCRIPTS.get(str(path.relative_to(PACKAGE)), 0), found


def test_no_text_of_the_native_module_names_an_option_or_a_command() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in sorted((ROOT / "rust").glob("*/src/**/*.rs"))
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', without_comments(path))
        if OPTION.search(OF_OTHERS.sub("", text)) or COMMAND.search(text)
    ]
    assert found == []


def without_comments(path: Path) -> str:
    return re.sub(r"^ *//.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_only_the_command_line_has_a_usage_error() -> None:
    assert [path for path in MODULES if "UsageError" in path.read_text(encoding="utf-8")] == []


def raised_codes() -> Iterator[str]:
    """Yield the codes that stand in the package: of classes, of errors raised, of hints."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.ClassDef(name=name, body=body) if name.endswith("Error"):
                    for line in body:
                        match line:
                            case ast.Assign(
                                [ast.Name("code")], ast.Constant(str(code))
                            ) | ast.AnnAssign(ast.Name("code"), _, ast.Constant(str(code))):
                                yield code
                case ast.keyword("code", ast.Constant(str(code))):
                    yield code
                case ast.Assign([ast.Attribute(_, "code")], ast.Constant(str(code))):
                    yield code
                case ast.Call(ast.Name("Hint"), [_, ast.Constant(str(code)), *_]):
                    yield code


CODES = {code for code in raised_codes() if code} | {"key-is-keys-file"}


def test_codes_are_kebab_case() -> None:
    assert [code for code in CODES if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)] == []


def test_errors_page_lists_every_code_and_no_other() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(CODES)


def commands(group: click.Group = root, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command."""
    for name in group.list_commands(CONTEXT):
        command = group.get_command(CONTEXT, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        yield (*above, name)


def known_options(words: tuple[str, ...]) -> set[str]:
    command: click.Command | None = root
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(CONTEXT, word)
    assert command
    return options(command)


class Anything(dict[str, str]):
    """Fields of all names."""

    def __missing__(self, name: str) -> str:
        return {"side": "src-"}.get(name, f"({name})")


@pytest.mark.parametrize("code", ADVICE)
def test_advice_is_for_a_code_that_is_raised(code: str) -> None:
    assert code in CODES


@pytest.mark.parametrize(
    ("code", "text"), [(code, text) for code, texts in ADVICE.items() for text in texts]
)
def test_each_advice_is_given_to_some_command(code: str, text: str) -> None:
    """Else it names an option that there is none of, or an earlier one always goes before it."""
    given = set[str]()
    for side in ("", "src-"):
        error = CocoKpError("what happened", "HINT", code=code, side=side, url="U", variable="V")
        given |= {advice_for(error, root, words) for words in commands()}
    wanted = {text.format(hint="HINT", side=side, url="U", variable="V") for side in ("", "src-")}
    assert wanted & given


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_advice_names_only_options_of_the_command_at_hand(words: tuple[str, ...]) -> None:
    for code in ADVICE:
        error = CocoKpError("what happened", code=code, side="src-", url="U", variable="V")
        hint = advice_for(error, root, words)
        for clause in re.split("[;,]", hint):
            mine, _, other = clause.partition("coco-kp ")
            assert set(OPTION.findall(mine)) <= known_options(words), hint
            if other:
                name = COMMAND.match(f"coco-kp {other}")
                assert name, hint
                assert set(OPTION.findall(other)) <= known_options((name[1],)), hint


def test_advice_without_the_field_that_it_names_is_not_given() -> None:
    error = CocoKpError("no access", "log in", code="login-needed")
    assert advice_for(error, root, ["inspect"]) == "log in"


def test_advice_does_not_read_a_hint_or_field_as_a_template() -> None:
    error = CocoKpError("x", "{url} {0}", code="agent-not-local", url="{hint}")
    assert advice_for(error, root, ["verify"]).endswith("--aa {hint}")
    error = CocoKpError("x", "{url} {0}", code="kbc-unnamed")
    assert advice_for(error, root, ["serve"]) == "{url} {0} with --kbc"
