from __future__ import annotations

import pytest

from coco_kp.errors import InputError
from coco_kp.model.algorithm import Algorithm, parse_algorithm


@pytest.mark.parametrize(("name", "iv", "tag"), [("A256GCM", 12, 16), ("A256CTR", 16, 0)])
def test_parse_algorithm_returns_iv_and_tag_sizes(name: str, iv: int, tag: int) -> None:
    algorithm = parse_algorithm(name, "algorithm")
    assert (str(algorithm), algorithm.iv_size, algorithm.tag_size) == (name, iv, tag)


def test_algorithm_has_only_a256gcm_and_a256ctr() -> None:
    assert [algorithm.value for algorithm in Algorithm] == ["A256GCM", "A256CTR"]


@pytest.mark.parametrize("name", ["", "a256gcm", "A256GCM ", "A128GCM", "AES", "Algorithm.A256GCM"])
def test_parse_algorithm_refuses_unknown_name_and_lists_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=f"^wrap_type '{name}' is unknown") as error:
        parse_algorithm(name, "wrap_type")
    assert "A256GCM" in error.value.hint
    assert "A256CTR" in error.value.hint
