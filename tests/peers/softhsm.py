"""SoftHSM, a PKCS #11 token in software, for one test alone; and OpenSC's tool to manage it.

What it cannot show: it never locks a PIN, and RSA-OAEP works with SHA-1 only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from .debian import SOFTHSM

if TYPE_CHECKING:
    from pathlib import Path

# OpenSC's tool writes generic secrets from version 0.24 only, and Debian 12 has 0.23.
ADD_SECRET: Final = """
import sys
import pkcs11
module, token, pin, label, value = sys.argv[1:]
template = {
    pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
    pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.GENERIC_SECRET,
    pkcs11.Attribute.LABEL: label,
    pkcs11.Attribute.VALUE: bytes.fromhex(value),
    pkcs11.Attribute.TOKEN: True,
    pkcs11.Attribute.PRIVATE: True,
    pkcs11.Attribute.SENSITIVE: False,
    pkcs11.Attribute.EXTRACTABLE: True,
}
with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
    session.create_object(template)
"""

TOKEN: Final = "coco-kp"
PIN: Final = "123456"
SO_PIN: Final = "87654321"

MASTER: Final = "master"
"""The label of an AES-256 key that never leaves the token."""
KEK: Final = "kek"
"""The label of a generic secret that may be read."""
RSA: Final = "rsa"
"""The label of a pair of RSA-3072 keys."""


@dataclass(frozen=True)
class SoftHsm:
    """A token of the label `TOKEN` with `MASTER`, `KEK` and `RSA`.

    The module reads the variables of ``environment`` when a process first uses it.
    """

    folder: Path
    module: Path
    kek: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    """The value of `KEK`."""
    pin: str = field(default=PIN, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs that loads the module, beside what it has."""
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    def uri(self, label: str, **query: str) -> str:
        """Return the PKCS #11 URI (RFC 7512) of an object, with the module and no PIN."""
        attributes = {"module-path": str(self.module)} | query
        shown = "&".join(f"{name}={quote(text, '/:')}" for name, text in attributes.items())
        return f"pkcs11:token={quote(TOKEN)};object={quote(label, '')}?{shown}"

    def add_secret(self, label: str, value: bytes) -> None:
        """Store a generic secret that may be read, whether or not the label is taken."""
        # in a process of its own, or the module would be in use already when the test begins
        self._run(
            sys.executable, "-c", ADD_SECRET, self.module, TOKEN, self.pin, label, value.hex()
        )

    def add_master(self, label: str) -> None:
        """Make an AES-256 key that never leaves the token, whether or not the label is taken."""
        self.tool("--keygen", "--key-type", "AES:32", "--label", label, "--sensitive")

    def add_aes(self, label: str, value: bytes) -> None:
        """Bring in an AES-256 key that is known elsewhere; the token does not hand it out."""
        file = self.folder / "imported"
        file.write_bytes(value)
        key = ("--type", "secrkey", "--key-type", "AES:32", "--label", label)
        self.tool("--write-object", file, *key, "--usage-decrypt", "--sensitive")
        file.unlink()

    def secret(self, label: str) -> bytes:
        """Return a secret that may be read."""
        file = self.folder / "read"
        where = ("--type", "secrkey", "--label", label, "--output-file", file)
        self.tool("--read-object", *where)
        value = file.read_bytes()
        file.unlink()
        return value

    def add_rsa(self, label: str) -> None:
        """Make a pair of RSA-3072 keys."""
        self.tool("--keypairgen", "--key-type", "RSA:3072", "--label", label)

    def tool(self, *arguments: str | Path) -> str:
        """Run ``pkcs11-tool``, logged in as the user, and return what it printed."""
        login = ("--token-label", TOKEN, "--login", "--pin", self.pin)
        return self._run(_installed("pkcs11-tool"), "--module", self.module, *login, *arguments)

    def copy(self, folder: Path) -> SoftHsm:
        """Return a token in another folder, with the same objects."""
        shutil.copytree(self.folder, folder)
        copied = replace(self, folder=folder, module=folder / self.module.name)
        copied.configure()
        return copied

    def configure(self) -> None:
        """Have the module look for tokens in the folder."""
        tokens = self.folder / "tokens"
        tokens.mkdir(exist_ok=True)
        config = f"directories.tokendir = {tokens}\nlog.level = ERROR\n"
        (self.folder / "softhsm2.conf").write_text(config)

    def initialize(self) -> None:
        """Make the token, empty."""
        pins = ("--pin", self.pin, "--so-pin", SO_PIN)
        where = ("--module", self.module, "--init-token", "--free", "--label", TOKEN)
        self._run(_installed("softhsm2-util"), *where, *pins)

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _installed(program: str) -> Path:
    return SOFTHSM.have() / "bin" / program


def make_token(folder: Path) -> SoftHsm:
    """Make a token in a folder.

    Its module is a copy of its own: a process that uses two tokens one after the other, as a run of
    the tests does, has a module that has not read another's configuration yet.
    """
    folder.mkdir()
    (installed,) = SOFTHSM.modules
    module = folder / "libsofthsm2.so"
    shutil.copy(SOFTHSM.have() / "root" / installed, module)
    token = SoftHsm(folder, module)
    token.configure()
    token.initialize()
    token.add_master(MASTER)
    token.add_secret(KEK, token.kek)
    token.add_rsa(RSA)
    return token
