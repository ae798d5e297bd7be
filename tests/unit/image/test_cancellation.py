"""Calls of the library that another thread ends: nothing is left of them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import coco_kp
from coco_kp.transport.registry.upload import SMALL
from tests.sim.http_server import Reply, Request
from tests.sim.registry import Registry
from tests.support.access import PLAIN
from tests.support.cancelling import Cancelling
from tests.support.image import Image, tar, write_image

KID = coco_kp.parse_key_id("/default/key/1")
KEY = coco_kp.KekRecipient(KID, coco_kp.Kek.generate())
OPENERS = [coco_kp.KekOpener(KEY.kek)]
LAYERS = [tar({f"file{number}": os.urandom(SMALL + 1)}) for number in range(3)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return write_image(tmp_path_factory.mktemp("images") / "plain", LAYERS, compress=False)


@pytest.fixture(scope="module")
def encrypted(plain: Image) -> Image:
    image = Image(plain.folder.parent / "encrypted")
    coco_kp.encrypt_image(plain.reference, image.reference, [KEY])
    return image


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory in which a call must leave nothing, and of which no thread may be left."""
    folder = tmp_path / "place"
    folder.mkdir()
    threads = {thread for thread in threading.enumerate() if thread.name != "alarms"}
    yield folder
    assert list(folder.iterdir()) == []
    left = {thread for thread in threading.enumerate() if thread.name != "alarms"} - threads
    assert left == set()


MOMENTS = ["expect", "begin", "advance", "end"]


@pytest.mark.parametrize("jobs", [1, 4])
@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_encryption_leaves_neither_image_nor_key(
    plain: Image, place: Path, moment: str, jobs: int
) -> None:
    file = coco_kp.parse_kek_reference(f"file:{place}/key")
    new = coco_kp.resolve(coco_kp.NewKek((file,)), KID)
    progress = Cancelling(moment)
    with pytest.raises(coco_kp.CancelledError, match="the call was cancelled"):
        coco_kp.encrypt_image(
            plain.reference,
            f"oci:{place}/made/image",
            [new],
            jobs=jobs,
            progress=progress,
            cancel=progress.cancel,
        )


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_decryption_leaves_no_plaintext(
    encrypted: Image, place: Path, moment: str
) -> None:
    progress = Cancelling(moment)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.decrypt_image(
            encrypted.reference,
            f"oci-archive:{place}/image.tar",
            OPENERS,
            progress=progress,
            cancel=progress.cancel,
        )


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_cancelled_rewrap_leaves_image_as_it_was(
    encrypted: Image, place: Path, moment: str
) -> None:
    progress = Cancelling(moment)
    other = coco_kp.KekRecipient(coco_kp.parse_key_id("/default/key/2"), coco_kp.Kek.generate())
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.rewrap_image(
            encrypted.reference,
            OPENERS,
            coco_kp.Changes(add=(other,)),
            destination=f"oci:{place}/image",
            progress=progress,
            cancel=progress.cancel,
        )


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_verification_is_no_verdict(encrypted: Image, moment: str) -> None:
    progress = Cancelling(moment)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.verify_image(
            encrypted.reference, OPENERS, progress=progress, cancel=progress.cancel
        )


def test_cancelled_trial_is_no_result(encrypted: Image) -> None:
    """It went wrong nowhere, but nobody can tell what a step gave up for lack of time."""
    cancel = coco_kp.Cancellation()

    class Opening:
        def open(self, packet: coco_kp.LayerPacket) -> coco_kp.PrivateOptions:
            cancel.cancel()
            return OPENERS[0].open(packet)

    with pytest.raises(coco_kp.CancelledError):
        coco_kp.decrypt_image(
            encrypted.reference, "oci:nowhere", [Opening()], dry_run=True, cancel=cancel
        )


class Raising(coco_kp.Progress):
    """Wants the work to end, by what it raises."""

    def begin(self, *_: object) -> None:
        raise coco_kp.CancelledError("the user wants it")


@pytest.mark.parametrize("jobs", [1, 4])
def test_cancelled_error_of_progress_ends_decryption(
    encrypted: Image, place: Path, jobs: int
) -> None:
    """Taken for a sign that another piece had failed, it let layers stay as they were."""
    with pytest.raises(coco_kp.CancelledError, match="the user wants it"):
        coco_kp.decrypt_image(
            encrypted.reference, f"oci:{place}/d", OPENERS, jobs=jobs, progress=Raising()
        )


def test_cancelled_error_of_progress_ends_decryption_in_the_same_layout(encrypted: Image) -> None:
    with pytest.raises(coco_kp.CancelledError, match="the user wants it"):
        coco_kp.decrypt_image(
            encrypted.reference, f"{encrypted.reference}:d", OPENERS, progress=Raising()
        )


