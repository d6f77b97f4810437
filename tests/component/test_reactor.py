from __future__ import annotations

import subprocess
import sys

import pytest

PREAMBLE = """
import socket, sys
from meshgw.core.reactor import BROKEN, IN, MeshReactor, StockPoller, install, poller_for
install()
from twisted.internet import reactor
assert isinstance(reactor, MeshReactor) and poller_for(reactor) is reactor
a, b = socket.socketpair(); c, d = socket.socketpair()
for sock in (a, b, c, d): sock.setblocking(False)
said = []
"""

FAILING = """
def fail(events):
    said.append(("fail", bool(events & BROKEN)))
    raise ZeroDivisionError
def work(events):
    said.append(("work", c.recv(10)))
    reactor.stop()
reactor.watch(a.fileno(), fail, IN)
reactor.watch(c.fileno(), work, IN)
b.send(b"x")
reactor.callLater(0.05, d.send, b"y")
reactor.callLater(5, reactor.stop)
reactor.run()
print(said)
"""

TELLING = """
def told(events):
    said.append(bool(events & BROKEN))
    if not events & BROKEN:
        raise ZeroDivisionError
    reactor.forget(a.fileno())
    reactor.callLater(0, reactor.stop)
reactor.watch(a.fileno(), told, IN)
b.send(b"x")
reactor.callLater(5, reactor.stop)
reactor.run()
print(said)
"""

STARVING = """
def echo(events):
    said.append(a.recv(10))
    b.send(b"x")            # never a quiet moment
reactor.watch(a.fileno(), echo, IN)
b.send(b"x")
ran = []
reactor.callLater(0.05, lambda: ran.append("timer"))
reactor.callLater(0.05, lambda: reactor.callInThread(reactor.callFromThread, lambda: (ran.append("thread"), reactor.stop())))
reactor.callLater(5, reactor.stop)
reactor.run()
print(ran, len(said) > 100)
"""

STOCK = """
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
class Echo(Protocol):
    def dataReceived(self, data): self.transport.write(data)
port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
class Ask(Protocol):
    def connectionMade(self): self.transport.write(b"ping")
    def dataReceived(self, data): said.append(data); reactor.stop()
connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Ask())
reactor.callLater(5, reactor.stop)
reactor.run()
print(said)
"""

FORGETTING = """
def forget(events):
    said.append(events)
    for sock in (a, c, a, c):
        reactor.forget(sock.fileno())
    reactor.callLater(0.05, reactor.stop)
reactor.watch(a.fileno(), forget, IN)
reactor.watch(c.fileno(), forget, IN)
b.send(b"x"); d.send(b"x")
reactor.callLater(5, reactor.stop)
reactor.run()
print(len(said))
"""


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        pytest.param(FAILING, "[('fail', False), ('fail', True), ('work', b'y')]", id="a handler that raises stops no other"),
        pytest.param(TELLING, "[False, True]", id="its owner is told to give the descriptor up"),
        pytest.param(STARVING, "['timer', 'thread'] True", id="busy sockets starve neither timers nor threads"),
        pytest.param(STOCK, "[b'ping']", id="stock transports work"),
        pytest.param(FORGETTING, "1", id="a forgotten descriptor of the same round is not reported"),
    ],
)
def test_the_reactor_keeps_its_word(script: str, printed: str) -> None:
    done = subprocess.run([sys.executable, "-c", PREAMBLE + script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == printed, done.stderr
