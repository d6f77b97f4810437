"""The interpreter ``io.l5d.fs``: the default interpreter with a dtab of its own, read from a file and reread when it changes.

Source: linkerd-config spec 7.4 (the file's entries come before the router's, which therefore prevail) and 8.2. Unlike Linkerd,
an edit that cannot be parsed, or a file that vanishes, leaves the last good dtab in use; it is logged, and shown as stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
from twisted.application.service import Service

from meshgw.bind.interpreter import DefaultInterpreter
from meshgw.config.document import Chosen, option
from meshgw.config.values import File
from meshgw.core.address import Bound
from meshgw.core.files import FileWatcher
from meshgw.core.live import Live, Ok, Pending, Source, live_flat_map
from meshgw.core.logger import make_logger
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Namer, Runtime, Transformer
from meshgw.naming.dtab import Delegation, Dtab, DtabSyntaxError
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree

_log = make_logger()

# The file is read in the reactor's thread, which is right for some kilobytes; more is not a dtab but a mistake.
LARGEST_FILE: Final = 4_000_000


class DtabFileInterpreter(Service):
    """Binds by the file's dtab followed by the one it is given. A service: the file is watched while it runs."""

    def __init__(self, reactor: Any, dtab_file: str, default: DefaultInterpreter) -> None:
        """``dtab_file`` is read when the service starts; names are pending until then."""
        self._path, self._default = dtab_file, default
        self._watcher = FileWatcher(reactor, dtab_file, self._reread)
        self._text: str | None = None
        self._problem = ""
        self.dtab: Source[Dtab] = Source(initial=Pending(f"the dtab file {dtab_file}"))

    def startService(self) -> None:
        """Read the file and watch it."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's Service has no annotations
        self._watcher.start()
        self._reread()

    def stopService(self) -> None:
        """End the watch."""
        self._watcher.stop()
        super().stopService()  # type: ignore[no-untyped-call]  # as above

    @property
    def can_delegate(self) -> bool:
        """Whether names can be explained."""
        return self._default.can_delegate

    @property
    def awaits(self) -> str:
        """See :class:`meshgw.kinds.Awaiting`."""
        state = self.dtab.state
        return "" if isinstance(state, Ok) else state.waiting_for if isinstance(state, Pending) else str(state.error)

    def bind(self, dtab: Dtab, path: Path) -> Live[NameTree[Bound]]:
        """The live tree of bound names, by the file's entries and then those of ``dtab``."""
        return live_flat_map(self.dtab, lambda own: self._default.bind(own + dtab, path))

    def delegate(self, dtab: Dtab, path: Path) -> Live[Delegation]:
        """The live delegation tree, by the file's entries and then those of ``dtab``."""
        return live_flat_map(self.dtab, lambda own: self._default.delegate(own + dtab, path))

    def describe(self) -> dict[str, Any]:
        """The file's dtab as it is in use, see :class:`meshgw.kinds.Describing`; the dtab is null while there is none."""
        state = self.dtab.state
        is_stale = isinstance(state, Ok) and state.error is not None
        value = state.value.show() if isinstance(state, Ok) else None
        described = {"running": bool(self.running), "stale": is_stale, "value": value}
        return {"path": self._path, "state": described, "poll": {"error": self._problem.rstrip()} if self._problem else {}}

    def _reread(self) -> None:
        try:
            text = _read(self._path)
        except FileNotFoundError:
            self._vanished()
            return
        except (OSError, ValueError) as error:
            self._fail(f"{self._path}: the dtab file cannot be read: {error}")
            return
        if text == self._text and not self._problem:
            return
        self._text = text
        try:
            dtab = Dtab.read(text)
        except DtabSyntaxError as error:
            found = repr(error.found) if error.found else "the end"
            position = f"{self._path}:{error.line}:{error.column}"
            self._fail(f"{position}: {error.expected} expected but {found} found\n{error.caret()}\n")
            return
        self._problem = ""
        self.dtab.set(dtab)
        _log.info("{path}: dtab of {count} entries in use", path=self._path, count=len(dtab))

    def _vanished(self) -> None:
        problem = f"{self._path}: the dtab file does not exist"
        if isinstance(self.dtab.state, Ok):
            self._fail(problem)
        else:  # spec 8.2: names are pending, not failed
            self.dtab.pend(problem)
            self._report(f"{problem}; {self._in_use()}")

    def _fail(self, problem: str) -> None:
        self.dtab.fail(NamerError(detail=problem.rstrip()))
        separator = "" if problem.endswith("\n") else "; "
        self._report(f"{problem}{separator}{self._in_use()}")

    def _in_use(self) -> str:
        is_known = isinstance(self.dtab.state, Ok)
        return "the last good dtab stays in use" if is_known else "no name can be bound until it is corrected"

    def _report(self, problem: str) -> None:
        if problem != self._problem:  # the watcher also calls for changes that change nothing
            self._problem = problem
            _log.warn("{problem}", problem=problem)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE} bytes")
    return data.decode("utf-8")


@attrs.frozen(kw_only=True)
class DtabFileConfig:
    """Binds names by a dtab file, which is reread when it changes, then by the router's dtab and the configured namers."""

    dtab_file: File = option(doc="File that holds the dtab. Its entries come before the router's, so the router's prevail.")
    transformers: tuple[Chosen, ...] = option(
        default=(), kinds="transformers", doc="Transformers of the bound names' replica sets, applied in the order given."
    )


def build_dtab_file(
    config: DtabFileConfig,
    runtime: Runtime,
    *,
    namers: Sequence[tuple[Path, Namer]],
    builtin: Namer,
    transformers: Sequence[Transformer] = (),
) -> DtabFileInterpreter:
    """The interpreter of a router, not started; ``transformers`` are those of ``config``, built."""
    default = DefaultInterpreter(namers, builtin, transformers=transformers)
    return DtabFileInterpreter(runtime.reactor, config.dtab_file, default)


KIND = Kind(id="io.l5d.fs", config=DtabFileConfig, build=build_dtab_file)
