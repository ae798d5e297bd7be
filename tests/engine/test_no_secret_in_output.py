"""No key is shown, whatever is asked for, through whichever door, at the most verbose level.

All lines of output and all texts of errors are searched for the layer keys and key-encryption keys
that were used: raw, in hex, in base64 at each alignment, as Python writes bytes, as numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import grpc
import pytest

from coco_kp.cli.commands import root
from coco_kp.cli.main import run
from tests.support import ocicrypt
from tests.support.provider import served_address, serving
from tests.support.traces import traces
from tests.vectors import load_vectors


@dataclass(frozen=True)
class Secrets:
    """The keys that are used; nothing else looks like them."""

    lek: bytes
    kek: bytes
    other_kek: bytes

    @property
    def private_options(self) -> bytes:
        """The layer key's document."""
        document = {
            "symkey": b64encode(self.lek).decode(),
            "digest": "sha256:" + "ab" * 32,
            "cipheroptions": {"nonce": b64encode(bytes(16)).decode()},
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def shown_in(self, output: bytes) -> list[bytes]:
        """Return the traces of the keys in an output."""
        all_traces = traces(self.lek) | traces(self.kek) | traces(self.other_kek)
        return [trace for trace in all_traces if trace in output]


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Keys, and files that have them or nearly so, in the working directory."""
    secrets = Secrets(*(sha256(name).digest() for name in (b"lek", b"kek", b"other kek")))
    text = b64encode(secrets.kek).decode()
    files = {
        "kek": secrets.kek,
        "kek.line": secrets.kek + b"\n",
        "kek.b64": text.encode(),
        "kek.hex": secrets.kek.hex().encode(),
        "keys.json": json.dumps({"default/key/1": text}).encode(),
        "other.json": json.dumps({"default/key/1": b64encode(secrets.other_kek).decode()}).encode(),
        "short.json": json.dumps({"default/key/1": b64encode(secrets.kek[:31]).decode()}).encode(),
        "spaced.json": json.dumps({"default/key/1": f" {text}"}).encode(),
        "swapped.json": json.dumps({text: "default/key/1"}).encode(),
        "listed.json": json.dumps({"default/key/1": [text]}).encode(),
        "twice.json": f'{{"{text}":"a","{text}":"b"}}'.encode(),
        "cut.json": json.dumps({"default/key/1": text}).encode()[:-3],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return secrets


def requests(secrets: Secrets, packet: bytes) -> Iterator[bytes]:
    """Yield requests of all kinds, good and bad; ``packet`` holds the layer key."""
    options = secrets.private_options
    kek, lek = b64encode(secrets.kek).decode(), b64encode(secrets.lek).decode()
    kid = "keyid=kbs:///default/key/1"
    good = ["sample=true", f"keypath=kek::{kid}", f"keypath=kek::{kid}::algorithm=A256CTR"]
    bad_files = [f"keypath={name}::{kid}" for name in ("kek.line", "kek.b64", "kek.hex", "absent")]
    misplaced = [
        place.replace("{}", key)
        for key in (kek, kek.rstrip("="), secrets.kek.hex(), lek)
        for place in (
            *("{}", "{}=x", "sample={}", "algorithm={}", "keypath={}::" + kid, "keypath=/k/{}"),
            *("keyid={}::keypath=/k", "keyid=kbs:///a/b/{}::keypath=/k", "keyid={}:{}/a/b"),
            *("keyid=kbs://{}/a/b/c::keypath=/k", "keyid=/a/b/c?{}::keypath=/absent", "key={}"),
        )
    ]
    vectors = load_vectors("params")
    suites = [text for kind in ("accept", "refusals") for text, _ in vectors[kind]]
    suites += vectors["reject"]
    for parameters in (*good, *bad_files, *misplaced, *suites):
        yield ocicrypt.wrap_request(parameters, options)
    kbcs = [
        "sample",
        "offline_fs::null",
        "Enabled",
        "nobody",
        kek,
        f"sample::{kek}",
        f"{lek}::null",
    ]
    packets = [packet, packet[:-1], options, secrets.kek, packet.replace(b"kbs:///", b"")]
    packets += [
        vector["packet"].encode()
        for kind in ("good", "bad")
        for vector in load_vectors("packets")[kind]
    ]
    for kbc in kbcs:
        for text in packets:
            yield ocicrypt.unwrap_request(kbc, text)
    yield from malformed(secrets, ocicrypt.wrap_request(good[1], options))
    yield from malformed(secrets, ocicrypt.unwrap_request("offline_fs", packet))


def malformed(secrets: Secrets, request: bytes) -> Iterator[bytes]:
    """Yield a good request cut off, with members of another type or gone, with keys in names."""
    yield from (request[:length] for length in range(0, len(request), 29))
    yield request + request
    yield request.replace(b"}", b"]")
    yield b"\xff" + request
    yield secrets.private_options
    key = b64encode(secrets.kek).decode()
    for path in paths(json.loads(request)):
        for value in (None, 1, True, "", "x", key, [], [key], [300], {}, {key: key}, ...):
            yield json.dumps(replaced(json.loads(request), path, value)).encode()
        yield json.dumps(replaced(json.loads(request), (*path[:-1], key), 1)).encode()
    document = json.dumps({key: 1})
    yield f"{document[:-1]},{document[1:]}".encode()


def paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each member and element."""
    inner: Any = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for name, child in inner:
        yield (name,)
        yield from ((name, *rest) for rest in paths(child))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Put a value where a path leads; ``...`` removes what is there."""
    *parents, name = path
    holder = document
    for parent in parents:
        holder = holder[parent]
    if isinstance(holder, list) and not isinstance(name, int):
        holder.append(name)
    elif value is ...:
        del holder[name]
    else:
        holder[name] = value
    return document


def cmd_mode(capfd: pytest.CaptureFixture[str], request: bytes, *flags: str) -> tuple[str, str]:
    """Answer a request as ocicrypt's cmd mode does; give stdout and stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(request)))
        run(["keyprovider", "-vv", *flags])
    return capfd.readouterr()


def commands(group: click.Group, *path: str) -> Iterator[tuple[list[str], click.Command]]:
    """Yield all commands, and the words that call them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        elif command:
            yield [*path, name], command


def lines_with_key(words: list[str], command: click.Command, key: str) -> Iterator[list[str]]:
    """Yield command lines of a command that have the key in a wrong place, each place once.

    None of them gets as far as to work for long, or to write a file that the key names.
    """
    arguments = ["oci:absent:x" for part in command.params if isinstance(part, click.Argument)]
    wrong = {"serve": ["--socket", "x"], "bench": ["--size", "0"], "demo": ["--keep", "kek"]}
    wrong["doctor"] = ["--format", "x"]
    end = wrong.get(words[0], [])
    wrong_too = ["--no-such"] if words == ["keys", "generate"] else end
    for stray in (key, f"--{key}", f"-{key}", f"--key={key}x"):
        yield [*words, *arguments, stray, *wrong_too]
    for place in range(len(arguments)):
        for form in ("{}", "oci:{}:{}", "docker://{}", "oci-archive:{}"):
            given = [*arguments[:place], form.replace("{}", key), *arguments[place + 1 :]]
            yield [*words, *given, *wrong_too]
    for option in command.params:
        if not isinstance(option, click.Option) or words == ["keys", "generate"]:
            continue
        name = option.opts[-1]
        rest = [] if name in end else end
        if option.is_flag or option.count:
            yield [*words, *arguments, f"{name}={key}", *rest]
            continue
        for form in ("{}", "kbs:///a/b/{}", "a:{}"):
            given = [f"kek/{key}"] if name == "--keep" else [form.replace("{}", key)]
            yield [*words, *arguments, name, *given, *rest]


@pytest.mark.parametrize("loud", [False, True], ids=["", "with tracebacks"])
@pytest.mark.parametrize("words", [words for words, _ in commands(root)], ids=" ".join)
def test_command_line_with_key_in_wrong_place_shows_no_key(
    secrets: Secrets, capfd: pytest.CaptureFixture[str], words: list[str], *, loud: bool
) -> None:
    text = b64encode(secrets.kek).decode()
    command = next(command for known, command in commands(root) if known == words)
    for key in (text, secrets.kek.hex()):
        for line in lines_with_key(words, command, key):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
                run([*line, "-vv"] if loud else line)
            output = "".join(capfd.readouterr())
            assert not secrets.shown_in(output.encode()), line
            assert "unexpected error" not in output, line


def test_unknown_command_that_is_key_is_not_shown(
    secrets: Secrets, capfd: pytest.CaptureFixture[str]
) -> None:
    text = b64encode(secrets.kek).decode()
    for line in ([text], [f"--{text}"], ["keys", text], ["-q", secrets.kek.hex()]):
        assert run(line) == 2
        output = "".join(capfd.readouterr())
        assert "coco-kp: no such " in output
        assert not secrets.shown_in(output.encode()), line


def test_secret_search_finds_key_in_every_form() -> None:
    secrets = Secrets(bytes(range(100, 132)), bytes(range(32)), bytes(range(200, 232)))
    lek = secrets.lek
    for leak in (
        lek,
        lek.hex().encode(),
        lek.hex().upper().encode(),
        *(b64encode(b"x" * shift + lek) for shift in range(3)),
        urlsafe_b64encode(b"xy" + lek),
        b64encode(secrets.private_options),
        str(list(lek)).encode(),
        json.dumps(list(lek), separators=(",", ":")).encode(),
        repr(secrets.kek).encode(),
        lek[5:17],
        secrets.private_options,
    ):
        assert secrets.shown_in(b"some words " + leak + b" and others")
    assert not secrets.shown_in(b"kbs:///default/key/1 sha256:" + b"0" * 64)


def test_cmd_mode_output_shows_no_key(secrets: Secrets, capfd: pytest.CaptureFixture[str]) -> None:
    wrap = ocicrypt.wrap_request("keypath=kek::keyid=/default/key/1", secrets.private_options)
    answer, _ = cmd_mode(capfd, wrap)
    packet = ocicrypt.wrapped_packet(answer.encode())
    assert not secrets.shown_in(packet)
    refused = opened = 0
    for request in requests(secrets, packet):
        stdout, stderr = cmd_mode(capfd, request, "--keys", "keys.json")
        assert not secrets.shown_in(stderr.encode()), request
        if "keyunwrapresults" in stdout:  # which holds the layer key: it was asked for
            opened += 1
        else:
            assert not secrets.shown_in(stdout.encode())
        refused += "coco-kp: " in stderr
        assert "unexpected error" not in stderr, request
    assert refused > 200
    assert opened


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_server_output_shows_no_key(secrets: Secrets, tmp_path: Path, log_format: str) -> None:
    audit = tmp_path / "audit.jsonl"
    flags = ("-vv", "--log-format", log_format, "--keys", "keys.json", "--audit", str(audit))
    texts, calls = [], 0
    with serving(tmp_path, *flags) as server:
        with ocicrypt.connection(served_address(server)) as channel:
            packet = ocicrypt.wrap(
                channel, "keypath=kek::keyid=/default/key/1", secrets.private_options
            )
            assert ocicrypt.unwrap(channel, "offline_fs", packet) == secrets.private_options
            for request in requests(secrets, packet):
                for method in (ocicrypt.WRAP_KEY, ocicrypt.UNWRAP_KEY):
                    calls += 1
                    try:
                        ocicrypt.send(channel, method, request)
                    except grpc.RpcError as error:
                        texts.append(error.details() or "")
        log = server.log.read_bytes()
    assert not secrets.shown_in("\n".join(texts).encode())
    assert not secrets.shown_in(log)
    recorded = audit.read_bytes()
    assert not secrets.shown_in(recorded)
    assert len(recorded.splitlines()) == calls + 2
    assert len(texts) > 400
    assert len(log.splitlines()) >= calls  # each call left its event
    assert b"unexpected error" not in log
    assert not re.search(rb"[ \"]bug[ \"]", log)


@pytest.mark.parametrize(
    "keys",
    [
        *("keys.json", "other.json", "short.json", "spaced.json", "swapped.json", "listed.json"),
        *("twice.json", "cut.json", "kek", "kek.b64"),
    ],
)
def test_keys_file_refusals_show_no_key(
    secrets: Secrets, capfd: pytest.CaptureFixture[str], keys: str
) -> None:
    wrap = ocicrypt.wrap_request("keypath=kek::keyid=/default/key/1", secrets.private_options)
    packet = ocicrypt.wrapped_packet(cmd_mode(capfd, wrap)[0].encode())
    unwrap = ocicrypt.unwrap_request("offline_fs", packet)
    stdout, stderr = cmd_mode(capfd, unwrap, "--keys", keys)
    assert not secrets.shown_in(stderr.encode())
    assert bool(stdout) is (keys == "keys.json")
    for command in (
        ["list", keys],
        ["list", keys, "--format", "json"],
        ["export", keys, "default/key/1", "exported"],
        ["export", keys, b64encode(secrets.kek).decode(), "never"],
        ["import", keys, "default/key/1", "kek.b64"],
        ["import", keys, "default/key/1", "kek"],
        ["import", keys, "default/key/2", "kek"],
        ["register", "kek.hex", "default/key/1", "--kbs", "https://127.0.0.1:1"],
    ):
        with contextlib.suppress(FileNotFoundError):
            Path("exported").unlink()
        run(["keys", *command, "-vv"])
        output = "".join(capfd.readouterr())
        assert not secrets.shown_in(output.encode()), command
        assert "unexpected error" not in output
