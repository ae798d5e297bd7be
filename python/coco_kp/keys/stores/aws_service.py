"""A service of AWS: credentials and region by AWS's own rules, and what its refusals mean."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import urlsplit

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError

from coco_kp.errors import CocoKpError, Hint, InputError, KekError, RefusedError, RemoteError
from coco_kp.http import display_url, is_loopback
from coco_kp.http.failure import failure
from coco_kp.keys.stores.deadline import in_time
from coco_kp.observe import asking
from coco_kp.redact import masked, shown
from coco_kp.values import dataclass

Client = TypeVar("Client")
Answer = TypeVar("Answer")

# Of its own, botocore waits a minute for an answer, and repeats for minutes.
_CONFIG: Final = Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 3},
)

_CREDENTIALS_HINT: Final = (
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws sso login`; see "
    "`aws sts get-caller-identity`"
)
_REGION_HINT: Final = "set AWS_REGION, or name it by its whole ARN"
_CA_HINT: Final = Hint("name the certificate of the endpoint's own authority with AWS_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error code of AWS's means.

    ``quoted`` where AWS's own words help; they never repeat what was sent, since who may send it is
    judged first.
    """

    kind: type[CocoKpError]
    words: str
    hint: str
    quoted: bool = False


_DENIED: Final = Meaning(
    RemoteError,
    "access denied",
    "the caller's policy must allow the action, and so must the policy of the key or secret",
    quoted=True,
)
_BAD_CREDENTIALS: Final = Meaning(
    RemoteError, "AWS does not accept the credentials", _CREDENTIALS_HINT
)
_EXPIRED: Final = Meaning(
    RemoteError, "the credentials have expired", "get new ones: `aws sso login`, or a new session"
)
_THROTTLED: Final = Meaning(
    RemoteError, "throttled: too many requests", "try again later, or have the quota raised"
)
_FAILED: Final = Meaning(RemoteError, "AWS failed", "try again later")

_MEANINGS: Final = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "UnrecognizedClientException": _BAD_CREDENTIALS,
    "InvalidClientTokenId": _BAD_CREDENTIALS,
    "InvalidSignatureException": _BAD_CREDENTIALS,
    "SignatureDoesNotMatch": _BAD_CREDENTIALS,
    "IncompleteSignature": _BAD_CREDENTIALS,
    "MissingAuthenticationToken": _BAD_CREDENTIALS,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": Meaning(
        RemoteError, "the request has expired", "check the clock of this machine"
    ),
    "Throttling": _THROTTLED,
    "ThrottlingException": _THROTTLED,
    "ThrottledException": _THROTTLED,
    "RequestLimitExceeded": _THROTTLED,
    "TooManyRequestsException": _THROTTLED,
    "DependencyTimeoutException": _FAILED,
    "InternalFailure": _FAILED,
    "InternalFailureException": _FAILED,
    "InternalServiceError": _FAILED,
    "KMSInternalException": _FAILED,
    "ServiceUnavailable": _FAILED,
    "ServiceUnavailableException": _FAILED,
}


