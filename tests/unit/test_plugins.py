"""What other packages bring is loaded when it is named, and can harm no more than its own call."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

from coco_kp.crypto import Kek
from coco_kp.errors import CocoKpError, InputError, KekError, NotAllowedError, RemoteError
from coco_kp.kbc.kbcs import MOST_OPEN, PLUGINS, Kbcs
from coco_kp.kbs import attester
from coco_kp.keys.reference import parse_wrapping_reference
from coco_kp.keys.stores import interface, opening
from coco_kp.model.algorithm import Algorithm
from coco_kp.model.kbc_spec import KBC_NAMES, KbcSpec, parse_kbc_spec
from coco_kp.model.protocol import UnwrapRequest
from coco_kp.plugins import PluginGroup
from coco_kp.provider import Provider
from tests.support.plugins import install
from tests.support.wrapping import SECRET, Wrapping

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from coco_kp.model.packet import AnnotationPacket

HERE = __name__
RAW = os.urandom(32)


class Mine:
    """A KBC that has the key, whatever its address; ``close`` is counted."""

    closed = 0

    def __init__(self, address: str) -> None:
        self.address = address

    def unwrap(self, packet: AnnotationPacket) -> bytes:
        return Kek(RAW).unwrap(packet.wrap_type, packet.iv, packet.wrapped_data)

    def close(self) -> None:
        Mine.closed += 1


class Failing(Mine):
    def unwrap(self, packet: AnnotationPacket) -> NoReturn:  # noqa: ARG002 (the interface)
        raise RuntimeError(f"with the key {RAW.hex()}")


class Leaving(Mine):
    def unwrap(self, packet: AnnotationPacket) -> NoReturn:  # noqa: ARG002 (the interface)
        sys.exit(0)


class Refusing(Mine):
    def unwrap(self, packet: AnnotationPacket) -> NoReturn:  # noqa: ARG002 (the interface)
        raise KekError("there is no such key", code="my-own-code")


class Wordless(Mine):
    def unwrap(self, packet: AnnotationPacket) -> bytes:  # noqa: ARG002 (the interface)
        nothing: bytes = None  # type: ignore[assignment]
        return nothing


class Slotted(Mine):
    """Has no dict, as objects of native modules have none."""

    __slots__ = ()

    def __new__(cls, _address: str) -> object:  # type: ignore[misc]
        return _Slots()


class _Slots:
    __slots__ = ()
    unwrap = Failing.unwrap
    close = Mine.close


class Unclosable(Mine):
    def close(self) -> NoReturn:
        raise RuntimeError(RAW.hex())


class Passing:
    """Looks as if it had every member."""

    def __init__(self, _address: str) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., bytes]:
        return lambda *_arguments: SECRET


class Crumbling(Mine):
    @property
    def unwrap(self) -> NoReturn:
        raise RuntimeError(RAW.hex())


def unmade(_text: str) -> NoReturn:
    raise RuntimeError(RAW.hex())


def handleless(_text: str) -> object:
    return object()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install plug-ins: a group, then entry points of this module's names."""

    def install_here(group: PluginGroup, *entry_points: str) -> None:
        install(tmp_path, monkeypatch, group.name, *entry_points)

    return install_here


@pytest.fixture
def packet() -> AnnotationPacket:
    return Wrapping(RAW).packet()


def test_kbc_of_a_package_opens_packets_and_is_closed(
    installed: Callable[..., None], packet: AnnotationPacket
) -> None:
    installed(PLUGINS, f"mine = {HERE}:Mine")
    before = Mine.closed
    with Kbcs() as kbcs:
        assert kbcs.unwrap(KbcSpec("mine", "a"), packet) == SECRET
    assert Mine.closed == before + 1


