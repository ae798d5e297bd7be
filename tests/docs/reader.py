"""Somebody who runs the commands of a document in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.debian import debian_bin

if TYPE_CHECKING:
    from collections.abc import Sequence


class Reader:
    """Runs commands in ``folder``, those of coco-kp among them."""

    def __init__(self, folder: Path, *, programs: Sequence[Path] = (), **env: str) -> None:
        """Name further folders of programs, and variables of the environment."""
        self._folder = folder
        path = [*programs, Path(sys.executable).parent]
        self._env = {
            "HOME": str(folder / "home"),
            "PATH": ":".join([*map(str, path), os.environ["PATH"]]),
            **env,
        }

    def run(self, script: str, program: str = "bash") -> str:
        """Run a script, of which each line must succeed, and return what it printed."""
        command = {
            "bash": ["bash", "-eux", "-o", "pipefail", "-c", script],
            "python": [sys.executable, "-c", script],
        }[program]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


class ContainerReader(Reader):
    """Has skopeo, buildah and podman, too, which keep all that is theirs in ``folder``."""

    def __init__(self, folder: Path, *, programs: Sequence[Path] = (), **env: str) -> None:
        home, root = folder / "home", debian_bin().parent / "root"
        files = {
            "storage.conf": f"""
                [storage]
                driver = "vfs"
                graphroot = "{home}/storage"
                runroot = "{home}/run"
                """,
            # what podman looks for as it starts, though no container is run
            "containers.conf": f"""
                [engine]
                helper_binaries_dir = ["{root}/usr/lib/podman"]
                conmon_path = ["{root}/usr/bin/conmon"]
                runtime = "crun"
                cgroup_manager = "cgroupfs"
                events_logger = "none"
                [engine.runtimes]
                crun = ["{root}/usr/bin/crun"]
                """,
            "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
        }
        for name, text in files.items():
            file = home / ".config/containers" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        super().__init__(
            folder,
            programs=[*programs, debian_bin()],
            XDG_RUNTIME_DIR=str(home),
            CONTAINERS_STORAGE_CONF=str(home / ".config/containers/storage.conf"),
            CONTAINERS_CONF=str(home / ".config/containers/containers.conf"),
            PODMAN_IGNORE_CGROUPSV1_WARNING="1",
            **env,
        )

    def store(self, layout: str, name: str) -> None:
        """Have buildah and podman know the image in an OCI layout by a name."""
        self.run(f"skopeo copy oci:{layout} containers-storage:{name}")
