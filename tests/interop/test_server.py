"""``coco-kp serve`` stands what clients and operators do to it."""

from __future__ import annotations

import grp
import json
import os
import select
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.peers.skopeo import PROVIDER
from tests.support import ocicrypt
from tests.support.patience import PATIENCE
from tests.support.provider import COCO_KP, READY, our_config, served_address, serving

if TYPE_CHECKING:
    from tests.peers.daemon import Daemon
    from tests.peers.skopeo import Skopeo
    from tests.support.image import Image
    from tests.support.key import Key

pytestmark = pytest.mark.peer


def test_server_answers_64_concurrent_calls(tmp_path: Path, key: Key) -> None:
    secrets = [ocicrypt.new_private_options() for _ in range(64)]
    all_ready = threading.Barrier(len(secrets))

    def there_and_back(secret: bytes) -> tuple[bytes, bytes]:
        with ocicrypt.connection(address) as channel:
            all_ready.wait()
            packet = ocicrypt.wrap(channel, key.parameters(), secret)
            return packet, ocicrypt.unwrap(channel, "offline_fs_kbc::null", packet)

    with serving(tmp_path, "--keys", str(key.keys_file)) as server:
        address = served_address(server)
        with ThreadPoolExecutor(len(secrets)) as clients:
            answers = list(clients.map(there_and_back, secrets))
    assert [opened for _, opened in answers] == secrets
    assert len({json.loads(packet)["iv"] for packet, _ in answers}) == len(secrets)


@pytest.mark.parametrize(
    ("socket", "flags", "warned"),
    [
        ("127.0.0.1:0", (), "is open to every user of this machine"),
        ("0.0.0.0:0", ("--insecure-listen",), "is open to other machines"),
        ("127.0.0.1:0", ("--key-dir", "."), ""),
        ("unix", (), ""),
        ("unix", ("--socket-mode", "640"), ""),
        ("unix", ("--socket-mode", "660"), "is open to its group"),
        ("unix", ("--socket-mode", "666"), "is open to every user of this machine"),
        ("unix", ("--socket-mode", "666", "--key-dir", "."), ""),
    ],
)
def test_server_warns_where_others_may_name_any_file(
    tmp_path: Path, socket: str, flags: tuple[str, ...], warned: str
) -> None:
    address = f"unix://{tmp_path}/kp.sock" if socket == "unix" else socket
    with serving(tmp_path, *flags, socket=address) as server:
        assert ("can name any file" in server.output()) is bool(warned)
        assert warned in server.output()


@pytest.mark.parametrize(("mode", "told"), [("600", "is a directory"), ("660", "cannot be used")])
def test_server_tells_nobody_but_its_owner_why_a_file_is_no_key(
    tmp_path: Path, mode: str, told: str
) -> None:
    """A socket for a group had the reasons of each file, as loopback once."""
    address = f"unix://{tmp_path}/kp.sock"
    parameters = f"keypath={tmp_path}::keyid=/default/key/1"
    with (
        serving(tmp_path, "--socket-mode", mode, socket=address),
        ocicrypt.connection(address) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        ocicrypt.wrap(channel, parameters, ocicrypt.new_private_options())
    assert told in (error.value.details() or "")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_server_finishes_running_call_after_signal(tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path) as server, ocicrypt.connection(served_address(server)) as channel:
        go_on = threading.Event()
        call = ocicrypt.begin_wrap(channel, "sample=true", ocicrypt.new_private_options(), go_on)
        # the server takes calls of one connection in their order: once it has answered the
        # second, it has begun the first
        ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
        server.process.send_signal(how)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        go_on.set()
        assert json.loads(ocicrypt.wrapped_packet(call.result()))["wrap_type"] == "A256GCM"
        assert server.process.wait(10) == 0


def test_server_with_daemon_flag_answers_from_background(tmp_path: Path) -> None:
    """Upstream forks under a running thread pool (docs/protocols.md 6.3, 19); ours answers."""
    pid_file = tmp_path / "coco-kp" / "coco-kp.pid"
    started = subprocess.run(
        [COCO_KP, "serve", "--daemon", "--socket", "127.0.0.1:0"],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    pid = int(pid_file.read_text())
    try:
        ready = READY.search(started.stderr)
        assert ready, started.stderr
        with ocicrypt.connection(ready.group(1)) as channel:
            assert ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
    finally:
        process = os.pidfd_open(pid)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        ended, _, _ = select.select([process], [], [], PATIENCE)
        os.close(process)
    assert ended
    assert not pid_file.exists()


def test_server_gives_its_socket_the_mode_and_group_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "kp.sock"
    group = os.getegid()
    flags = ("--socket-mode", "0660", "--socket-group", grp.getgrgid(group).gr_name)
    with serving(tmp_path, *flags, socket=f"unix://{path}") as server:
        status = path.stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o660, group)
        with ocicrypt.connection(served_address(server)) as channel:
            assert ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())


def test_server_answers_while_other_calls_are_incomplete(tmp_path: Path) -> None:
    """As of clients that were stopped, or whose network went away."""
    with serving(tmp_path) as server, ocicrypt.connection(served_address(server)) as channel:
        go_on = threading.Event()
        halves = [
            ocicrypt.begin_wrap(channel, "sample=true", ocicrypt.new_private_options(), go_on)
            for _ in range(64)
        ]
        try:
            # answered after all halves were begun: calls of one connection are taken in order
            ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
        finally:
            go_on.set()
        assert all(call.result() for call in halves)


def test_server_closes_connection_of_killed_skopeo(
    skopeo: Skopeo, image: Image, tmp_path: Path
) -> None:
    """The server is stopped in its tracks, so that skopeo dies with its call begun."""
    with serving(tmp_path) as server:
        address = served_address(server)
        config = our_config(tmp_path / "ocicrypt.json", "--grpc", address)
        command = skopeo.copy_command(
            image.reference,
            f"oci:{tmp_path}/never",
            "--encryption-key",
            f"{PROVIDER}:sample=true",
        )
        before = open_files(server)
        server.process.send_signal(signal.SIGSTOP)
        try:
            with subprocess.Popen(
                command, env=skopeo.environment(config), stderr=subprocess.DEVNULL
            ) as client:
                server.wait_until(lambda: connected_to(address), "be called")
                client.kill()
        finally:
            server.process.send_signal(signal.SIGCONT)
        with ocicrypt.connection(address) as channel:
            ocicrypt.wrap(channel, "sample=true", ocicrypt.new_private_options())
        server.wait_until(lambda: open_files(server) == before, "close what it opened")


def open_files(server: Daemon) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def connected_to(address: str) -> bool:
    """Whether somebody is connected to ``host:port``; the columns are those of proc(5)."""
    established = "01"
    port = int(address.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    remotes = {tuple(line.split()[2:4]) for line in lines}
    return any(at.endswith(f":{port:04X}") and state == established for at, state in remotes)
