"""What depends on what among resources, and the orders that follow from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from engine.state import Resource


def in_order(resources: Iterable[Resource]) -> list[Resource]:
    """The same resources, each after all that it depends on; otherwise the order is kept."""
    listed = list(resources)
    by_urn = {r.urn: r for r in sorted(listed, key=lambda r: not r.delete)}
    done: set[int] = set()
    ordered: list[Resource] = []
    for start in listed:
        stack = [(start, False)]
        while stack:
            r, ready = stack.pop()
            if ready:
                ordered.append(r)
            elif id(r) not in done:
                done.add(id(r))
                stack.append((r, True))
                needed = (by_urn.get(urn) for urn in sorted(r.all_dependencies(), reverse=True))
                stack += [(d, False) for d in needed if d is not None and id(d) not in done]
    return ordered


def in_groups(condemned: list[Resource]) -> list[list[Resource]]:
    """Dependents first: what depends on nothing else that is condemned is in the last group."""
    groups: list[list[Resource]] = []
    left = condemned
    while left:
        urns = {r.urn for r in left}
        ready = [r for r in left if not (r.all_dependencies() - {r.urn}) & urns]
        # Two of one URN, an old one and its replacement, may form a cycle.
        groups.append(ready or left)
        taken = {id(r) for r in groups[-1]}
        left = [r for r in left if id(r) not in taken]
    return groups[::-1]


def depending_on(
    resources: Iterable[Resource], roots: Collection[str], ignore: Collection[str] = (),
    children: bool = False,
) -> list[Resource]:  # fmt: skip
    """Resources that depend on the roots, also indirectly, in the order they are given in, which
    must be :func:`in_order`'s. A parent is needed for its own sake with ``children`` only."""
    reached = set(roots)
    found = []
    for r in resources:
        needs = r.all_dependencies()
        if not children and r.parent not in (*r.dependencies, r.deleted_with):
            needs = needs - {r.parent}
        if r.urn not in roots and r.urn not in ignore and needs & reached:
            reached.add(r.urn)
            found.append(r)
    return found


def needed_by(resources: Mapping[str, Resource], urns: Iterable[str]) -> set[str]:
    """URNs of what these depend on, also indirectly."""
    found: set[str] = set()
    left = list(urns)
    while left:
        resource = resources.get(left.pop())
        fresh = resource.all_dependencies() - found if resource else set()
        found |= fresh
        left += fresh
    return found