@pytest.mark.parametrize(
    ("maker", "code", "said"),
    [
        ("Failing", "plugin-failed", "failed: RuntimeError"),
        ("Leaving", "plugin-failed", "failed: SystemExit"),
        ("Wordless", "plugin-failed", "returned no bytes"),
        ("Crumbling", "plugin-failed", "failed: RuntimeError"),
        ("unmade", "plugin-failed", "failed: RuntimeError"),
        ("handleless", "plugin-unusable", "lacks unwrap, close"),
        ("nothing_here", "plugin-unusable", "cannot be loaded: AttributeError"),
        ("Refusing", "my-own-code", "there is no such key"),
    ],
)
def test_kbc_of_a_package_that_fails_is_an_error_that_tells_no_key(
    installed: Callable[..., None], packet: AnnotationPacket, maker: str, code: str, said: str
) -> None:
    installed(PLUGINS, f"mine = {HERE}:{maker}")
    with Kbcs() as kbcs, pytest.raises(CocoKpError, match=said) as failed:
        kbcs.unwrap(KbcSpec("mine", ""), packet)
    assert failed.value.code == code
    assert RAW.hex()[:16] not in str(failed.value)


def test_package_that_cannot_be_imported_is_an_error(
    installed: Callable[..., None], packet: AnnotationPacket, tmp_path: Path
) -> None:
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(0)\n")
    installed(PLUGINS, "mine = leaves_at_once:make")
    with Kbcs() as kbcs, pytest.raises(InputError, match="package 'plugin0' cannot be loaded"):
        kbcs.unwrap(KbcSpec("mine", ""), packet)


def test_two_packages_with_one_name_are_an_error(
    installed: Callable[..., None], packet: AnnotationPacket
) -> None:
    installed(PLUGINS, f"mine = {HERE}:Mine", f"mine = {HERE}:Mine")
    with Kbcs() as kbcs, pytest.raises(InputError, match="2 plug-ins are named KBC 'mine'"):
        kbcs.unwrap(KbcSpec("mine", ""), packet)


def test_kbc_of_a_package_that_does_not_close_hurts_nobody_else(
    installed: Callable[..., None], packet: AnnotationPacket, caplog: pytest.LogCaptureFixture
) -> None:
    installed(PLUGINS, f"mine = {HERE}:Unclosable")
    with Kbcs({"sample": Mine}) as kbcs:
        for number in range(MOST_OPEN + 2):
            assert kbcs.unwrap(KbcSpec("mine", str(number)), packet) == SECRET
        before = Mine.closed
        assert kbcs.unwrap(KbcSpec("sample", ""), packet) == SECRET
    assert Mine.closed == before + 1
    assert RAW.hex()[:16] not in caplog.text


@pytest.mark.parametrize("maker", ["Passing", "Slotted"])
def test_members_beyond_its_kind_are_none_of_a_plugin(
    installed: Callable[..., None], maker: str
) -> None:
    installed(PLUGINS, f"mine = {HERE}:{maker}")
    made = PLUGINS.open("mine", "")
    assert callable(made.unwrap)
    assert not hasattr(made, "encrypt_gcm")


def test_attester_of_a_package_without_its_tee_is_an_error(
    installed: Callable[..., None],
) -> None:
    installed(attester.PLUGINS, f"mine = {HERE}:Teeless")
    with pytest.raises(InputError, match="lacks tee") as unusable:
        attester.load("mine")
    assert unusable.value.code == "plugin-unusable"


def test_attester_of_a_package_is_asked_for_its_tee_when_that_is_wanted(
    installed: Callable[..., None],
) -> None:
    """To read a property may be to ask an agent, which may not be there yet."""
    installed(attester.PLUGINS, f"mine = {HERE}:Asking")
    made = attester.load("mine")
    with pytest.raises(RemoteError, match="failed: RuntimeError"):
        _ = made.tee


class Teeless:
    def __init__(self, _agent: str) -> None:
        pass

    def primary_evidence(self, _report_data: bytes) -> dict[str, object]:
        return {}

    def additional_evidence(self, _report_data: bytes) -> str:
        return ""


class Asking(Teeless):
    @property
    def tee(self) -> NoReturn:
        raise RuntimeError


