"""skopeo, umoci and the registry of Debian 13, from the machine's own mirror, nothing installed.

Debian 12's skopeo (1.9.3) is built without key providers, so the tests take the next release's: a
private apt root with Debian 13 as its only source and no package installed resolves the whole
closure, and each program runs with the loader and libraries that came with it.
Needs no root, and leaves the machine's package lists and packages alone.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from .cache import PeerUnavailableError, cached, run

SUITE = "trixie"
PROGRAMS = ("skopeo", "docker-registry", "umoci")

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""The archive's public keys, as Debian's own package ``debian-archive-keyring`` installs them."""

# What the machine's owner decided about reaching the mirror goes along; what decides whether a
# package is genuine does not, so that apt's own strict defaults hold.
NETWORK_SETTINGS = ("http", "https", "Retries", "Check-Date", "Check-Valid-Until")

LAUNCHER = """\
#!/bin/sh
# Runs Debian 13's {program} with the loader and libraries it was built for.
root=$(dirname "$(dirname "$(readlink -f "$0")")")/root
exec "$root/{loader}" --library-path "$root/{libraries}" "$root/usr/bin/{program}" "$@"
"""


def debian_bin() -> Path:
    """Return the folder with one launcher for each of `PROGRAMS`; it can be put on ``PATH``."""
    return cached(f"debian-{SUITE}", _make) / "bin"


def _make(folder: Path) -> None:
    _require_debian()
    apt, root = folder / "apt", folder / "root"
    for package in _download(apt):
        run(["dpkg-deb", "--extract", package, root])
    shutil.rmtree(apt)
    _write_launchers(folder / "bin", root)


def _require_debian() -> None:
    try:
        system = platform.freedesktop_os_release()["ID"]
    except OSError:
        system = platform.system()
    if system != "debian":
        raise PeerUnavailableError(f"fetched by Debian's apt only, and this is {system}")
    if not KEYRING.exists():
        raise PeerUnavailableError(f"{KEYRING} is missing: apt-get install debian-archive-keyring")


def _download(apt: Path) -> list[Path]:
    """Fetch the packages of `PROGRAMS` and all they depend on; the signature is checked by apt."""
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
        f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n"
    )
    config = apt / "apt.conf"
    config.write_text(_network_settings() + _settings(apt))
    env = os.environ | {"APT_CONFIG": str(config), "LC_ALL": "C"}
    run(["apt-get", "update", "--error-on=any"], env)
    run(["apt-get", "install", "--yes", "--download-only", *PROGRAMS], env)
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


def _write_launchers(folder: Path, root: Path) -> None:
    loader = next(root.glob("usr/lib*/**/ld-linux*.so.*")).relative_to(root)
    libraries = next(root.glob("usr/lib/**/libc.so.6")).parent.relative_to(root)
    folder.mkdir()
    for program in PROGRAMS:
        launcher = folder / program
        launcher.write_text(LAUNCHER.format(program=program, loader=loader, libraries=libraries))
        launcher.chmod(0o755)
