from __future__ import annotations

import pytest

from coco_kp.model.kbc_spec import KBC_NAMES, KbcSpec, parse_kbc_spec
from tests.support.refusals import refusals


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


test_parse_kbc_spec_refuses_unknown_name_and_lists_known_ones = refusals(
    parse_kbc_spec,
    {
        "KBC '' is unknown": ["", "_kbc"],
        "KBC 'null' is unknown": ["null"],
        "KBC 'sample_kbc' is unknown": ["sample_kbc_kbc"],
        "KBC 'Sample' is unknown": ["Sample"],
        "KBC 'offline_fs_kbs' is unknown": ["offline_fs_kbs::null"],
        "KBC 'offline_fs:null' is unknown": ["offline_fs:null"],
        "KBC '../sample' is unknown": ["../sample::null"],
        "KBC 'sample' has an empty address": ["sample_kbc::"],
    },
    exact=True,
    hint_has=", ".join(KBC_NAMES),
)
