"""Figures and rows of the benchmark table: from pairs of samples to a verdict. Pure.

A ratio is the median of the pairwise ratios ours/peer, with the spread of its middle half; ours, peer and
limit are medians. A figure whose peer or limit is absent is not met.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median, quantiles
from typing import Literal

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured. `name` begins with its area: start, build, commit, lb, net, names …"""

    name: str
    what: str
    unit: str
    goal: float
    """The ratio ours/peer that is wanted: at most this for times, at least this for rates."""
    better: Literal["less", "more"]
    peer: str
    limit: str = ""
    runs: int = 12


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs taken A B A B; `limit` is the raw floor or ceiling, measured in the same run."""

    ours: tuple[float, ...]
    peer: tuple[float, ...] = ()
    limit: tuple[float, ...] = ()
    note: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    what: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    limit: float | None
    ratio: float | None
    low: float | None
    high: float | None
    goal: float
    better: Literal["less", "more"]
    met: bool
    runs: int
    note: str = ""


def row(figure: Figure, samples: Samples) -> Row:
    """Fold samples into the figure's row."""
    pairs = list(zip(samples.ours, samples.peer, strict=False))
    ratios = [ours / peer for ours, peer in pairs if peer > 0]
    ratio = median(ratios) if ratios else None
    quarter = quantiles(ratios, n=4) if len(ratios) >= 2 else None
    met = ratio is not None and (ratio <= figure.goal if figure.better == "less" else ratio >= figure.goal)
    return Row(
        name=figure.name,
        what=figure.what,
        unit=figure.unit,
        ours=_median(samples.ours),
        peer=_median(samples.peer),
        peer_name=figure.peer,
        limit=_median(samples.limit),
        ratio=ratio,
        low=quarter[0] if quarter else ratio,
        high=quarter[2] if quarter else ratio,
        goal=figure.goal,
        better=figure.better,
        met=met,
        runs=len(ratios),
        note=samples.note,
    )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median lies by 95 of 100: the narrowest pair of order statistics that promises it, whatever
    the distribution (the sign test's). Of fewer than six values, all of them."""
    ordered, total = sorted(values), 2 ** len(values)
    outside, rank = 1.0, 0
    while rank < len(ordered) // 2 and 2 * (outside + comb(len(ordered), rank + 1)) / total <= 0.05:
        rank += 1
        outside += comb(len(ordered), rank)
    return ordered[rank], ordered[len(ordered) - 1 - rank]


def failed(figure: Figure, why: str) -> Row:
    """The row of a figure that could not be measured: not met, and why."""
    return row(figure, Samples(ours=(), note=why))


def selected(figures: Sequence[Figure], names: Sequence[str]) -> list[Figure]:
    """Figures whose name starts with one of `names`; all of them for none."""
    return [f for f in figures if not names or any(f.name.startswith(n) for n in names)]


def markdown(rows: Sequence[Row]) -> str:
    """The table for a document: a line per figure, with what it measures."""
    head = "| figure | what | ours | peer | limit | ratio (middle half) | goal | met |\n" + "|---" * 8 + "|"
    lines = [
        f"| `{r.name}` | {r.what} | {_number(r.ours)} {r.unit} | {_number(r.peer)} ({r.peer_name}) "
        f"| {_number(r.limit)} | {_number(r.ratio)} ({_number(r.low)}–{_number(r.high)}) | {_goal(r)} "
        f"| {'yes' if r.met else 'no'} |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def render(rows: Sequence[Row]) -> str:
    """The table for people."""
    head = ("figure", "unit", "ours", "peer", "limit", "ratio", "middle half", "goal", "met", "runs")
    body = [
        (
            r.name,
            r.unit,
            _number(r.ours),
            f"{_number(r.peer)} ({r.peer_name})",
            _number(r.limit),
            _number(r.ratio),
            f"{_number(r.low)}–{_number(r.high)}",
            _goal(r),
            "yes" if r.met else "NO",
            str(r.runs),
        )
        for r in rows
    ]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in (head, *body)]  # fmt: skip
    return "\n".join(lines + [f"{r.name}: {r.note}" for r in rows if r.note])


def _goal(row: Row) -> str:
    return f"{'≤' if row.better == 'less' else '≥'} {row.goal:g}"


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
