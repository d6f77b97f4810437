"""The options ``hsts`` and ``redirectToHttps`` of a server: keeping browsers on HTTPS.

Source: RFC 6797 (HSTS), RFC 9110 section 15.4.9 (308). Both are our own, Linkerd has nothing like them.
"""

from __future__ import annotations

from typing import Final

import attrs

from meshgw.config.document import at_least, one_of, option
from meshgw.config.values import Port

PRELOAD_SECONDS: Final = 31_536_000
"""What browsers' preload lists ask for: a year."""


@attrs.frozen(kw_only=True)
class Hsts:
    """`Strict-Transport-Security` on answers that go over TLS, in place of a service's own."""

    max_age: int = option(default=31_536_000, doc="Seconds for which browsers use nothing but HTTPS; 0 takes it back.", check=at_least(0))
    include_sub_domains: bool = option(default=False, doc="The same for all names below.")
    preload: bool = option(default=False, doc="Agree to be put on browsers' lists; needs includeSubDomains and a maxAge of a year.")

    def __attrs_post_init__(self) -> None:
        if self.preload and (not self.include_sub_domains or self.max_age < PRELOAD_SECONDS):
            raise ValueError(f"preload needs includeSubDomains: true and a maxAge of at least {PRELOAD_SECONDS}")


@attrs.frozen(kw_only=True)
class HttpsRedirect:
    """Send plaintext callers to the same host and path over HTTPS; an empty block does it with these defaults."""

    port: Port = option(default=Port(443), doc="Port of the HTTPS server as callers see it.")
    status: int = option(default=308, doc="Status of the answer; 307 and 308 keep method and body.", check=one_of(301, 302, 307, 308))
