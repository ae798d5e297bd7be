"""What Docker is to its users, on a machine that has no Docker: podman's service, in namespaces.

The service and its containers have mount and PID namespaces of their own: when the first process
there ends, every container and every mount ends with it. Clients are unprivileged users, as those
of Docker are. Containers have the machine's network and no cgroups, and so need little of the
machine: a container or a small virtual machine will do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.packaging.tree import building
from tests.peers.cache import PeerUnavailableError
from tests.support.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAMS: Final = ("podman", "buildah", "mmdebstrap", "openssl", "make", "unshare", "setpriv")
START_TIMEOUT: Final = 30
"""Seconds in which the service must listen."""
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"

# podman keeps state of its own in these folders, whatever its settings.
PRIVATE: Final = """
mkdir -p /var/lib/containers
for folder in /run /var/lib/containers; do mount -t tmpfs tmpfs $folder; done
"""

# crun refuses a machine with both versions of cgroups, even where no cgroup is asked for. The shell
# is the first process: it, and all with it, ends when its input does, even if the tests are killed.
SERVICE: Final = """
if mountpoint --quiet /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
mount --bind "$1/hosts" /etc/hosts
podman system service --time=0 "unix://$1/service.sock" &
read -r _
"""

CLIENT: Final = """
docker() { podman --remote --url "unix://$SERVICE" "$@"; }
"""


@dataclass(frozen=True)
class ContainerHost:
    """A machine with containers; ``folder`` has all of it, and every user may enter."""

    folder: Path
    env: Mapping[str, str]

    def build_images(self) -> None:
        """Run ``make image`` where no registry can be reached."""
        script = f"set -eu\n{PRIVATE}\nexec make image"
        with building():
            done = subprocess.run(
                ["unshare", "--mount", "bash", "-c", script],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
            )
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        assert "mmdebstrap makes the base" in done.stderr

    @contextmanager
    def service(self, names: Mapping[str, str], certificates: bytes) -> Iterator[None]:
        """Let users run containers, in which ``names`` have these addresses.

        Containers trust ``certificates`` (PEM) alone.
        """
        volume = f"{self.folder}/certificates.pem:{CERTIFICATES}:ro"
        with (self.folder / "containers.conf").open("a") as settings:
            settings.write(f"volumes = [{json.dumps(volume)}]\n")
        hosts = "".join(f"{address} {name}\n" for name, address in names.items())
        (self.folder / "hosts").write_text(hosts)
        (self.folder / "certificates.pem").write_bytes(certificates)
        private = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
        script = f"set -eu\n{PRIVATE}\n{SERVICE}"
        log = self.folder / "service.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [*private, "bash", "-c", script, "service", self.folder],
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            self._await_service(process, log)
            yield

    def _await_service(self, process: subprocess.Popen[bytes], log: Path) -> None:
        socket, deadline = self.folder / "service.sock", time.monotonic() + START_TIMEOUT
        while not socket.is_socket():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        socket.chmod(0o666)  # as the group docker has it

    def home(self, user: int) -> Path:
        """Return a new folder of this user."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        os.chown(home, user, user)
        return home

    def run(self, script: str, home: Path, **env: str) -> str:
        """Run a script of bash as the user who owns ``home``, there, and return what it prints.

        ``docker`` is a client of the service. The first command that fails ends the script, and the
        test.
        """
        user = home.stat().st_uid
        done = subprocess.run(
            [
                *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
                *("bash", "-eu", "-o", "pipefail", "-c", CLIENT + script),
            ],
            cwd=home,
            env={
                **self.env,
                "HOME": str(home),
                "SERVICE": str(self.folder / "service.sock"),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def container_host() -> Iterator[ContainerHost]:
    """A machine with containers, which leaves nothing behind."""
    _require_programs()
    folder = Path(tempfile.mkdtemp(prefix="coco-kp-containers-"))
    try:
        folder.chmod(0o755)
        yield ContainerHost(folder, _write_settings(folder))
    finally:
        shutil.rmtree(folder)


def _require_programs() -> None:
    if os.geteuid() != 0:
        raise PeerUnavailableError("containers are run by root only")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise PeerUnavailableError(f"not installed: {', '.join(missing)}")


def _write_settings(folder: Path) -> dict[str, str]:
    settings = {
        "storage": f"""
            [storage]
            driver = "overlay"
            graphroot = "{folder}/storage"
            runroot = "{folder}/run"
            """,
        # Limits that every machine allows to set: podman's own are raised ones.
        "containers": """
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "none"
            [containers]
            cgroups = "disabled"
            netns = "host"
            default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
            """,
        "registries": """
            [[registry]]
            location = "docker.io"
            blocked = true
            """,
    }
    for name, text in settings.items():
        (folder / f"{name}.conf").write_text(text)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}
    }
    return inherited | {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
