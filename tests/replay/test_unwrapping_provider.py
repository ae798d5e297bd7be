"""Our provider, given what upstream's were asked to unwrap, opens what they opened."""

from __future__ import annotations

import json
from base64 import b64decode
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from coco_kp.errors import CocoKpError
from coco_kp.http import HttpClient
from coco_kp.kbc import offline_fs, offline_sev, online_sev
from coco_kp.kbc.kbcs import Kbcs
from coco_kp.kbs import client
from coco_kp.keyprovider.messages_pb2 import (
    keyProviderKeyWrapProtocolInput,
    keyProviderKeyWrapProtocolOutput,
)
from coco_kp.model.kbc_spec import parse_kbc_spec
from coco_kp.provider import Provider
from tests.replay.key_provider import call
from tests.replay.recording import Recorded, recording
from tests.sim.simple_kbs import simulated_simple_kbs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

AGENT: Final = recording("attestation-agent-0.6")
HUB: Final = recording("confidential-data-hub")
AGENT_CALLS: Final = {
    recorded["name"]: recorded for recorded in AGENT["calls"] if recorded["method"] == "UnWrapKey"
}
HUB_CALLS: Final = {
    recorded["name"]: recorded for recorded in HUB["calls"] if recorded.get("method") == "UnWrapKey"
}
UNSTARTED: Final = [recorded["name"] for recorded in HUB["calls"] if "method" not in recorded]

FORMS: Final = "opened: all forms of a request that any client writes are read"
CHOICE: Final = "refused: the KBC that the request names opens it, and no other"
AGENT_DIFFERENCES: Final = {
    "kid 'kbs:/default/key/1'": "refused: two slashes stand before the address",
    "kid 'kbs:///default/key/1#f'": "refused: a fragment has no meaning in a kid",
    "provider aws": "refused: the key is held by a service that no KBS is",
    "online_sev: another address later": "refused: nobody is at the address that the call names",
    "sample: A256CTR": "opened: wrap_type is believed",
    "kid 'kbs+pkcs11:///default/key/1'": "opened: guests of today do, too",
    "kid with an escape": "opened: guests of today do, too",
    "parameter 'offline_fs_kbc'": "opened: null need not be written",
    "parameter 'offline_fs::null'": "opened: both spellings are read",
    "op missing": FORMS,
    "keywrapparams missing": FORMS,
    "annotation as an array of bytes": FORMS,
    "another provider's name": FORMS,
}
HUB_DIFFERENCES: Final = {
    "parameter 'cc_kbc::http://127.0.0.1:1'": CHOICE,
    "parameter 'sample_kbc::null'": CHOICE,
    "parameter 'nonsense'": CHOICE,
    "parameter ''": CHOICE,
    "another provider's name": CHOICE,
    "op keywrap": "refused: op contradicts the method",
    "op missing": FORMS,
    "keywrapparams missing": FORMS,
    "annotation as an array of bytes": FORMS,
}
"""What only one of upstream's and ours opens, on purpose: which we do, and why."""


@pytest.mark.parametrize("name", AGENT_CALLS)
def test_provider_given_what_the_agent_was_asked_opens_what_it_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = AGENT_CALLS[name]
    impatient(monkeypatch)
    connection = dict(AGENT["online_sev_connection"])
    with simulated_simple_kbs() as sim:
        sim.client_id, sim.key = connection["client_id"], b64decode(connection["key"])
        sim.secrets = {path: b64decode(key) for path, key in AGENT["online_sev_keys"].items()}
        file = tmp_path / "keys"
        match recorded.get("kbc", "").partition("_kbc")[0]:
            case "offline_sev":
                file.write_text(json.dumps(AGENT["offline_sev_secret"]))
            case "online_sev":
                file.write_text(json.dumps(connection))
            case _:
                file.write_text(json.dumps(AGENT["offline_fs_keys_file"]))
        match name.partition(": ")[2] or name:
            case "keys file with bad base64" | "keys file with bad base64, second call":
                file.write_text('{"default/key/1": "***"}')
            case "keys file that is no JSON" | "secret that is no JSON":
                file.write_text("no JSON")
            case "no secret":
                file.unlink()
            case "unknown client":
                sim.client_id = "00000000-0000-4000-8000-000000000000"
            case "wrong connection key":
                sim.key = bytes(32)

        def address(text: str) -> str:
            text = text.replace("127.0.0.1:46329", sim.address)
            return text.replace("127.0.0.1:35397", "127.0.0.1:1")  # where nobody listened

        with Kbcs(
            {
                "offline_fs": partial(offline_fs.offline_fs_kbc, keys_file=file),
                "offline_sev": partial(offline_sev.offline_sev_kbc, keys_file=file),
                "online_sev": partial(online_sev.online_sev_kbc, connection_file=file),
            }
        ) as kbcs:
            compare(recorded, Provider(kbcs=kbcs), AGENT_DIFFERENCES, address)


