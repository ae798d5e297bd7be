"""One deadline for a call, over all its KBCs; and a client who goes is asked for no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest

from coco_kp.errors import KekError
from coco_kp.kbc.injected_secret import InjectedSecrets
from coco_kp.kbc.kbcs import Kbcs
from coco_kp.kbc.online_sev import online_sev_kbc
from coco_kp.keyprovider.call import Call
from coco_kp.keyprovider.service import key_provider
from coco_kp.model.sev_secret import CONNECTION_GUID
from coco_kp.provider import MAX_KBCS, Provider
from coco_kp.service import calls
from tests.support import grpc_server, ocicrypt
from tests.support.ocicrypt import UNWRAP_KEY
from tests.support.patience import PATIENCE, ends, wait_until
from tests.support.silence import silent_peer

NETWORKED = {"cc": "cc_kbc::http://{}", "eaa": "eaa_kbc::{}", "online_sev": "online_sev_kbc::{}"}
"""What names each KBC that asks a server, given the server's address."""


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    """One whose KBCs find what they need of the machine."""
    connection = tmp_path / CONNECTION_GUID
    client_id, key = "1bb6faac-2ab5-4a2b-ae9b-1b4b32ba7d17", "A" * 43 + "="
    connection.write_text(f'{{"client_id":"{client_id}","key":"{key}"}}')
    return Provider(
        kbcs=Kbcs(
            {"online_sev": partial(online_sev_kbc, secrets=InjectedSecrets(tmp_path, keep=True))}
        )
    )


@contextmanager
def serving(provider: Provider, ended: threading.Event) -> Iterator[grpc.Channel]:
    """Serve; ``ended`` is set when a call's thread is free again."""

    def answer(call: Call) -> bytes:
        try:
            return calls.answer(provider, call)
        finally:
            ended.set()

    with (
        grpc_server.serving(key_provider(answer)) as address,
        ocicrypt.connection(address) as channel,
    ):
        yield channel


def packet(provider: Provider) -> bytes:
    request = ocicrypt.wrap_request("sample=true", ocicrypt.new_private_options())
    return ocicrypt.wrapped_packet(calls.answer(provider, Call(request)))


def unwrapping(provider: Provider, kbc: str, *others: str) -> Call:
    return Call(ocicrypt.unwrap_request(kbc, packet(provider), *others))


@pytest.mark.parametrize("kbc", NETWORKED)
def test_call_over_many_silent_kbcs_ends_at_one_deadline(provider: Provider, kbc: str) -> None:
    """Each of the eight would wait for half a minute by itself."""
    with silent_peer() as peer:
        call = unwrapping(provider, *[NETWORKED[kbc].format(peer.address)] * MAX_KBCS)
        with ends(after=0.9), pytest.raises(KekError, match="in time|answer"):
            calls.answer(provider, call, longest=1.0)


@pytest.mark.parametrize("kbc", NETWORKED)
def test_silent_kbc_leaves_time_to_the_next(provider: Provider, kbc: str) -> None:
    with silent_peer() as peer:
        silent = NETWORKED[kbc].format(peer.address)
        call = unwrapping(provider, silent, "sample_kbc::null")
        assert calls.answer(provider, call, longest=2.0)
        assert peer.asked


@pytest.mark.parametrize("kbc", NETWORKED)
def test_kbc_is_asked_no_more_when_client_is_gone(provider: Provider, kbc: str) -> None:
    """A client that was killed left its call at work, and the KBS asked, for half a minute."""
    ended = threading.Event()
    with silent_peer() as peer, serving(provider, ended) as channel:
        silent = [NETWORKED[kbc].format(peer.address)] * MAX_KBCS
        request = ocicrypt.unwrap_request(silent[0], packet(provider), *silent[1:])
        method = channel.unary_unary(UNWRAP_KEY, ocicrypt.encode_message, bytes)
        call = method.future(request, timeout=ocicrypt.TIMEOUT)
        wait_until(lambda: peer.asked)
        call.cancel()
        with ends():
            assert ended.wait(2 * PATIENCE)
        assert peer.asked == 1


def test_clients_own_deadline_ends_a_call_early(provider: Provider) -> None:
    ended = threading.Event()
    with silent_peer() as peer, serving(provider, ended) as channel:
        request = ocicrypt.unwrap_request(f"cc_kbc::http://{peer.address}", packet(provider))
        method = channel.unary_unary(UNWRAP_KEY, ocicrypt.encode_message, bytes)
        with pytest.raises(grpc.RpcError):
            method(request, timeout=0.5)
        with ends():
            assert ended.wait(2 * PATIENCE)
