"""The 20 defects of the upstream provider (docs/protocols.md 6.3): we have none of them.

Each test is named for its number. Those that show on an image are shown on the upstream provider
itself in tests/interop/test_upstream_defects.py as well; those of registration are tested with the
registrar. ``ELSEWHERE`` is the list.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Final

import pytest

from coco_kp import observe
from coco_kp.cli.main import run
from coco_kp.cli.serve import command as serve
from coco_kp.errors import CocoKpError, InputError, KekError
from coco_kp.keyprovider.address import parse_address
from coco_kp.keyprovider.call import Call
from coco_kp.provider import Provider
from coco_kp.service.calls import answer
from tests.support import ocicrypt
from tests.vectors import load_vectors

ROOT: Final = Path(__file__).parents[2]

ADMIN: Final = "tests/unit/kbs/test_admin.py"
ELSEWHERE: Final = {
    3: [
        "tests/unit/keys/test_register.py::test_registrar_records_no_kek_without_confirmation_by_kbs"
    ],
    5: ["tests/unit/keys/test_resolve.py::test_key_dir_yields_one_kek_to_concurrent_calls"],
    15: [f"{ADMIN}::test_admin_refuses_key_id_that_this_kbs_cannot_hold"],
    16: [
        "tests/unit/kbs/test_admin_token.py::test_signing_key_signs_token_with_claims_that_kbs_requires"
    ],
    17: [
        f"{ADMIN}::test_admin_keeps_path_prefix_of_kbs_url",
        f"{ADMIN}::test_admin_trusts_private_certificate_authority_only_when_given",
        f"{ADMIN}::test_kbs_beyond_loopback_is_refused_over_plain_http_before_anything_is_sent",
        "tests/unit/keys/test_register.py::test_registrar_gives_up_when_kbs_never_answers",
    ],
    19: ["tests/interop/test_server.py::test_server_with_daemon_flag_answers_from_background"],
    20: ["rust/core/tests/zeroize.rs"],
}

GCM = next(vector for vector in load_vectors("packets")["good"] if vector["name"] == "gcm")
PRIVATE_OPTIONS = GCM["optsdata"].encode()
KEK = bytes.fromhex(GCM["kek"])
KID = "kbs:///default/key/key_id1"


@pytest.fixture(autouse=True)
def _kek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key file, ``kek``, in the working directory."""
    (tmp_path / "kek").write_bytes(KEK)
    (tmp_path / "kek").chmod(0o600)
    monkeypatch.chdir(tmp_path)


def wrapped(parameters: str) -> dict[str, str]:
    """Wrap as a client does; give the packet."""
    request = ocicrypt.wrap_request(parameters, PRIVATE_OPTIONS)
    packet: dict[str, str] = json.loads(ocicrypt.wrapped_packet(answer(Provider(), Call(request))))
    return packet


def refusal(parameters: str) -> CocoKpError:
    with pytest.raises(CocoKpError) as error:
        wrapped(parameters)
    return error.value


@pytest.mark.parametrize("algorithm", ["A256GCM", "A256CTR"])
@pytest.mark.parametrize("order", ["keypath=kek::algorithm={}", "algorithm={}::keypath=kek"])
def test_defect_1_algorithm_parameter_is_honoured(algorithm: str, order: str) -> None:
    packet = wrapped(f"{order.format(algorithm)}::keyid={KID}")
    assert packet["wrap_type"] == algorithm


def test_defect_1_name_of_key_file_does_not_change_algorithm(tmp_path: Path) -> None:
    (tmp_path / "kek").rename(tmp_path / "A256CTR")
    assert wrapped(f"keypath=A256CTR::keyid={KID}")["wrap_type"] == "A256GCM"


def test_defect_2_a256ctr_uses_iv_of_16_bytes() -> None:
    packet = wrapped(f"keypath=kek::keyid={KID}::algorithm=A256CTR")
    assert len(b64decode(packet["iv"])) == 16
    (Path("keys.json")).write_text(json.dumps({"default/key/key_id1": b64encode(KEK).decode()}))
    request = ocicrypt.unwrap_request("offline_fs", json.dumps(packet).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(request)))
        assert run(["keyprovider", "--keys", "keys.json"]) == 0


@pytest.mark.parametrize("parameters", [f"keyid={KID}", "algorithm=A256GCM", "sample=false"])
def test_defect_4_missing_keypath_is_refused_instead_of_losing_key(parameters: str) -> None:
    assert "the key would be lost" in refusal(parameters).message


@pytest.mark.parametrize(("key_id", "kid"), load_vectors("keyids")["accept"])
def test_defect_6_kid_always_has_kbs_scheme(key_id: str, kid: str) -> None:
    assert wrapped(f"keypath=kek::keyid={key_id}")["kid"] == kid
    assert re.match(r"kbs(\+[a-z0-9.-]+)?://", kid)


