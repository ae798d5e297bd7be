"""What one caller, and all together, may take of a server."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from coco_kp.keyprovider.call import Call, TooManyCallsError, code_of
from coco_kp.keys.resolve import NewKek
from coco_kp.model.client import PROCESS, CertificateNames, ClientIdentity
from coco_kp.provider import Provider
from coco_kp.service.calls import answer
from coco_kp.service.limits import _MOST_CALLERS, Limits
from tests.support import ocicrypt

TEAM = ClientIdentity("tls", "10.0.0.1", CertificateNames(("team.example",)))
OTHER = ClientIdentity("tls", "10.0.0.1", CertificateNames(("other.example",)))


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def calls_answered(limits: Limits, client: ClientIdentity, most: int = 200) -> int:
    """Make calls until one is refused, and return how many were not."""
    for number in range(most):
        try:
            with limits.place(Call(b"", "keywrap", client)):
                pass
        except TooManyCallsError:
            return number
    return most


def test_client_has_a_burst_then_a_rate(clock: Clock) -> None:
    limits = Limits(rate=2, clock=clock)
    assert calls_answered(limits, TEAM) == 20
    clock.now += 1.5
    assert calls_answered(limits, TEAM) == 3
    clock.now += 1000
    assert calls_answered(limits, TEAM) == 20  # and no more, however long it was silent


@pytest.mark.parametrize(
    ("other", "shares"),
    [
        (OTHER, False),
        (ClientIdentity("tls", "10.0.0.9", CertificateNames(("team.example",))), True),
        (ClientIdentity("tcp", "10.0.0.1"), False),
    ],
)
def test_client_is_who_his_certificate_says(
    clock: Clock, other: ClientIdentity, shares: bool
) -> None:
    limits = Limits(rate=1, clock=clock)
    assert calls_answered(limits, TEAM) == 10
    assert calls_answered(limits, other) == (0 if shares else 10)


@pytest.mark.parametrize(
    ("one", "other", "shares"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)
def test_client_without_certificate_is_where_he_calls_from(
    clock: Clock, one: str, other: str, shares: bool
) -> None:
    """And an IPv6 network is one: else a machine were as many as it has addresses."""
    limits = Limits(rate=1, clock=clock)
    assert calls_answered(limits, ClientIdentity("tcp", one)) == 10
    assert calls_answered(limits, ClientIdentity("tcp", other)) == (0 if shares else 10)


@pytest.mark.parametrize(
    "client",
    [
        PROCESS,
        ClientIdentity("unix"),
        ClientIdentity("tcp", "127.0.0.1"),
        ClientIdentity("tcp", "::1"),
        ClientIdentity("tcp", "::ffff:127.0.0.1"),
        ClientIdentity("tls", "127.0.0.1", CertificateNames()),
    ],
)
def test_clients_that_nothing_tells_apart_cannot_keep_each_other_out(
    clock: Clock, client: ClientIdentity
) -> None:
    assert calls_answered(Limits(rate=1, clock=clock), client, most=50) == 50


def test_client_is_forgotten_before_memory_is_full(clock: Clock) -> None:
    limits = Limits(rate=0.1, clock=clock)
    clients = [
        ClientIdentity("tcp", f"10.0.{number >> 8}.{number & 255}")
        for number in range(_MOST_CALLERS + 1)
    ]
    for client in clients[:-1]:
        assert calls_answered(limits, client, most=1) == 1
    assert calls_answered(limits, clients[0]) == 0
    assert calls_answered(limits, clients[-1]) == 1
    assert calls_answered(limits, clients[1]) == 1  # who called least lately starts again
    assert calls_answered(limits, clients[0]) == 0


def places_had(stack: ExitStack, limits: Limits, client: ClientIdentity) -> tuple[int, str]:
    """Take places until one is refused, and return how many were not, and why that was."""
    for number in range(1000):
        try:
            stack.enter_context(limits.place(Call(b"", "keyunwrap", client)))
        except TooManyCallsError as error:
            return number, error.message
    raise AssertionError


@pytest.mark.parametrize("client", [ClientIdentity("unix"), ClientIdentity("tcp", "127.0.0.1")])
def test_hung_calls_of_one_operation_leave_room_for_the_other(client: ClientIdentity) -> None:
    """256 unwraps that waited for KBSs kept everybody out, for minutes.

    Clients that nothing tells apart have no share: they may have all places.
    """
    limits = Limits()
    with ExitStack() as stack:
        taken = places_had(stack, limits, client)
        assert taken == (256, "256 calls of this kind are at work here")
        with (
            pytest.raises(TooManyCallsError, match="256 calls of this kind are at work") as error,
            limits.place(Call(b"", "keyunwrap", TEAM)),
        ):
            pass
        assert code_of(error.value) == "RESOURCE_EXHAUSTED"
        with limits.place(Call(b"", "keywrap", TEAM)):
            pass
    with limits.place(Call(b"", "keyunwrap", TEAM)):
        pass


def test_client_leaves_to_others_as_many_places_as_it_has() -> None:
    """One whose KBS hung had all 256 for half a minute, and nobody else could unwrap."""
    limits = Limits()
    for _ in range(2):  # those that have ended are free again
        with ExitStack() as stack:
            number, why = places_had(stack, limits, TEAM)
            assert number == 128
            assert why.startswith("128 calls of this kind of dns:team.example are at work here;")
            assert places_had(stack, limits, OTHER)[0] == 64
            assert places_had(stack, limits, ClientIdentity("tcp", "192.0.2.1"))[0] == 32
            with limits.place(Call(b"", "keywrap", TEAM)):
                pass


def test_clients_that_take_all_they_can_leave_a_place_unless_they_are_nine() -> None:
    limits = Limits()
    with ExitStack() as stack:
        had = [
            places_had(stack, limits, ClientIdentity("tcp", f"192.0.2.{number}"))[0]
            for number in range(10)
        ]
    assert had == [128, 64, 32, 16, 8, 4, 2, 1, 1, 0]


def test_keys_made_for_a_client_have_a_bound_each_hour(clock: Clock, tmp_path: Path) -> None:
    provider, limits = Provider(key_dir=tmp_path, source=NewKek()), Limits(keks=2, clock=clock)

    def wrap(kid: str, client: ClientIdentity) -> bytes:
        request = ocicrypt.wrap_request(f"keyid=/default/key/{kid}", ocicrypt.new_private_options())
        return answer(provider, Call(request, "keywrap", client), limits=limits)

    assert wrap("1", TEAM)
    assert wrap("2", TEAM)
    with pytest.raises(TooManyCallsError, match="too many keys were made for dns:team.example"):
        wrap("3", TEAM)
    assert wrap("1", TEAM)  # one that is there
    assert wrap("3", OTHER)
    clock.now += 1800
    assert wrap("4", TEAM)
    with pytest.raises(TooManyCallsError):
        wrap("5", TEAM)


def test_clients_of_this_machine_share_a_bound_of_keys(clock: Clock) -> None:
    limits = Limits(keks=1, clock=clock)
    limits.new_kek(ClientIdentity("unix"))
    with pytest.raises(TooManyCallsError):
        limits.new_kek(ClientIdentity("tcp", "127.0.0.1"))
