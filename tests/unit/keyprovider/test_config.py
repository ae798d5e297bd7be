"""ocicrypt's configuration, read as ocicrypt 1.3 reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.keyprovider.config import (
    CmdProvider,
    GrpcProvider,
    GrpcTls,
    parse_ocicrypt_config,
    read_ocicrypt_config,
)


def parse(attributes: object) -> CmdProvider | GrpcProvider:
    document = {"key-providers": {"mine": attributes}}
    return parse_ocicrypt_config(json.dumps(document).encode())["mine"]


@pytest.mark.parametrize(
    ("members", "tls"),
    [
        (None, None),
        ({}, GrpcTls()),
        ({"insecure-skip-verify": False, "other": 1}, GrpcTls()),
        ({"root-ca-file": "/ca", "cert-file": None}, GrpcTls(root_ca_file="/ca")),
        (
            {"root-ca-file": "/a", "cert-file": "/b", "key-file": "/c", "server-name": "d"},
            GrpcTls("/a", "/b", "/c", "d"),
        ),
    ],
)
def test_parse_ocicrypt_config_reads_grpc_tls(members: object, tls: GrpcTls | None) -> None:
    assert parse({"grpc": "kp:1", "grpc-tls": members}) == GrpcProvider("kp:1", tls)
    if tls and members:
        written = {key: value for key, value in tls.to_json().items() if value}
        assert parse({"grpc": "kp:1", "grpc-tls": written}) == GrpcProvider("kp:1", tls)


def test_parse_ocicrypt_config_takes_cmd_before_grpc_and_null_for_absent() -> None:
    cmd = {"path": "/kp", "args": ["x"]}
    assert parse({"cmd": cmd, "grpc": "kp:1", "grpc-tls": {}}) == CmdProvider("/kp", ("x",))
    assert parse({"cmd": None, "grpc": "kp:1"}) == GrpcProvider("kp:1")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"grpc": "kp:1", "grpc-tls": {"insecure-skip-verify": True}}, "insecure-skip-verify"),
        ({"grpc": "kp:1", "grpc-tls": {"insecure-skip-verify": "no"}}, "insecure-skip-verify"),
        ({"grpc": "kp:1", "grpc-tls": {"Root-CA-File": "/ca"}}, "take for 'root-ca-file'"),
        ({"grpc": "kp:1", "grpc-tls": {"root-ca-file": ["/ca"]}}, "'root-ca-file' .* is not text"),
        ({"grpc": "kp:1", "grpc-tls": "yes"}, "'grpc-tls' of provider 'mine' is not an object"),
        ({"grpc": "", "grpc-tls": {}}, "neither 'cmd' nor 'grpc'"),
        ({"grpc-tls": {}}, "neither 'cmd' nor 'grpc'"),
    ],
)
def test_parse_ocicrypt_config_refuses_what_it_cannot_keep(attributes: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(attributes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read '{path}': no such file; OCICRYPT_KEYPROVIDER_CONFIG names it"),
        ("{", "the key-provider configuration '{path}' is not valid JSON"),
        ("{}", "the key-provider configuration '{path}' has no 'key-providers'"),
    ],
)
def test_configuration_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, words: str
) -> None:
    path = tmp_path / "ocicrypt.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", str(path))
    with pytest.raises(InputError) as refused:
        read_ocicrypt_config()
    assert refused.value.message == words.format(path=path)
