"""What results say: the latest of each image, no more than it knows, words of others as text."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.fleet import report as report_module
from coco_kp.fleet.lines import Failure, LayerCounts, Options, ResultLine, read_plan
from coco_kp.fleet.page import page
from coco_kp.fleet.report import MAX_BYTES, Image, Report, read_report, repeat
from coco_kp.kbs.record import Record
from tests.support.command import Command
from tests.support.fleet import KID, SKIPPED_BASE, done, failed, look_line, plan_line
from tests.support.schema import check_schema

NOW = "2026-11-26T12:00:00Z"
REMOTE = Failure(6, "new.example did not answer", "try again")
SAMPLE = Failure(7, "everybody can open the layer")
HOSTILE = "</script><script>alert(1)</script><!--"


def write(folder: Path, *results: ResultLine, name: str = "results.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(result.to_json() for result in results))
    return path


def reported(
    folder: Path,
    *results: ResultLine,
    registered: Mapping[str, Mapping[str, str]] | None = None,
) -> Report:
    return read_report([write(folder, *results)], NOW, registered or {})


def names(images: Iterable[Image]) -> list[str]:
    return [image.name for image in images]


def test_report_counts_the_latest_result_of_an_image_whatever_its_place(tmp_path: Path) -> None:
    later = done(plan_line(), recipients=("kbs:///default/key/new",), finished=NOW)
    earlier = failed(plan_line(), REMOTE)
    report = read_report(
        [write(tmp_path, later, name="1"), write(tmp_path, earlier, name="2")], NOW, {}
    )
    (image,) = report.images
    assert image.latest == later
    assert (report.results, report.document()["replaced"]) == (2, 1)


def test_report_takes_the_last_of_two_results_of_the_same_second(tmp_path: Path) -> None:
    first, second = failed(plan_line(), REMOTE), done(plan_line())
    assert reported(tmp_path, first, second).images == (Image(second),)


def test_report_knows_a_destination_that_is_verified_later_as_the_same_image(
    tmp_path: Path,
) -> None:
    looked = done(look_line(), layers=LayerCounts(0, 3), finished=NOW)
    report = reported(tmp_path, done(plan_line()), done(plan_line("team/db")), looked)
    assert names(report.images) == [
        "docker://new.example/team/app:1",
        "docker://new.example/team/db:1",
    ]
    assert report.images[0].latest == looked


@pytest.mark.parametrize(
    ("result", "standing"),
    [
        (done(plan_line()), "encrypted"),
        (done(plan_line(), layers=LayerCounts(0, 3)), "encrypted"),
        (done(plan_line(), layers=LayerCounts(1, 1, 1)), "partly readable"),
        (done(look_line(), layers=LayerCounts(0, 0, 3)), "readable"),
        (done(look_line(), layers=LayerCounts()), "unknown"),
        (failed(plan_line(), REMOTE), "unknown"),
        (done(look_line(), findings=(SAMPLE,)), "doubtful"),
        (done(look_line(), findings=(Failure(3, "odd"),)), "encrypted"),
        (replace(done(look_line()), outcome="refused", error=Failure(5, "altered")), "doubtful"),
        (replace(done(look_line()), outcome="failed", error=REMOTE), "unknown"),
        (replace(done(look_line()), outcome="refused", error=Failure(8, "lost")), "unknown"),
        (done(look_line(), findings=(REMOTE,)), "unknown"),
    ],
)
def test_standing_of_an_image_is_what_its_layers_and_findings_say(
    result: ResultLine, standing: str
) -> None:
    assert Image(result).standing == standing


@pytest.mark.parametrize(
    ("result", "reasons"),
    [
        (done(plan_line()), []),
        (failed(plan_line(), REMOTE), ["the latest encrypt ended before that was known"]),
        (done(look_line(), layers=LayerCounts()), ["it has no layers"]),
        (
            replace(done(look_line()), outcome="failed", error=REMOTE),
            ["its layers are called encrypted, and could not all be read"],
        ),
        (done(look_line(), findings=(SAMPLE,)), ["everybody can open the layer"]),
        (
            done(plan_line(options=SKIPPED_BASE), layers=LayerCounts(1, 0, 1)),
            ["the plan leaves layers readable that docker://registry.example/base:1 has"],
        ),
        (
            done(
                plan_line(options=Options(allow_foreign=True, keep_attestations=True)),
                layers=LayerCounts(1, 0, 1),
            ),
            [
                "the plan leaves foreign layers readable",
                "the plan leaves attestations readable",
            ],
        ),
    ],
)
def test_reasons_say_why_an_image_is_not_simply_encrypted(
    result: ResultLine, reasons: list[str]
) -> None:
    assert list(Image(result).reasons()) == reasons


def key(report: Report) -> dict[str, object]:
    (found,) = report.keys
    return found.document(NOW)


def test_key_is_known_since_the_first_result_that_names_it_replaced_or_not(tmp_path: Path) -> None:
    report = reported(
        tmp_path,
        done(plan_line(), finished="2026-11-25T12:00:00Z"),
        done(plan_line(), finished="2026-11-16T12:00:01Z"),
        done(plan_line(), finished="2026-11-20T12:00:00Z"),
    )
    assert key(report) == {
        "kid": KID,
        "images": 1,
        "first_seen": "2026-11-16T12:00:01Z",
        "registered": [],
        "known_for_days": 9,
    }


def test_key_is_known_since_its_registration_where_that_was_earlier(tmp_path: Path) -> None:
    registered = {KID: {"https://kbs.example": "2026-01-26T12:00:00Z"}}
    kid = KID.replace("kbs:///", "kbs://kbs.example:8080/")
    found = key(reported(tmp_path, done(plan_line(), recipients=(kid,)), registered=registered))
    assert found["registered"] == [{"kbs": "https://kbs.example", "at": "2026-01-26T12:00:00Z"}]
    assert found["known_for_days"] == 304


def test_key_that_no_image_has_any_more_is_listed_with_none(tmp_path: Path) -> None:
    old = done(plan_line(), recipients=("kbs:///default/key/old",), finished="2026-01-01T00:00:00Z")
    keys = reported(tmp_path, old, done(plan_line())).keys
    assert [(key.kid, key.images) for key in keys] == [(KID, 1), ("kbs:///default/key/old", 0)]


def test_key_that_was_registered_in_the_future_is_not_of_a_negative_age(tmp_path: Path) -> None:
    assert (
        key(reported(tmp_path, done(plan_line(), finished="2027-01-01T00:00:00Z")))[
            "known_for_days"
        ]
        == 0
    )


@pytest.mark.parametrize("name", ["app", "it's $(touch hit) `touch hit`"])
def test_command_that_repeats_a_failure_gives_the_shell_its_plan_line(
    tmp_path: Path, name: str
) -> None:
    line = replace(plan_line(), keys=(f"keyid={KID},keypath=/run/{name}",))
    command, run = repeat(line).split(" && ")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert list(read_plan(tmp_path / "again.jsonl")) == [line]
    assert shlex.split(run) == ["coco-kp", "fleet", "run", "again.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["again.jsonl"]


def test_only_what_failed_or_was_refused_is_to_be_repeated(tmp_path: Path) -> None:
    moved = replace(failed(plan_line("moved"), REMOTE), outcome="moved")
    report = reported(tmp_path, done(plan_line("a")), failed(plan_line("b"), REMOTE), moved)
    documents = [image.document() for image in report.images]
    assert [bool(document["repeat"]) for document in documents] == [False, True, False]
    assert documents[1]["plan_line"] == plan_line("b").to_json().strip()


def test_report_refuses_a_line_that_is_no_result_and_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, done(plan_line()))
    path.write_text(path.read_text() + '{"outcome": "done"}\n')
    with pytest.raises(InputError, match="line 2 of"):
        read_report([path], NOW, {})


def test_report_refuses_a_date_that_no_calendar_has(tmp_path: Path) -> None:
    path = write(tmp_path, done(plan_line(), finished="2026-02-30T12:00:00Z"))
    with pytest.raises(InputError, match="'finished' of line 1"):
        read_report([path], NOW, {})


def test_report_refuses_more_bytes_of_results_than_it_may_hold(
    tmp_path: Path,
) -> None:
    path, other = write(tmp_path, done(plan_line())), tmp_path / "other.jsonl"
    other.touch()
    os.truncate(other, MAX_BYTES - path.stat().st_size)  # with no line that ends
    with pytest.raises(InputError, match="line 1 of"):
        read_report([path, other], NOW, {})
    os.truncate(other, MAX_BYTES - path.stat().st_size + 1)
    with pytest.raises(InputError, match="are over"):
        read_report([path, other], NOW, {})


def test_report_shows_of_a_long_message_its_beginning(tmp_path: Path) -> None:
    report = reported(tmp_path, failed(plan_line(), Failure(6, "no " * 10_000)))
    error: Any = report.images[0].document()["error"]
    assert len(error["message"]) == 2001
    assert error["message"].endswith("…")


def test_words_of_others_are_printable_and_hold_no_key_in_a_report(tmp_path: Path) -> None:
    secret = "A" * 42 + "E="
    report = reported(
        tmp_path,
        done(look_line(), recipients=("\u202ekid",), findings=(Failure(7, f"\x1b[31m{secret}"),)),
    )
    text = json.dumps(report.document(), ensure_ascii=False)
    assert "?kid" in text
    assert "?[31m(what looks like a key)" in text
    assert not {secret, "\u202e", "\x1b"} & set(text)
    assert secret not in text


# The page ----------------------------------------------------------------------------------------


def hostile_page(folder: Path) -> str:
    result = done(look_line(), recipients=(HOSTILE,), findings=(Failure(7, HOSTILE),))
    return page(reported(folder, result).document())


def test_page_has_words_of_others_as_data_that_end_no_element(tmp_path: Path) -> None:
    text = hostile_page(tmp_path)
    assert HOSTILE not in text
    assert text.count("<!--") == 0
    assert len(re.findall(r"<script", text)) == 2
    (data,) = re.findall(r'<script type="application/json" id="document">(.*)</script>', text)
    assert json.loads(data)["keys"][0]["kid"] == HOSTILE


def test_page_allows_its_one_script_and_one_style_by_hash_and_nothing_else(tmp_path: Path) -> None:
    text = hostile_page(tmp_path)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{sha256(script)}'; "
        f"style-src 'sha256-{sha256(style)}'; base-uri 'none'; form-action 'none'"
    )
    assert text.index("Content-Security-Policy") < text.index("<style")
    assert not re.findall(r"(?:src|href|action)=|url\(|@import|style=", text)


def sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_script_makes_no_html_from_text() -> None:
    script = (Path(report_module.__file__).parent / "page" / "report.js").read_text()
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function", script
    )
    assert not re.findall(r"fetch|XMLHttp|WebSocket|import\(|location", script)


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return write(
        tmp_path,
        done(plan_line("team/app")),
        done(plan_line("team/base", options=SKIPPED_BASE), layers=LayerCounts(1, 0, 1)),
        failed(plan_line("team/db"), REMOTE),
    )


def test_fleet_report_in_json_matches_its_schema(command: Command, results: Path) -> None:
    outcome = command("fleet", "report", results, "--format", "json")
    check_schema(outcome.json, command("schema", "fleet-report").json)
    assert [image["standing"] for image in outcome.json["images"]] == [
        *("encrypted", "partly readable", "unknown")
    ]


def test_fleet_report_without_options_is_a_table_that_says_what_to_do(
    command: Command, results: Path
) -> None:
    out = command("fleet", "report", results).out
    assert "3 images as of" in out
    assert "1 encrypted, 1 partly readable, 1 unknown" in out
    assert f"{KID}  2 " in out
    assert "docker://new.example/team/db:1    unknown          failed   new.example did" in out
    assert out.splitlines()[-1] == repeat(plan_line("team/db"))
    assert "team/app:1" not in out.split("WHY")[1].split("To repeat")[0]


def test_fleet_report_into_a_file_is_a_page_for_its_owner_alone(
    command: Command, results: Path, tmp_path: Path
) -> None:
    outcome = command("fleet", "report", results, "-o", tmp_path / "report.html")
    assert outcome.out == ""
    text = (tmp_path / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600
    assert (
        command("fleet", "report", results, "--format", "html").out.splitlines()[:5]
        == (text.splitlines()[:5])
    )


@pytest.mark.parametrize("form", ["json", "table"])
def test_fleet_report_writes_every_form_into_a_file(
    command: Command, results: Path, tmp_path: Path, form: str
) -> None:
    shown = command("fleet", "report", results, "--format", form).out
    command("fleet", "report", results, "--format", form, "-o", tmp_path / "report")
    written = (tmp_path / "report").read_text()
    made = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")  # another second
    assert made.sub("", written) == made.sub("", shown)


def test_fleet_report_tells_when_this_user_registered_a_key(
    command: Command, results: Path, tmp_path: Path
) -> None:
    from coco_kp.model.kbs_url import KbsUrl
    from coco_kp.model.resource_uri import parse_key_id

    record = Record(tmp_path / "state" / "coco-kp" / "registered")
    kbs = KbsUrl.parse("https://kbs.example")
    with record.entry(kbs, parse_key_id(KID)) as entry:
        entry.write("sha256:1")
    (record.folder / "damaged.json").write_text("{")
    (found,) = command("fleet", "report", results, "--format", "json").json["keys"]
    (registered,) = found["registered"]
    assert registered["kbs"] == str(kbs)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", registered["at"])


def test_fleet_report_fails_where_there_are_no_results(command: Command, tmp_path: Path) -> None:
    outcome = command("fleet", "report", tmp_path / "nothing", ok=False)
    assert (outcome.code, outcome.out) == (3, "")
    assert "nothing" in outcome.err
