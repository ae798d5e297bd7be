"""Programs of Debian 13 (trixie) and of sid, from the machine's own mirror, nothing installed.

A private apt root with the suite as its only source and no package installed resolves the whole
closure. Each program is made to run with the loader and libraries that came with it, whatever the
machine's own are: by patchelf, not by a launcher, since buildah and podman run themselves again
through /proc/self/exe, which would be the loader then.
Needs no root, and leaves the machine's package lists and packages alone.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cache
from .cache import PeerUnavailableError, cached, is_cached, run


@dataclass(frozen=True)
class Suite:
    """A suite of Debian, and what the tests take from it."""

    codename: str
    programs: tuple[str, ...]
    megabytes: int
    """The download, about."""
    also: tuple[str, ...] = ()
    """Packages that the programs need and only recommend."""
    package_of: tuple[tuple[str, str], ...] = ()
    """Each program that is in a package of another name, with that."""
    folder: str = "usr/bin"
    """Where the programs are in the suite."""
    modules: tuple[str, ...] = ()
    """Shared objects that the tests' own process loads: paths in the suite."""
    suffix: str = ""
    """What tells it from another choice of the same suite."""

    @property
    def name(self) -> str:
        """The suite's folder in the cache."""
        return f"debian-{self.codename}{self.suffix}"

    @property
    def effort(self) -> str:
        """What is done to have it, and how long that may take."""
        return (
            f"unpacking {', '.join(self.programs)} of Debian {self.codename} with apt: "
            f"{self.megabytes} MB, half a minute to a few"
        )

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages to fetch, with what they depend on."""
        return (*self.wanted, *self.also, "patchelf")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The packages of the programs."""
        return tuple(dict(self.package_of).get(name, name) for name in self.programs)

    @property
    def recipe(self) -> str:
        """What the entry is made from; programs find their loader by its place in this tree."""
        parts = " ".join([*self.packages, *self.modules])
        return f"{parts} to run in {cache.CACHE / self.name}\n"

    @property
    def cached(self) -> bool:
        """Whether it was had already."""
        return is_cached(self.name, self.recipe)

    @property
    def title(self) -> str:
        """The programs that were had, with versions: sid's are of the day."""
        return " ".join((self.have() / "versions").read_text().split())

    def have(self) -> Path:
        """Return the suite's entry of the cache. Raises `PeerUnavailableError`."""
        return cached(self.name, self.recipe, lambda folder: _make(self, folder))


TRIXIE = Suite(
    "trixie", ("skopeo", "buildah", "podman", "umoci", "docker-registry"), 110, ("netavark",)
)

SID = Suite("sid", ("skopeo",), 50)


def _own_codename() -> str:
    """Return the suite that this machine runs, or one that no other system has."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "trixie")
    except OSError:
        return "trixie"


PROMETHEUS = Suite(
    "trixie",
    ("prometheus", "promtool"),
    60,
    package_of=(("promtool", "prometheus"),),
    suffix="-prometheus",
)

CONTAINERD, CONTAINERD_2 = (
    Suite(
        codename,
        ("containerd", "ctd-decoder"),
        90,
        package_of=(("ctd-decoder", "imgcrypt"),),
        suffix="-containerd",
    )
    for codename in ("trixie", "sid")
)

# A library that the tests' own Python loads must go with that Python's C library and OpenSSL: it is
# of the machine's own suite.
SOFTHSM = Suite(
    _own_codename(),
    ("softhsm2-util", "pkcs11-tool"),
    10,
    package_of=(("softhsm2-util", "softhsm2"), ("pkcs11-tool", "opensc")),
    modules=("usr/lib/softhsm/libsofthsm2.so",),
    suffix="-softhsm",
)

# The shell has no windows, and so none of a desktop's libraries; a page is drawn by the same code.
CHROMIUM = Suite(
    "trixie",
    ("chromium-headless-shell",),
    170,
    also=("fonts-dejavu-core",),
    folder="usr/lib/chromium",
    suffix="-chromium",
)

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""The archive's public keys, as Debian's own package ``debian-archive-keyring`` installs them."""

# What the machine's owner decided about reaching the mirror goes along; what decides whether a
# package is genuine does not, so that apt's own strict defaults hold.
NETWORK_SETTINGS = ("http", "https", "Retries", "Check-Date", "Check-Valid-Until")


def debian_bin(suite: Suite = TRIXIE) -> Path:
    """Return the folder with the suite's programs alone; it can be put on ``PATH``."""
    return suite.have() / "bin"