@pytest.mark.parametrize("name", HUB_CALLS)
def test_provider_given_what_the_data_hub_was_asked_opens_what_it_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    keys = HUB["keys"]
    first = {path: key for path, key in keys.items() if path != "default/key/2"}
    match name:
        case "the same name in two files, the last counts":
            files = {"f0": {"default/key/1": keys["default/key/2"]}, "f1": first}
        case "no file at all":
            files = {}
        case "empty file":
            files = {"f0": {}}
        case _:
            files = {"f0": first, "f1": {"default/key/2": keys["default/key/2"]}}
    have(files, tmp_path, monkeypatch)
    provider = Provider(kbc=parse_kbc_spec("offline_fs"), kbcs=Kbcs())
    compare(HUB_CALLS[name], provider, HUB_DIFFERENCES)


@pytest.mark.parametrize("name", UNSTARTED)
def test_provider_given_keys_files_with_which_the_data_hub_does_not_start_says_why(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have({"f0": HUB["keys"]}, tmp_path, monkeypatch)
    bad = "f1" if name == "one good file and one bad" else "f0"
    text = '{"default/key/1": "***"}' if "base64" in name else "no JSON"
    (tmp_path / bad).write_text(text)
    provider = Provider(kbc=parse_kbc_spec("offline_fs"), kbcs=Kbcs())
    with pytest.raises(CocoKpError, match=f"{tmp_path / bad}' is not|{tmp_path / bad}.* base64"):
        call(provider, HUB_CALLS["A256GCM"])


@pytest.mark.parametrize("peer", ["attestation-agent-0.6", "coco_keyprovider"])
def test_messages_given_recorded_bytes_of_the_protocol_read_and_write_the_same(peer: str) -> None:
    recorded = recording(peer)["calls"][0]
    sent, answered = (
        bytes.fromhex(recorded[side]["protobuf_hex"]) for side in ("request", "answer")
    )
    read = keyProviderKeyWrapProtocolInput.FromString(sent)
    assert read.KeyProviderKeyWrapProtocolInput == recorded["request"]["json"].encode()
    assert read.SerializeToString() == sent
    written = keyProviderKeyWrapProtocolOutput(
        KeyProviderKeyWrapProtocolOutput=recorded["answer"]["json"].encode()
    )
    assert written.SerializeToString() == answered


def compare(
    recorded: Recorded,
    provider: Provider,
    differences: Mapping[str, str],
    change: Callable[[str], str] = lambda text: text,
) -> None:
    """Make a call and hold it to what upstream did; an error that we do not name fails."""
    upstream_opened = recorded["answer"].get("opens_to_expected", False)
    opened: bytes | None = None
    try:
        opened = call(provider, recorded, change)
    except CocoKpError as refused:
        text = refused.message
    else:
        text = "opened"
        assert json.loads(opened).keys() == {"symkey", "digest", "cipheroptions"}
    if (reason := differences.get(recorded["name"], "")) == "":
        assert (opened is not None) == upstream_opened, text
    else:
        assert (opened is None) == upstream_opened, "as upstream now: take it from the list"
        assert reason.startswith("refused: " if upstream_opened else "opened: ")
    if opened is not None and upstream_opened:
        assert opened.decode() == recorded["expected_options"]


def have(
    files: Mapping[str, Mapping[str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write the keys files of a guest, and let ours look for them there."""
    for name, keys in files.items():
        (folder / name).write_text(json.dumps(keys))
    monkeypatch.setenv(offline_fs.EXTRA_FILES_VARIABLE, f"{folder}/f0,{folder}/f1")


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat requests to a KBS at once."""
    monkeypatch.setattr(client, "HttpClient", partial(HttpClient, sleep=lambda _: None))
