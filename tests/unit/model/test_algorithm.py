from __future__ import annotations

import pytest

from coco_kp.model.algorithm import Algorithm, parse_algorithm
from tests.support.refusals import refusals


@pytest.mark.parametrize(("name", "iv", "tag"), [("A256GCM", 12, 16), ("A256CTR", 16, 0)])
def test_parse_algorithm_returns_iv_and_tag_sizes(name: str, iv: int, tag: int) -> None:
    algorithm = parse_algorithm(name, "algorithm")
    assert (str(algorithm), algorithm.iv_size, algorithm.tag_size) == (name, iv, tag)


def test_algorithm_has_only_a256gcm_and_a256ctr() -> None:
    assert [algorithm.value for algorithm in Algorithm] == ["A256GCM", "A256CTR"]


test_parse_algorithm_refuses_unknown_name_and_lists_known_ones = refusals(
    lambda name: parse_algorithm(name, "wrap_type"),
    {
        f"wrap_type '{name}' is unknown": [name]
        for name in ("", "a256gcm", "A256GCM ", "A128GCM", "AES", "Algorithm.A256GCM")
    },
    exact=True,
    hint="use A256GCM (default, detects tampering) or A256CTR (does not); case matters",
)
