"""A streamed context without the two files of the build itself, where its ignore file names them.

Whoever sends a tar has left out the rest already, but must send the Dockerfile and the ignore file. As with
Docker's builder: of what the patterns name, these two alone are taken out here. Pure, but for the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from image.context.find import regular
from image.context.objects import Lease, Objects
from image.context.wish import parts_of
from image.dockerfile.ignore import Ignore
from model.contexttree import Tree, encode, key_of
from model.ignorefile import DEFAULT, MAX_FILE

Keep = Callable[[Tree], str]
"""Stores a tree; its digest."""


def without_ignored(objects: Objects, lease: Lease, root: str, dockerfile: str) -> str:
    """The root's digest. Raises InvalidInput for an ignore file that can't be read. Blocking."""
    tree = objects.tree(root)
    entry = next((one for one in tree.entries if one.name == DEFAULT.encode()), None)
    if entry is None or entry.kind != "file":
        return root
    ignore = Ignore.parse(objects.read(regular(entry, DEFAULT, MAX_FILE).digest, MAX_FILE))

    def keep(made: Tree) -> str:
        return objects.put(encode(made), lease)

    for path in (DEFAULT, dockerfile):
        parts = parts_of(path)
        if parts and ignore.excludes(b"/".join(parts).decode("utf-8", "surrogateescape")):
            tree = without(tree, parts, objects.tree, keep)
    return keep(tree)


def without(tree: Tree, parts: Sequence[bytes], trees: Callable[[str], Tree], keep: Keep) -> Tree:
    """`tree` without the file at `parts`, which goes through no link; as it is if there is no such file."""
    entry = next((one for one in tree.entries if one.name == parts[0]), None)
    if entry is None or (entry.kind == "tree") is (len(parts) == 1):
        return tree
    others = tuple(one for one in tree.entries if one is not entry)
    if len(parts) == 1:
        return Tree(entries=others)
    if entry.kind != "tree":
        return tree
    below = without(trees(entry.digest), parts[1:], trees, keep)
    changed = replace(entry, digest=keep(below), key=key_of(below))
    return Tree(entries=tuple(changed if one is entry else one for one in tree.entries))
