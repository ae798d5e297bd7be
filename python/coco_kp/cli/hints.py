"""What to do about an error, in the words of the command at hand.

The library states a fact and a code (docs/errors.md) and knows of no option; here codes become
advice that names options and commands. Of the texts for a code the first counts of which the
command at hand has all options, and the error all fields; without one the error's own hint stands.
So no hint names an option that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from coco_kp.errors import CocoKpError

if TYPE_CHECKING:
    import click

ADVICE: Final[Mapping[str, tuple[str, ...]]] = {
    "admin-token-invalid": (
        "{hint}; to make tokens from a private key instead, pass --auth-private-key",
    ),
    "admin-token-missing": ("{hint}, or pass --admin-token-file or --auth-private-key",),
    "agent-not-local": ("the agent's API listens within the guest alone: --aa {url}",),
    "attestation-holds-layer": ("leave --keep-attestations out",),
    "attestation-readable": ("--allow-attestations accepts it; encrypt leaves it out by default",),
    "base-unrelated": ("--skip-base names the image that this one was built from",),
    "changed-meanwhile": ("run again, unless coco-kp inspect shows your change in it",),
    "content-too-large": ("{hint} with --max-unpacked",),
    "encrypted-already": (
        "coco-kp rewrap gives an encrypted image another key; --keep-encrypted leaves it as it is",
    ),
    "file-exists": ("choose another name, or pass --force to overwrite it",),
    "fleet-key-without-secret": (
        "pass --key-secret NAME:DIR: the Secret's members become files of DIR",
    ),
    "fleet-too-many-pods": ("an index would have nothing to do: pass a smaller --completions",),
    "foreign-layer": ("--allow-foreign leaves it readable, and encrypts the rest",),
    "guest-lacks-provider": (
        "{hint}; coco-kp rewrap --add gives the image a key that every guest can fetch",
    ),
    "guest-reads-other-provider": (
        "coco-kp rewrap --remove takes away those of another provider, by scheme",
    ),
    "guest-takes-other-packet": (
        "encrypt the original again, or coco-kp rewrap it to another key ID",
    ),
    "injected-secret-undeleted": ("{hint}; --keep-secret leaves it on purpose",),
    "injected-secret-unreadable": ("{hint}; --keys FILE names a copy",),
    "kbc-unnamed": ("{hint} with --kbc",),
    "kbs-cannot-store": (
        "{hint}, with --kek-into",
        "{hint}, with --into",
        "{hint}, with coco-kp keys register --into",
    ),
    "kbs-certificate-untrusted": ("{hint} with --kbs-ca",),
    "kbs-resource-no-key": ("register the raw 32 bytes: coco-kp keys register",),
    "kbs-without-tls": ("use https, or pass --kbs-insecure-http if the way is safe",),
    "kek-source-not-allowed": ("{hint}: --allow-kek PATTERN",),
    "key-exists": ("{hint} with --kek-from",),
    "key-file-exists": ("{hint} with --keypath",),
    "key-has-name": ("{hint} with --allow-alias",),
    "key-held-by-kms": ("name the key that does: --wrap-with awskms:///KEY",),
    "key-id-not-canonical": (
        "coco-kp rewrap mends it: --keypath FILE --to-keyid kbs:///… --to-keypath FILE",
    ),
    "key-id-registered": ("{hint}, or replace it with: coco-kp keys register --force",),
    "key-id-taken": ("guests find one key under a key ID: name another, or --remove the old one",),
    "key-is-keys-file": ("{hint}: coco-kp keys export FILE KID key",),
    "key-not-extractable": ("{hint}, with --wrap-with instead of --kek-from",),
    "key-not-in-file": ("coco-kp keys list FILE shows which keys a file has",),
    "key-path-forbidden": ("put the key into the directory that --key-dir names",),
    "key-unkept": (
        "keep it in a file, too, with --generate-key FILE, or leave --keyid out for a new key ID",
        "{hint}: --key-dir DIR",
    ),
    "keys-file-has-key": ("{hint}, or pass --force",),
    "keys-file-missing": ("name one with --keys FILE",),
    "layer-not-encryptable": (
        "name the layers to encrypt with --layer, or the images with --platform",
    ),
    "login-needed": ("{hint}, or pass --{side}creds or --{side}authfile",),
    "name-unsure": ("coco-kp inspect shows which image it is; run again where it is not yours",),
    "old-image-there": ("the old image is there, too: coco-kp prune removes it",),
    "packet-malleable": ("coco-kp rewrap wraps the layer's key with A256GCM",),
    "packet-missing": ("coco-kp inspect shows for whom each layer is encrypted",),
    "provider-cannot-unwrap": (
        "give the parameters for that with --provider-unwrap, or trust it with --trust-provider",
    ),
    "provider-name-missing": ("{hint}: start it with --name NAME",),
    "provider-silent": ("start it: coco-kp serve",),
    "providers-unknown": (
        "coco-kp config --grpc 127.0.0.1:50000 -o ocicrypt.json, then export {variable}",
    ),
    "registered-key-needed": (
        "{hint}; or leave out --register, and then run coco-kp keys register --force",
    ),
    "registry-certificate-untrusted": ("{hint} or a directory that --{side}cert-dir names",),
    "registry-names-http": ("{hint}, or here with --{side}tls-verify=false",),
    "registry-without-tls": (
        "if the registry speaks plain http, allow that with --{side}tls-verify=false",
    ),
    "reused-image-open": ("encrypt without --reuse",),
    "soci-index": ("--drop-attestations leaves it out",),
    "verdictd-unproven": ("{hint}; --eaa-allow-unverified accepts that",),
    "zstd-layer": ("--zstd gzip compresses it anew, --zstd keep takes it as it is",),
}
"""By code. ``{hint}`` is the error's own, other words in braces are its fields; what follows
``coco-kp COMMAND``, up to a comma or semicolon, are that command's options."""

