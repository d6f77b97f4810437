"""``/admin/ready``: whether this gateway should get requests now, and if not, what is awaited.

Source: our own; made for readiness probes, beside ``/admin/ping`` for liveness. Ready means: it does not drain, every router listens, and
what no request can do without (a dtab kept elsewhere, the rules of ingresses) has been learnt once; outages later do not count, as the last
good answer is used on. With workers one of each group must be ready. Names that only some requests want are told of and do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from meshgw.admin.api import Answer, GatewayView, Query, json_answer

DRAINING = "draining: the process is ending"
STARTING = "starting: no configuration is served yet"


@attrs.frozen
class Readiness:
    """``pending`` says why the gateway is not ready; it is when there is nothing. ``waiting`` tells of names that are not known yet."""

    pending: tuple[str, ...]
    waiting: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return not self.pending


def assess(answers: Mapping[str, Mapping[str, Any]], groups: Sequence[Sequence[str]], *, is_ending: bool) -> Readiness:
    """The state of the whole gateway. ``answers`` are those of its processes, ``groups`` the names of those with the same routers."""
    if is_ending:
        return Readiness((DRAINING,))
    if not groups:
        return Readiness((STARTING,))
    pending: list[str] = []
    for group in groups:
        reasons = {name: _reasons(answers.get(name)) for name in group}
        if all(reasons.values()):
            pending += [text if len(answers) == 1 else f"{name}: {text}" for name, texts in reasons.items() for text in texts]
    waiting = [text for answer in answers.values() for text in answer.get("waiting", ())]
    return Readiness(tuple(dict.fromkeys(pending)), tuple(dict.fromkeys(waiting)))


def _reasons(answer: Mapping[str, Any] | None) -> list[str]:
    if answer is None:
        return ["it does not serve"]
    return [str(answer["error"])] if "error" in answer else list(answer["pending"])


class ReadyViews:
    """Both forms: a word for probes, which anybody may read, and what is awaited as JSON."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    async def text(self, query: Query) -> Answer:
        """200 and ``ready``, or 503. What is awaited has names of services in it and is for those who may read."""
        found = await self._assessed()
        if found.is_ready:
            return Answer("ready\n")
        is_ending = found.pending == (DRAINING,)
        text = "draining\n" if is_ending else f"not ready: {len(found.pending)} pending, see /admin/ready.json\n"
        return Answer(text, status=503)

    async def json(self, query: Query) -> Answer:
        """The same with reasons."""
        found = await self._assessed()
        content = {"ready": found.is_ready, "pending": list(found.pending), "waiting": list(found.waiting)}
        return json_answer(content, 200 if found.is_ready else 503)

    async def _assessed(self) -> Readiness:
        if self._view.is_ending:  # whoever drains may not answer
            return Readiness((DRAINING,))
        return assess(await self._view.diagnose("ready"), self._view.groups(), is_ending=False)
