"""What callers may do: the whole decision, as a table."""

from __future__ import annotations

import pytest

from coco_kp.errors import NotAllowedError
from coco_kp.model.client import PROCESS, CertificateNames, ClientIdentity
from coco_kp.model.clients import Clients, Grant, rights_of
from coco_kp.model.pattern import parse_pattern
from coco_kp.model.protocol import Operation

WRAPS: frozenset[Operation] = frozenset({"keywrap"})
BOTH: frozenset[Operation] = frozenset({"keywrap", "keyunwrap"})
A_URI = "spiffe://example.org/a"
TEAM_A = (parse_pattern("kbs:///team-a/*/*"),)

CLIENTS = Clients(
    {
        f"uri:{A_URI}": Grant(WRAPS, TEAM_A, (parse_pattern("file:/keys/team-a/*"),)),
        "dns:b.example.org": Grant(BOTH, (parse_pattern("kbs:///team-b/*/*"),), ()),
        "cn:c": Grant(WRAPS, (parse_pattern("kbs:///team-c/*/*"),), ()),
        "dns:shared": Grant(
            WRAPS, (parse_pattern("kbs:///shared/*/*"),), (parse_pattern("file:/keys/shared/*"),)
        ),
    }
)


def tls(dns: tuple[str, ...] = (), uris: tuple[str, ...] = (), cn: str = "") -> ClientIdentity:
    return ClientIdentity("tls", "192.0.2.7", CertificateNames(dns, uris, cn))


A = tls(uris=(A_URI,))
B = tls(dns=("b.example.org",))
UNVERIFIED = ClientIdentity("tls", "192.0.2.7")
KID_A, KID_B, KID_SHARED = "kbs:///team-a/key/1", "kbs:///team-b/key/1", "kbs:///shared/key/1"


@pytest.mark.parametrize("operation", ["keywrap", "keyunwrap"])
@pytest.mark.parametrize("clients", [None, CLIENTS])
@pytest.mark.parametrize(
    "identity", [PROCESS, ClientIdentity("unix"), ClientIdentity("tcp", "127.0.0.1")]
)
def test_caller_without_tls_may_all(
    identity: ClientIdentity, clients: Clients | None, operation: Operation
) -> None:
    rights_of(identity, clients).check(operation, KID_A, "file:/keys/team-a/kek")


@pytest.mark.parametrize(
    ("clients", "identity", "operation", "kid", "kek_from"),
    [
        (None, UNVERIFIED, "keywrap", KID_A, "file:/any"),
        (None, A, "keywrap", KID_B, "file:/any"),
        (None, tls(), "keywrap", KID_B, ""),
        (CLIENTS, A, "keywrap", "", ""),
        (CLIENTS, A, "keywrap", KID_A, ""),
        (CLIENTS, A, "keywrap", KID_A, "file:/keys/team-a/kek"),
        (CLIENTS, B, "keywrap", KID_B, ""),
        (CLIENTS, B, "keyunwrap", KID_B, ""),
        (CLIENTS, tls(cn="c"), "keywrap", "kbs:///team-c/key/1", ""),
        (CLIENTS, tls(("unknown", "b.example.org")), "keyunwrap", KID_B, ""),
        # of a certificate with two names, either grant is enough
        (CLIENTS, tls(("shared",), (A_URI,)), "keywrap", KID_A, "file:/keys/team-a/kek"),
        (CLIENTS, tls(("shared",), (A_URI,)), "keywrap", KID_SHARED, "file:/keys/shared/kek"),
    ],
)
def test_caller_over_tls_may(
    clients: Clients | None,
    identity: ClientIdentity,
    operation: Operation,
    kid: str,
    kek_from: str,
) -> None:
    rights_of(identity, clients).check(operation, kid, kek_from)


NO_CLIENT = "is not a client of this provider"


@pytest.mark.parametrize(
    ("clients", "identity", "operation", "kid", "kek_from", "said"),
    [
        (None, UNVERIFIED, "keyunwrap", "", "", "'ip:192.0.2.7' may not unwrap here"),
        (None, A, "keyunwrap", KID_A, "", f"'uri:{A_URI}' may not unwrap here"),
        (CLIENTS, UNVERIFIED, "keywrap", "", "", f"'ip:192.0.2.7' {NO_CLIENT}"),
        (CLIENTS, tls(), "keywrap", "", "", f"'a certificate without a name' {NO_CLIENT}"),
        (CLIENTS, tls(("a.example.org",)), "keywrap", "", "", f"'dns:a.example.org' {NO_CLIENT}"),
        # a name of one kind is none of another
        (CLIENTS, tls((A_URI,)), "keywrap", "", "", NO_CLIENT),
        (CLIENTS, tls(uris=("b.example.org",)), "keywrap", "", "", NO_CLIENT),
        (CLIENTS, tls(cn="b.example.org"), "keywrap", "", "", NO_CLIENT),
        (CLIENTS, tls(("c",)), "keywrap", "", "", NO_CLIENT),
        (CLIENTS, A, "keyunwrap", "", "", f"'uri:{A_URI}' may not unwrap here"),
        (CLIENTS, A, "keywrap", KID_B, "", f"may not wrap for the key ID '{KID_B}'"),
        (CLIENTS, B, "keyunwrap", KID_A, "", f"may not unwrap for the key ID '{KID_A}'"),
        (CLIENTS, A, "keywrap", KID_A, "file:/keys/team-b/kek", "with the key that it names"),
        (CLIENTS, B, "keywrap", KID_B, "file:/keys/team-b/kek", "with the key that it names"),
        # two grants do not add up to one that allows it
        (
            CLIENTS,
            tls(("shared",), (A_URI,)),
            "keywrap",
            KID_A,
            "file:/keys/shared/kek",
            "with the key that it names",
        ),
        (
            CLIENTS,
            tls(("b.example.org",), (A_URI,)),
            "keyunwrap",
            KID_A,
            "",
            "may not unwrap for the key ID",
        ),
    ],
)
def test_caller_over_tls_may_not(
    clients: Clients | None,
    identity: ClientIdentity,
    operation: Operation,
    kid: str,
    kek_from: str,
    said: str,
) -> None:
    with pytest.raises(NotAllowedError) as error:
        rights_of(identity, clients).check(operation, kid, kek_from)
    assert said in error.value.message
    assert "its owner" in error.value.hint or "the provider's owner" in error.value.hint
    assert kek_from == "" or kek_from not in str(error.value)