@pytest.mark.parametrize("content", [b64encode(KEK), b64encode(KEK) + b"\n"])
def test_defect_7_base64_key_file_is_refused_with_hint(content: bytes) -> None:
    Path("kek").write_bytes(content)
    error = refusal(f"keypath=kek::keyid={KID}")
    assert isinstance(error, KekError)
    assert f"expected a 32-byte key in 'kek', found {len(content)} bytes" in error.message
    assert "base64 -d" in error.hint


def test_defect_8_wrapped_packet_can_be_unwrapped() -> None:
    packet = json.dumps(wrapped("sample=true")).encode()
    opened = json.loads(answer(Provider(), Call(ocicrypt.unwrap_request("sample", packet))))
    assert bytes(opened["keyunwrapresults"]["optsdata"]) == PRIVATE_OPTIONS


def test_defect_9_debug_log_does_not_show_layer_key(capsys: pytest.CaptureFixture[str]) -> None:
    """In short; tests/engine/test_no_secret_in_output.py searches for every key in every form."""
    logger = logging.getLogger("coco_kp")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        observe.configure("text", logging.DEBUG)
        wrapped("sample=true")
    finally:
        logger.handlers[:], logger.propagate = before[0], before[1]
        logger.setLevel(before[2])
    log = capsys.readouterr().err
    assert "answered method=keywrap" in log
    assert json.loads(PRIVATE_OPTIONS)["symkey"] not in log
    assert b64encode(PRIVATE_OPTIONS).decode() not in log


def test_defect_10_iv_is_never_reused() -> None:
    assert len({wrapped("sample=true")["iv"] for _ in range(20)}) == 20


@pytest.mark.parametrize("url", ["kbs.example", "ftp://kbs.example", "http://", "https://kbs:x"])
def test_defect_11_malformed_kbs_url_is_refused_before_listening(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "192.0.2.1:1"  # where nobody can listen
    assert run(["serve", "--kbs", url, "--insecure-listen", "--socket", nowhere]) in {2, 3}
    assert "listen" not in capsys.readouterr().err


def with_elements(elements: Any) -> bytes:
    document = json.loads(ocicrypt.wrap_request("", PRIVATE_OPTIONS))
    document["keywrapparams"]["ec"]["Parameters"]["attestation-agent"] = elements
    return json.dumps(document).encode()


def test_defect_12_second_recipient_is_refused_not_dropped() -> None:
    element = b64encode(b"sample=true").decode()
    with pytest.raises(InputError, match="names 2 recipients"):
        answer(Provider(), Call(with_elements([element, element])))


@pytest.mark.parametrize("elements", [["?"], [b64encode(b"\xff").decode()], [], None])
def test_defect_13_undecodable_parameters_are_refused(elements: Any) -> None:
    with pytest.raises(CocoKpError) as error:
        answer(Provider(), Call(with_elements(elements)))
    assert error.value.exit_code == InputError.exit_code


@pytest.mark.parametrize(
    "parameters",
    ["sample=True", "sample=1", f"keypth=kek::keyid={KID}", f"KEYPATH=kek::keyid={KID}", "keypath"],
)
def test_defect_14_misspelt_parameter_is_refused(parameters: str) -> None:
    error = refusal(parameters)
    assert isinstance(error, InputError)
    assert error.hint


@pytest.mark.parametrize("config", [{"DecryptConfig": None}, {}, {"DecryptConfig": {}}])
@pytest.mark.parametrize("name", ["attestation-agent", "mine"])
def test_defect_18_missing_decrypt_config_and_any_provider_name_are_accepted(
    config: dict[str, Any], name: str
) -> None:
    document = json.loads(ocicrypt.wrap_request("", PRIVATE_OPTIONS))
    parameters = {name: [b64encode(b"sample=true").decode()]}
    document["keywrapparams"]["ec"] = {"Parameters": parameters} | config
    assert ocicrypt.wrapped_packet(answer(Provider(), Call(json.dumps(document).encode())))


def test_defect_19_daemon_forks_with_one_thread_and_without_grpc(tmp_path: Path) -> None:
    script = """
import os, sys, threading
from coco_kp.cli.main import run
def fork():
    print(threading.active_count(), "grpc" in sys.modules)
    sys.stdout.flush()
    os._exit(0)
os.fork = fork
run(["serve", "--daemon", "--socket", "127.0.0.1:0"])
"""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 False\n"


def test_defect_20_server_listens_on_loopback_by_default() -> None:
    """How that is warned of, tests/cli/serve.txt shows."""
    (socket,) = [option for option in serve.params if option.name == "socket_address"]
    assert not parse_address(str(socket.default)).beyond_loopback


def test_list_of_defects_covers_all_20_documented() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    section = text.partition("### 6.3")[2].partition("\n---")[0]
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    own = (re.match(r"test_defect_(\d+)_", name) for name in functions(Path(__file__)))
    here = {int(match[1]) for match in own if match}
    assert here | ELSEWHERE.keys() == numbers == set(range(1, 21))


@pytest.mark.parametrize("place", [place for places in ELSEWHERE.values() for place in places])
def test_list_of_defects_names_tests_that_exist(place: str) -> None:
    file, _, name = place.partition("::")
    assert (ROOT / file).exists()
    if name:
        assert name in functions(ROOT / file)


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_bytes())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