def test_cancelled_error_of_progress_ends_encryption(plain: Image, place: Path) -> None:
    with pytest.raises(coco_kp.CancelledError, match="the user wants it"):
        coco_kp.encrypt_image(plain.reference, f"oci:{place}/e", [KEY], progress=Raising())


def test_cancelled_error_of_progress_is_no_fault_of_a_reused_image(
    plain: Image, encrypted: Image, place: Path
) -> None:
    with pytest.raises(coco_kp.CancelledError) as caught:
        coco_kp.encrypt_image(
            plain.reference,
            f"oci:{place}/e",
            [KEY],
            reuse=encrypted.reference,
            progress=Raising(),
        )
    assert (caught.value.message, caught.value.hint) == ("the user wants it", "")


def failing(moment: str, failure: Exception) -> coco_kp.Progress:
    """Return what cannot tell its user of the moment."""

    class Failing(coco_kp.Progress):
        pass

    def fail(*_: object) -> None:
        raise failure

    setattr(Failing, moment, fail)
    return Failing()


@pytest.mark.parametrize("moment", ["begin", "advance", "end"])
@pytest.mark.parametrize("destination", ["oci:{folder}/e", "docker://{host}/app:1"])
def test_error_of_progress_is_raised_as_it_is(
    plain: Image, tmp_path: Path, registry: Registry, host: str, moment: str, destination: str
) -> None:
    """It was taken for a file's, and for a connection's: the upload waited, and went on."""
    failure = BrokenPipeError("nobody reads what is told")
    with pytest.raises(BrokenPipeError) as caught:
        coco_kp.encrypt_image(
            plain.reference,
            destination.format(folder=tmp_path, host=host),
            [KEY],
            destination_access=PLAIN,
            progress=failing(moment, failure),
        )
    assert caught.value is failure
    assert list(tmp_path.iterdir()) == []
    assert (registry.manifests, registry.uploads) == ({}, {})


def test_cancelled_error_of_progress_is_no_finding(encrypted: Image) -> None:
    with pytest.raises(coco_kp.CancelledError, match="the user wants it"):
        coco_kp.verify_image(encrypted.reference, OPENERS, progress=Raising())


@pytest.mark.parametrize("moment", ["begin", "advance", "end"])
@pytest.mark.parametrize("openers", [OPENERS, []], ids=["opened", "only read"])
@pytest.mark.parametrize("kind", [coco_kp.InputError, coco_kp.IntegrityError])
def test_error_of_progress_is_no_finding(
    encrypted: Image, kind: type[coco_kp.CocoKpError], openers: list[coco_kp.Opener], moment: str
) -> None:
    """An image that nobody had finished to read was said to be wrong."""
    failure = kind("the user's own database is full")
    with pytest.raises(kind) as caught:
        coco_kp.verify_image(encrypted.reference, openers, progress=failing(moment, failure))
    assert caught.value is failure


def test_error_of_progress_is_no_fault_of_a_reused_image(
    plain: Image, encrypted: Image, place: Path
) -> None:
    failure = coco_kp.InputError("the user's own database is full")
    with pytest.raises(coco_kp.InputError) as caught:
        coco_kp.encrypt_image(
            plain.reference,
            f"oci:{place}/e",
            [KEY],
            reuse=encrypted.reference,
            progress=failing("begin", failure),
        )
    assert caught.value is failure


def test_cancellation_ends_calls_to_come() -> None:
    cancel = coco_kp.Cancellation()
    before = cancel.cancelled
    cancel.cancel()
    cancel.cancel()
    assert (before, cancel.cancelled) == (False, True)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.inspect_image("oci:/nowhere", cancel=cancel)


def test_cancellation_from_when_the_image_gets_its_name_comes_too_late(
    plain: Image, tmp_path: Path
) -> None:
    progress, image = Cancelling("naming"), f"oci:{tmp_path}/image"
    made = coco_kp.encrypt_image(
        plain.reference, image, [KEY], progress=progress, cancel=progress.cancel
    )
    assert progress.cancel.cancelled
    assert coco_kp.verify_image(image, OPENERS).digest == made.digest


def test_cancellation_that_is_not_used_changes_nothing(encrypted: Image) -> None:
    cancel = coco_kp.Cancellation()
    assert coco_kp.verify_image(encrypted.reference, OPENERS, cancel=cancel).failure is None
    cancel.cancel()


def test_error_that_is_no_cancellation_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(coco_kp.InputError, match="nothing is there"):
        coco_kp.inspect_image(f"oci:{tmp_path}/nothing", cancel=coco_kp.Cancellation())


def test_cancellation_ends_all_calls_that_have_it(plain: Image, place: Path) -> None:
    cancel, both = coco_kp.Cancellation(), threading.Barrier(2)
    failures = list[BaseException]()

    class Waiting(coco_kp.Progress):
        def expect(self, *_: object, **__: object) -> None:
            if both.wait() == 0:
                cancel.cancel()
            both.wait()

    def encrypt(name: str) -> None:
        try:
            coco_kp.encrypt_image(
                plain.reference, f"oci:{place}/{name}", [KEY], progress=Waiting(), cancel=cancel
            )
        except coco_kp.CancelledError as error:
            failures.append(error)

    calls = [threading.Thread(target=encrypt, args=(name,)) for name in ("one", "two")]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert len(failures) == 2


