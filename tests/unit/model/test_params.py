from __future__ import annotations

from typing import Any

import pytest

from coco_kp.errors import InputError
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.params import (
    MAX_PARAMETERS,
    FileParams,
    KeyIdParams,
    SampleParams,
    WrapParams,
    parse_params,
)
from coco_kp.model.resource_uri import ResourceUri, parse_key_id
from tests.support.refusals import refusals
from tests.vectors import load_vectors

VECTORS = load_vectors("params")

KEY_1 = ResourceUri("resource", "", ("default", "key", "1"))
FILE_KEK = "keypath=/k::keyid=kbs:///default/key/1"


@pytest.mark.parametrize(("text", "expected"), VECTORS["accept"])
def test_parse_params_reads_known_parameters(text: str, expected: dict[str, Any]) -> None:
    assert as_vector(parse_params(text)) == expected


def as_vector(params: WrapParams) -> dict[str, Any]:
    algorithm = params.algorithm.value
    if isinstance(params, SampleParams):
        return {"sample": True, "algorithm": algorithm}
    assert isinstance(params, FileParams)
    return {
        "sample": False,
        "keypath": params.key_path,
        "keyid": str(params.key_id),
        "algorithm": algorithm,
    }


test_parse_params_refuses_known_bad_parameters = refusals(
    parse_params, {"": VECTORS["reject"]}, hint_has=" "
)


test_parse_params_refusal_names_word_at_fault = refusals(
    parse_params,
    {
        words: [text for text, its_words in VECTORS["refusals"] if its_words == words]
        for _, words in VECTORS["refusals"]
    },
    hint_has=" ",
)


@pytest.mark.parametrize(
    "key_id",
    [
        "kbs://[::1]:8080/a/b/c",
        "[::1]:8080/a/b/c",
        "kbs://[fe80::1:2]/a/b/c",
        "kbs://[::]/a/b/c",
    ],
)
@pytest.mark.parametrize("order", ["keypath=/k::keyid={}", "keyid={}::keypath=/k"])
def test_parse_params_reads_ipv6_host_despite_its_colons(key_id: str, order: str) -> None:
    params = parse_params(order.format(key_id))
    assert params == FileParams(parse_key_id(key_id), "/k", Algorithm.A256GCM)


@pytest.mark.parametrize(
    "path", ["/a=b", "relative", "/with space", "/ä", "/a:b", "/a::/b", "/a::"]
)
def test_parse_params_accepts_keypath_that_resembles_no_other_field(path: str) -> None:
    params = parse_params(f"keypath={path}::keyid=kbs:///default/key/1")
    assert params == FileParams(KEY_1, path, Algorithm.A256GCM)


def test_parse_params_without_keypath_returns_key_to_register() -> None:
    assert parse_params("keyid=/default/key/1") == KeyIdParams(KEY_1, Algorithm.A256GCM)
    assert parse_params("algorithm=A256CTR") == KeyIdParams(None, Algorithm.A256CTR)
    assert parse_params("sample=false") == KeyIdParams(None, Algorithm.A256GCM)


def test_parse_params_limits_length() -> None:
    path = "/" + "k" * (MAX_PARAMETERS - len("keypath=/::keyid=/a/b/c"))
    parse_params(f"keypath={path}::keyid=/a/b/c")
    with pytest.raises(InputError, match="have more than 16384 characters"):
        parse_params(f"keypath={path}k::keyid=/a/b/c")


KEY = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

test_parse_params_refusal_never_quotes_what_looks_like_a_key = refusals(
    parse_params,
    {"": [KEY, f"keyid={KEY}::keypath=/k", f"{KEY}=x", f"sample={KEY}", f"algorithm={KEY}"]},
    secret=KEY[:20],
)
