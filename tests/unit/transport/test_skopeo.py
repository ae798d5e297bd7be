"""Reading through skopeo: how it is called, what becomes of its copy. A stand-in plays skopeo here;
the real one is asked in tests/interop."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest

from coco_kp.deadline import Caller, within
from coco_kp.errors import RemoteError
from coco_kp.model.reference import FileReference, SkopeoReference
from coco_kp.transport import open_sink, open_source
from coco_kp.transport.directory import DirectorySink, DirectorySource
from tests.support.patience import wait_until
from tests.support.stored import check, image, store

ONE = image(b"layer one")
NAME = SkopeoReference("docker-daemon", "docker-daemon:nginx:1")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that copies a ready folder, and writes its arguments down."""
    with DirectorySink(FileReference("dir", str(tmp_path / "ready"))) as sink:
        store(sink, ONE)
    program = tmp_path / "bin" / "skopeo"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" > {tmp_path}/arguments\n'
        'for target in "$@"; do :; done\n'
        f'cp -r {tmp_path}/ready "${{target#dir:}}"\n'
    )
    program.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return program


@pytest.mark.usefixtures("stand_in")
def test_skopeo_source_reads_copy_and_removes_it(tmp_path: Path) -> None:
    with open_source(NAME) as source:
        check(source, ONE)
        assert source.reference == "docker-daemon:nginx:1"
    assert list((tmp_path / "tmp").iterdir()) == []
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:5] == ["copy", "--quiet", "--all", "--", "docker-daemon:nginx:1"]


def test_skopeo_source_repeats_error_of_skopeo(stand_in: Path, tmp_path: Path) -> None:
    stand_in.write_text("#!/bin/sh\necho time passes >&2\necho no such image >&2\nexit 1\n")
    with pytest.raises(RemoteError, match="cannot read docker-daemon:nginx:1: no such image"):
        open_source(NAME)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_skopeo_is_killed_when_nobody_waits_for_its_copy(stand_in: Path, tmp_path: Path) -> None:
    stand_in.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nexec sleep 600\n"
    )
    caller, pid = Caller(), tmp_path / "pid"

    def leave() -> None:
        wait_until(pid.exists)
        caller.leave()

    leaving = threading.Thread(target=leave)
    leaving.start()
    with within(math.inf, caller), pytest.raises(RemoteError, match="did not end"):
        open_source(NAME)
    leaving.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_skopeo_source_without_skopeo_hints_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RemoteError, match="which is not installed") as caught:
        open_source(NAME)
    assert "install skopeo" in caught.value.hint


def test_skopeo_sink_has_skopeo_copy_the_image_when_it_is_complete(
    stand_in: Path, tmp_path: Path
) -> None:
    stand_in.write_text(
        "#!/bin/sh\n"
        f'echo "$@" > {tmp_path}/arguments\n'
        'for last in "$@"; do source="$target" target="$last"; done\n'
        f'cp -r "${{source#dir:}}" {tmp_path}/copied\n'
    )
    with open_sink(NAME) as sink:
        store(sink, ONE, named=False)
        assert not (tmp_path / "arguments").exists()
        sink.set_reference(ONE.top)
    check(DirectorySource(FileReference("dir", str(tmp_path / "copied"))), ONE)
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:4] == ["copy", "--quiet", "--all", "--"]
    assert arguments[5:] == ["docker-daemon:nginx:1"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_skopeo_sink_shows_the_cause_at_the_end_of_what_skopeo_logs(
    stand_in: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    long = "x: " * 300
    said.write_text(
        rf'time="2026-01-01" level=fatal msg="writing: {long}dial \"unix\": no such file"'
    )
    stand_in.write_text(f"#!/bin/sh\ncat {said} >&2\nexit 1\n")
    words = r'cannot write docker-daemon:nginx:1: …(x: |: )+dial "unix": no such file$'
    with open_sink(NAME) as sink:
        store(sink, ONE, named=False)
        with pytest.raises(RemoteError, match=words) as caught:
            sink.set_reference(ONE.top)
    assert "time=" not in caught.value.message
    assert list((tmp_path / "tmp").iterdir()) == []
