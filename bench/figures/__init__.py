"""The table of figures: what is measured, and the function that takes its samples."""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import (
    builds,
    commit,
    encrypted,
    fanout,
    firstpacket,
    hostgw,
    images,
    lb,
    names,
    net,
    onefile,
    overlay,
    publish,
    schedule,
    site,
    start,
)
from bench.stage import Stage
from bench.table import Figure, Samples

Measure = Callable[[Stage, int], Samples]

FIGURES: tuple[tuple[Figure, Measure], ...] = (
    *start.FIGURES,
    *commit.FIGURES,
    *onefile.FIGURES,
    *images.FIGURES,
    *builds.FIGURES,
    *fanout.FIGURES,
    *schedule.FIGURES,
    *site.FIGURES,
    *overlay.FIGURES,
    *encrypted.FIGURES,
    *hostgw.FIGURES,
    *firstpacket.FIGURES,
    *lb.FIGURES,
    *publish.FIGURES,
    *net.FIGURES,
    *names.FIGURES,
)
