"""What of each call is recorded, and what becomes of calls that cannot be."""

from __future__ import annotations

import hmac
import json
import os
import stat
from base64 import b64decode
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from coco_kp.errors import CocoKpError, InputError
from coco_kp.keyprovider.call import Call
from coco_kp.model.client import CertificateNames, ClientIdentity
from coco_kp.observe import observed_by
from coco_kp.provider import Provider
from coco_kp.service.audit import AuditLog, UnauditedError, open_audit_log
from coco_kp.service.calls import answer
from tests.support import ocicrypt
from tests.support.events import Events
from tests.support.full_disk import full_disk
from tests.support.kbcs import kbcs_with
from tests.support.schema import check_schema
from tests.support.traces import traces
from tests.vectors import load_vectors

GCM = next(vector for vector in load_vectors("packets")["good"] if vector["name"] == "gcm")
PRIVATE_OPTIONS = GCM["optsdata"].encode()
LEK = json.loads(PRIVATE_OPTIONS)["symkey"]
SAMPLE = Call(ocicrypt.wrap_request("sample=true", PRIVATE_OPTIONS), "keywrap")
CLIENT = ClientIdentity("tls", "192.0.2.1", CertificateNames(uris=("spiffe://ci/team-a",)))


@dataclass(frozen=True)
class Recorded:
    """An audit log, and what it has."""

    file: Path
    log: AuditLog

    def lines(self) -> list[dict[str, Any]]:
        schema = json.loads(files("coco_kp").joinpath("schemas/audit.schema.json").read_text())
        lines = [json.loads(line) for line in self.file.read_text().splitlines()]
        for line in lines:
            check_schema(line, schema)
        return lines


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    file = tmp_path / "audit.jsonl"
    return Recorded(file, open_audit_log(str(file), required=True))


def wrap(kek: Path, kid: str = "kbs:///default/key/1") -> Call:
    request = ocicrypt.wrap_request(f"keypath={kek}::keyid={kid}", PRIVATE_OPTIONS)
    return Call(request, "keywrap", CLIENT)


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    file = tmp_path / "kek"
    file.write_bytes(bytes.fromhex(GCM["kek"]))
    file.chmod(0o600)
    return file


def test_wrap_is_recorded_with_all_that_is_known_of_it(recorded: Recorded, kek: Path) -> None:
    packet = ocicrypt.wrapped_packet(answer(Provider(), wrap(kek), recorded.log))
    (line,) = recorded.lines()
    assert line.pop("time").endswith("+00:00")
    assert line.pop("milliseconds") >= 0
    salt = recorded.file.with_name("audit.jsonl.salt").read_bytes()
    assert line == {
        "operation": "keywrap",
        "client": "uri:spiffe://ci/team-a",
        "kid": "kbs:///default/key/1",
        "algorithm": "A256GCM",
        "key": f"file:{kek}",
        "fingerprint": f"hmac-sha256:{hmac.digest(salt, kek.read_bytes(), 'sha256').hex()}",
        "packet": f"sha256:{sha256(packet).hexdigest()}",
        "layer": json.loads(PRIVATE_OPTIONS)["digest"],
        "code": "OK",
        "message": None,
    }


def test_unwrap_is_recorded_with_the_packet_the_layer_and_the_kbc(recorded: Recorded) -> None:
    packet = ocicrypt.wrapped_packet(answer(Provider(), SAMPLE))
    answer(Provider(), Call(ocicrypt.unwrap_request("sample", packet)), recorded.log)
    (line,) = recorded.lines()
    assert (line["operation"], line["client"], line["key"]) == (
        "keyunwrap",
        "process",
        "sample_kbc::null",
    )
    assert line["packet"] == f"sha256:{sha256(packet).hexdigest()}"
    assert line["layer"] == json.loads(PRIVATE_OPTIONS)["digest"]
    assert line["fingerprint"] is None


def test_refused_call_is_recorded_with_the_key_that_was_asked_for(recorded: Recorded) -> None:
    with pytest.raises(CocoKpError) as refusal:
        answer(Provider(), wrap(Path("/absent")), recorded.log)
    (line,) = recorded.lines()
    assert (line["code"], line["message"]) == ("FAILED_PRECONDITION", str(refusal.value))
    assert (line["kid"], line["key"]) == ("kbs:///default/key/1", "file:/absent")
    assert (line["packet"], line["layer"], line["fingerprint"]) == (None, None, None)