@pytest.mark.parametrize("name", KBC_NAMES)
def test_package_takes_the_place_of_no_kbc_of_ours(
    installed: Callable[..., None], packet: AnnotationPacket, name: str, tmp_path: Path
) -> None:
    (tmp_path / "mark.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w').close()\n")
    installed(PLUGINS, f"{name} = mark:make")
    with Kbcs() as kbcs, pytest.raises(CocoKpError):
        kbcs.unwrap(KbcSpec(name, ""), packet)
    with pytest.raises(InputError, match="is unknown"):
        PLUGINS.find(name)
    assert PLUGINS.names() == []
    assert not (tmp_path / "loaded").exists()


def test_package_takes_the_place_of_no_attester_or_key_wrapper_of_ours(
    installed: Callable[..., None],
) -> None:
    installed(attester.PLUGINS, f"sample = {HERE}:Mine")
    assert isinstance(attester.load("sample"), attester.Sample)
    for group in (attester.PLUGINS, opening.PLUGINS):
        for name in group.builtin:
            with pytest.raises(InputError, match="is unknown"):
                group.find(name)


def test_key_wrapper_of_a_package_that_fails_is_an_error(installed: Callable[..., None]) -> None:
    installed(opening.PLUGINS, f"mykms = {HERE}:FailingKey")
    key = opening.open_wrapping_key(parse_wrapping_reference("mykms://a"))
    assert key.check() == "a key"
    with pytest.raises(RemoteError, match="key wrapper 'mykms' of .* failed: RuntimeError") as e:
        key.encrypt(b"", {})
    assert e.value.code == "plugin-failed"
    assert not isinstance(key, interface.GcmKey)


def test_key_wrapper_of_a_package_may_have_something_to_close(
    installed: Callable[..., None],
) -> None:
    installed(opening.PLUGINS, f"mykms = {HERE}:FailingKey", f"closing = {HERE}:ClosingKey")
    opening.open_wrapping_key(parse_wrapping_reference("mykms://a")).close()
    ClosingKey.closed = False
    opening.open_wrapping_key(parse_wrapping_reference("closing://a")).close()
    assert ClosingKey.closed


class FailingKey:
    def __init__(self, uri: str) -> None:
        self.uri = uri

    def encrypt(self, _plaintext: bytes, _context: object) -> NoReturn:
        raise RuntimeError

    decrypt = encrypt

    def check(self) -> str:
        return "a key"


class ClosingKey(FailingKey):
    closed = False

    def close(self) -> None:
        type(self).closed = True


def request(*parameters: str) -> UnwrapRequest:
    packet = Wrapping(RAW).packet(Algorithm.A256GCM)
    return UnwrapRequest(parameters, packet.to_json("v1"))


def test_caller_reaches_no_kbc_of_a_package_that_the_owner_did_not_name(
    installed: Callable[..., None],
) -> None:
    installed(PLUGINS, f"mine = {HERE}:Mine")
    for provider in (Provider(), Provider(kbc=parse_kbc_spec("cc::https://kbs.example"))):
        with pytest.raises(InputError, match="KBC 'mine' is unknown") as refused:
            provider.unwrap(request("mine_kbc::a"))
        assert "mine" not in refused.value.hint


def test_caller_gives_the_owners_kbc_of_a_package_no_other_address(
    installed: Callable[..., None],
) -> None:
    """What it does with an address, only its owner knows."""
    installed(PLUGINS, f"mine = {HERE}:Mine")
    with Kbcs() as kbcs:
        provider = Provider(kbc=KbcSpec("mine", "a"), kbcs=kbcs)
        for parameters in ((), ("Enabled",), ("mine_kbc::a",)):
            with pytest.raises(KekError, match="does not open"):  # opened, but no options
                provider.unwrap(request(*parameters))
        for address in ("", "::null", "::b"):
            with pytest.raises(NotAllowedError, match="may not give the KBC 'mine' another"):
                provider.unwrap(request(f"mine{address}"))
