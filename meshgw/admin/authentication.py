"""Who asks: the tokens of operators and readers, kept in files, and how a request shows one.

Source: RFC 6750 (Bearer) and RFC 7617 (Basic, for browsers: any user name, the token as password). Linkerd has no authentication.
The files are read for every request that shows a token, which costs some microseconds and needs no watching: a rotated
secret counts at once. Tokens are compared in constant time and appear in no message.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode
from collections.abc import Callable, Sequence
from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest

import attrs

from meshgw.config.models import AdminAuthentication
from meshgw.core.logger import make_logger
from meshgw.errors import MeshError

LEAST_TOKEN = 16  # characters; fewer could be guessed over the network
MOST_TOKEN = 4096
LOG_SECONDS = 1.0  # at most one line in this time, however many try

CHALLENGES = (("WWW-Authenticate", 'Bearer realm="meshgw"'), ("WWW-Authenticate", 'Basic realm="meshgw", charset="UTF-8"'))

_log = make_logger()


class Access(IntEnum):
    """What somebody may do: the higher includes the lower."""

    NOBODY = 0
    READER = 1
    OPERATOR = 2


@attrs.frozen(kw_only=True)
class UnusableToken(MeshError):
    """The file of a token cannot be used; what is in it is not told."""

    option: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.option}: {self.file}: {self.reason}"


class TokenFile:
    """A token in a file, read anew whenever it is needed. Once it could be read, a bad or missing file leaves the last good token."""

    def __init__(self, option: str, file: str) -> None:
        self._option, self._file = option, file
        self._digest = b""
        self._complaint = ""

    def load(self) -> None:
        """Read the file. Raises :class:`UnusableToken`."""
        self._digest = sha256(self._token()).digest()

    def matches(self, shown: bytes) -> bool:
        """Whether ``shown`` is the token."""
        try:
            self.load()
        except UnusableToken as error:
            if str(error) != self._complaint:
                _log.warn("{problem}; the last good token stays valid", problem=str(error))
            self._complaint = str(error)
        else:
            self._complaint = ""
        return bool(self._digest) and compare_digest(sha256(shown).digest(), self._digest)

    def _token(self) -> bytes:
        try:
            token = _content(self._file).strip()
        except OSError as error:
            raise UnusableToken(option=self._option, file=self._file, reason=error.strerror or str(error)) from error
        if not LEAST_TOKEN <= len(token) <= MOST_TOKEN:
            reason = f"a token of {LEAST_TOKEN} to {MOST_TOKEN} characters is expected"
        elif not all(0x21 <= byte <= 0x7E for byte in token):
            reason = "a token of printable ASCII characters without spaces is expected"
        else:
            return token
        raise UnusableToken(option=self._option, file=self._file, reason=reason)


def _content(file: str) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold the process up
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        return os.read(descriptor, 2 * MOST_TOKEN)
    finally:
        os.close(descriptor)


class Authentication:
    """Tells what a request may do by the token it shows. ``seconds`` is a clock, ``failed`` counts wrong tokens."""

    def __init__(
        self, operator: TokenFile, reader: TokenFile | None, *, seconds: Callable[[], float], failed: Callable[[], object]
    ) -> None:
        self._operator, self._reader, self._seconds, self._failed = operator, reader, seconds, failed
        self._unlogged, self._logged_at = 0, -LOG_SECONDS

    def load(self) -> None:
        """Read the files for the first time, so that a bad one ends the start. Raises :class:`UnusableToken`."""
        self._operator.load()
        if self._reader is not None:
            self._reader.load()

    @property
    def least(self) -> Access:
        """What those without a token may do: read, unless there are tokens for readers."""
        return Access.READER if self._reader is None else Access.NOBODY

    def access(self, authorization: Sequence[str], peer: str) -> Access:
        """What the token in the ``Authorization`` fields of a request allows; a wrong one is counted and logged with ``peer``."""
        shown = _shown(authorization[0]) if len(authorization) == 1 else None
        if shown is not None:
            is_operator = self._operator.matches(shown)
            is_reader = self._reader is not None and self._reader.matches(shown)
            if is_operator:
                return Access.OPERATOR
            if is_reader:
                return Access.READER
        if authorization:
            self._note(peer)
        return Access.NOBODY

    def _note(self, peer: str) -> None:
        self._failed()
        self._unlogged += 1
        now = self._seconds()
        if not 0.0 <= now - self._logged_at < LOG_SECONDS:  # a clock that was set back must not silence us
            _log.warn("admin requests with a wrong token: {count}, the last from {peer}", count=self._unlogged, peer=peer)
            self._unlogged, self._logged_at = 0, now


def authentication(config: AdminAuthentication, *, seconds: Callable[[], float], failed: Callable[[], object]) -> Authentication:
    """The authentication of a configuration, its files read. Raises :class:`UnusableToken`."""
    made = Authentication(*_files(config), seconds=seconds, failed=failed)
    made.load()
    return made


def check_tokens(config: AdminAuthentication) -> None:
    """Read the files of a configuration, to end a start before anything else is begun. Raises :class:`UnusableToken`."""
    for file in _files(config):
        if file is not None:
            file.load()


def _files(config: AdminAuthentication) -> tuple[TokenFile, TokenFile | None]:
    operator = TokenFile("admin.authentication.operatorTokenFile", config.operator_token_file)
    if config.reader_token_file is None:
        return operator, None
    return operator, TokenFile("admin.authentication.readerTokenFile", config.reader_token_file)


def _shown(authorization: str) -> bytes | None:
    """The token of a header's value, or None if it has none."""
    scheme, _, rest = authorization.strip().partition(" ")
    value = rest.strip().encode("latin-1", "replace")
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(value, validate=True).partition(b":")[2] or None
    except ValueError:
        return None
