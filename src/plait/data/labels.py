"""Comparing labels, so that an error can say what differs and where."""

from collections.abc import Sequence

from plait.errors import LabelError


def first_repeat(labels: Sequence[str]) -> tuple[int, int]:
    """Return the two positions of the first label that occurs again (some label must)."""
    seen: dict[str, int] = {}
    for position, label in enumerate(labels):
        if label in seen:
            return seen[label], position
        seen[label] = position
    raise ValueError("no label occurs twice")


def require_distinct(what: str, labels: Sequence[str]) -> None:
    """Raise `LabelError` if a label occurs twice; ``what`` says what is labelled, as "guide"."""
    if len(set(labels)) < len(labels):
        first, second = first_repeat(labels)
        raise LabelError(
            f"the {what} {labels[first]!r} occurs twice, at {first + 1} and {second + 1}; names "
            "must differ."
        )


def describe_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Say in words how two sequences of labels differ (they must not be equal)."""
    position = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    only_ours, only_theirs = set(ours) - set(theirs), set(theirs) - set(ours)
    if not only_ours and not only_theirs and len(ours) == len(theirs):
        return (
            f"they are the same but in another order (first at {position + 1}: "
            f"{ours[position]!r} and {theirs[position]!r})"
        )
    parts = []
    if position < min(len(ours), len(theirs)):
        parts.append(f"first at {position + 1}: {ours[position]!r} and {theirs[position]!r}")
    for side, only in (("first", only_ours), ("second", only_theirs)):
        if only:
            some = ", ".join(repr(label) for label in sorted(only)[:3])
            parts.append(
                f"{len(only)} only in the {side} ({some}{', ...' if len(only) > 3 else ''})"
            )
    if len(ours) != len(theirs):
        parts.append(f"{len(ours)} and {len(theirs)} of them")
    return "; ".join(parts)
