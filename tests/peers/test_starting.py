"""How each program of the folder is started, seen by a program that stands in its place.

It writes down its arguments and its surroundings, and listens where it was told to; the real ones
are in no package registry (docs/peers.md).
"""

from __future__ import annotations

import json
import sqlite3
import ssl
import sys
import tomllib
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from tests.peers.folder import FOLDER_PEERS
from tests.peers.kbs import kbs
from tests.peers.simple_kbs import simple_kbs
from tests.peers.upstream import KEYS_FILE, attestation_agent, upstream_provider
from tests.peers.verdictd import verdictd
from tests.support.key import Key, make_key

STAND_IN = """\
#!{python}
import json, os, pathlib, re, socket, sys, time

arguments = sys.argv[1:]
files = {{a: pathlib.Path(a).read_text() for a in arguments if os.path.isfile(a)}}
seen = {{
    "arguments": arguments,
    "files": files,
    "folder": os.getcwd(),
    "variables": dict(os.environ),
    "etc": sorted(os.listdir("/etc")),
}}
pathlib.Path({record!r}).write_text(json.dumps(seen))
places = re.findall(r"(127\\.0\\.0\\.\\d+):(\\d+)", " ".join([*arguments, *files.values()]))
sockets = [socket.create_server((host, int(port))) for host, port in places if port == "0"]
print("listening", flush=True)
time.sleep(60 if sockets else 0)
"""

