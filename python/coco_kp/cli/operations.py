"""Options of who operates the key provider: what he can see of it, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar

import click

from coco_kp.cli.errors import UsageError
from coco_kp.cli.options import Option, OptionGroup, usage

if TYPE_CHECKING:
    from coco_kp.keyprovider.address import TcpAddress
    from coco_kp.keyprovider.server import Moments
    from coco_kp.provider import Provider
    from coco_kp.service.audit import AuditLog


class OperationOptions(OptionGroup):
    """What operators look at."""

    metrics: str | None
    health: str | None
    audit: str | None
    audit_required: bool

    options: ClassVar[tuple[Option, ...]] = (
        click.option(
            "--metrics",
            metavar="ADDR",
            help="Serve Prometheus metrics over HTTP at ADDR, such as 127.0.0.1:9464 (port 0: "
            "any).",
        ),
        click.option(
            "--health",
            metavar="ADDR",
            help="Answer gRPC health checks at ADDR, too, without TLS, which Kubernetes' probes do "
            "not know.",
        ),
        click.option(
            "--audit",
            metavar="FILE",
            help="Record each call as a line of JSON in FILE, or on stdout (-). SIGHUP has FILE "
            "opened anew.",
        ),
        click.option(
            "--audit-required", is_flag=True, help="Answer no call that could not be recorded."
        ),
    )

    def check(self, *, daemon: bool) -> None:
        """Raise ``UsageError`` for options that do not go together."""
        if self.audit_required and self.audit is None:
            raise UsageError("--audit-required needs --audit FILE")
        if self.audit == "-" and daemon:
            raise UsageError("--audit - and --daemon exclude each other", "name a file")
        self.metrics_address()
        self.health_address()

    def metrics_address(self) -> TcpAddress | None:
        """Read where metrics are served. Raises ``UsageError``."""
        return self._tcp_address("--metrics", self.metrics)

    def health_address(self) -> TcpAddress | None:
        """Read where health checks alone are answered. Raises ``UsageError``."""
        return self._tcp_address("--health", self.health)

    @contextmanager
    def at_work(
        self, provider: Provider, ready: Callable[[str], None], metrics: Callable[[str], None]
    ) -> Iterator[tuple[AuditLog | None, Moments]]:
        """Open, serve and watch what the options name, while the block runs.

        ``ready`` and ``metrics`` are told where calls and scrapes are answered. To be entered after
        the fork of a daemon. Raises ``CocoKpError``.
        """
        from coco_kp.keyprovider.server import Moments
        from coco_kp.service.audit import open_audit_log
        from coco_kp.service.readiness import Readiness, checks_of
        from coco_kp.service.systemd import Notifier

        audit = (
            open_audit_log(self.audit, required=self.audit_required)
            if self.audit is not None
            else None
        )
        notifier, readiness = Notifier.from_environment(), Readiness(checks_of(provider))

        def begun(bound: str) -> None:
            ready(bound)
            notifier.ready()

        def can_serve() -> bool:
            notifier.beat()
            return readiness.ready

        def reload() -> None:
            notifier.reloading()
            if audit:
                audit.reopen()
            notifier.ready()

        reloads = notifier.asked or audit is not None
        with ExitStack() as stack:
            if address := self.metrics_address():
                metrics(self._serve_metrics(stack, address))
            readiness.start()
            yield (
                audit,
                Moments(begun, can_serve, reload if reloads else None, notifier.stopping),
            )

    @staticmethod
    def _tcp_address(option: str, text: str | None) -> TcpAddress | None:
        from coco_kp.keyprovider.address import TcpAddress, parse_address

        if text is None:
            return None
        with usage():
            address = parse_address(text)
        if not isinstance(address, TcpAddress):
            raise UsageError(f"{option} needs an IP address and a port, not a Unix socket")
        return address

    @staticmethod
    def _serve_metrics(stack: ExitStack, address: TcpAddress) -> str:
        from importlib.metadata import version

        from coco_kp.observe import dropped_lines, observed_by
        from coco_kp.service.metrics import Metrics, serve_metrics

        metrics = Metrics(version("coco-kp"), dropped_lines)
        stack.enter_context(observed_by(metrics))
        return serve_metrics(metrics.registry, address)
