"""The ``accessControl`` block of a router: who may call what.

Source: meshgw's own. Patterns are read and checked here; how a request is judged by them is in ``filters.authorization``.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from meshgw.config.document import one_of, option
from meshgw.naming.path import Path

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")  # RFC 3986 pchar, without what has several spellings or readings


@attrs.frozen
class IdentityPattern:
    """A pattern over the whole identity of a caller: ``*`` stands for any characters, also none; all others for themselves."""

    text: str
    parts: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> IdentityPattern:
        """Parse a pattern; every text is one, and the empty one means a caller without identity."""
        return cls(text, tuple(text.split("*")))

    def show(self) -> str:
        """As it is written in the file."""
        return self.text

    def folded(self) -> IdentityPattern:
        """The same for identities with their case folded."""
        return IdentityPattern.read(self.text.casefold())

    def matches(self, identity: str | None) -> bool:
        """Whether the identity fits. Takes time in proportion to its length, whatever the pattern."""
        if not self.text or not identity:
            return not self.text and not identity
        first, *rest = self.parts
        if not rest:
            return identity == first
        *middle, last = rest
        if not identity.startswith(first) or not identity.endswith(last):
            return False
        at, end = len(first), len(identity) - len(last)
        for part in middle:
            found = identity.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return at <= end


@attrs.frozen
class PathPrefix:
    """The first segments of a request's path."""

    segments: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> PathPrefix:
        """Parse ``/a/b``; a slash at its end means nothing. Raises ValueError for what could be written in several ways."""
        if text[:1] != "/":
            raise ValueError(f"a path begins with '/', but {text!r} does not")
        segments = [] if text == "/" else text[1:].removesuffix("/").split("/")
        for segment in segments:
            if _SEGMENT.fullmatch(segment) is None or segment.strip(".") == "":
                raise ValueError(
                    f"{segment!r} cannot be a segment of a path here; expected plain characters, without escapes and dot segments"
                )
        return cls(tuple(segments))

    def show(self) -> str:
        """As it is written in the file."""
        return "/" + "/".join(self.segments)


def _methods(value: Any) -> str | None:
    wrong = next((method for method in value if _TOKEN.fullmatch(method) is None), None)
    if wrong is not None:
        return f"{wrong!r} cannot be a method"
    return None if value else "an empty list matches nothing; leave it out to match every method"


@attrs.frozen(kw_only=True)
class AccessMatch:
    """What requests a rule is about: those that fit everything given here. An empty block is about all requests.

    What allows must fit exactly. What denies is not dodged by spelling: letters of another case count as the same, and a path is taken in
    every way in which some server may read it.
    """

    identity: IdentityPattern | None = option(
        default=None,
        doc='Pattern over the caller\'s identity; `*` stands for any characters, `""` for a caller without one.',
        effective="any caller",
    )
    service: Path | None = option(default=None, doc="Beginning of the logical name, for example `/svc/users`.", effective="any name")
    methods: tuple[str, ...] | None = option(default=None, doc="Methods, for example `[GET, HEAD]`.", check=_methods, effective="all")
    path: PathPrefix | None = option(
        default=None, doc="First segments of the path: `/admin` is also `/admin/x` but not `/administrator`.", effective="any path"
    )

    def show(self) -> str:
        """The rule's words on one line."""
        parts = []
        if self.identity is not None:
            parts.append(f"identity={self.identity.show() or 'none'}")
        if self.service is not None:
            parts.append(f"service={self.service.show()}")
        if self.methods is not None:
            parts.append(f"methods={','.join(self.methods)}")
        if self.path is not None:
            parts.append(f"path={self.path.show()}")
        return " ".join(parts) or "everything"


@attrs.frozen(kw_only=True)
class AccessRule:
    """One rule, which either allows or denies."""

    allow: AccessMatch | None = option(default=None, doc="Let these requests pass.", effective="see deny")
    deny: AccessMatch | None = option(default=None, doc="Answer these requests 403.", effective="see allow")

    def __attrs_post_init__(self) -> None:
        if (self.allow is None) == (self.deny is None):
            raise ValueError("a rule needs either allow or deny")

    @property
    def match(self) -> AccessMatch:
        """What it is about."""
        found = self.allow if self.allow is not None else self.deny
        assert found is not None
        return found

    def show(self) -> str:
        """The rule on one line: ``deny path=/admin``."""
        return f"{'deny' if self.allow is None else 'allow'} {self.match.show()}"


@attrs.frozen(kw_only=True)
class AccessControl:
    """Who may call what: the first rule that fits a request decides, else the default."""

    mode: str = option(
        default="enforce",
        doc="`enforce` answers what is not allowed with 403; `audit` lets it pass, counts and logs it.",
        check=one_of("enforce", "audit"),
    )
    default: str = option(default="deny", doc="What is done with requests that fit no rule.", check=one_of("allow", "deny"))
    rules: tuple[AccessRule, ...] = option(default=(), doc="The rules, in their order.")
    dtab_overrides: bool = option(
        default=False,
        doc="Let callers bring delegations of their own (`l5d-dtab`), by which a name that is allowed may lead to another service.",
    )
