"""Kinds that Linkerd 1.x ships and meshgw does not support yet, or never will, so that a file that uses them is told so.

Source: linkerd-config spec 11, with 3, 4.6, 5.7, 6.2, 7.6, 8 and 9. An id that an installed distribution announces wins over these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LATER_KINDS: Final[Mapping[str, Mapping[str, str]]] = {
    "protocols": {
        "thrift": "Thrift router",
        "thriftmux": "ThriftMux router",
        "mux": "Mux router",
    },
    "interpreters": {
        "io.l5d.namerd": "interpreter over namerd's Thrift interface",
        "io.l5d.namerd.http": "interpreter over namerd's HTTP interface",
        "io.l5d.mesh": "interpreter over namerd's gRPC interface",
        "io.l5d.k8s.configMap": "interpreter with a dtab in a Kubernetes ConfigMap",
        "io.l5d.consul.interpreter": "interpreter with a dtab in Consul",
    },
    "telemeters": {},
}

_ISTIO: Final = "Istio's discontinued API"

OUT_OF_SCOPE_KINDS: Final[Mapping[str, Mapping[str, str]]] = {
    "namers": {"io.l5d.k8s.istio": _ISTIO},
    "interpreters": {"io.l5d.k8s.istio": _ISTIO},
    "identifiers": {
        "io.l5d.k8s.istio": _ISTIO,
        "io.l5d.k8s.istio-ingress": f"{_ISTIO}; ingresses of Kubernetes are what `io.l5d.ingress` reads",
    },
    "authorizers": {"io.l5d.k8s.istio": _ISTIO},
}
