"""Programs that are built by the machine's own Go, from the Go module proxy."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .cache import PeerUnavailableError, cached, is_cached, run

CIMAGE: Final = Path(__file__).with_name("cimage")
"""The module of the client that is made of the newest go.podman.io/image."""

LOCALKMS: Final = Path(__file__).with_name("localkms")
"""The module of local-kms, behind a loopback address."""


KUBERNETES: Final = Path(__file__).with_name("kubernetes")
"""The module that reads objects as Kubernetes and cert-manager do."""


@dataclass(frozen=True)
class GoProgram:
    """A program that Go builds, from a module of the proxy or from a folder of this tree."""

    name: str
    version: str
    package: str
    """What to install: ``path@version``, or ``.`` for the program in ``module``."""
    minutes: str
    """How long that may take."""
    module: Path | None = None
    tags: str = ""

    @property
    def recipe(self) -> str:
        """What the program is made from."""
        sources = sorted(self.module.glob("*")) if self.module else []
        texts = (file.read_text() for file in sources if file.is_file())
        return "\n".join([self.package, self.tags, *texts])

    @property
    def cached(self) -> bool:
        """Whether it was built already."""
        return is_cached(self.name, self.recipe)

    @property
    def effort(self) -> str:
        """What is done to have it, and how long that may take."""
        return f"building {self.title} with Go: {self.minutes} minutes"

    @property
    def title(self) -> str:
        """What it is, and its version."""
        return f"{self.name} {self.version}"

    def have(self) -> Path:
        """Return the program, built where it is not yet. Raises `PeerUnavailableError`."""
        folder = cached(self.name, self.recipe, self._build)
        return folder / (self.module.name if self.module else _last_name(self.package))

    def _build(self, folder: Path) -> None:
        go = shutil.which("go")
        if go is None:
            raise PeerUnavailableError(f"{self.name} is built with Go, and there is none on PATH")
        build = folder / "build"
        places = {"GOPATH": build / "path", "GOCACHE": build / "cache", "GOBIN": folder}
        # Own folders: a gigabyte of sources goes with them, and the user's own stay as they are.
        # No cgo: no C library of the machine has a say in what is built.
        env = os.environ | {name: str(place) for name, place in places.items()}
        env |= {"CGO_ENABLED": "0", "GOWORK": "off"}
        env.pop("GOMODCACHE", None)
        flags = [
            "-modcacherw",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags=-s -w",
            "-tags",
            self.tags,
        ]
        run([go, "install", *flags, self.package], env, self.module)
        shutil.rmtree(build)


def _last_name(package: str) -> str:
    path = re.sub(r"/v[0-9]+$", "", package.partition("@")[0])
    return path.rpartition("/")[2]


def _required(folder: Path, module: str) -> str:
    """Return the version of a module that the module in a folder requires."""
    text = (folder / "go.mod").read_text()
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} v(\S+)$", text, re.MULTILINE)
    assert found
    return found[1]


CIMAGE_CLIENT: Final = GoProgram(
    "cimage",
    _required(CIMAGE, "go.podman.io/image/v5"),
    ".",
    "one to seven",
    CIMAGE,
    # or its signatures would need the C library of GnuPG
    "containers_image_openpgp",
)

CRANE: Final = GoProgram(
    "crane", "0.22.1", "github.com/google/go-containerregistry/cmd/crane@v0.22.1", "one to five"
)

LOCAL_KMS: Final = GoProgram(
    "local-kms",
    _required(LOCALKMS, "github.com/nsmithuk/local-kms"),
    ".",
    "one to three",
    LOCALKMS,
)

DISTRIBUTION: Final = GoProgram(
    "distribution",
    "3.1.2",
    "github.com/distribution/distribution/v3/cmd/registry@v3.1.2",
    "three to thirty",
)

ACTIONLINT: Final = GoProgram(
    "actionlint", "1.7.12", "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12", "one to three"
)

KUSTOMIZE: Final = GoProgram(
    "kustomize", "5.8.1", "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1", "one to five"
)
"""What ``kubectl apply -k`` is made of."""

KUBECTL_VALIDATE: Final = GoProgram(
    "kubectl-validate", "0.0.4", "sigs.k8s.io/kubectl-validate@v0.0.4", "three to twenty"
)
"""The API server's own validation, with the schemas of Kubernetes' releases in it."""

KUBERNETES_OBJECTS: Final = GoProgram(
    "kubernetes", _required(KUBERNETES, "k8s.io/api"), ".", "one to three", KUBERNETES
)