class AwsService(Generic[Client]):
    """One service in one region. Nothing is asked before the first request; threads may share it.

    ``title`` is for messages, ``name`` is boto3's, ``meanings`` are of the service's own error
    codes. ``region`` may be empty for that of AWS's settings, ``endpoint`` (``HOST[:PORT]``) for
    the service's own.
    """

    def __init__(
        self,
        title: str,
        name: str,
        meanings: Mapping[str, Meaning],
        *,
        region: str = "",
        endpoint: str = "",
    ) -> None:
        self.title, self._name, self._endpoint = title, name, endpoint
        self._meanings = {**_MEANINGS, **meanings}
        self._region = region
        self._connecting = threading.Lock()
        self._client: Client | None = None

    @property
    def region(self) -> str:
        """The region, from AWS's settings unless given. Raises ``InputError`` where none is set."""
        if not self._region:
            try:
                found = os.environ.get("AWS_REGION") or boto3.Session().region_name
            except exceptions.BotoCoreError as error:
                raise _configured_wrong(error) from None
            if not found:
                raise InputError(f"no region is set for {self.title}", _REGION_HINT)
            self._region = found
        return self._region

    def ask(self, what: str, call: Callable[[Client], Answer], *, quote: bool = True) -> Answer:
        """Return the answer to ``call``, which sends one request; ``what`` says what for.

        Raises ``KekError`` without credentials, ``RemoteError`` for refusals and a network that
        fails, and what ``meanings`` say. ``quote`` is False for requests that carry a key: an error
        that is not understood then repeats none of AWS's words.
        """
        subject = f"{self.title} in {self.region} did not {what}"

        def send() -> Answer:
            try:
                return call(self._connected())
            except exceptions.ClientError as refusal:
                raise self._refused(subject, refusal, quote=quote) from None
            except exceptions.BotoCoreError as error:
                raise _not_sent(subject, error) from None
            except (ResponseParserError, LookupError, TypeError, ValueError, AttributeError):
                raise RemoteError(
                    f"{subject}: what answers there does not speak AWS's protocol",
                    "check the endpoint",
                ) from None

        with asking("aws"):
            return in_time(send, subject)

    def close(self) -> None:
        """Close all idle connections."""
        client, self._client = cast("Any", self._client), None
        if client is not None:
            client.close()

    def _connected(self) -> Client:
        _silence_botocore()
        with self._connecting:
            if self._client is None:
                # Any: which client it is, the caller's type says.
                session = cast("Any", boto3.Session(region_name=self.region))
                endpoint = f"https://{self._endpoint}" if self._endpoint else None
                client = session.client(self._name, endpoint_url=endpoint, config=_CONFIG)
                if _is_local(client.meta.endpoint_url):
                    # It is never asked through a proxy, which could read what is said.
                    direct = _CONFIG.merge(Config(proxies={}))
                    client = session.client(self._name, endpoint_url=endpoint, config=direct)
                self._client = client
            return self._client

    def _refused(
        self, subject: str, refusal: exceptions.ClientError, *, quote: bool
    ) -> CocoKpError:
        error = refusal.response.get("Error", {})
        code, said = str(error.get("Code", "")), masked(str(error.get("Message", "")))
        unknown = Meaning(RemoteError, f"AWS says {shown(code)}", "", quoted=quote)
        meaning = self._meanings.get(code, unknown)
        words = f" ({shown(said)})" if said and meaning.quoted else ""
        return meaning.kind(f"{subject}: {meaning.words}{words}", meaning.hint)


def _not_sent(subject: str, error: exceptions.BotoCoreError) -> CocoKpError:
    """Say why there was no answer. Only words that cannot have a parameter's value are quoted."""
    match error:
        case exceptions.NoCredentialsError():
            return KekError(f"{subject}: there are no AWS credentials", _CREDENTIALS_HINT)
        case exceptions.PartialCredentialsError():
            return KekError(
                f"{subject}: a part of the AWS credentials is missing", _CREDENTIALS_HINT
            )
        case (
            exceptions.CredentialRetrievalError()
            | exceptions.TokenRetrievalError()
            | exceptions.SSOError()
        ):
            return KekError(f"{subject}: AWS credentials cannot be obtained", _CREDENTIALS_HINT)
        case exceptions.ReadTimeoutError() | exceptions.ConnectTimeoutError():
            return failure(subject, TimeoutError())
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            cause: object = error.kwargs.get("error")
            cause = cause if isinstance(cause, Exception) else OSError()
            return failure(subject, cause, ca_hint=_CA_HINT)
        case exceptions.ParamValidationError():
            return InputError(f"{subject}: the request has a form that AWS does not take")
        case _:
            return _configured_wrong(error)


def _configured_wrong(error: exceptions.BotoCoreError) -> InputError:
    return InputError(
        f"the settings of AWS cannot be used: {shown(masked(str(error)))}",
        "check AWS_PROFILE, AWS_CONFIG_FILE and ~/.aws/config",
    )


def _is_local(url: str) -> bool:
    """Return whether an endpoint is on this machine.

    Raises ``RefusedError`` for one elsewhere that anyone could read; ``AWS_ENDPOINT_URL`` may.
    """
    parts = urlsplit(url)
    local = is_loopback(parts.hostname or "")
    if parts.scheme != "https" and not local:
        raise RefusedError(
            f"the AWS endpoint '{display_url(url)}' is plain http: anyone on the way can read keys",
            "use https in AWS_ENDPOINT_URL",
        )
    return local


def _silence_botocore() -> None:
    """Keep keys out of the log: at DEBUG, botocore writes bodies and signed headers to it.

    The command line shows no log of botocore's, but an application that has coco-kp in it may.
    """
    known = [name for name in logging.root.manager.loggerDict if name.startswith("botocore.")]
    for logger in map(logging.getLogger, known):
        if logging.NOTSET < logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
    top = logging.getLogger("botocore")
    if top.level < logging.INFO:
        top.setLevel(logging.INFO)