_OPTION: Final = r"(?<![\w-])--[a-z][a-z-]*"


class _AtHand:
    """The commands that there are, and the command line that is being run."""

    root: Callable[[], click.Group]
    arguments: Sequence[str] = ()


def set_command_line(root: Callable[[], click.Group], arguments: Sequence[str]) -> None:
    """Learn whose errors will be asked about; ``root`` loads the commands that there are."""
    _AtHand.root, _AtHand.arguments = root, arguments


def advice(error: CocoKpError) -> str:
    """Return what to do about an error of the command at hand; empty where nobody knows."""
    if error.code not in ADVICE:
        return error.hint
    return advice_for(error, _AtHand.root(), _AtHand.arguments)


def advice_for(error: CocoKpError, root: click.Group, arguments: Sequence[str]) -> str:
    """Return the same for the command in ``root`` that the arguments name."""
    here = _options(root, arguments)
    for text in ADVICE.get(error.code, ()):
        try:
            names = _options_are_there(text.format_map({**error.fields, "hint": ""}), root, here)
        except KeyError:  # of a field that this error has not
            continue
        if names:
            return text.format_map({**error.fields, "hint": error.hint})
    return error.hint


def _options_are_there(text: str, root: click.Group, here: set[str]) -> bool:
    for clause in re.split("[;,]", text):
        mine, _, other = clause.partition("coco-kp ")
        there = _options(root, other.split())
        if not (
            here.issuperset(re.findall(_OPTION, mine))
            and there.issuperset(re.findall(_OPTION, other))
        ):
            return False
    return True


def _options(root: click.Group, arguments: Sequence[str]) -> set[str]:
    """Return the options of the command to which the arguments lead, and of those on the way."""
    from click import Context, Group  # few errors ask for it

    context = Context(root)
    command: click.Command = root
    found = set[str]()
    for word in arguments:
        if not isinstance(command, Group):
            break
        if child := command.get_command(context, word):
            command = child
            found.update(option for parameter in child.params for option in parameter.opts)
    return found
