"""Tells twistd of its command ``meshgw`` and of the reactor it prefers; names only, so that listing commands imports nothing."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

meshgw = ServiceMaker("meshgw", "meshgw.app.service", "A service mesh gateway, compatible with Linkerd 1.x configuration.", "meshgw")
meshgw_reactor = Reactor("meshgw", "meshgw.core.reactor", "epoll with direct dispatch of data-path connections")
