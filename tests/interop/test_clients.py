"""``coco-kp serve`` over mutual TLS, and what its clients may do, with the newest client."""

from __future__ import annotations

import json
import re
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.peers.golang import CIMAGE_CLIENT
from tests.peers.skopeo import Skopeo, SkopeoError
from tests.support.provider import LOG, our_config, served_address, serving
from tests.support.tls import SERVER_NAME, Authority, Issued

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.daemon import Daemon
    from tests.support.image import Image
    from tests.support.key import Key

pytestmark = [
    pytest.mark.peer,
    pytest.mark.parametrize("skopeo", [CIMAGE_CLIENT.name], indirect=True),
]

TEAM_A = "spiffe://example.org/ns/team-a/sa/ci"
AUDITOR = "auditor.example.org"

CLIENTS = f"""
[clients.team-a]
uri = ["{TEAM_A}"]
operations = ["wrap"]
kids = ["kbs:///default/key/*"]
kek-from = ["file:KEYS/*"]

[clients.auditors]
dns = ["{AUDITOR}"]
operations = ["wrap", "unwrap"]
kids = ["kbs:///default/*/*"]
"""

METRIC = "coco_kp_certificate_expiry_timestamp_seconds"
FS_KBC = "offline_fs_kbc::null"


class Server:
    """A server's files, and clients that call it with the newest client's library."""

    def __init__(self, skopeo: Skopeo, image: Image, key: Key, folder: Path) -> None:
        self.skopeo, self.image, self.key, self.folder = skopeo, image, key, folder
        self.authority = Authority()
        self.team_a = self.authority.issue(x509.UniformResourceIdentifier(TEAM_A))
        self.certificate, self.private = folder / "tls.crt", folder / "tls.key"
        self.client_ca = folder / "ca.crt"
        self.exchange(self.authority)
        self.running: Daemon

    def exchange(self, authority: Authority) -> None:
        """Put a certificate of this authority into the server's files, and trust its clients."""
        self.client_ca.write_bytes(authority.pem)
        self.issued = authority.issue_server()
        self.issued.write(self.certificate, self.private)

    @contextmanager
    def serving(self, *flags: str, listed: bool = True) -> Iterator[None]:
        """Run the server while the block runs, with the list of clients or without."""
        tls = ["--tls-cert", str(self.certificate), "--tls-key", str(self.private)]
        tls += ["--tls-client-ca", str(self.client_ca)]
        if listed:
            file = self.folder / "clients.toml"
            file.write_text(CLIENTS.replace("KEYS", str(self.key.path.parent)))
            tls += ["--clients", str(file)]
        keys = ("--keys", str(self.key.keys_file), "--log-format", "json")
        with serving(self.folder, *tls, *keys, *flags) as self.running:
            yield

    def encrypt(
        self, client: Issued | None, parameters: str = "", authority: Authority | None = None
    ) -> Image:
        """Have the client encrypt the image, and return the new one. Raises `SkopeoError`."""
        target = type(self.image)(self.folder / f"encrypted-{len(list(self.folder.iterdir()))}")
        self.skopeo.encrypt(
            self.image.reference,
            target.reference,
            parameters or self.key.parameters(),
            self.config(client, authority),
        )
        return target

    def decrypt(self, client: Issued, image: Image) -> Image:
        """Have the client decrypt an image, and return the new one. Raises `SkopeoError`."""
        target = type(self.image)(self.folder / f"decrypted-{len(list(self.folder.iterdir()))}")
        self.skopeo.decrypt(image.reference, target.reference, FS_KBC, self.config(client))
        return target

    def config(self, client: Issued | None, authority: Authority | None = None) -> Path:
        """Write the client's configuration as a user does."""
        roots = self.folder / "roots.crt"
        roots.write_bytes((authority or self.authority).pem)
        own: tuple[str, ...] = ()
        if client:
            certificate, key = self.folder / "client.crt", self.folder / "client.key"
            client.write(certificate, key)
            own = ("--tls-cert", str(certificate), "--tls-key", str(key))
        address = served_address(self.running)
        name = ("--tls-server-name", SERVER_NAME)
        path = self.folder / "ocicrypt.json"
        return our_config(
            path, "--force", "--grpc", address, "--tls-root-ca", str(roots), *own, *name
        )

    def expiry(self) -> float:
        """Return the metric of when the certificate ends."""
        (address,) = [event["address"] for event in self.events() if event["event"] == "metrics"]
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            text = answer.read().decode()
        found = re.search(rf"^{METRIC} (\S+)$", text, re.MULTILINE)
        assert found
        return float(found[1])

    def events(self) -> list[dict[str, object]]:
        """Return what the server has logged; a line that is no JSON fails."""
        return [json.loads(line) for line in (self.folder / LOG).read_text().splitlines()]


