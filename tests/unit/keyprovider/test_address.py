from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from coco_kp.errors import InputError, RemoteError
from coco_kp.keyprovider.address import TcpAddress, UnixAddress, parse_address, parse_target
from tests.support.refusing import refuse


@pytest.mark.parametrize(
    ("text", "beyond"),
    [
        ("127.0.0.1:50000", False),
        ("127.9.9.9:0", False),
        ("0.0.0.0:50000", True),
        ("10.0.0.1:65535", True),
        ("[::1]:50000", False),
        ("[::]:1", True),
        ("[fe80::1]:1", True),
    ],
)
def test_parse_address_reads_tcp_addresses(text: str, beyond: bool) -> None:
    address = parse_address(text)
    assert isinstance(address, TcpAddress)
    assert str(address) == text
    assert address.beyond_loopback is beyond


def test_parse_address_writes_ipv6_in_one_spelling() -> None:
    assert str(parse_address("[0:0:0:0:0:0:0:1]:7")) == "[::1]:7"


@pytest.mark.parametrize("path", ["/run/kp.sock", "/a-b_c.d/ä,b;c@d=e~f", "/" + "x" * 106])
def test_parse_address_reads_unix_sockets(path: str) -> None:
    address = parse_address(f"unix://{path}")
    assert address == UnixAddress(Path(path))
    assert str(address) == f"unix://{path}"
    assert not address.beyond_loopback


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not an address to listen on"),
        ("50000", "is not an address to listen on"),
        (":50000", "is not an address to listen on"),
        ("localhost:50000", "is not an address to listen on"),
        ("127.0.0.1", "is not an address to listen on"),
        ("127.0.0.1:", "is not an address to listen on"),
        ("127.0.0.1:65536", "is not an address to listen on"),
        ("127.0.0.1:-1", "is not an address to listen on"),
        ("127.0.0.1:٣", "is not an address to listen on"),
        ("127.0.0.256:1", "is not an address to listen on"),
        ("::1:50000", "is not an address to listen on"),
        ("[::1]", "is not an address to listen on"),
        ("[::g]:1", "is not an address to listen on"),
        ("tcp://127.0.0.1:1", "is not an address to listen on"),
        ("unix:relative", "is not unix:///<absolute path>"),
        ("unix:/run/kp.sock", "is not unix:///<absolute path>"),
        ("unix://run/kp.sock", "is not unix:///<absolute path>"),
        ("unix://" + "/" + "x" * 107, "is too long"),
        ("unix://" + "/" + "x" * 98 + "/kp.sock", "is too long"),
        ("unix://" + "/" + "ä" * 54, "is too long"),
        ("unix:///tmp/a%41", "has a character that gRPC reads as another"),
        ("unix:///tmp/a?b", "has a character that gRPC reads as another"),
        ("unix:///tmp/a#b", "has a character that gRPC reads as another"),
        ("unix:///tmp/a b", "has a character that gRPC reads as another"),
        ("unix:///tmp/a\nb", "has a character that gRPC reads as another"),
        ("unix:///tmp/\udcff", "has a character that gRPC reads as another"),
    ],
)
def test_parse_address_refuses_malformed_text(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_address(text)
    assert message in error.value.message


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", 2), ("::1", 10)])
def test_tcp_address_check_reports_port_in_use(host: str, family: int) -> None:
    with socket.create_server((host, 0), family=family) as server:
        address = TcpAddress(ip_address(host), server.getsockname()[1])
        with pytest.raises(RemoteError, match="address already in use") as error:
            address.check()
        assert "another address" in error.value.hint
    address.check()


def test_tcp_address_check_reports_address_of_another_machine() -> None:
    with pytest.raises(RemoteError, match="cannot assign requested address"):
        TcpAddress(ip_address("192.0.2.1"), 50000).check()


def test_unix_address_check_leaves_socket_of_running_server(tmp_path: Path) -> None:
    path = tmp_path / "kp.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(RemoteError, match="another server answers there"):
            UnixAddress(path).check()
        assert path.is_socket()


def test_unix_address_check_passes_stale_socket(tmp_path: Path) -> None:
    path = tmp_path / "kp.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    UnixAddress(path).check()
    path.unlink()
    UnixAddress(path).check()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_unix_address_check_leaves_file_that_is_not_a_socket(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kp.sock"
    match kind:
        case "file":
            path.touch()
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("absent")
    with pytest.raises(InputError, match="exists and is not a socket"):
        UnixAddress(path).check()
    assert path.lstat()


def test_unix_address_check_does_not_take_what_it_cannot_look_at_for_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kp.sock"
    path.touch()
    for call in ("stat", "lstat"):
        refuse(monkeypatch, call, lambda name: name == str(path))
    with pytest.raises(RemoteError, match=f"cannot listen on unix://{path}: input/output error"):
        UnixAddress(path).check()


def test_unix_address_check_reports_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no directory '{tmp_path}/absent'"):
        UnixAddress(tmp_path / "absent" / "kp.sock").check()
    for path in (tmp_path / ("x" * 300) / "kp.sock", tmp_path / ("x" * 300)):
        with pytest.raises(RemoteError, match="file name too long"):
            UnixAddress(path).check()


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:50000", "127.0.0.1:50000"),
        ("localhost:50000", "localhost:50000"),
        ("[::1]:50000", "[::1]:50000"),
        ("[0:0:0:0:0:0:0:1]:7", "[::1]:7"),
        ("tcp://127.0.0.1:50000", "127.0.0.1:50000"),
        ("dns:///kp.example.org:443", "kp.example.org:443"),
        ("passthrough:///[::1]:1", "[::1]:1"),
        ("unix:///run/kp.sock", "unix:///run/kp.sock"),
        ("unix:/run/kp.sock", "unix:/run/kp.sock"),
        ("unix:kp.sock", "unix:kp.sock"),
    ],
)
def test_parse_target_reads_what_clients_are_configured_with(text: str, target: str) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "::1:50000", "[::1]", ":50000", "127.0.0.1:0", "127.0.0.1:65536"),
        *(
            "http://127.0.0.1:1",
            "tcp://",
            "tcp://dns:///a:1",
            "tcp://tcp://a:1",
            "dns://8.8.8.8/a:1",
        ),
        *("unix:", "unix://", "unix:///", "unix://kp.sock", "unix:///a\nb", "ipv4:127.0.0.1:1"),
    ],
)
def test_parse_target_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(InputError):
        parse_target(text)