def test_call_without_a_further_thread_is_cancelled(
    encrypted: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces run in the caller's thread then, where nobody looks after them."""

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    progress = Cancelling("begin")
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", none)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.verify_image(
            encrypted.reference, OPENERS, progress=progress, cancel=progress.cancel
        )


@pytest.mark.parametrize("jobs", [0, -1])
def test_fewer_jobs_than_one_are_refused(encrypted: Image, jobs: int) -> None:
    with pytest.raises(ValueError, match=f"{jobs} jobs are too few"):
        coco_kp.verify_image(encrypted.reference, OPENERS, jobs=jobs)


class Silent:
    """A registry's wait before it answers a request, until whoever asked has gone."""

    def __init__(
        self, registry: Registry, method: str, cancel: coco_kp.Cancellation, part: str = ""
    ) -> None:
        self._method, self._part = method, part
        self._cancel = cancel
        self.gone = threading.Event()
        self.answered = list[bool]()
        registry.before = self.before

    def before(self, request: Request) -> None:
        if request.method == self._method and self._part in request.path and not self.answered:
            self._cancel.cancel()
            self.answered.append(not self.gone.wait(180))


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time run out that would end a call as well."""
    monkeypatch.setattr("coco_kp.http.client.READ_TIMEOUT", 600.0)
    monkeypatch.setattr("coco_kp.http.connection.READ_TIMEOUT", 600.0)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_cancelled_encryption_leaves_no_upload_in_a_registry_that_is_silent(
    plain: Image, registry: Registry, host: str, method: str
) -> None:
    cancel = coco_kp.Cancellation()
    silent = Silent(registry, method, cancel)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.encrypt_image(
            plain.reference,
            f"docker://{host}/app:1",
            [KEY],
            jobs=1,
            destination_access=PLAIN,
            cancel=cancel,
        )
    silent.gone.set()
    assert silent.answered in ([], [False])
    assert registry.manifests == {}
    if method != "POST":  # whose answer names the upload
        assert registry.uploads == {}


@pytest.mark.usefixtures("endless")
def test_cancelled_inspection_does_not_wait_for_a_silent_registry(
    registry: Registry, host: str
) -> None:
    cancel = coco_kp.Cancellation()
    silent = Silent(registry, "GET", cancel)
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.inspect_image(f"docker://{host}/app:1", access=PLAIN, cancel=cancel)
    silent.gone.set()


def test_cancelled_call_does_not_wait_until_a_registry_may_be_asked_again(
    registry: Registry, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    cancel = coco_kp.Cancellation()

    class Waiting(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            cancel.cancel()

    caplog.set_level(logging.WARNING)
    logger, waiting = logging.getLogger("coco_kp.http.retry"), Waiting()
    registry.faults.append(lambda _: Reply(503, {"Retry-After": "100"}))
    began = time.monotonic()
    logger.addHandler(waiting)
    try:
        with pytest.raises(coco_kp.CancelledError):
            coco_kp.inspect_image(f"docker://{host}/app:1", access=PLAIN, cancel=cancel)
    finally:
        logger.removeHandler(waiting)
    assert cancel.cancelled
    assert time.monotonic() - began < 90
    assert len(caplog.messages) == 2, "one of TLS, and one of the only pause that was begun"


def test_cancelled_encryption_has_a_registry_forget_what_it_began(
    plain: Image, registry: Registry, host: str
) -> None:
    """What undoes a call runs although nobody waits for it any more."""
    cancel = coco_kp.Cancellation()
    registry.before = lambda request: cancel.cancel() if request.method == "PATCH" else None
    with pytest.raises(coco_kp.CancelledError):
        coco_kp.encrypt_image(
            plain.reference,
            f"docker://{host}/app:1",
            [KEY],
            jobs=1,
            destination_access=PLAIN,
            cancel=cancel,
        )
    assert registry.requests("POST")
    assert registry.uploads == {}
    assert registry.manifests == {}


@pytest.mark.usefixtures("endless")
def test_cancelled_encryption_names_the_blobs_that_a_registry_keeps(
    plain: Image, registry: Registry, host: str
) -> None:
    cancel = coco_kp.Cancellation()
    silent = Silent(registry, "PUT", cancel, "/manifests/")
    with pytest.raises(coco_kp.CancelledError, match="keeps blobs that nothing uses: sha256:"):
        coco_kp.encrypt_image(
            plain.reference,
            f"docker://{host}/app:1",
            [KEY],
            destination_access=PLAIN,
            cancel=cancel,
        )
    silent.gone.set()
