"""One file of a context's tree by its path, such as a Dockerfile: links are followed, inside of the context.
Pure, but for reading trees."""

from __future__ import annotations

from collections.abc import Callable

from image.context.wish import parts_of
from model.contexttree import Entry, Tree
from model.errors import InvalidInput, NotFound

MAX_LINKS = 40
Trees = Callable[[str], Tree]


def find(trees: Trees, root: str, path: str) -> Entry:
    """Raises NotFound; InvalidInput for a loop of links; and what `trees` raises."""
    above: list[Tree] = [trees(root)]
    rest = parts_of(path)[::-1]
    found = Entry(name=b"", kind="tree", digest=root)
    links = 0
    while rest:
        name = rest.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            above = above[: max(1, len(above) - 1)]
            found = Entry(name=b"", kind="tree")
            continue
        entry = next((one for one in above[-1].entries if one.name == name), None)
        if entry is None:
            raise NotFound(f"{path} is not in the build context")
        if entry.kind == "link":
            links += 1
            if links > MAX_LINKS:
                raise InvalidInput(f"{path} is behind more than {MAX_LINKS} links")
            above = above[:1] if entry.target.startswith(b"/") else above
            rest += entry.target.split(b"/")[::-1]
            found = Entry(name=b"", kind="tree")
            continue
        found = entry
        if entry.kind == "tree":
            above.append(trees(entry.digest))
        elif any(one not in (b"", b".") for one in rest):
            raise NotFound(
                f"{path} is not in the build context: {name.decode(errors='replace')} is no folder"
            )
    return found


def regular(entry: Entry, path: str, limit: int) -> Entry:
    """It, if it is a file of no more than `limit` bytes. Raises InvalidInput."""
    if entry.kind != "file":
        what = {"tree": "a folder", "fifo": "a named pipe"}.get(entry.kind, "a link")
        raise InvalidInput(f"{path} of the build context is {what}, not a file")
    if entry.size > limit:
        raise InvalidInput(f"{path} has {entry.size} bytes; at most {limit} are read")
    return entry
