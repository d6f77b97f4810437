"""A router as a Twisted service, by its place in the mesh: ``gateway.getServiceNamed("ingress:edge")``.

Source: ARCHITECTURE.md section 7. It starts its router. To stop is the gateway's business, which first lets all routers drain together.
"""

from __future__ import annotations

from twisted.application.service import Service

from meshgw.app.request_router import RequestRouter
from meshgw.core.logger import make_logger

_log = make_logger()


class RouterService(Service):
    """Runs ``router``; the service is called by the router's role, or ``router`` without one, and its label."""

    def __init__(self, router: RequestRouter) -> None:
        self.router = router
        self.setName(f"{router.config.role or 'router'}:{router.label}")  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Begin to accept, and tell where."""
        super().startService()  # type: ignore[no-untyped-call]
        router = self.router
        router.start()
        role = f" ({router.config.role})" if router.config.role is not None else ""
        for listener in router.listeners:
            host, port = listener.address
            _log.info("router {label}{role} serves on {host}:{port}", label=router.label, role=role, host=host, port=port)