@pytest.fixture
def server(skopeo: Skopeo, image: Image, key: Key, tmp_path: Path) -> Server:
    folder = tmp_path / "server"
    folder.mkdir()
    return Server(skopeo, image, key, folder)


def test_newest_client_goes_on_when_certificate_and_ca_are_exchanged_under_a_running_server(
    server: Server,
) -> None:
    with server.serving():
        assert all(layer.encrypted for layer in server.encrypt(server.team_a).layers)
        new = Authority()
        server.exchange(new)
        renewed = new.issue(x509.UniformResourceIdentifier(TEAM_A))
        assert all(layer.encrypted for layer in server.encrypt(renewed, authority=new).layers)
        with pytest.raises(SkopeoError, match="Unavailable"):  # of the old CA: no longer let in
            server.encrypt(server.team_a, authority=new)
        with pytest.raises(SkopeoError, match="certificate signed by unknown authority"):
            server.encrypt(renewed)
        with pytest.raises(SkopeoError, match="Unavailable"):
            server.encrypt(None, authority=new)
    events = server.events()
    assert [event["event"] for event in events].count("certificate") == 2
    answered = {str(event["client"]) for event in events if event["event"] == "answered"}
    assert answered == {f"uri:{TEAM_A}"}


def test_metric_of_certificate_follows_its_file_while_nobody_connects(server: Server) -> None:
    with server.serving("--metrics", "127.0.0.1:0"):
        before = server.expiry()
        renewed = server.authority.issue_server(days=90)
        renewed.write(server.certificate, server.private)
        server.running.wait_until(lambda: server.expiry() != before, "see the new certificate")
        assert server.expiry() == renewed.expires
    assert before == server.issued.expires


def test_newest_client_is_told_what_it_may_not_do(server: Server, tmp_path: Path) -> None:
    auditor = server.authority.issue(x509.DNSName(AUDITOR))
    stranger = server.authority.issue(x509.DNSName("stranger.example.org"))
    other = tmp_path / "other"
    other.write_bytes(server.key.raw)
    with server.serving():
        encrypted = server.encrypt(server.team_a)
        with pytest.raises(SkopeoError, match=f"'uri:{TEAM_A}' may not unwrap here"):
            server.decrypt(server.team_a, encrypted)
        with pytest.raises(SkopeoError, match="may not wrap for the key ID 'kbs:///team-b/key/1'"):
            server.encrypt(server.team_a, server.key.parameters(keyid="kbs:///team-b/key/1"))
        with pytest.raises(SkopeoError, match="may not wrap with the key that it names"):
            server.encrypt(server.team_a, server.key.parameters(keypath=str(other)))
        with pytest.raises(SkopeoError, match="may not wrap with the key that it names"):
            server.encrypt(auditor)
        with pytest.raises(SkopeoError, match="'dns:stranger.example.org' is not a client of this"):
            server.encrypt(stranger)
        decrypted = server.decrypt(auditor, encrypted)
        assert [layer.blob for layer in decrypted.layers] == [
            layer.blob for layer in server.image.layers
        ]
    refused = [event for event in server.events() if event["event"] == "refused"]
    assert {event["code"] for event in refused} == {"PERMISSION_DENIED"}


def test_newest_client_with_a_certificate_wraps_and_does_not_unwrap_without_a_list(
    server: Server,
) -> None:
    with server.serving(listed=False):
        encrypted = server.encrypt(server.team_a)
        with pytest.raises(SkopeoError, match=f"'uri:{TEAM_A}' may not unwrap here"):
            server.decrypt(server.team_a, encrypted)
