"""``io.l5d.marathon``: names are ids of Marathon's apps, addresses those of their tasks.

Source: linkerd-config spec 3.6. Apps and tasks are asked for again and again while somebody looks at them; the first answer is waited
for, and if it is an error that is told; later errors leave what was known. The API itself is in ``backends.marathon``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import attrs
from twisted.application.service import MultiService

from meshgw.backends.connecting import Connector
from meshgw.backends.endpoints import Found, show_found
from meshgw.backends.http_client import ApiClient
from meshgw.backends.marathon import LARGEST_ANSWER, Basic, Credential, MarathonApi, is_url_path, read_credential
from meshgw.backends.watching import Pace, Watch, Watches
from meshgw.config.document import Chosen, at_least, option
from meshgw.config.tls import ClientTls, backend_tls_notice
from meshgw.config.values import Port
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant, live_flat_map, live_map
from meshgw.kinds import Kind, Runtime
from meshgw.namers.watched import bound_name
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree
from meshgw.telemetry.metrics import Metrics

SILENCE_SECONDS: Final = 60.0
"""Beyond the time between two questions; each answer has a limit of its own."""
_LASTING_MOST: Final = 30.0
_ALL: Final = "apps"

T = TypeVar("T")
Follow = Callable[[Watch[str, T]], Coroutine[Any, Any, None]]


@attrs.frozen
class ApiName:
    """Where the API is, as a name: ``/$/inet/HOST/PORT``."""

    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> ApiName:
        """Read it. Raises ValueError."""
        path = Path.read(text)
        labels = [label.decode("utf-8", "replace") for label in path]
        if len(labels) != 4 or labels[:2] != ["$", "inet"] or not labels[3].isdecimal() or not 1 <= int(labels[3]) <= 65535:
            raise ValueError(f"only names of the form /$/inet/HOST/PORT are supported here, not {text}")
        return cls(labels[2], int(labels[3]))


def _prefix(value: Any) -> str | None:
    return None if is_url_path(value) else f"{value!r} cannot be the beginning of a URL's path"


@attrs.frozen(kw_only=True)
class MarathonConfig:
    """Apps of Marathon. A name begins with the id of an app, of which the shortest counts; the rest is left for the service.

    Credentials come from the environment: `DCOS_SERVICE_ACCOUNT_CREDENTIAL` (JSON with `login_endpoint`, `private_key`, `scheme`
    RS256, `uid`), else `MARATHON_HTTP_AUTH_CREDENTIAL` (what follows `Basic`).
    """

    host: str = option(default="marathon.mesos", doc="Host of Marathon's API; it is also the Host of requests to it.")
    port: Port = option(default=Port(80), doc="Its port.")
    dst: ApiName | None = option(
        default=None, doc="Connect there and not to host and port: a name of the form `/$/inet/HOST/PORT`.", effective="host and port"
    )
    uri_prefix: str = option(default="", doc="What stands before `/v2/apps` in the API's paths.", check=_prefix)
    ttl_ms: int = option(default=5000, doc="Milliseconds between two questions for the apps, and for the tasks of one.", check=at_least(1))
    jitter_ms: int = option(default=50, doc="Milliseconds by which that varies at random, either way.", check=at_least(0))
    use_health_check: bool = option(default=False, doc="Use only tasks that run and pass all health checks of their app.")
    tls: ClientTls | None = option(default=None, doc="TLS to Marathon.", effective="off", notice=backend_tls_notice)
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.marathon"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )

    def __attrs_post_init__(self) -> None:
        read_credential(os.environ)  # a bad one is told with the file's other problems, before anything starts

    @property
    def place(self) -> ApiName:
        """What to connect to."""
        return self.dst or ApiName(self.host, self.port)


def app_of(path: Path, ids: frozenset[str]) -> str | None:
    """The shortest beginning of ``path``, in lower case, that is the id of an app."""
    id = ""
    for label in path:
        id += f"/{label.decode('utf-8', 'replace').lower()}"
        if id in ids:
            return id
    return None


class MarathonNamer(MultiService):
    """The namer of one configuration block; ``credential`` is what lets it in, ``connector`` leads to the API."""

    def __init__(self, config: MarathonConfig, runtime: Runtime, connector: Connector, credential: Credential | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._runtime, self._prefix = runtime, Path.of("#") + config.prefix
        self._credential, self._healthy_only = credential, config.use_health_check
        self._ttl, self._jitter = config.ttl_ms / 1000, config.jitter_ms / 1000
        self._connector = connector
        backend = f"Marathon at {config.place.host}:{config.place.port}"
        client = ApiClient(
            connector.agent,
            runtime.reactor,
            name=backend,
            base=connector.base,
            largest=LARGEST_ANSWER,
            explain=connector.refusal,
            outcomes=runtime.metrics.outcomes("client"),
        )
        prefix = config.uri_prefix.strip("/")
        self._api = MarathonApi(client, prefix=f"/{prefix}" if prefix else "", host=config.host, credential=credential)
        metrics = runtime.metrics
        self._lookups = metrics.counter("lookups")
        self._apps = self._watching(backend, metrics.scope("apps"), self._follow_apps, lambda ids: {"count": len(ids)})
        self._tasks = self._watching(backend, metrics.scope("service"), self._follow_tasks, show_found)
        for watches in (self._apps, self._tasks):
            watches.setServiceParent(self)  # type: ignore[no-untyped-call]

    def _watching(self, backend: str, metrics: Metrics, follow: Follow[T], show_value: Callable[[T], object]) -> Watches[str, T]:
        ttl, longest = self._ttl, self._ttl + self._jitter
        return Watches(
            self._runtime.reactor,
            self._runtime.random,
            metrics,
            backend=backend,
            follow=follow,
            show=str,
            show_value=show_value,
            fails_at_once=True,
            pace=Pace(
                least=min(ttl, 1.0), most=ttl, lasting_least=ttl, lasting_most=max(_LASTING_MOST, ttl), silence=longest + SILENCE_SECONDS
            ),
        )

    def startService(self) -> None:
        """Begin to follow the files of TLS; Marathon is asked when somebody looks a name up."""
        self._connector.start()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Any:
        """End all work; the last state stays."""
        self._connector.stop()
        return super().stopService()  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The app that ``path`` begins with; neg while there is none, or it has no tasks that count."""
        self._lookups.incr()
        app = live_map(self._apps.watch(_ALL), lambda ids: app_of(path, ids))

        def tree(id: str | None) -> Live[NameTree[Path | Bound]]:
            if id is None:
                return constant(NEG)
            labels = id.removeprefix("/").split("/")
            return bound_name(
                self._tasks,
                id,
                id=self._prefix + Path.of(*labels),
                residual=path.drop(len(labels)),
                resolve=self._runtime.resolve,
                needs_address=True,
            )

        return live_flat_map(app, tree)

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``, and how we are let in."""
        credential = self._credential
        login = "none" if credential is None else "basic" if isinstance(credential, Basic) else f"DC/OS as {credential.uid}"
        return {"authentication": login, **self._apps.describe(), "tasks": self._tasks.describe()}

    async def _follow_apps(self, watch: Watch[str, frozenset[str]]) -> None:
        while True:
            watch.good(await self._api.app_ids())
            await watch.sleep(self._pause())

    async def _follow_tasks(self, watch: Watch[str, Found]) -> None:
        while True:
            watch.good(await self._api.tasks(watch.key, healthy_only=self._healthy_only))
            await watch.sleep(self._pause())

    def _pause(self) -> float:
        return max(0.01, self._ttl + self._runtime.random.uniform(-self._jitter, self._jitter))


def build_marathon(config: MarathonConfig, runtime: Runtime) -> MarathonNamer:
    """The namer for a configuration block."""
    connector = Connector(runtime.reactor, runtime.resolve, config.place.host, config.place.port, tls=config.tls)
    return MarathonNamer(config, runtime, connector, read_credential(os.environ))


KIND = Kind(id="io.l5d.marathon", config=MarathonConfig, build=build_marathon)
