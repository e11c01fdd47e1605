"""Text → Dockerfile. Pure.

Invariant: whatever bytes come, the answer is a Dockerfile or one DockerfileFault that names line and column;
time and memory are linear in the size, which is bounded.
"""

from __future__ import annotations

from image import reference
from image.dockerfile.building import Scene
from image.dockerfile.faults import DockerfileFault, Mistake
from image.dockerfile.instruction import (
    AnyInstruction,
    Arg,
    Dockerfile,
    From,
    Heredoc,
    Spot,
    Stage,
    Warned,
)
from image.dockerfile.instructions import built
from image.dockerfile.lines import Line, Reader
from image.dockerfile.nodes import Node, heredoc_marks, node
from model.errors import InvalidInput

MAX_INSTRUCTIONS = 10_000
MAX_HEREDOCS = 100
"""Of one instruction."""


def parse(data: bytes, *, file: str = "Dockerfile") -> Dockerfile:
    """`file` is what messages call it. Raises DockerfileFault."""
    reader = Reader(data, file)
    stages: list[tuple[From, list[AnyInstruction]]] = []
    args: list[Arg] = []
    names: set[str] = set()
    for found in _nodes(reader):
        made = _built(found, reader)
        if isinstance(made, From):
            _check_image(made, found, names, file)
            stages.append((made, []))
            names.add(made.name)
        elif stages:
            stages[-1][1].append(made)
        elif isinstance(made, Arg):
            args.append(made)
        else:
            raise DockerfileFault(
                f"{found.name} before the first FROM", made.spot, file=file, hint="Only ARG may stand there"
            )
    if not stages:
        hint = "Begin with FROM and an image, or FROM scratch"
        message = "it has no FROM" if args else "it has no instructions"
        raise DockerfileFault(message, Spot(line=max(reader.number, 1)), file=file, hint=hint)
    return Dockerfile(
        stages=tuple(Stage(head=head, instructions=tuple(rest)) for head, rest in stages),
        args=tuple(args),
        escape=reader.escape,
        syntax=reader.syntax,
        check=reader.check,
        warnings=tuple(sorted(reader.warnings, key=_place)),
    )


def parse_trigger(expression: str, spot: Spot, *, file: str = "Dockerfile") -> AnyInstruction:
    """The instruction of an ONBUILD of a base, as if it stood at `spot`. It was written into that image by
    whoever made it: raises DockerfileFault for whatever is none."""

    def fault(message: str, hint: str = "") -> DockerfileFault:
        return DockerfileFault(
            f"ONBUILD {expression[:80]} of the base: {message}", spot, file=file, hint=hint
        )

    try:
        reader = Reader(f"{expression}\n".encode("utf-8", "replace"), file)
        nodes = _nodes(reader)
        made = [_built(found, reader, trigger=spot) for found in nodes]
    except DockerfileFault as error:
        raise fault(error.reason, error.hint) from None
    if len(made) != 1:
        raise fault("it is more than one instruction" if made else "it is no instruction")
    (instruction,) = made
    if isinstance(instruction, From) or type(instruction).__name__ in ("Onbuild", "Maintainer"):
        raise fault("this can't be a trigger")
    return instruction


def tree(data: bytes, *, file: str = "Dockerfile") -> tuple[Node, ...]:
    """What `parse` sees before it asks what words mean. Raises DockerfileFault."""
    return tuple(_nodes(Reader(data, file)))


def _nodes(reader: Reader) -> list[Node]:
    found: list[Node] = []
    while (line := reader.line()) is not None:
        if len(found) >= MAX_INSTRUCTIONS:
            raise reader.fault(f"it has more than {MAX_INSTRUCTIONS} instructions", line.first)
        try:
            made = node(line, reader.escape)
        except Mistake as mistake:
            raise _fault(mistake, line, reader.file) from None
        if docs := heredoc_marks(made):
            made = _with_bodies(made, docs, line, reader)
        found.append(made)
    return found


def _with_bodies(made: Node, docs: list[tuple[Heredoc, int]], line: Line, reader: Reader) -> Node:
    if len(docs) > MAX_HEREDOCS:
        raise reader.fault(f"the instruction has more than {MAX_HEREDOCS} heredocs", line.first)
    heredocs = []
    for doc, at in docs:
        content = reader.body(doc.name, doc.chomp, line.spot(at))
        heredocs.append(
            Heredoc(name=doc.name, content=content, expand=doc.expand, chomp=doc.chomp, fd=doc.fd)
        )
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    return Node(**(fields | {"heredocs": tuple(heredocs), "last_line": reader.number}))


def _built(found: Node, reader: Reader, *, trigger: Spot | None = None) -> AnyInstruction | From:
    try:
        scene = Scene(found, reader.escape, reader.warnings, trigger=trigger)
        return built(scene)
    except Mistake as mistake:
        raise _fault(mistake, found.line, reader.file) from None


def _fault(mistake: Mistake, line: Line, file: str) -> DockerfileFault:
    return DockerfileFault(mistake.message, line.spot(mistake.at), file=file, hint=mistake.hint)


def _check_image(made: From, found: Node, names: set[str], file: str) -> None:
    """A reference that no registry can have; with a variable in it, that is the graph's question."""
    image = made.image
    if image.lower() in names or image == "scratch" or any(char in image for char in "$\"'\\`"):
        return
    spot = found.line.spot(found.offset(0))
    if image.partition(":")[0] == "scratch":
        raise DockerfileFault("scratch has no tags", spot, file=file, hint="Write FROM scratch")
    try:
        reference.parse(image)
    except InvalidInput as error:
        hint = error.hint
        if image != image.lower():
            hint = f"Write FROM {image.lower()}; a stage must stand before it is named"
        raise DockerfileFault(error.message, spot, file=file, hint=hint) from None


def _place(warned: Warned) -> tuple[int, int]:
    return warned.spot.line, warned.spot.column