def test_malformed_call_is_recorded(recorded: Recorded) -> None:
    for call in (Call(b"{"), Call(b"", "keyunwrap", malformed="no protobuf")):
        with pytest.raises(CocoKpError):
            answer(Provider(), call, recorded.log)
    assert [(line["operation"], line["code"]) for line in recorded.lines()] == [
        ("call", "INVALID_ARGUMENT"),
        ("keyunwrap", "INVALID_ARGUMENT"),
    ]


def test_audit_log_holds_no_key_wherever_the_caller_puts_one(
    recorded: Recorded, kek: Path, tmp_path: Path
) -> None:
    secret = kek.read_bytes()
    keys = tmp_path / "keys.json"
    keys.write_text("{}")
    provider = Provider(kbcs=kbcs_with(keys))
    texts = (secret.hex(), LEK, LEK.rstrip("="))
    parameters = [
        place.format(text)
        for text in texts
        for place in (
            "keypath=/k/{}::keyid=kbs:///default/key/1",
            "keypath=/k::keyid=kbs:///default/key/{}",
            "keyid={}",
            "{}",
        )
    ]
    requests = [ocicrypt.wrap_request(text, PRIVATE_OPTIONS) for text in parameters]
    requests += [
        ocicrypt.unwrap_request(f"sample::{text}", GCM["packet"].encode()) for text in texts
    ]
    for call in (wrap(kek), SAMPLE, *map(Call, requests)):
        try:
            answer(provider, call, recorded.log)
        except CocoKpError:
            continue
    assert len(recorded.lines()) == len(requests) + 2
    written = b"".join(file.read_bytes() for file in tmp_path.glob("audit*"))
    for key in (secret, b64decode(LEK)):
        assert not [trace for trace in traces(key) if trace in written]


def test_fingerprints_tell_keks_apart_and_agree_after_a_restart(
    recorded: Recorded, kek: Path
) -> None:
    other = kek.with_name("other")
    other.write_bytes(bytes(32))
    again = open_audit_log(str(recorded.file), required=False)
    for log in (recorded.log, again):
        for file in (kek, other):
            answer(Provider(), wrap(file), log)
    first, second, third, fourth = [line["fingerprint"] for line in recorded.lines()]
    assert first == third != second == fourth


