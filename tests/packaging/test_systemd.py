"""contrib/systemd: the unit, held to systemd's own rating, and started in its sandbox."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coco_kp.cli.serve import command
from tests.packaging.sandbox import sandboxed
from tests.packaging.systemd import exposure_level, findings, read_service
from tests.peers.cache import PeerUnavailableError
from tests.peers.daemon import daemon
from tests.support import ocicrypt
from tests.support.markdown import ROOT
from tests.support.patience import PATIENCE, wait_until
from tests.support.provider import COCO_KP, LOG, served_address

UNIT = ROOT / "contrib" / "systemd" / "coco-kp.service"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short, as that of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="kp-") as made:
        yield Path(made)


def in_sandbox(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    for program in ("unshare", "setpriv", "findmnt"):
        if shutil.which(program) is None:
            raise PeerUnavailableError(f"{program} is missing: apt-get install util-linux mount")
    done = subprocess.run(
        sandboxed(UNIT, folder, list(line)), capture_output=True, text=True, cwd=ROOT, check=False
    )
    if "unshare failed" in done.stderr:
        raise PeerUnavailableError(f"no namespaces for users here: {done.stderr.strip()}")
    return done


def started() -> list[str]:
    (line,) = read_service(UNIT)["ExecStart"]
    return shlex.split(line)


def test_unit_starts_the_server_with_options_that_it_has() -> None:
    program, name, *arguments = started()
    assert (Path(program).name, name) == ("coco-kp", "serve")
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("-")} <= known


def test_unit_is_well_formed_and_exposes_little(tmp_path: Path) -> None:
    assert findings(UNIT, tmp_path) == []
    assert exposure_level(UNIT, tmp_path) <= 1.5


def test_unit_keeps_what_it_writes_in_folders_of_its_own() -> None:
    service = read_service(UNIT)
    own = {
        f"/run/{service['RuntimeDirectory'][0]}/",
        f"/var/log/{service['LogsDirectory'][0]}/",
    }
    written = [word.removeprefix("unix://") for word in started() if "/coco-kp/" in word]
    assert {f"{Path(path).parent}/" for path in written} == own
    assert service["Environment"] == [f"XDG_STATE_HOME=/var/lib/{service['StateDirectory'][0]}"]


def test_sandbox_holds(folder: Path) -> None:
    """Or what follows would say nothing."""
    assert in_sandbox(folder, "/bin/sh", "-c", f"touch {folder}/here").returncode == 0
    refused = in_sandbox(folder, "/bin/sh", "-c", f"touch {ROOT}/here")
    assert (refused.returncode, "Read-only" in refused.stderr) == (1, True)
    for script in (
        "import mmap; mmap.mmap(-1, 4096, prot=7)",  # to be written and executed
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 1)",  # of @resources
        "import os; os.chroot('/')",  # of @privileged
    ):
        refused = in_sandbox(folder, sys.executable, "-c", script)
        assert "Operation not permitted" in refused.stderr
    status = in_sandbox(folder, "/bin/cat", "/proc/self/status").stdout
    assert "\nCapBnd:\t0000000000000000\n" in status
    assert "\nNoNewPrivs:\t1\n" in status


def test_server_runs_in_the_units_sandbox(folder: Path) -> None:
    in_sandbox(folder, "/bin/true")  # or says why it cannot be had
    for name in ("run", "log", "keys"):
        (folder / name).mkdir(mode=0o700)
    (folder / "keys" / "app").write_bytes(os.urandom(32))
    (folder / "keys" / "app").chmod(0o400)
    places = {
        "/usr/local/bin/coco-kp": str(COCO_KP),
        "/run/coco-kp": f"{folder}/run",
        "${CREDENTIALS_DIRECTORY}": f"{folder}/keys",
        "/var/log/coco-kp": f"{folder}/log",
        "127.0.0.1:9464": "127.0.0.1:0",
    }
    line = started()
    for place, ours in places.items():
        assert place in " ".join(line)
        line = [word.replace(place, ours) for word in line]
    notified = str(folder / "run" / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(notified)
        systemd.settimeout(PATIENCE)
        env = os.environ | {"NOTIFY_SOCKET": notified, "WATCHDOG_USEC": "30000000"}
        # run by `python -m` in this tree
        confined = sandboxed(UNIT, folder, line)
        with daemon(confined, folder / LOG, env, cwd=ROOT) as running:
            assert systemd.recv(4096) == b"READY=1"
            with ocicrypt.connection(served_address(running)) as channel:
                options = ocicrypt.new_private_options()
                packet = ocicrypt.wrap(channel, "keypath=app::keyid=/default/app/1", options)
                assert b"kbs:///default/app/1" in packet
            (folder / "log" / "audit.jsonl").rename(folder / "log" / "audit.1")
            running.process.send_signal(signal.SIGHUP)
            wait_until((folder / "log" / "audit.jsonl").exists)
            running.process.terminate()
            assert running.process.wait(PATIENCE) == 0
        log = running.output()
    assert "Traceback" not in log
    assert '"level": "error"' not in log
    assert (folder / "log" / "audit.1").read_text().count('"OK"') == 1
