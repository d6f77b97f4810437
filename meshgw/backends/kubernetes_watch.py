"""Following objects of a Kubernetes API server: list them, then watch from the list's version, again and again.

Source: Kubernetes' API concepts ("Efficient detection of changes", "Watch bookmarks", "410 Gone", "Retrieving large results sets in
chunks"); linkerd-config spec 3.5. Whatever a server may do with a watch ends in one of two ways: it goes on from the last version, or
everything is listed anew, which also finds what was deleted meanwhile. Waits between attempts are those of ``backends.watching``. As names
come from callers and each watch is a connection, there is a limit of both kinds of questions; beyond it objects are listed now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from random import Random
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.defer import DeferredSemaphore

from meshgw.backends.http_client import ApiAnswer, ApiClient, LineStream
from meshgw.backends.kubernetes_access import ApiServer
from meshgw.backends.kubernetes_objects import (
    JsonObject,
    Name,
    Objects,
    Wanted,
    is_before,
    name_of,
    pruned,
    read_status,
    same,
    version_of,
)
from meshgw.backends.turns import Turns
from meshgw.backends.watching import Watch
from meshgw.errors import BackendError, BackendRefused, BackendSilent

PAGE: Final = 200
"""Objects that are listed at a time: some hundred kilobytes as a rule."""
MOST_PAGES: Final = 500
LIST_SECONDS: Final = 30.0
"""For one page: a server under load takes its time, and gives up after a minute itself."""
WATCH_SECONDS: Final = (300, 600)
"""How long the server is asked to keep a watch open, drawn at random so that they do not all end together; as other clients do."""
MARGIN_SECONDS: Final = 30.0
"""A watch that says nothing is ended so long after the server should have ended it."""
HEARTBEAT_SECONDS: Final = 180.0
"""Servers that send bookmarks send one a minute; once there was one, so much silence means that the connection is dead."""
QUIET_SECONDS: Final = 300.0
"""After so long without any word, bookmarks included, everything is listed anew: nothing shows that the server still counts as it did.
It may have been restored from a backup, and then sends nothing until it has come to the version that we have."""
MOST_JOINED: Final = 500
"""Events that are told together when they come together."""
MOST_OBJECTS: Final = PAGE * MOST_PAGES
MOST_LISTS: Final = 50
"""Lists under way at a time: each takes a connection, and a thousand names may be asked for while the server is slow."""
TURNLESS_SECONDS: Final = 5.0
"""From one list to the next, or up to a fifth more, of objects that have no turn at being watched. Not less: see ``Pace.steady``."""
TURNLESS_ABSENT_SECONDS: Final = 30.0
"""The same where there is no such object."""
MOST_POLLS: Final = 20.0
"""Such lists in a second, of all objects together: with many of them each is listed more rarely."""
GONE: Final = 410


class Expired(Exception):
    """The version we have is too old for the server, or unknown to it."""


Refine = Callable[[BackendRefused, str, Wanted], BackendRefused]


class Limits:
    """What the watched things of one server share: turns at watches, ``most`` at a time, and at lists."""

    def __init__(self, most: int) -> None:
        self.watches, self.lists = Turns(most), DeferredSemaphore(MOST_LISTS)
        self.turnless = 0
        """Things that are listed now and then instead of being watched."""

    def pause(self, *, is_absent: bool) -> float:
        """Seconds from one list of such a thing to the next."""
        return max(TURNLESS_ABSENT_SECONDS if is_absent else TURNLESS_SECONDS, self.turnless / MOST_POLLS)


class Reflection:
    """What is known of one watched thing; it lives as long as its watch, through all sessions."""

    def __init__(self, server: ApiServer, rng: Random, wanted: Wanted, refine: Refine, limits: Limits) -> None:
        """``refine`` makes the error of an answer to a verb one that tells what to do."""
        self._server, self._rng, self._wanted, self._refine, self._limits = server, rng, wanted, refine, limits
        self._objects: dict[Name, JsonObject] = {}
        self._version = ""
        self._is_sorted = True
        self._heard_at = 0.0
        self._lists = self._expired = self._events = self._ignored = 0

    async def follow(self, watch: Watch[Wanted, Objects]) -> None:
        """One session: list if need be, then one watch until it ends, or a wait if there are too many. Raises :class:`BackendError`."""
        if not self._version or self._server.seconds() - self._heard_at >= QUIET_SECONDS:
            await self._list(watch)
        is_absent = not self._objects
        with nullcontext(True) if self._wanted.is_whole else self._limits.watches.turn(is_absent=is_absent) as has_turn:
            if not has_turn:
                await self._rest(watch, is_absent=is_absent)
                return
            try:
                await self._stream(watch)
                return
            except Expired:
                self._expired += 1
        await self._list(watch)  # the next session watches: were this one to go on, a confused server could make it a hot loop

    async def _rest(self, watch: Watch[Wanted, Objects], *, is_absent: bool) -> None:
        """Wait until it is to be listed again."""
        self._version = ""  # what makes the next session list
        self._limits.turnless += 1
        try:
            await watch.sleep(self._limits.pause(is_absent=is_absent) * self._rng.uniform(1.0, 1.2))
        finally:
            self._limits.turnless -= 1

    def _tell(self, watch: Watch[Wanted, Objects]) -> None:
        if not self._is_sorted:
            self._objects, self._is_sorted = dict(sorted(self._objects.items())), True
        watch.good(Objects(dict(self._objects)))

    def _note(self, watch: Watch[Wanted, Objects], request: str) -> None:
        watch.facts.update(
            request=request,
            resourceVersion=self._version,
            lists=self._lists,
            expired=self._expired,
            events=self._events,
            ignoredEvents=self._ignored,
        )

    # --- lists

    async def _list(self, watch: Watch[Wanted, Objects]) -> None:
        self._version = ""
        self._lists += 1
        self._note(watch, f"LIST {self._wanted.show()}")
        items, version = await self._items()
        objects = {}
        for item in items:
            name = name_of(item)
            if name is None:
                raise self._server.client().malformed("an object without a name", self._wanted.show())
            known, fresh = self._objects.get(name), pruned(item)
            objects[name] = known if known is not None and same(known, fresh) else fresh
        self._objects, self._version, self._is_sorted = objects, version, False
        self._heard_at = self._server.seconds()
        self._note(watch, f"LIST {self._wanted.show()}")
        self._tell(watch)

    async def _items(self) -> tuple[list[dict[str, Any]], str]:
        """All items and the version they have, when it is our turn. Raises :class:`BackendError`."""
        lists = self._limits.lists
        try:
            await lists.acquire().addTimeout(LIST_SECONDS, self._server.clock)
        except defer.TimeoutError as error:
            reason = f"the {MOST_LISTS} lists before have taken more than {LIST_SECONDS:g} s"
            raise BackendSilent(backend=self._server.name, reason=reason, asked=self._wanted.show()) from error
        try:
            return await self._pages(PAGE)
        except Expired:  # between two pages: without pages it cannot happen
            return await self._pages(0)
        finally:
            lists.release()

    async def _pages(self, size: int) -> tuple[list[dict[str, Any]], str]:
        """All items, ``size`` at a time (0: at once), and the version they have. Raises :class:`Expired`."""
        items: list[dict[str, Any]] = []
        following, client = "", self._server.client()
        for _ in range(MOST_PAGES):
            query = self._wanted.selectors + ([("limit", str(size))] if size else []) + ([("continue", following)] if following else [])
            page = await self._page(query, is_continued=bool(following))
            found = page.get("items")
            if found is not None and not isinstance(found, list):
                raise client.malformed("a list whose items are none", self._wanted.show())
            items += found or ()
            metadata = page.get("metadata")
            following = str(metadata.get("continue") or "") if isinstance(metadata, dict) else ""
            if not following:
                version = version_of(page)
                if not version:
                    raise client.malformed("a list without a resourceVersion", self._wanted.show())
                return items, version
        raise client.malformed(f"more than {MOST_OBJECTS} objects", self._wanted.show())

    async def _page(self, query: list[tuple[str, str]], *, is_continued: bool) -> dict[str, Any]:
        client, answer = await self._get(query)
        if answer.status == GONE and is_continued:
            raise Expired
        asked = self._wanted.show()
        if not answer.is_good:
            raise self._refine(client.refused(answer, asked), "list", self._wanted)
        page = client.read_json(answer.body, asked)
        status = read_status(page)
        if status is not None:  # in spite of its good HTTP status
            if status.code == GONE and is_continued:
                raise Expired
            refused = BackendRefused(backend=client.name, reason=f"{status.code} ({status.message})", asked=asked, code=status.code)
            raise self._refine(refused, "list", self._wanted)
        if not isinstance(page, dict):
            raise client.malformed("what is no list of objects", asked)
        return page

    async def _get(self, query: list[tuple[str, str]]) -> tuple[ApiClient, ApiAnswer]:
        """An answer; refused for its token, with the one that may have taken its place meanwhile."""
        asked, client = self._wanted.show(), self._server.client()
        answer = await client.get(self._server.path + self._wanted.path, query, seconds=LIST_SECONDS, asked=asked)
        if answer.status == 401:
            renewed = self._server.client()
            if renewed is not client:
                return renewed, await renewed.get(self._server.path + self._wanted.path, query, seconds=LIST_SECONDS, asked=asked)
        return client, answer

    # --- watches

    async def _stream(self, watch: Watch[Wanted, Objects]) -> None:
        """One watch. Raises :class:`Expired` and :class:`BackendError`."""
        client, seconds = self._server.client(), self._rng.randint(*WATCH_SECONDS)
        query = [*self._wanted.selectors, ("watch", "true"), ("resourceVersion", self._version)]
        query += [("allowWatchBookmarks", "true"), ("timeoutSeconds", str(seconds))]
        self._note(watch, f"WATCH {self._wanted.show()}")
        try:
            stream = await client.lines(self._server.path + self._wanted.path, query, seconds=LIST_SECONDS, asked=self._wanted.show())
        except BackendRefused as error:
            if error.code in (404, GONE):
                raise Expired from error  # a list tells whether the resource is gone as well
            if error.code == 403:
                self._version = ""  # who may list only is at least told now and then
            raise self._refine(error, "watch", self._wanted) from error
        self._tell(watch)  # that it goes on from our version means that nothing was missed
        try:
            await self._events_of(watch, client, stream, seconds + MARGIN_SECONDS)
        finally:
            stream.close()

    async def _events_of(self, watch: Watch[Wanted, Objects], client: ApiClient, stream: LineStream, patience: float) -> None:
        untold = 0
        while (line := await stream.line(patience)) is not None:
            watch.heard()
            if not line.strip():
                continue
            self._heard_at = self._server.seconds()
            try:
                kind, is_change = self._take(client, line)
            except BackendError:
                self._version = ""  # what is known may be wrong as well
                raise
            if kind == "BOOKMARK":
                patience = min(patience, HEARTBEAT_SECONDS)
            untold += is_change
            if not stream.is_ready or untold >= MOST_JOINED:
                untold = 0
                self._note(watch, f"WATCH {self._wanted.show()}")
                self._tell(watch)

    def _take(self, client: ApiClient, line: bytes) -> tuple[str, bool]:
        """Take over one event: its type, and whether it changed anything. Raises :class:`Expired` and :class:`BackendError`."""
        asked = self._wanted.show()
        event = client.read_json(line, asked)
        kind = event.get("type") if isinstance(event, dict) else None
        value = event.get("object") if isinstance(event, dict) else None
        status = read_status(value) or read_status(event)
        if kind == "ERROR" or status is not None:
            if status is None:
                raise client.malformed("an ERROR event that does not say what is wrong", asked)
            if status.code == GONE or status.reason in ("Expired", "Gone"):
                raise Expired
            reason = f"{status.code} ({self._server.hide(status.message)[:200]})"
            raise self._refine(BackendRefused(backend=client.name, reason=reason, asked=asked, code=status.code), "watch", self._wanted)
        if not isinstance(kind, str) or not isinstance(value, dict):
            raise client.malformed("what is no event of a watch", asked)
        self._events += 1
        version = version_of(value)
        if kind == "BOOKMARK" and is_before(version, self._version):
            raise Expired  # the server counts anew, as after a restore from a backup, and would send nothing until it has caught up
        self._version = version or self._version
        if kind == "BOOKMARK":
            return kind, False
        name = name_of(value)
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            self._ignored += 1
            return kind, False
        if name is None:
            raise client.malformed("an event about an object without a name", asked)
        return kind, self._gone(name) if kind == "DELETED" else self._put(client, name, pruned(value))

    def _gone(self, name: Name) -> bool:
        return self._objects.pop(name, None) is not None

    def _put(self, client: ApiClient, name: Name, fresh: JsonObject) -> bool:
        known = self._objects.get(name)
        if known is not None and same(known, fresh):
            self._ignored += 1
            return False
        if known is None:
            if len(self._objects) >= MOST_OBJECTS:
                raise client.malformed(f"more than {MOST_OBJECTS} objects", self._wanted.show())
            self._is_sorted = False
        self._objects[name] = fresh
        return True
