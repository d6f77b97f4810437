"""twisted.web's own reverse proxy as a program: `python twisted_web.py PORT BACKEND_PORT ACCESS_LOG`.

It is what a Twisted programmer has without meshgw: ``ReverseProxyResource`` behind a ``Site`` with an access log. It opens a connection to
the backend for every request; that is how the resource works.
"""

from __future__ import annotations

import sys

from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site


def main() -> None:
    """Serve until the process is told to end."""
    from twisted.internet import reactor

    port, backend, log = sys.argv[1:]
    site = Site(ReverseProxyResource("127.0.0.1", int(backend), b""), logPath=log.encode())
    reactor.listenTCP(int(port), site, backlog=4096, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
