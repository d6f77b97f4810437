"""Hypothesis strategies for names: labels, paths, trees and dtabs, as values and as text."""

from __future__ import annotations

from hypothesis import strategies as st

from meshgw.naming.dtab import WILDCARD, Dentry, Dtab, Prefix
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG, Alt, Leaf, NameTree, Union, Weighted

SHOWABLE = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:.#$%-"

plain_labels = st.text(SHOWABLE, min_size=1, max_size=6).map(lambda text: text.encode("ascii"))
labels = plain_labels | st.binary(min_size=1, max_size=6)
paths = st.lists(labels, max_size=5).map(Path)
# Two decimals are what the canonical text keeps.
weights = st.integers(0, 10_000).map(lambda cents: cents / 100)
constants: st.SearchStrategy[NameTree[Path]] = st.sampled_from([NEG, FAIL, EMPTY])


def trees(leaves: st.SearchStrategy[Path] = paths, max_leaves: int = 12) -> st.SearchStrategy[NameTree[Path]]:
    """Trees whose alternatives and unions have two branches at least, as a parser makes them."""

    def grow(children: st.SearchStrategy[NameTree[Path]]) -> st.SearchStrategy[NameTree[Path]]:
        alternatives = st.lists(children, min_size=2, max_size=4).map(lambda found: Alt(tuple(found)))
        branches = st.builds(Weighted, weights, children)
        return alternatives | st.lists(branches, min_size=2, max_size=4).map(lambda found: Union(tuple(found)))

    return st.recursive(constants | leaves.map(Leaf), grow, max_leaves=max_leaves)


def dtabs(
    elements: st.SearchStrategy[bytes] = labels, leaves: st.SearchStrategy[Path] = paths, max_size: int = 5
) -> st.SearchStrategy[Dtab]:
    """Dtabs with wildcards among the elements of their prefixes."""
    prefixes = st.lists(elements | st.just(WILDCARD), max_size=4).map(Prefix)
    return st.lists(st.builds(Dentry, prefixes, trees(leaves, 6)), max_size=max_size).map(Dtab)


# Few names, so that entries meet each other: cycles, overrides, names of namers.
few_labels = st.sampled_from([b"a", b"b", b"c", b"#", b"n", b"web", b"$", b"inet", b"80"])
few_paths = st.lists(few_labels, max_size=3).map(Path) | st.sampled_from([*map(Path.read, ("/#/n", "/#/n/web", "/$/inet/80"))])
meeting_dtabs = dtabs(few_labels, few_paths)

# Text near the notation: likelier to reach deep into the parser than arbitrary text.
name_text = st.text(st.sampled_from("/ab*|&;=>()!~$#. \n\\x0f1é%"), max_size=40) | st.text(max_size=40)
