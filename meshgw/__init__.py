"""meshgw: a service mesh gateway on Twisted, compatible with Linkerd 1.x configuration."""

__version__ = "0.1.0.dev0"
