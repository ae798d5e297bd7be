"""How a command ends, whatever happens in it."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest

from coco_kp.cli import commands, keys
from coco_kp.cli.main import run
from coco_kp.errors import RefusedError
from coco_kp.provider import Provider
from tests.sim.registry import Registry, serve
from tests.support import ocicrypt
from tests.support.image import tar, write_image
from tests.vectors import load_vectors

PACKETS = {vector["name"]: vector for vector in load_vectors("packets")["good"]}
REQUESTS = {
    "wrap": ocicrypt.wrap_request("sample=true", PACKETS["gcm"]["optsdata"].encode()),
    "unwrap": ocicrypt.unwrap_request("offline_fs", PACKETS["gcm"]["packet"].encode()),
}
BUG_HINT = "hint: this is a bug; please report it with what -vv prints\n"
TIME = re.compile(rb"^[0-9-]{10}T\S+")
COCO_KP = Path(sys.executable).with_name("coco-kp")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Make ``coco-kp keys list FILE`` end with an exception."""

    def fail_with(error: BaseException) -> None:
        def fail(**_: object) -> NoReturn:
            raise error

        monkeypatch.setattr(keys.list_, "callback", fail)

    return fail_with


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RefusedError("no", "yes"), 7, "coco-kp: no\nhint: yes\n"),
        (RefusedError("no"), 7, "coco-kp: no\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "coco-kp: the system refused: no space left on device\n",
        ),
        (
            OSError(errno.EACCES, "Permission denied", f"/some/{b64encode(bytes(32)).decode()}"),
            3,
            "coco-kp: cannot use (50 characters that look like a key): permission denied\n",
        ),
        (
            ValueError("symkey AAEC"),
            1,
            f"coco-kp: unexpected error: ValueError\n{BUG_HINT}",
        ),
        (
            click.FileError("f", "x"),
            2,
            "coco-kp: could not open file 'f': x\nhint: coco-kp --help shows the usage\n",
        ),
        (KeyboardInterrupt(), 130, "\ncoco-kp: interrupted\n"),  # behind the ^C of the terminal
        (click.Abort(), 130, "coco-kp: interrupted\n"),
    ],
)
def test_run_prints_each_error_in_its_form_and_returns_its_exit_code(
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    failing(error)
    assert run(["keys", "list", "file"]) == code
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize("error", [RefusedError("no"), ValueError("no")])
def test_run_shows_traceback_only_with_vv(
    failing: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    failing(error)
    run(["keys", "list", "file", "-v"])
    assert "Traceback" not in capsys.readouterr().err
    run(["keys", "list", "file", "-vv"])
    assert "Traceback" in capsys.readouterr().err
    run(["keys", "list", "file"])  # what one command was told, the next was not
    assert "Traceback" not in capsys.readouterr().err


def test_run_does_not_carry_quiet_over_to_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["keys", "generate", "-q", "-o", str(tmp_path / "1")])
    assert capsys.readouterr().err == ""
    run(["keys", "generate", "-o", str(tmp_path / "2")])
    assert "wrote 10 keys" in capsys.readouterr().err


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_run_shows_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-h", "--help"):
        assert run([name, flag]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"Usage: coco-kp {name} ")
        assert err == ""


@pytest.mark.parametrize("count", ["1", "1000"])
def test_command_exits_with_1_when_reader_of_stdout_has_left(count: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [COCO_KP, "keys", "generate", "--count", count],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_run_returns_1_on_broken_pipe(
    failing: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # click replaces them
    failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert run(["keys", "list", "file"]) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])  # Python buffers stdout, or it does not
@pytest.mark.parametrize("command", [["keys", "generate"], ["config", "--cmd"]])
def test_command_reports_full_disk_behind_stdout(command: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [COCO_KP, *command],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"coco-kp: the system refused: no space left on device\n"


def test_command_exits_with_130_on_ctrl_c(tmp_path: Path) -> None:
    script = f"""
import os, signal
from coco_kp.cli import keys, main
keys.generate.callback = lambda **_: os.kill(os.getpid(), signal.SIGINT)
raise SystemExit(main.run(["keys", "generate", "-o", {str(tmp_path / "never")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"\ncoco-kp: interrupted\n")


@pytest.mark.parametrize("program", [[COCO_KP], [sys.executable, "-m", "coco_kp"]])
def test_command_has_no_traceback_on_ctrl_c_while_it_loads(
    program: list[str | Path], tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*program, "--help"], capture_output=True, check=False, env=environ)
    assert done.returncode == 130
    assert done.stderr == b"coco-kp: interrupted\n"


def test_command_has_no_traceback_on_a_second_ctrl_c() -> None:
    script = """
import os, signal
from coco_kp.cli import main, start
def interrupt(**_):
    os.kill(os.getpid(), signal.SIGINT)
    raise KeyboardInterrupt
main._refuse_empty = lambda _: interrupt()
main.report_interrupt = interrupt
start.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 130
    assert done.stderr == b"coco-kp: interrupted\n"


def test_command_ends_without_taking_the_interpreter_apart() -> None:
    script = """
import atexit, sys
from coco_kp.cli import start
atexit.register(print, "taken apart")
sys.argv = ["coco-kp", "schema", "audit"]
start.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    json.loads(done.stdout)  # all of it, and nothing else


@pytest.mark.parametrize("command", ["encrypt", "keyprovider"])
def test_command_looks_for_no_garbage_while_it_loads(command: str) -> None:
    """It would look again and again, at what stays."""
    script = f"""
import gc, os, sys
from coco_kp.cli import start
gc.callbacks.append(lambda *_: os.write(2, b"looked"))
sys.argv = ["coco-kp", "{command}", "--help"]
start.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_command_looks_for_garbage_as_ever_once_it_is_loaded() -> None:
    script = """
import gc
from coco_kp.cli import main, start
usual = gc.get_threshold()
def run(_):
    late = gc.get_threshold()
    many = [[] for _ in range(60_000)]
    print(late == usual, gc.get_threshold() == usual)
    return 0
main.run = run
start.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"False True\n")


LOADED_LATER = ["grpc", "google.protobuf", "rich", "urllib3", "ssl", "cryptography", "jwcrypto"]
EXTRAS = ["boto3", "botocore", "hvac", "requests", "pkcs11"]
LOADED_LATER += EXTRAS
LOADED_LATER += ["coco_kp.http", "coco_kp.kbs", "coco_kp.transport", "coco_kp.image"]
LOADED_LATER += ["coco_kp.service.audit", "coco_kp.service.metrics", "difflib", "hashlib"]
LOADED_LATER += ["coco_kp.keys.reference", "coco_kp.keys.stores", "coco_kp.keys.publication"]
LOADED_LATER += ["coco_kp.keys.staying", "coco_kp.model.pattern", "grp", "pwd", "shlex", "base64"]
LOADED_LATER += ["dataclasses"]
LOADED_FOR_OPTIONS = ["click", "inspect", "gettext", "locale", "platform", "uuid"]
LOADED_FOR_OPTIONS += ["coco_kp.cli.commands", "coco_kp.cli.options"]


@pytest.mark.parametrize("request_", ["wrap", "unwrap"])
def test_keyprovider_command_imports_only_what_it_needs(tmp_path: Path, request_: str) -> None:
    """Clients run it for each layer, and wait for its start (docs/performance.md)."""
    (tmp_path / "keys.json").write_text("{}")
    script = f"""
import sys
from coco_kp.cli.main import run
run(["keyprovider", "--keys", "keys.json"])
loaded = [name for name in {LOADED_LATER} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=REQUESTS[request_],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (b"keywrapresults" in done.stdout) is (request_ == "wrap")


def test_keyprovider_command_without_options_loads_nothing_that_reads_them(tmp_path: Path) -> None:
    (tmp_path / "kek").touch(0o600)
    (tmp_path / "kek").write_bytes(bytes(32))
    script = f"""
import sys
from coco_kp.cli.main import run
run(["keyprovider"])
loaded = [name for name in {LOADED_LATER + LOADED_FOR_OPTIONS} if name in sys.modules]
assert not loaded, loaded
"""
    parameters = f"keypath={tmp_path}/kek::keyid=kbs:///default/key/1"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=ocicrypt.wrap_request(parameters, PACKETS["gcm"]["optsdata"].encode()),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"keywrapresults" in done.stdout


def test_keyprovider_command_without_options_has_the_provider_of_their_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered: list[Provider] = []
    monkeypatch.setattr("coco_kp.cli.keyprovider.answer_one", answered.append)
    monkeypatch.setattr("coco_kp.cli.one_call.answer_one", answered.append)
    assert run(["keyprovider"]) == 0
    assert run(["keyprovider", "--packet", "v1"]) == 0  # which click reads
    alone, read = answered
    assert (
        alone == read._replace(kbcs=None) == Provider()
    )  # where there are none, a call has its own


@pytest.mark.parametrize("request_", [*REQUESTS.values(), b"{", b"", b"\xff" * 100])
def test_keyprovider_command_says_the_same_with_options_and_without(request_: bytes) -> None:
    plain, read = (
        subprocess.run(
            [COCO_KP, "keyprovider", *words], input=request_, capture_output=True, check=False
        )
        for words in ([], ["--packet", "v1"])
    )
    assert plain.returncode == read.returncode
    assert TIME.sub(b"", plain.stderr) == TIME.sub(b"", read.stderr)
    assert (plain.stdout == b"") is (read.stdout == b"")


def test_keyprovider_command_takes_options_from_its_environment(tmp_path: Path) -> None:
    environ = os.environ | {"COCO_KP_KEYPROVIDER_KEY_DIR": str(tmp_path / "nowhere")}
    done = subprocess.run(
        [COCO_KP, "keyprovider"],
        input=REQUESTS["wrap"],
        env=environ,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"is not a directory" in done.stderr


def test_commands_with_keys_in_files_import_no_extra(tmp_path: Path) -> None:
    """Of libraries for stores, one is loaded only when a key of its kind is named."""
    write_image(tmp_path / "image", [tar({"motd": b"hello"})])
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(bytes(32))
    script = f"""
import sys
from coco_kp.cli.main import run
own = ["--keyid", "kbs:///default/key/1"]
key = ["--keypath", "key"]
for command in (
    ["encrypt", "oci:image", "oci:e", *own, *key],
    ["encrypt", "oci:image", "oci:f", *own, "--kek-from", "file:key"],
    ["encrypt", "oci:image", "oci:g", *own, "--generate-key", "new"],
    ["verify", "oci:e", *key, "--target", "coco"],
    ["rewrap", "oci:e", *key, "--add", "keyid=kbs:///default/key/2,keypath=new"],
    ["inspect", "oci:e"],
    ["decrypt", "oci:e", "oci:d", *key],
):
    assert run(command) == 0, command
run(["doctor"])
import coco_kp.cli.serve, coco_kp.keyprovider.server, coco_kp.keyprovider.service
loaded = [name for name in {EXTRAS} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


LOADED_FOR_REGISTRIES = ["coco_kp.http", "coco_kp.transport.registry", "urllib3", "ssl", "socket"]
LOADED_FOR_REGISTRIES += ["http", "email", "tomllib", "bz2", "lzma", "shutil", "tempfile", "random"]
LOADED_FOR_OTHER_IMAGES = ["coco_kp.programs", "coco_kp.skopeo", "mmap", "subprocess"]
LOADED_FOR_OTHER_IMAGES += ["gzip", "tarfile"]
LOADED_FOR_OTHER_IMAGES += [
    f"coco_kp.transport.{name}"
    for name in ("directory", "docker_archive", "oci_archive", "skopeo", "tar")
]
LOADED_FOR_OTHER_KEYS = ["grpc", "google.protobuf", "cryptography", "jwcrypto", *EXTRAS]
LOADED_FOR_OTHER_KEYS += ["coco_kp.kbc", "coco_kp.kbs", "coco_kp.keyprovider", "coco_kp.provider"]
LOADED_FOR_OTHER_KEYS += ["coco_kp.image.foreign_provider", "coco_kp.model.protocol"]
LOADED_FOR_OTHER_KEYS += ["coco_kp.keys.reference", "coco_kp.keys.stores", "coco_kp.keys.staying"]
LOADED_FOR_OTHER_ENDS = ["rich", "dataclasses", "difflib", "shlex"]
LOADED_FOR_OTHERS = LOADED_FOR_OTHER_IMAGES + LOADED_FOR_OTHER_KEYS + LOADED_FOR_OTHER_ENDS
OWN = ["--keyid", "kbs:///default/key/1", "--keypath", "key"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return a user's directory with a key, and a layout with an image of one layer."""
    write_image(tmp_path / "image", [tar({"motd": b"hello"})])
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(bytes(32))
    return tmp_path


def loaded(commands: list[list[str]], names: list[str], folder: Path) -> object:
    """Return which of the names are loaded once a process has run the commands."""
    script = f"""
import json, sys
from coco_kp.cli.main import run
assert not any(map(run, {commands}))
print(json.dumps([name for name in {names} if name in sys.modules]))
"""
    own = dict.fromkeys(
        ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"), str(folder)
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | own,  # where no login names a helper
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "command",
    [
        ["encrypt", "oci:image", "oci:new", *OWN],
        ["verify", "oci:encrypted", "--keypath", "key", "--target", "coco"],
        ["decrypt", "oci:encrypted", "oci:new", "--keypath", "key"],
    ],
    ids=lambda command: command[0],
)
def test_command_between_layouts_loads_only_what_it_needs(image: Path, command: list[str]) -> None:
    """What it loads is most of the time that a small image takes (docs/performance.md)."""
    subprocess.run(
        [COCO_KP, "encrypt", "oci:image", "oci:encrypted", *OWN],
        cwd=image,
        capture_output=True,
        check=True,
    )
    assert loaded([command], LOADED_FOR_REGISTRIES + LOADED_FOR_OTHERS, image) == []


def test_commands_with_a_registry_load_only_what_they_need(image: Path) -> None:
    with serve(Registry()) as host:
        name = f"docker://{host}/app:encrypted"
        commands = [
            ["encrypt", "oci:image", name, *OWN, "--dest-tls-verify=false"],
            ["verify", name, "--keypath", "key", "--tls-verify=false"],
            ["decrypt", name, "oci:new", "--keypath", "key", "--src-tls-verify=false"],
        ]
        assert loaded(commands, LOADED_FOR_OTHERS, image) == []


def test_run_names_the_file_that_the_system_refused(
    failing: Callable[[BaseException], None], capfd: pytest.CaptureFixture[str]
) -> None:
    failing(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/some/file"))
    assert run(["keys", "list", "file"]) == 3
    assert capfd.readouterr().err == "coco-kp: cannot use '/some/file': permission denied\n"


def all_options(command: click.Command, name: str) -> Iterator[tuple[str, click.Option]]:
    """Yield each option of a command and of those in it, with its variable as docs/cli.md says."""
    for option in command.params:
        if isinstance(option, click.Option):
            word = max(option.opts, key=len).removeprefix("--")
            yield f"{name}_{word}".upper().replace("-", "_"), option
    if isinstance(command, click.Group):
        for child in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), child)
            assert found
            yield from all_options(found, f"{name}_{child}")


def test_each_option_comes_from_the_variable_of_its_name() -> None:
    """Not of its parameter's: --platform's variable was COCO_KP_ENCRYPT_PLATFORMS."""
    found = [
        commands.root.get_command(click.Context(commands.root), name)
        for name in commands.root.list_commands(click.Context(commands.root))
    ]
    for command in found:
        assert command
        for variable, option in all_options(command, f"COCO_KP_{command.name}"):
            assert option.envvar == variable


def test_failure_is_json_where_the_environment_asks_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COCO_KP_INSPECT_FORMAT", "json")
    assert run(["inspect", "oci:/nowhere"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 3


def test_malformed_value_of_an_option_has_the_code_of_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = ["--keyid", "kbs:///a/b/c", "--keypath", "/nowhere", "--algorithm", "AES"]
    assert run(["encrypt", "oci:/nowhere", "oci:/elsewhere", *key, "--format", "json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["exit_code"], error["code"]) == (2, "usage")


@pytest.mark.parametrize("image", ["verify", "decrypt"])
def test_unknown_attester_is_wrong_usage_and_no_bug(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = ["oci:/nowhere"] * (1 + (image == "decrypt"))
    kbc = ["--kbc", "cc::https://kbs.example", "--attester", "nosuch"]
    assert run([image, *images, *kbc]) == 2
    assert capsys.readouterr().err == (
        "coco-kp: attester 'nosuch' is unknown\nhint: installed here: sample, aa\n"
    )
