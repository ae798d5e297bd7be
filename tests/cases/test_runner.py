"""The runner itself, on tiny made-up cases in which a shell stands for coco-kp.

Each kind of check has cases that hold and cases that differ.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from tests.cases.commands import Result, read_command_check
from tests.cases.differs import CaseDiffersError
from tests.cases.facts import DescriptorCheck, read_fact
from tests.cases.registry import REF_NAME
from tests.cases.runner import FILE_LIMIT, Run, run_case
from tests.sim.http_server import Request
from tests.support.documents import MANIFEST, TAR, TAR_GZIP, Document, config, sha256, to_json
from tests.support.layout import LayoutWriter

SH: Final = Path("/bin/sh")
SECRET: Final = "sesame"
HOLDS: Final = None
NO_FILES: Final[Mapping[str, bytes]] = MappingProxyType({})


def run(
    folder: Path,
    *scripts: str,
    expect: Document,
    files: Mapping[str, bytes] = NO_FILES,
    **more: Any,
) -> Run:
    """Run a made-up case whose commands are these scripts of a shell."""
    source = folder / "source"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    commands = [["coco-kp", "-c", script] for script in scripts]
    case = {"what": "", "source": "", "input": "", "commands": commands, "expect": expect}
    (source / "case.json").write_bytes(to_json(case | more))
    (folder / "run").mkdir()
    return run_case(source, folder / "run", SH)


def result(**more: Any) -> Result:
    members: Document = {"argv": [], "code": 0, "out": "", "err": "", "cpu": 0.0, "limit": 9.0}
    return Result(**(members | more))


def difference(check: Any, *arguments: Any) -> str | None:
    """Return what a check says that differs, or None if it holds."""
    try:
        check(*arguments)
    except CaseDiffersError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("expected", "did", "differs"),
    [
        ({"exit": 3}, {"code": 3}, HOLDS),
        ({"exit": [3, 5]}, {"code": 5}, HOLDS),
        ({"exit": [3, 5]}, {"code": 0, "err": "all\nwell"}, "exit 0, not 3 or 5: all well"),
        ({"exit": 0}, {"code": None}, "took longer than 9 s"),
        ({"text_has": ["Gzip"]}, {"out": "GZIP"}, HOLDS),
        ({"text_has": ["gzip"]}, {"err": "gzip"}, HOLDS),
        ({"text_has": ["a", "b"]}, {"err": "a"}, "'b' is not in its output: a"),
        ({"text_has": [["a", "b"]]}, {"err": "b"}, HOLDS),
        ({"text_has": [["a", "b"]]}, {"err": "c"}, "'a or b' is not in its output: c"),
        ({"out_has": ["a"]}, {"out": "a"}, HOLDS),
        ({"out_has": ["a"]}, {"err": "a"}, "'a' is not in its output: a"),
        ({"err_has": ["a"]}, {"err": "a"}, HOLDS),
        ({"err_has": ["a"]}, {"out": "a"}, "'a' is not in its output: a"),
        ({"text_lacks": ["a"]}, {"out": "b", "err": "b"}, HOLDS),
        ({"text_lacks": ["a"]}, {"out": "A"}, "'a' is in its output"),
        ({"text_lacks": ["a"]}, {"err": "a"}, "'a' is in its output"),
        ({"out_lacks": ["a"]}, {"err": "a"}, HOLDS),
        ({"out_lacks": ["a"]}, {"out": "a"}, "'a' is in its output"),
        ({"err_lacks": ["a"]}, {"out": "a"}, HOLDS),
        ({"err_lacks": ["a"]}, {"err": "a"}, "'a' is in its output"),
        ({"printable": True}, {"out": "a\tb\n…"}, HOLDS),
        ({"printable": True}, {"out": "\x1b["}, "control characters in its output: U+001B"),
        ({"printable": True}, {"err": "\x85"}, "control characters in its output: U+0085"),
        ({"printable": True}, {"err": "\u2028"}, "control characters in its output: U+2028"),
        ({"printable": True}, {"err": "\u202e"}, "control characters in its output: U+202E"),
        ({"printable": True}, {"err": "\udcff"}, "control characters in its output: U+DCFF"),
        ({"printable": False}, {"err": "\x1b"}, HOLDS),
        ({"cpu": {"of": 0, "factor": 3, "plus": 2}}, {"cpu": 5.0}, HOLDS),
        (
            {"cpu": {"of": 0, "factor": 3, "plus": 2}},
            {"cpu": 5.1},
            "5.1 s of processor time, more than 5.0 s",
        ),
    ],
)
def test_command_check_says_what_differs(
    expected: Document, did: Document, differs: str | None
) -> None:
    check = read_command_check({"exit": 0, **expected}).check
    last = result(**did)
    assert difference(check, last, [result(cpu=1.0), last]) == differs


@pytest.fixture
def left_behind(tmp_path: Path) -> Path:
    """Return a folder of files and images that facts can be about."""
    (tmp_path / "file").write_text(f"open {SECRET}")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / "inside").write_bytes(gzip.compress(SECRET.encode()))
    (tmp_path / "broken").write_bytes(b"\x1f\x8bno gzip")
    layout = LayoutWriter(tmp_path / "layout")
    plain = layout.put(TAR_GZIP, b"plain")
    sealed = layout.put(f"{TAR}+encrypted", b"sealed")
    half = layout.put_manifest([plain, sealed], [])
    whole = layout.put_manifest([sealed], [])
    images = {
        "half": half,
        "whole": whole,
        "list": layout.put_index([half, whole]),
        "list of one": layout.put_index([half]),
        "two readings": layout.put(MANIFEST, to_json({"layers": [sealed], "Layer\u017f": [plain]})),
        "lost": {**half, "digest": "sha256:0"},
    }
    layout.name(*({**top, "annotations": {REF_NAME: name}} for name, top in images.items()))
    return tmp_path


READABLE: Final = f"some readers see a layer of type {TAR_GZIP}"


@pytest.mark.parametrize(
    ("kind", "members", "differs"),
    [
        ("absent", {"path": "nothing"}, HOLDS),
        ("absent", {"path": "file"}, "file was written"),
        ("absent", {"path": "dangling"}, "dangling was written"),
        ("present", {"path": "file"}, HOLDS),
        ("present", {"path": "nothing"}, "nothing is gone"),
        ("no text", {"path": "file", "text": "other"}, HOLDS),
        ("no text", {"path": "nothing", "text": SECRET}, HOLDS),
        ("no text", {"path": "broken", "text": SECRET}, HOLDS),
        ("no text", {"path": "file", "text": SECRET}, "'sesame' can be read in file: file"),
        ("no text", {"path": "zipped", "text": SECRET}, "'sesame' can be read in zipped: inside"),
        ("all encrypted for all readers", {"image": "layout:whole"}, HOLDS),
        ("all encrypted for all readers", {"image": "layout:half"}, READABLE),
        ("all encrypted for all readers", {"image": "layout:list"}, READABLE),
        ("all encrypted for all readers", {"image": "layout:two readings"}, READABLE),
        ("image", {"image": "layout"}, HOLDS),
        ("image", {"image": "layout:lost"}, "blob sha256:0 is not there"),
        ("image", {"image": "layout:other"}, "layout has no image other"),
        ("image", {"image": "nothing:x"}, "nothing was not written"),
        ("image", {"image": "layout:half", "layers": [{}, {}]}, HOLDS),
        ("image", {"image": "layout:half", "layers": [{}]}, "layer count is 2, not 1"),
        ("image", {"image": "layout:half", "layers": [{}, {"encrypted": True}]}, HOLDS),
        (
            "image",
            {"image": "layout:half", "layers": [{"encrypted": True}, {}]},
            f"layer 0 is {TAR_GZIP}",
        ),
        ("image", {"image": "layout:list of one", "layers": [{}, {}]}, HOLDS),
        ("image", {"image": "layout:list", "layers": [{}, {}]}, "layer count is 0, not 2"),
        ("image", {"image": "layout:list", "entry": [1], "layers": [{}]}, HOLDS),
        (
            "image",
            {"image": "layout:list", "entry": [0], "layers": [{}]},
            "layer count is 2, not 1",
        ),
        ("image", {"image": "layout:list", "entries": [{}, {}]}, HOLDS),
        ("image", {"image": "layout:list", "entries": [{}]}, "entry count is 2, not 1"),
        ("image", {"image": "layout:half", "config": sha256(config([]))}, HOLDS),
        ("image", {"image": "layout:half", "config": "sha256:0"}, "the config was changed"),
    ],
)
def test_fact_says_what_differs(
    kind: str, members: Document, differs: str | None, left_behind: Path
) -> None:
    place = "path" if "path" in members else "image"
    fact = {"check": kind, **members, place: f"{left_behind}/{members[place]}"}
    assert difference(read_fact(fact).check, []) == differs


@pytest.mark.parametrize(
    ("expected", "differs"),
    [
        ({"digest": "sha256:1", "mediaType": TAR, "encrypted": False}, HOLDS),
        ({"digest": "sha256:2"}, "layer: digest is sha256:1, not sha256:2"),
        ({"mediaType": TAR_GZIP}, f"layer: mediaType is {TAR}, not {TAR_GZIP}"),
        ({"encrypted": True}, f"layer is {TAR}"),
        ({"platform": {"os": "linux"}}, HOLDS),
        ({"platform": {}}, "layer: platform is {'os': 'linux'}, not {}"),
        ({"annotations": {"org.example.a": "1"}}, HOLDS),
        ({"annotations": {"org.example.a": "2"}}, "layer: annotation org.example.a is 1, not 2"),
        ({"annotations": {"b": "2"}}, "layer: annotation b is None, not 2"),
        ({"annotations_have": ["org."]}, HOLDS),
        ({"annotations_have": ["com."]}, "layer: annotation com. is missing"),
        ({"annotations_lack": ["com."]}, HOLDS),
        ({"annotations_lack": ["org."]}, "layer: annotation org. is there"),
    ],
)
def test_descriptor_check_says_what_differs(expected: Document, differs: str | None) -> None:
    descriptor = {
        "mediaType": TAR,
        "digest": "sha256:1",
        "platform": {"os": "linux"},
        "annotations": {"org.example.a": "1"},
    }
    assert difference(DescriptorCheck(**expected).check, "layer", descriptor) == differs


@pytest.mark.parametrize(
    ("methods", "at_most", "differs"),
    [
        (["GET"], 2, HOLDS),
        (["GET"], 1, "2 requests for /blobs/, more than 1"),
        (["GET", "HEAD"], 2, "3 requests for /blobs/, more than 2"),
    ],
)
def test_requests_check_counts_methods_and_paths(
    methods: list[str], at_most: int, differs: str | None
) -> None:
    seen = [
        Request(method, f"/v2/a/{kind}/x", {}, {}, b"", complete=True)
        for method in ("GET", "GET", "HEAD")
        for kind in ("blobs", "manifests")
    ]
    fact = {"check": "requests", "methods": methods, "path": "/blobs/", "at_most": at_most}
    assert difference(read_fact(fact).check, seen) == differs


ZERO: Final = {"commands": [{"exit": 0}]}


def test_case_holds_if_one_of_its_outcomes_does(tmp_path: Path) -> None:
    one_of = [
        {"way": "refused", "commands": [{"exit": 3}]},
        {"way": "read", "commands": [{"exit": 0}]},
    ]
    assert difference(run(tmp_path, "exit 0", expect={"one_of": one_of}).check) is None


def test_case_differs_if_none_of_its_outcomes_holds(tmp_path: Path) -> None:
    one_of = [
        {"way": "refused", "commands": [{"exit": 3}]},
        {"way": "read", "commands": [{"exit": 0}], "facts": [{"check": "present", "path": "x"}]},
    ]
    assert difference(run(tmp_path, "exit 0", expect={"one_of": one_of}).check) == (
        "refused: command 0: exit 0, not 3:  | read: x is gone"
    )


def test_command_without_expectation_may_do_anything(tmp_path: Path) -> None:
    expect = {"commands": [None, {"exit": 0}]}
    assert difference(run(tmp_path, "exit 9", "exit 0", expect=expect).check) is None


def test_case_runs_every_command_and_says_which_differs(tmp_path: Path) -> None:
    expect = {"commands": [{"exit": 9}, {"exit": 1}, {"exit": 0}]}
    ran = run(tmp_path, "exit 9", "exit 2", "exit 0", expect=expect)
    assert difference(ran.check) == "command 1: exit 2, not 1: "
    assert [result.code for result in ran.results] == [9, 2, 0]


@pytest.mark.parametrize(
    ("expect", "error"),
    [
        ({"commands": [{"exit": 0, "test_has": ["x"]}]}, TypeError),
        ({"commands": [{}]}, KeyError),
        ({"commands": [{"exit": 0}], "fact": []}, TypeError),
        ({"commands": [{"exit": 0}], "facts": [{"check": "absence", "path": "x"}]}, KeyError),
        ({"commands": [{"exit": 0}], "facts": [{"check": "absent", "paths": "x"}]}, TypeError),
        ({"commands": [{"exit": 0}, {"exit": 0}]}, ValueError),
    ],
)
def test_expectation_that_is_not_in_the_format_is_a_fault_of_the_case(
    expect: Document, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        run(tmp_path, "exit 0", expect=expect).check()


def test_layer_expectation_that_is_not_in_the_format_is_a_fault_of_the_case(
    left_behind: Path,
) -> None:
    fact = {"check": "image", "image": f"{left_behind}/layout:whole", "layers": [{"sealed": True}]}
    with pytest.raises(TypeError):
        read_fact(fact).check([])


def test_member_of_a_case_that_is_not_in_the_format_is_a_fault_of_the_case(
    tmp_path: Path,
) -> None:
    with pytest.raises(TypeError):
        run(tmp_path, "exit 0", expect=ZERO, second=30)


def test_command_beyond_its_time_is_killed_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    ran = run(tmp_path, "sleep 60 | cat", expect=ZERO, seconds=0.2)
    assert time.monotonic() - started < 40
    assert difference(ran.check) == "command 0: took longer than 0.2 s"


def test_processor_time_is_that_of_each_command(tmp_path: Path) -> None:
    busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    ran = run(tmp_path, busy, "exit 0", expect={"commands": [None, None]})
    assert ran.results[0].cpu > 5 * ran.results[1].cpu


def test_command_cannot_write_a_file_beyond_the_limit(tmp_path: Path) -> None:
    beyond = f"sleep 0.2; head -c 1 /dev/zero | dd of={{out}}/x bs=1 seek={FILE_LIMIT}"
    assert run(tmp_path, beyond, expect=ZERO).results[0].code != 0


def test_name_of_the_case_in_a_path_is_no_word_of_the_output(tmp_path: Path) -> None:
    expect = {"commands": [{"exit": 0, "text_has": [tmp_path.name]}]}
    ran = run(tmp_path, "echo cannot read {case}/x", expect=expect)
    assert difference(ran.check) == (
        f"command 0: '{tmp_path.name}' is not in its output: cannot read /case/x"
    )


def test_command_has_its_own_folders_and_umask_and_none_of_our_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COCO_KP_PEERS", "DOCKER_CONFIG", "https_proxy", "PYTHONPATH", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, "ours")
    variables = (
        run(tmp_path, "umask; env", expect=ZERO, env={"WORD": "{out}"}).results[0].out.splitlines()
    )
    assert not any(line.endswith("=ours") for line in variables)
    assert {"0022", "HOME=/home", "TMPDIR=/tmp", "XDG_RUNTIME_DIR=/run", "WORD=/out"} <= {
        *variables
    }


def test_files_of_a_case_are_copied_and_keys_are_private(tmp_path: Path) -> None:
    files = {"kek": b"", "a.key": b"", "plain": b""}
    script = "cd {case} && stat -c '%a %n' kek a.key plain && rm plain"
    ran = run(tmp_path, script, expect=ZERO, files=files)
    assert ran.results[0].out == "600 kek\n600 a.key\n644 plain\n"
    assert (tmp_path / "source" / "plain").exists()


def test_templates_are_filled_in_and_other_files_are_not(tmp_path: Path) -> None:
    files = {"a": b"{out}", "b": b"{out}"}
    ran = run(tmp_path, "cat {case}/a {case}/b", expect=ZERO, files=files, templates=["a"])
    assert ran.results[0].out == "/out{out}"


def test_requests_to_the_registry_of_a_case_are_seen(tmp_path: Path) -> None:
    program = 'import urllib.request as r; r.urlopen("http://{registry}/v2/")'
    fact = {"check": "requests", "methods": ["GET"], "path": "^/v2/$", "at_most": 0}
    ran = run(
        tmp_path,
        f"{sys.executable} -c '{program}'",
        expect=ZERO | {"facts": [fact]},
        registry={},
    )
    assert difference(ran.check) == "1 requests for ^/v2/$, more than 0"
