"""The image that a build comes to: its configuration, with times that a rebuild has again. Pure.

A line of history without a layer is dated as the layer before it, so that a build of which all is cached
gives the same image id. With an epoch (SOURCE_DATE_EPOCH) every time that the build adds is the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from image.build.evaluate import Evaluated
from image.build.step import FromStage
from image.config_blob import timestamp
from image.manifest import Configuration, parse_time
from model.image import HistoryEntry, ImageRecord


def configuration(
    stages: Mapping[int, Evaluated],
    target: int,
    *,
    base: ImageRecord | None,
    made: Mapping[tuple[int, int], float],
    diffs: Sequence[str],
    labels: Mapping[str, str],
    epoch: int | None = None,
) -> Configuration:
    """`base`: the image below all. `made`: when each step was done, by the stage's index and the line's
    number. `diffs` are diff ids of all layers, bottom first."""
    chain = [stages[target]]
    while isinstance(origin := chain[0].node.base, FromStage):
        chain.insert(0, stages[origin.index])
    history = list(base.history) if base is not None else []
    last = max((parse_time(entry.created) for entry in history), default=base.created if base else 0.0)
    for stage in chain:
        for number, line in enumerate(stage.lines):
            if line.step is not None:
                last = made[stage.node.index, number]
            if line.created_by:
                at = epoch if epoch is not None else last
                history.append(
                    HistoryEntry(
                        created=timestamp(at) if at or epoch is not None else "",
                        created_by=line.created_by,
                        empty_layer=line.step is None,
                    )
                )
    final = chain[-1]
    config = replace(final.config, labels={**final.config.labels, **labels})
    return Configuration(
        platform=final.platform,
        diff_ids=tuple(diffs),
        config=config,
        created=float(epoch) if epoch is not None else last,
        author=final.author,
        history=tuple(history),
    )
