"""The file of ``coco-kp serve --clients``."""

from __future__ import annotations

from pathlib import Path

import pytest

from coco_kp.errors import InputError
from coco_kp.model.clients import Grant
from coco_kp.model.pattern import Pattern
from coco_kp.service.clients_file import read_clients
from coco_kp.service.toml_file import MAX_FILE

REST = 'operations = ["wrap"]\nkids = ["kbs:///a/*/*"]\n'
HEAD = f'[clients.a]\ndns = ["a"]\n{REST}'


def written(folder: Path, text: str) -> Path:
    file = folder / "clients.toml"
    file.write_bytes(text.encode("latin-1"))
    return file


def test_clients_file_grants_each_name_what_its_table_says(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [clients.team-a]
        dns = ["ci.team-a.example.org", "team_a"]
        uri = ["spiffe://example.org/ns/team-a/sa/ci"]
        operations = ["wrap"]
        kids = ["kbs:///team-a/*/*"]
        kek-from = ["file:/keys/team-a/*", "vault:///kv/team-a/*"]

        [clients.guests]
        cn = ["Old Guest"]
        operations = ["wrap", "unwrap"]
        kids = ["kbs://*/*/*/*", "kbs+external:///coco-kp/prod", "awskms:///alias/*"]
        """,
    )
    team_a = Grant(
        frozenset({"keywrap"}),
        (Pattern("kbs:///team-a/*/*"),),
        (Pattern("file:/keys/team-a/*"), Pattern("vault:///kv/team-a/*")),
    )
    guests = Grant(
        frozenset({"keywrap", "keyunwrap"}),
        tuple(map(Pattern, ("kbs://*/*/*/*", "kbs+external:///coco-kp/prod", "awskms:///alias/*"))),
        (),
    )
    assert read_clients(file).by_name == {
        "dns:ci.team-a.example.org": team_a,
        "dns:team_a": team_a,
        "uri:spiffe://example.org/ns/team-a/sa/ci": team_a,
        "cn:Old Guest": guests,
    }


def names(member: str, name: str) -> str:
    return f'[clients.a]\n{member} = ["{name}"]\n{REST}'


def kids(pattern: str) -> str:
    return f'[clients.a]\ndns = ["a"]\noperations = ["wrap"]\nkids = ["{pattern}"]\n'


def kek_from(pattern: str) -> str:
    return f'{HEAD}kek-from = ["{pattern}"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no \\[clients.NAME\\]"),
        ("clients = {}", "has no \\[clients.NAME\\]"),
        ("clients = [1]", "has no \\[clients.NAME\\]"),
        (f"{HEAD}[other]\n", "unknown member 'other'"),
        ("[clients]\na = 1", "'a' in .* is not a table"),
        (f'{HEAD}dsn = ["b"]', "'a' in .* has the unknown member 'dsn'"),
        (f'{HEAD}kek_from = ["file:/x"]', "has the unknown member 'kek_from'"),
        (f"[clients.a]\n{REST}", "has none of dns, uri and cn"),
        (f'[clients.a]\ndns = "a"\n{REST}', "dns of 'a' in .* is not a list of texts"),
        (f"[clients.a]\ndns = [1]\n{REST}", "dns of 'a' in .* is not a list of texts"),
        (f"[clients.a]\ndns = []\n{REST}", "dns of 'a' in .* is empty"),
        ('[clients.a]\ndns = ["a"]\nkids = ["kbs:///a/b/c"]', "operations is missing"),
        ('[clients.a]\ndns = ["a"]\noperations = ["wrap"]', "kids is missing"),
        (
            '[clients.a]\ndns = ["a"]\noperations = ["wrap"]\nkids = []',
            "kids of 'a' in .* is empty",
        ),
        (
            '[clients.a]\ndns = ["a"]\noperations = ["keywrap"]\nkids = ["kbs:///a/b/c"]',
            "'a' in .*: the operation 'keywrap' is unknown",
        ),
        (f'{HEAD}[clients.b]\ndns = ["a"]\n{REST}', "'b' in .* has 'dns:a', which .* twice"),
        (f'[clients.a]\ncn = ["a", "a"]\n{REST}', "has 'cn:a', which .* twice"),
        (names("dns", "*.example.org"), r"'\*.example.org' is not a valid dns"),
        (names("dns", "CI.example.org"), "is not a valid dns"),
        (names("dns", "ci..example.org"), "is not a valid dns"),
        (names("dns", "ci.example.org."), "is not a valid dns"),
        (names("dns", "-ci"), "is not a valid dns"),
        (names("dns", "a" * 64), "is not a valid dns"),
        (names("dns", ".".join(["a" * 63] * 4)), "is not a valid dns"),
        (names("uri", "example.org"), "is not a valid uri"),
        (names("uri", "spiffe://example.org/*"), "is not a valid uri"),
        (names("uri", "spiffe://a b"), "is not a valid uri"),
        (names("uri", "spiffe://" + "a" * 2040), "is not a valid uri"),
        (names("cn", ""), "'' is not a valid cn"),
        (names("cn", "a" * 65), "is not a valid cn"),
        (names("cn", "a\\u0000"), "is not a valid cn"),
        (kids("/a/b/c"), "key ID '/a/b/c' cannot be used"),
        (kids("kbs:///a/*"), "its path must have three parts, not 2"),
        (kids("kbs:///a/b/c/d"), "its path must have three parts, not 4"),
        (kids("*"), "its scheme is not kbs"),
        (kids("KBS:///a/b/c"), "no key ID matches 'KBS:///a/b/c'"),
        (kids("kbs+external:///coco-kp/prod?ct=*"), "no key ID matches"),
        (kids("kbs:///a/b/*c*"), r"'a' in .*: the pattern .* has two \* in one part"),
        (kids("hashivault://x"), "its scheme is not kbs"),
        (kek_from("/keys/*"), "'/keys/x' is not a key reference"),
        (kek_from("file:keys/*"), "'file:keys/.' is not an absolute path"),
        (kek_from("file:///keys/*"), "no key reference matches 'file:///keys/.'"),
        (kek_from("file:/keys//x"), "is not an absolute path"),
        (kek_from("file:/keys/"), "is not an absolute path"),
        (kek_from("file:/keys/../x"), "no key reference matches"),
        (kek_from("exec:cat *"), "no client may name a program"),
        (kek_from("pkcs11:object=*?module-path=/a.so"), "no client may name .* a library"),
        (kek_from("pkcs11:object=*?pin-source=/pin"), "no client may name .* a PIN's file"),
        (kek_from("vault:///kv/a?kv=2"), "no key reference matches"),
        (kek_from("awskms:///alias/*"), "a key cannot be fetched from"),
        ("[clients.a]\n[clients.a]", "is not TOML: "),
        ("a = " + "[" * 5000, "is not TOML"),
        ("\xff", "is not TOML text"),
        ("#" * (MAX_FILE + 1), f"longer than the {MAX_FILE} bytes"),
    ],
)
def test_clients_file_refuses(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_clients(written(tmp_path, text))


def test_clients_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read '.*/absent': no such file"):
        read_clients(tmp_path / "absent")
