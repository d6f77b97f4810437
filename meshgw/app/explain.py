"""The interpreter of one router of a configuration file, for explaining names without serving (``meshgw dtab --config``)."""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from typing import Any, cast

from meshgw.app.gateway import Names
from meshgw.config.loader import load_file
from meshgw.core.timers import Spawner
from meshgw.kinds import Delegator, Registry
from meshgw.naming.dtab import Dtab
from meshgw.telemetry.metrics import Metrics


def load(config_file: str, router_label: str | None, reactor: Any) -> tuple[Dtab, Delegator, Callable[[], object], Callable[[], object]]:
    """The router's dtab, its interpreter, and what starts and stops the services behind it. Raises ValueError with what is wrong."""
    result = load_file(config_file, Registry())
    if result.config is None:
        raise ValueError("\n".join(["the configuration cannot be used", *(problem.show() for problem in result.problems)]))
    spawner = Spawner()
    names = Names(result.config, reactor, Metrics(), SystemRandom(), spawner.spawn)
    label = router_label or next(iter(names.interpreters))
    if label not in names.interpreters:
        raise ValueError(f"{config_file} has no router {label!r}; it has {', '.join(names.interpreters)}")
    interpreter = names.interpreters[label]
    if not hasattr(interpreter, "delegate"):
        raise ValueError(f"the interpreter of router {label!r} cannot explain names")
    router = next(chosen.config for chosen in result.config.routers if (chosen.config.label or chosen.kind.id) == label)

    def stop() -> object:
        spawner.stop()
        return names.services.stopService()  # type: ignore[no-untyped-call]

    return router.dtab, cast("Delegator", interpreter), names.services.startService, stop
