"""Talk between the master and its workers: questions and answers as JSON over Twisted's AMP on a private socket pair.

AMP limits a value to 64 KiB, so that a message travels in parts, each acknowledged before the next is sent. Both sides may ask. JSON
and not pickle: a worker that was taken over must not be able to run code in a master that may have more rights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from meshgw.admin.errors import NoAnswer, Relayed, relayed
from meshgw.app.plane import PATIENCE, Answering, Large
from meshgw.core.json_text import DEPTH, json_pieces
from meshgw.core.logger import make_logger
from meshgw.core.slices import Slices, collected
from meshgw.errors import MeshError

PART = 60_000
"""Bytes of a message in one AMP value, whose limit is 65,535."""
GIVEN_UP = 0
"""The number of a message which says that a question, whose number it holds, needs no answer any more."""
MOST_BYTES = 256 << 20
"""A message beyond this ends the connection: 100,000 metrics with histograms take some 30 MB."""
_log = make_logger()


def _gone(text: str) -> Relayed:
    return Relayed(code=503, text=text)


class Part(amp.Command):
    """A piece of a message; ``number`` is the asker's, negative in the answer."""

    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = [
        (b"number", amp.Integer()),  # type: ignore[no-untyped-call]  # AMP has no annotations
        (b"data", amp.String()),  # type: ignore[no-untyped-call]
        (b"last", amp.Boolean()),  # type: ignore[no-untyped-call]
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class Channel(amp.AMP):
    """One side of the connection between two processes of a gateway."""

    def __init__(self, name: str, answering: Answering, reactor: Any, lost: Callable[[], None] = lambda: None) -> None:
        """``name`` is the other side's, for messages; ``lost`` is called once when the connection ended."""
        super().__init__()  # type: ignore[no-untyped-call]  # AMP has no annotations
        self.name = name
        self._answering, self._reactor, self._lost = answering, reactor, lost
        self._slices = Slices(reactor)
        self._next = 0
        self._waiting: dict[int, Deferred[Any]] = {}
        self._answers: dict[int, Deferred[None]] = {}
        self._incoming: dict[int, list[bytes]] = {}
        self._bytes = 0
        self._is_lost = False

    async def ask(self, word: str, argument: Any = None, *, seconds: float = PATIENCE) -> Any:
        """The other side's answer. Raises :class:`Relayed`, or :class:`NoAnswer` when it takes longer than ``seconds``.

        Cancelled here, the work on it is cancelled there.
        """
        if self._is_lost:
            raise _gone(f"{self.name} is gone")
        self._next += 1
        number = self._next
        answer: Deferred[Any] = Deferred()
        self._waiting[number] = answer
        answer.addTimeout(seconds, self._reactor)
        sending = Deferred.fromCoroutine(self._send(number, [word, argument]))
        sending.addErrback(self._unsent, number)
        try:
            return await answer
        except defer.TimeoutError:
            raise NoAnswer(who=self.name, seconds=seconds) from None
        except CancelledError:
            if not self._is_lost:
                Deferred.fromCoroutine(self._send(GIVEN_UP, number)).addErrback(self._defect)
            raise
        finally:
            self._waiting.pop(number, None)

    def _unsent(self, failure: Failure, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.called:
            waiting.errback(_gone(f"{self.name} could not be asked: {failure.getErrorMessage()}"))

    async def _send(self, number: int, message: Any) -> None:
        if isinstance(message, Large):
            data = await self._slices.run(collected(json_pieces({"value": message.value}, DEPTH + 1)))
        else:
            data = json.dumps(message, separators=(",", ":")).encode()
        for start in range(0, len(data), PART):
            last = start + PART >= len(data)
            await self.callRemote(Part, number=number, data=data[start : start + PART], last=last)  # type: ignore[no-untyped-call]

    @Part.responder
    def _part(self, number: int, data: bytes, last: bool) -> dict[str, Any]:
        parts = self._incoming.setdefault(number, [])
        parts.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            _log.error("{name} sent more than {most} bytes; the connection to it is closed", name=self.name, most=MOST_BYTES)
            transport: Any = self.transport
            transport.abortConnection()
        elif last:
            del self._incoming[number]
            self._bytes -= sum(map(len, parts))
            message = json.loads(b"".join(parts))
            if number > 0:
                self._begin(number, message)
            elif number == GIVEN_UP:
                self._give_up(message)
            else:
                self._answered(-number, message)
        return {}

    def _begin(self, number: int, message: Any) -> None:
        def ended(_: None) -> None:
            self._answers.pop(number, None)

        answer = Deferred.fromCoroutine(self._answer(number, message))
        self._answers[number] = answer
        answer.addErrback(self._defect).addCallback(ended)

    def _give_up(self, number: Any) -> None:
        answer = self._answers.get(number)
        if answer is not None:
            answer.cancel()

    async def _answer(self, number: int, message: Any) -> None:
        word, argument = message
        try:
            value = await self._answering(word, argument)
            content: Any = value if isinstance(value, Large) else {"value": value}
        except (MeshError, TimeoutError) as error:
            told = relayed(error)
            content = {"error": told.text, "status": told.code}
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the rim: the other side must hear of it, and its log too
            _log.failure("could not answer {word!r} of {name}", word=word, name=self.name)
            content = {"error": f"{word}: internal error; the log has the details", "status": 500}
        if not self._is_lost:
            await self._send(-number, content)

    def _answered(self, number: int, content: Any) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.called:
            return  # it came too late
        if "error" in content:
            waiting.errback(Relayed(code=content["status"], text=content["error"]))
        else:
            waiting.callback(content["value"])

    def _defect(self, failure: Failure) -> None:
        if not self._is_lost and not failure.check(CancelledError):  # type: ignore[no-untyped-call]
            _log.failure("could not send an answer to {name}", failure=failure, name=self.name)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other process ended, or closed its side."""
        self._is_lost = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        for waiting in list(self._waiting.values()):
            if not waiting.called:
                waiting.errback(_gone(f"{self.name} ended"))
        self._lost()