def test_files_are_for_their_owner_only(recorded: Recorded) -> None:
    for file in (recorded.file, recorded.file.with_name("audit.jsonl.salt")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_lines_are_appended_to_what_is_there(recorded: Recorded) -> None:
    answer(Provider(), SAMPLE, recorded.log)
    answer(Provider(), SAMPLE, open_audit_log(str(recorded.file), required=False))
    assert len(recorded.lines()) == 2


@pytest.mark.parametrize("kind", ["link", "fifo", "fifo that is read", "folder", "no folder"])
def test_audit_log_is_opened_for_regular_files_only(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "audit"
    if kind == "link":
        (tmp_path / "target").touch()
        file.symlink_to("target")
    elif kind.startswith("fifo"):
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file = tmp_path / "absent" / "audit"
    with ExitStack() as stack:
        if kind == "fifo that is read":
            stack.callback(os.close, os.open(file, os.O_RDONLY | os.O_NONBLOCK))
        with pytest.raises(InputError, match="audit log"):
            open_audit_log(str(file), required=False)


def test_salt_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.salt").write_bytes(b"short")
    with pytest.raises(InputError, match="not a salt of 32 bytes"):
        open_audit_log(str(tmp_path / "audit"), required=False)


def test_reopened_log_goes_on_in_a_new_file(recorded: Recorded) -> None:
    answer(Provider(), SAMPLE, recorded.log)
    old = recorded.file.rename(recorded.file.with_name("audit.1"))
    answer(Provider(), SAMPLE, recorded.log)
    recorded.log.reopen()
    answer(Provider(), SAMPLE, recorded.log)
    assert len(old.read_text().splitlines()) == 2
    assert len(recorded.lines()) == 1


def test_log_that_cannot_be_reopened_goes_on_in_the_old_file(recorded: Recorded) -> None:
    old = recorded.file.rename(recorded.file.with_name("audit.1"))
    recorded.file.mkdir()
    seen = Events()
    with observed_by(seen):
        recorded.log.reopen()
    answer(Provider(), SAMPLE, recorded.log)
    assert len(old.read_text().splitlines()) == 1
    assert [name for name, _ in seen] == ["unaudited"]


@pytest.mark.parametrize("call", [SAMPLE, Call(b"{}")])
def test_call_that_cannot_be_recorded_is_refused_where_that_is_required(
    recorded: Recorded, call: Call
) -> None:
    with full_disk(0), pytest.raises(UnauditedError):
        answer(Provider(), call, recorded.log)


def test_calls_are_refused_unserved_until_a_line_could_be_written(
    recorded: Recorded, tmp_path: Path
) -> None:
    provider = Provider(key_dir=tmp_path)
    request = ocicrypt.wrap_request("keypath=absent::keyid=/default/key/1", PRIVATE_OPTIONS)
    with full_disk(0):
        for _ in range(2):
            with pytest.raises(UnauditedError):
                answer(provider, Call(request), recorded.log)
    with pytest.raises(UnauditedError):
        answer(provider, Call(request), recorded.log)
    with pytest.raises(CocoKpError, match="absent"):
        answer(provider, Call(request), recorded.log)
    first, second = recorded.lines()
    assert (first["code"], first["key"]) == ("UNAVAILABLE", None)  # nobody has looked at the key
    assert (second["code"], second["key"]) == ("FAILED_PRECONDITION", "file:absent")


def test_unrecorded_call_is_answered_and_reported_where_no_record_is_required(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit"
    log = open_audit_log(str(file), required=False)
    seen = Events()
    with observed_by(seen), full_disk(0):
        answer(Provider(), SAMPLE, log)
    ((_, fields),) = [event for event in seen if event[0] == "unaudited"]
    assert "too large" in str(fields["message"])


def test_call_that_is_refused_for_want_of_a_record_is_counted_as_refused(
    recorded: Recorded,
) -> None:
    seen = Events()
    with observed_by(seen), full_disk(0), pytest.raises(UnauditedError):
        answer(Provider(), SAMPLE, recorded.log)
    assert [name for name, _ in seen if name in {"answered", "refused"}] == ["refused"]
    assert seen[-1][1]["code"] == "UNAVAILABLE"


def test_line_after_one_that_was_cut_off_is_whole(recorded: Recorded) -> None:
    with full_disk(10), pytest.raises(UnauditedError):
        answer(Provider(), SAMPLE, recorded.log)
    with pytest.raises(UnauditedError):
        answer(Provider(), SAMPLE, recorded.log)
    answer(Provider(), SAMPLE, recorded.log)
    cut, *whole = recorded.file.read_text().splitlines()
    assert len(cut) == 10
    assert [json.loads(line)["code"] for line in whole] == ["UNAVAILABLE", "OK"]


@pytest.mark.parametrize("how", ["restart", "reopen"])
def test_line_after_one_that_another_left_cut_off_is_whole(tmp_path: Path, how: str) -> None:
    """It was glued to what a full disk had left, and both records were lost."""
    file = tmp_path / "audit.jsonl"
    log = open_audit_log(str(file), required=True)
    answer(Provider(), SAMPLE, log)
    with file.open("ab") as cut:
        cut.write(b'{"time": "2')
    if how == "restart":
        log = open_audit_log(str(file), required=True)
    else:
        log.reopen()
    answer(Provider(), SAMPLE, log)
    first, torn, last = file.read_text().splitlines()
    assert torn == '{"time": "2'
    assert [json.loads(line)["code"] for line in (first, last)] == ["OK", "OK"]


def test_pipe_that_nobody_reads_holds_up_no_call() -> None:
    reader, writer = os.pipe()
    try:
        log = AuditLog(writer, bytes(32), required=True)
        with pytest.raises(UnauditedError):  # noqa: PT012 (which of them fills the pipe is open)
            for _ in range(1000):
                answer(Provider(), SAMPLE, log)
        with pytest.raises(UnauditedError):
            answer(Provider(), SAMPLE, log)
        assert os.read(reader, 1024 * 1024)
        with pytest.raises(UnauditedError):
            answer(Provider(), SAMPLE, log)
        answer(Provider(), SAMPLE, log)
    finally:
        os.close(reader)
        os.close(writer)


def test_log_whose_reader_has_gone_refuses_calls() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(UnauditedError):
            answer(Provider(), SAMPLE, AuditLog(writer, bytes(32), required=True))
    finally:
        os.close(writer)
