from __future__ import annotations

import pytest

from coco_kp.errors import InputError
from coco_kp.model.kbc_spec import KBC_NAMES, KbcSpec, parse_kbc_spec


@pytest.mark.parametrize("name", KBC_NAMES)
@pytest.mark.parametrize("suffix", ["", "_kbc"])
def test_parse_kbc_spec_reads_every_name_with_and_without_suffix(name: str, suffix: str) -> None:
    assert parse_kbc_spec(name + suffix) == KbcSpec(name, "")
    assert parse_kbc_spec(f"{name}{suffix}::null") == KbcSpec(name, "")
    assert parse_kbc_spec(f"{name}{suffix}::http://[::1]:8080") == KbcSpec(
        name, "http://[::1]:8080"
    )


def test_kbc_spec_is_written_as_decryption_parameter() -> None:
    assert str(parse_kbc_spec("offline_fs")) == "offline_fs_kbc::null"
    assert str(parse_kbc_spec("cc::https://kbs.example")) == "cc_kbc::https://kbs.example"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "KBC '' is unknown"),
        ("null", "KBC 'null' is unknown"),
        ("_kbc", "KBC '' is unknown"),
        ("sample_kbc_kbc", "KBC 'sample_kbc' is unknown"),
        ("Sample", "KBC 'Sample' is unknown"),
        ("offline_fs_kbs::null", "KBC 'offline_fs_kbs' is unknown"),
        ("offline_fs:null", "KBC 'offline_fs:null' is unknown"),
        ("../sample::null", "KBC '../sample' is unknown"),
        ("sample_kbc::", "KBC 'sample' has an empty address"),
    ],
)
def test_parse_kbc_spec_refuses_unknown_name_and_lists_known_ones(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_kbc_spec(text)
    assert error.value.message == message
    assert all(name in error.value.hint for name in KBC_NAMES)
