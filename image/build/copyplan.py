"""What is to become of a source, by what stands at the target of a COPY. Pure.

As BuildKit: a directory's content goes into the target, which is made if it is not there; anything else goes
into the target if that is a directory, or else takes its place, if it is the only one. Invariant:
a directory never takes the place of a file, nor a file that of a directory.
"""

from __future__ import annotations

from typing import Literal

from model.errors import InvalidInput

Standing = Literal["nothing", "dir", "other"]
Placement = Literal["merge", "inside", "as"]
"""merge: its content into the target; inside: into the target by its own name; as: it becomes the target."""


def wants_folder(target: str) -> bool:
    return target.endswith(("/", "/.")) or target in ("", ".")


def place(source: str, *, folder: bool, target: str, standing: Standing, several: bool = False) -> Placement:
    """`folder`: the source is one; `several`: it is not the only one. Raises InvalidInput."""
    if folder:
        if standing == "other":
            raise InvalidInput(
                f"{source} is a directory, and {target} in the stage is none",
                hint="Name another target, or remove what stands there by a RUN before",
            )
        return "merge"
    if standing == "dir":
        return "inside"
    if wants_folder(target):
        raise InvalidInput(f"{target} in the stage is no directory", hint="Remove it by a RUN before")
    if several:
        raise InvalidInput(
            f"several sources need a directory to go into, and {target} is none",
            hint=f"End it with a slash: {target}/",
        )
    return "as"


def replace(shown: str, *, folder: bool, standing: Standing) -> bool:
    """Whether what stands at a place goes before an entry is written there. Raises InvalidInput."""
    if standing == "nothing" or (folder and standing == "dir"):
        return False
    if folder:
        raise InvalidInput(f"{shown} in the stage is no directory, so a directory can't be copied there")
    if standing == "dir":
        raise InvalidInput(f"{shown} in the stage is a directory, so a file can't be copied there")
    return True
