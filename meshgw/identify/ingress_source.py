"""The ingresses of a Kubernetes API server, kept as a table of rules; the last good one stays through outages.

Source: linkerd-config spec 5.2 ("watches … all namespaces or one", "waits for the initial list"). Which API version serves ingresses is
asked; IngressClass objects are only looked at where ingresses refer to them, since that takes a right of its own. It knows no protocol:
identifiers ask the table. What follows the table, or the objects, registers with :class:`IngressSource`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.kubernetes import (
    INGRESS_CLASSES,
    INGRESSES,
    INGRESSES_BETA,
    INGRESSES_EXTENSIONS,
    JsonObject,
    KubernetesApi,
    Name,
    Objects,
    Resource,
    Wanted,
)
from meshgw.core.live import Failed, Observation, Ok, Pending, State, live_flat_map, live_map
from meshgw.core.logger import make_logger
from meshgw.identify.ingress_objects import Ingress, IngressClass, Problem, read_class, read_ingress
from meshgw.identify.ingress_rules import Claim, Ownership, RuleTable
from meshgw.kinds import NotYet
from meshgw.telemetry.metrics import Metrics

MOST_SHOWN: Final = 100
"""Ingresses and problems that admin shows."""
MOST_LOGGED: Final = 20
"""Problems that one change logs."""

_log = make_logger()


@attrs.frozen
class Owned:
    """An ingress that names our class, and the object it was read from."""

    ingress: Ingress
    item: JsonObject = attrs.field(repr=False)


class IngressSource(MultiService):
    """Follows ingresses while it runs. ``table`` is None until they are known for the first time."""

    def __init__(
        self, api: KubernetesApi, *, namespace: str | None, ownership: Ownership, ignore_defaults: bool = False, metrics: Metrics
    ) -> None:
        """``namespace`` None stands for all. ``metrics`` is the scope ``ingress`` of the router."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.api, self.ownership = api, ownership
        self._namespace, self._ignore_defaults = namespace, ignore_defaults
        api.setServiceParent(self)  # type: ignore[no-untyped-call]
        self.table: RuleTable | None = None
        self.owned: tuple[Owned, ...] = ()
        self.resource: Resource | None = None
        """Where the objects come from."""
        self.error: Exception | None = None
        """Why there is no table and waiting for one is of little use; or, with a table, why it may be outdated."""
        self.not_yet = NotYet()
        """What requests wait for while there is neither a table nor an error."""
        self.on_rules: list[Callable[[], None]] = []
        """Called when there is another table."""
        self.on_change: list[Callable[[], None]] = []
        """Called when anything of the objects may have changed, after the table did."""
        self._served: list[Ingress] = []
        self._further: list[Problem] = []
        self._state: State[tuple[Resource, Objects]] = Pending()
        self._classes: State[Objects] = Pending()
        self._read: dict[Name, tuple[JsonObject, Ingress]] = {}
        self._told: set[str] = set()
        self._watched: Observation | None = None
        self._watched_classes: Observation | None = None
        self._updates = metrics.counter("updates")
        metrics.gauge("ready", function=lambda: float(self.table is not None))
        metrics.gauge("ingresses", function=lambda: float(len(self.table.ingresses)) if self.table is not None else 0.0)
        metrics.gauge("rules", function=lambda: float(self.table.size) if self.table is not None else 0.0)
        metrics.gauge("problems", function=lambda: float(len(self.table.problems)) if self.table is not None else 0.0)

    # --- life cycle

    def startService(self) -> None:
        """Begin to follow."""
        super().startService()  # type: ignore[no-untyped-call]
        served = self.api.served(INGRESSES, INGRESSES_BETA, INGRESSES_EXTENSIONS)
        self._watched = live_flat_map(
            served, lambda resource: live_map(self.api.objects(Wanted(resource, self._namespace)), lambda objects: (resource, objects))
        ).observe(self._changed)

    def stopService(self) -> Any:
        """End that; the table stays as it is."""
        for observation in (self._watched, self._watched_classes):
            if observation is not None:
                observation.close()
        self._watched = self._watched_classes = None
        return super().stopService()  # type: ignore[no-untyped-call]

    # --- what is told

    def _changed(self, state: State[tuple[Resource, Objects]]) -> None:
        self._state = state
        self._update()

    def _classes_changed(self, state: State[Objects]) -> None:
        self._classes = state
        if self._watched_classes is not None:  # else it is told while it begins
            self._update()

    def _update(self) -> None:
        state = self._state
        if isinstance(state, Pending):
            self._wait(state.waiting_for)
        elif isinstance(state, Failed):
            self._cannot(state.error)
        else:
            resource, objects = state.value
            found = self._ingresses(objects)
            self._follow_classes(needed=self.ownership.needs_classes(found))
            classes = self._known_classes()
            if classes is None and self.table is None:
                assert isinstance(self._classes, Pending)
                self._wait(self._classes.waiting_for)
            else:
                self._serve(resource, objects, found, classes)
                self.error = state.error

    def _wait(self, waiting_for: str) -> None:
        self.not_yet.waiting_for = waiting_for
        if self.table is None:
            self.error = None

    def _cannot(self, error: Exception) -> None:
        self.error = error
        if self.table is None:
            self.not_yet.resume()

    def _ingresses(self, objects: Objects) -> list[Ingress]:
        """The objects read; those that did not change since are not read again."""
        before, self._read = self._read, {}
        for name, item in objects.items():
            known = before.get(name)
            if known is None or known[0] is not item:
                fresh = read_ingress(*name, item)
                # most changes are of the status, which says nothing about rules
                known = (item, known[1] if known is not None and known[1] == fresh else fresh)
            self._read[name] = known
        return [ingress for _, ingress in self._read.values()]

    # --- classes

    def _follow_classes(self, *, needed: bool) -> None:
        if needed and self._watched_classes is None:
            self._watched_classes = self.api.objects(Wanted(INGRESS_CLASSES, None)).observe(self._classes_changed)
        elif not needed and self._watched_classes is not None:
            self._watched_classes.close()
            self._watched_classes = None
            self._classes = Pending()

    def _known_classes(self) -> Mapping[str, IngressClass] | None:
        """The classes by name; none where they cannot be had, None while they are awaited."""
        if self._watched_classes is None:
            return {}
        if isinstance(self._classes, Ok):
            return {name: read_class(item) for (_, name), item in self._classes.value.items()}
        return {} if isinstance(self._classes, Failed) else None

    def _class_problem(self, ingress: Ingress, classes: Mapping[str, IngressClass]) -> Problem | None:
        """Why it is not known whose class an ingress names."""
        name = ingress.class_name
        if name is None or ingress.annotated is not None or name == self.ownership.name or name in classes:
            return None
        if isinstance(self._classes, Failed):
            reason = f"the IngressClass {name!r} cannot be looked up, so the ingress is not served: {self._classes.error}"
        else:
            reason = f"there is no IngressClass {name!r}, so the ingress is not served"
        return Problem(ingress.label, "spec.ingressClassName", reason)

    # --- the table

    def _serve(self, resource: Resource, objects: Objects, found: Sequence[Ingress], classes: Mapping[str, IngressClass] | None) -> None:
        known = classes or {}
        claims = [(ingress, self.ownership.claim(ingress, known)) for ingress in found]
        unclear = [self._class_problem(ingress, known) for ingress in found] if classes is not None else []
        served = [ingress for ingress, claim in claims if claim is not Claim.OTHERS]
        further = [problem for problem in unclear if problem is not None]
        self.owned = tuple(Owned(ingress, objects[ingress.namespace, ingress.name]) for ingress, claim in claims if claim is Claim.OURS)
        self.resource = resource
        if self.table is None or served != self._served or further != self._further:  # identity decides for most of them
            self._served, self._further = served, further
            self.table = RuleTable(served, ignore_defaults=self._ignore_defaults, further=further)
            self._updates.incr()
            self._tell_problems(self.table.problems)
            _call(self.on_rules)
        _call(self.on_change)
        self.not_yet.resume()

    def _tell_problems(self, problems: Sequence[Problem]) -> None:
        """Log those that are new, once each."""
        texts = {str(problem): None for problem in problems}
        fresh = [text for text in texts if text not in self._told]
        for text in fresh[:MOST_LOGGED]:
            _log.warn("ingress {problem}", problem=text)
        if len(fresh) > MOST_LOGGED:
            _log.warn("{more} more problems of ingresses; admin shows them", more=len(fresh) - MOST_LOGGED)
        self._told = set(texts)

    def describe(self) -> dict[str, object]:
        """The state as JSON data, for admin."""
        table = self.table
        found: dict[str, object] = {
            "resource": self.resource.show() if self.resource is not None else None,
            "ready": table is not None,
            "stale": table is not None and self.error is not None,
            "error": str(self.error) if self.error is not None else None,
            "waitingFor": None if table is not None or self.error is not None else self.not_yet.waiting_for,
            "api": self.api.describe(),
        }
        if table is not None:
            default = table.default
            found |= {
                "rules": table.size,
                "ingressCount": len(table.ingresses),
                "ingresses": [ingress.label for ingress in table.ingresses[:MOST_SHOWN]],
                "defaultBackend": {"backend": default.backend.show(), "ingress": default.owner} if default is not None else None,
                "problems": [str(problem) for problem in table.problems[:MOST_SHOWN]],
            }
        return found


def _call(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        function()