Seen = Callable[[str], Any]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Return what a stand-in wrote down, by its name."""
    folder = tmp_path / "stand-ins"
    folder.mkdir()
    for name in FOLDER_PEERS:
        text = STAND_IN.format(python=sys.executable, record=str(folder / f"{name}.json"))
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("COCO_KP_PEERS", str(folder))
    monkeypatch.setenv("RUST_BACKTRACE", "full")

    def record(name: str) -> Any:
        found = json.loads((folder / f"{name}.json").read_text())
        assert "RUST_BACKTRACE" not in found["variables"]
        return found

    return record


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return make_key(tmp_path / "key")


class TestKbs:
    def test_kbs_is_started_requiring_tokens_with_role(self, seen: Seen, tmp_path: Path) -> None:
        with kbs(tmp_path / "broker") as running:
            option, file = seen("kbs")["arguments"]
            config = tomllib.loads(seen("kbs")["files"][file])
        assert option == "--config-file"
        assert running.url.startswith("http://127.0.0.1:")
        assert config["http_server"] == {
            "sockets": ["127.0.0.1:0"],
            "worker_count": 2,
            "insecure_http": True,
        }
        assert config["plugins"] == [{"name": "resource", "storage_backend_type": "kvstorage"}]
        admin = config["admin"]
        assert admin["authorization_mode"] == "AuthenticatedAuthorization"
        (provider,) = admin["authentication"]["bearer_jwt"]["identity_providers"]
        (allowed,) = admin["authorization"]["regex_acl"]["acls"]
        claims = verified(running.admin_token, Path(provider["public_key_uri"]))
        assert (claims["iss"], claims["aud"]) == (provider["issuer"], provider["audience"])
        assert claims["role"] == allowed["role"]
        assert claims["exp"] - claims["iat"] > 24 * 3600
        reader = verified(running.folder / "reader-token", running.folder / "admin.pub")
        assert reader["role"] != allowed["role"]
        expired = verified(running.folder / "expired-token", running.folder / "admin.pub")
        assert expired["exp"] < expired["iat"]
        assert running.admin_key.stat().st_mode & 0o777 == 0o600

    def test_kbs_with_tls_is_started_with_certificate_of_its_own_ca(
        self, seen: Seen, tmp_path: Path
    ) -> None:
        with kbs(tmp_path / "broker", "tls") as running:
            _, file = seen("kbs")["arguments"]
            http = tomllib.loads(seen("kbs")["files"][file])["http_server"]
        assert running.url.startswith("https://localhost:")
        assert http["insecure_http"] is False
        context = ssl.create_default_context(cafile=running.ca)
        context.load_cert_chain(http["certificate"], http["private_key"])  # they are a pair
        issued = load_pem_x509_certificate(Path(http["certificate"]).read_bytes())
        issued.verify_directly_issued_by(load_pem_x509_certificate(running.ca.read_bytes()))

    def test_kbs_in_open_mode_is_started_without_authorization(
        self, seen: Seen, tmp_path: Path
    ) -> None:
        with kbs(tmp_path / "broker", "open"):
            _, file = seen("kbs")["arguments"]
            config = tomllib.loads(seen("kbs")["files"][file])
        assert config["admin"] == {"authorization_mode": "InsecureAllowAll"}

    @pytest.mark.usefixtures("seen")
    def test_kbs_restarted_in_same_folder_keeps_keys_and_ca(self, tmp_path: Path) -> None:
        kept = []
        for _ in range(2):
            with kbs(tmp_path / "broker", "tls") as running:
                files = (running.admin_key, running.folder / "admin.pub", running.ca)
                kept.append([file.read_bytes() for file in files])
        assert kept[0] == kept[1]

    def test_kbs_policy_is_set_with_kbs_client(self, seen: Seen, tmp_path: Path) -> None:
        with kbs(tmp_path / "broker", "tls") as running:
            running.allow_all()
        assert seen("kbs-client")["arguments"] == [
            *("--url", running.url, "--cert-file", str(running.ca)),
            *("config", "--admin-token-file", str(running.admin_token)),
            *("set-resource-policy", "--allow-all"),
        ]


def test_simple_kbs_is_started_with_keys_and_one_connection(
    seen: Seen, key: Key, tmp_path: Path
) -> None:
    with simple_kbs(tmp_path / "broker", key.keys_file) as running:
        started = seen("simple-kbs")
        assert running.address.startswith("127.0.0.1:")
    assert started["arguments"] == ["--grpc_sock", "127.0.0.1:0"]
    assert "default_policy.json" in {file.name for file in Path(started["folder"]).iterdir()}
    assert started["variables"]["KBS_DB_TYPE"] == "sqlite"
    database = sqlite3.connect(started["variables"]["KBS_DB"])
    ((name, secret),) = database.execute("select secret_id, secret from secrets")
    assert (name, b64decode(secret)) == ("default/key/key_id1", key.raw)
    ((client, symmetric),) = database.execute("select id, symkey from conn_bundle")
    database.close()
    assert json.loads(running.connection.read_text()) == {"client_id": client, "key": symmetric}


def test_verdictd_is_started_with_keys_where_it_looks_for_them(seen: Seen, tmp_path: Path) -> None:
    with verdictd(tmp_path / "broker", {"default/key/1": b"k" * 32}) as address:
        started = seen("verdictd")
        assert address.startswith("127.0.0.1:")
    assert started["arguments"] == [
        *("--listen", "127.0.0.1:0", "--client-api", "127.0.0.2:0"),
        *("--attester", "nullattester", "--verifier", "nullverifier"),
        *("--tls", "openssl", "--crypto", "openssl"),
    ]
    assert (Path(started["folder"]) / "opt/verdictd/keys/default/key/1").read_bytes() == b"k" * 32


def test_upstream_provider_is_started_on_a_free_port(seen: Seen, tmp_path: Path) -> None:
    with upstream_provider(tmp_path, "debug") as running:
        assert running.address().startswith("127.0.0.1:")
        started = seen("coco_keyprovider")
    assert started["arguments"] == ["--socket", "127.0.0.1:0"]
    assert started["variables"]["RUST_LOG"] == "coco_keyprovider=debug"


def test_attestation_agent_sees_only_its_keys_file_in_etc(seen: Seen, tmp_path: Path) -> None:
    with attestation_agent(tmp_path, '{"a/b/c": ""}') as running:
        assert running.address().startswith("127.0.0.1:")
        started = seen("attestation-agent-0.6")
    assert started["etc"] == [KEYS_FILE]
    assert (tmp_path / "etc" / KEYS_FILE).read_text() == '{"a/b/c": ""}'
    assert started["arguments"] == [
        *("--keyprovider_sock", "127.0.0.1:0", "--getresource_sock", "127.0.0.2:0")
    ]


def verified(token: Path, public_key: Path) -> Any:
    """Return the claims of a JWT that this Ed25519 key signed."""
    text, _, signature = token.read_text().strip().rpartition(".")
    key = load_pem_public_key(public_key.read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(decoded(signature), text.encode())
    header, claims = (json.loads(decoded(part)) for part in text.split("."))
    assert header == {"alg": "EdDSA", "typ": "JWT"}
    return claims


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
