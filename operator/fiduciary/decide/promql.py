"""PromQL that a user wrote, confined to its namespace.

The query is parsed, every selector gets the matcher ``namespace="..."``, and what is sent is printed from the syntax
tree: text that the parser did not understand cannot survive. The result is parsed once more and each of its selectors
is looked at. A parser in another language may disagree with Prometheus about what a text means; about a text in the
plain form that the tree prints, they do not (tests/prometheus compares them on a real server).

The matcher is added, never put in another's place: a query that names another namespace would find nothing, and is
refused with a message because nothing is not what its author wanted.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import promql_parser as promql

MAX_LENGTH = 2_048
MAX_OPERATORS = 64
"""Operators, brackets and words such as ``and`` outside of strings: the parser's time grows with their third power."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#[^\n]*', re.DOTALL)
_OPERATOR = re.compile(r"[-+*/%^<>=!(\[{]|\b(?:and|or|unless|atan2|offset)\b", re.IGNORECASE)
_NEGATIVE_TIME = re.compile(r"@\s*-")
_BYTE = re.compile(r"\\(?:x|[0-7])")
_EVERYWHERE = frozenset({"info"})
"""Functions that select series by themselves, where no matcher can be put."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a query is not sent: what was seen, and what to write instead."""

    message: str


@functools.lru_cache(maxsize=1024)
def confined(query: str, namespace: str, label: str = "namespace") -> str | Refused:
    """The query with ``label="namespace"`` in each of its selectors.

    ``label`` is the label of the scrape target that holds its namespace, from the operator's settings.
    """
    if not _NAMESPACE.fullmatch(namespace):
        return Refused(f"{namespace!r} is no namespace")
    problem = _too_much(query)
    if problem is not None:
        return Refused(problem)
    try:
        tree = promql.parse(_TEXT.sub(_without_raw_text, query))
        text = promql.transform(tree, post_visit=functools.partial(_with_matcher, namespace, label)).prettify()
        problem = _problem(promql.parse(text), namespace, label)
    except ValueError as error:
        return Refused(f"the query is no PromQL that is understood: {error}")
    return text if problem is None else Refused(problem)


def _too_much(query: str) -> str | None:
    """What is refused before it is parsed."""
    if len(query) > MAX_LENGTH:
        return f"the query has {len(query)} characters; at most {MAX_LENGTH} are read"
    strings = [text for text in _TEXT.findall(query) if not text.startswith("#")]
    bare = _TEXT.sub(" ", query)
    if len(_OPERATOR.findall(bare)) > MAX_OPERATORS:
        return f"the query has more than {MAX_OPERATORS} operators and brackets; use a recording rule"
    if _NEGATIVE_TIME.search(bare):
        return "the query looks at a time before 1970 (@ -...)"  # the parser would make it @ 0
    if any(_BYTE.search(text) for text in strings if not text.startswith("`")):
        return "the query writes bytes as numbers (\\x.. or \\nnn) in a text; write the letters, or \\u...."
    return None


def _without_raw_text(text: re.Match[str]) -> str:
    """`raw` as "quoted": the parser takes a backslash in a raw text for an escape, and refuses most of them."""
    raw = text[0]
    if not raw.startswith("`"):
        return raw
    inner = raw[1:-1].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'


def _with_matcher(namespace: str, label: str, node: promql.Expr) -> promql.Expr | None:
    if not isinstance(node, promql.VectorSelector):
        return None
    text, name = node.prettify(), node.name or ""
    if not text.startswith(name):
        raise ValueError(f"a selector prints as {text!r}")
    rest = text[len(name) :]
    matcher = f'{label}="{namespace}"'
    after = f",{rest[1:]}" if rest.startswith("{") else f"}}{rest}"
    return promql.parse(f"{name}{{{matcher}{after}")


def _problem(tree: promql.Expr, namespace: str, label: str) -> str | None:
    """What is wrong with a tree that should be confined."""
    problems: list[str] = []

    def look(node: promql.Expr) -> None:
        if isinstance(node, promql.Call) and node.func.name in _EVERYWHERE:
            problems.append(f"{node.func.name}() selects series of other namespaces by itself; join them with on(...)")
        if isinstance(node, promql.VectorSelector):
            problems.extend(_of_selector(node, namespace, label))

    promql.walk(tree, pre_visit=look)
    return problems[0] if problems else None


def _of_selector(node: promql.VectorSelector, namespace: str, label: str) -> list[str]:
    if node.matchers.or_matchers:
        return ["a selector uses `or` between matchers, which Prometheus does not know; write =~ with |"]
    own = [matcher for matcher in node.matchers.matchers if matcher.name == label]
    equal = [matcher.value for matcher in own if matcher.op == promql.MatchOp.Equal]
    if namespace not in equal:
        return [f"the selector {node.prettify()} could not be confined to namespace {namespace}"]
    foreign = [value for value in equal if value != namespace]
    if foreign:
        return [f'the selector asks for {label}="{foreign[0]}"; a query reads its own namespace {namespace} only']
    return []
