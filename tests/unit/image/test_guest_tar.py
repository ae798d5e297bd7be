"""What a guest makes of a layer's content, beyond what `tests/replay/test_guest_verdicts.py` has.

That holds each verdict to a real guest's; this holds the bounds, and what is said.
"""

from __future__ import annotations

import tracemalloc

import pytest

from coco_kp.image import guest_tar, guest_tree
from coco_kp.image.guest_tar import GuestTar
from tests.support.tar_blocks import END, entry

MOST_MEMORY = 128 << 20  # docs/verify.md


def fault_of(*entries: bytes) -> str:
    guest = GuestTar()
    guest.update(b"".join(entries))
    guest.finish(0)
    return guest.fault.message if guest.fault else ""


def test_guest_tar_names_the_block_and_no_file() -> None:
    assert fault_of(entry(b"a", b"1"), entry(b"secret", kind=b"1", target=b"other"), END) == (
        "guests refuse the layer's content: the entry at block 2 "
        "leads to what the layer does not have by then"
    )


def test_guest_tar_finds_opaque_directory_below_a_file() -> None:
    assert "below what is no directory" in fault_of(entry(b"a"), entry(b"a/b/.wh..wh..opq"), END)


def test_guest_tar_keeps_the_first_fault() -> None:
    assert "absolute name" in fault_of(entry(b"/a"), b"garbage" * 200)


@pytest.mark.parametrize("at", [0, 1])
def test_guest_tar_judges_no_more_names_than_its_bound(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(guest_tree, "MOST_NAMES", 5 - at)
    fault = fault_of(entry(b"a/b/c"), entry(b"a/b/d"), entry(b"a/b/c"), entry(b"e"), END)
    assert fault.endswith("no more than 4 names are judged") if at else not fault


@pytest.mark.parametrize("at", [0, 1])
def test_guest_tar_judges_no_more_entries_than_its_bound(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(guest_tar, "MOST_ENTRIES", 3 - at)
    fault = fault_of(entry(b"a"), END, entry(b"a"), entry(b"a"), END)
    assert fault.endswith("no more than 2 are judged") if at else not fault


def test_guest_tar_follows_no_more_parts_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link of 4 KiB that leads through forty others costs a guest, and us, for each entry."""
    monkeypatch.setattr(guest_tree, "MOST_STEPS", 10_000)
    link = entry(b"l", kind=b"2", target=b"./" * 45)
    assert not fault_of(link, entry(b"l/a") * 200, END)
    assert "take too long to follow" in fault_of(link, entry(b"l/a") * 300, END)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
def test_guest_tar_reads_no_longer_extension_than_its_bound(size: int) -> None:
    comment = b"%d comment=" % size
    content = comment + b"x" * (size - len(comment) - 1) + b"\n"
    fault = fault_of(entry(b"x", content, b"x"), entry(b"a"), END)
    assert bool(fault) == (size > guest_tar.MOST_RECORD)


def test_guest_tar_holds_names_and_no_content() -> None:
    guest = GuestTar()
    piece = entry(b"a", bytes(1 << 20))
    tracemalloc.start()
    try:
        for _ in range(50):
            guest.update(piece)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()
    guest.finish(0)
    assert guest.fault is None


def test_guest_tar_at_its_bound_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the bound is measured, of directories in one another, which cost the most."""
    monkeypatch.setattr(guest_tree, "MOST_NAMES", guest_tree.MOST_NAMES // 20)
    guest = GuestTar()
    tracemalloc.start()
    try:
        for number in range(guest_tree.MOST_NAMES // 40):
            guest.update(entry(b"%05d/" % number + b"d/" * 40 + b"f"))
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY // 20
    finally:
        tracemalloc.stop()
    assert guest.fault
    assert "names are judged" in guest.fault.message