def _make(suite: Suite, folder: Path) -> None:
    _require_debian()
    apt, root = folder / "apt", folder / "root"
    versions = []
    for package in _download(suite.codename, suite.packages, apt):
        run(["dpkg-deb", "--extract", package, root])
        shown = ["dpkg-deb", "--show", "--showformat", "${Package} ${source:Upstream-Version}\n"]
        versions.append(run([*shown, package]))
    shutil.rmtree(apt)
    if (root / "lib").exists():  # packages of Debian 12 have some libraries there
        shutil.copytree(root / "lib", root / "usr/lib", symlinks=True, dirs_exist_ok=True)
    (folder / "versions").write_text(
        "".join(line for line in versions if line.split()[0] in suite.wanted)
    )
    _make_runnable(suite, folder)


def _require_debian() -> None:
    try:
        system = platform.freedesktop_os_release()["ID"]
    except OSError:
        system = platform.system()
    if system != "debian":
        raise PeerUnavailableError(f"fetched by Debian's apt only, and this is {system}")
    if not KEYRING.exists():
        raise PeerUnavailableError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")


def _download(
    codename: str, packages: Sequence[str], apt: Path, architecture: str | None = None
) -> list[Path]:
    """Fetch a suite's packages and all they depend on; the signature is checked by apt.

    ``architecture`` is Debian's name of another than the machine's own, such as ``arm64``.
    """
    archives = apt / "var/cache/apt/archives"
    folders = (
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "var/lib/dpkg",
        "var/lib/apt/lists/partial",
    )
    for name in folders:
        (apt / name).mkdir(parents=True)
    (archives / "partial").mkdir(parents=True)
    (apt / "var/lib/dpkg/status").touch()
    (apt / "etc/apt/sources.list").write_text(
        f"deb [signed-by={KEYRING}] {_mirror()} {codename} main\n"
    )
    config = apt / "apt.conf"
    settings = _network_settings() + _settings(apt)
    if architecture is not None:
        settings += f'APT::Architecture "{architecture}";\n'
        settings += f'APT::Architectures {{ "{architecture}"; }};\n'
    config.write_text(settings)
    env = os.environ | {"APT_CONFIG": str(config), "LC_ALL": "C"}
    run(["apt-get", "update", "--error-on=any"], env)
    run(["apt-get", "install", "--yes", "--download-only", *packages], env)
    return sorted(archives.glob("*.deb"))


def _settings(apt: Path) -> str:
    # Read from APT_CONFIG, before any other file, so that `Dir` keeps apt from the machine's own
    # sources and from its hooks, which clean up and refresh caches of the system.
    return f"""\
Dir "{apt}";
Dir::State::status "{apt}/var/lib/dpkg/status";
APT::Install-Recommends "false";
APT::Sandbox::User "root"; // the unprivileged user _apt may not be able to enter this folder
Acquire::Languages "none";
"""


def _network_settings() -> str:
    lines = run(["apt-config", "dump", "--format", '%F "%v";%n']).splitlines()
    wanted = tuple(f"Acquire::{name}" for name in NETWORK_SETTINGS)
    return "".join(f"{line}\n" for line in lines if line.partition(" ")[0].startswith(wanted))


def _mirror() -> str:
    """Return the address from which this machine takes its own release of Debian."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    # without release information, so that it also answers where no `apt-get update` was run yet
    targets = ["apt-get", "indextargets", "--no-release-info"]
    listed = run([*targets, "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
    for address, release, component in (line.split() for line in listed.splitlines()):
        if component == "main" and release in {codename, "stable"}:
            return address
    raise PeerUnavailableError(f"apt's sources name no mirror of Debian {codename} main")


def _make_runnable(suite: Suite, folder: Path) -> None:
    """Have each program load what came with it, once the folder is in its place in the cache."""
    root, place = folder / "root", cache.CACHE / suite.name
    loader = next(root.glob("usr/lib*/**/ld-linux*.so.*")).relative_to(folder)
    libraries = next(root.glob("usr/lib/**/libc.so.6")).parent.relative_to(folder)
    unpatched: list[str | Path] = [folder / loader, "--library-path", folder / libraries]
    patchelf = [*unpatched, root / "usr/bin/patchelf"]
    (folder / "bin").mkdir()
    for name in suite.programs:
        program = root / suite.folder / name
        # RPATH, since RUNPATH holds for a program's own libraries and not for theirs; and two
        # calls, since Go's programs crash after one that sets both. No $ORIGIN: rootless buildah
        # runs from a copy of itself in memory.
        run([*patchelf, "--force-rpath", "--set-rpath", str(place / libraries), program])
        run([*patchelf, "--set-interpreter", str(place / loader), program])
        (folder / "bin" / name).symlink_to(Path("../root") / suite.folder / name)
    for module in suite.modules:
        run([*patchelf, "--force-rpath", "--set-rpath", str(place / libraries), root / module])
