"""docs/performance.md out of what `deploy/bench --json` printed: `python -m bench.report < rows`."""

from __future__ import annotations

import sys

import msgspec

from bench.table import Row

HEAD = """# Performance

Made by `deploy/bench --json | python -m bench.report`; each figure was measured against its peer in one run,
A B A B, on two noisy cores (hosts are namespaces of one machine). Ratios are medians over the pairs, with the
middle half of the pairs in brackets; absolute numbers are this machine's and mean little elsewhere.

| figure | what | ours | peer | raw limit | ratio | goal | met | pairs |
|---|---|---|---|---|---|---|---|---|
"""


def line(row: Row) -> str:
    """One table line."""
    numbers = [_number(n) for n in (row.ours, row.peer, row.limit)]
    sign = "≤" if row.better == "less" else "≥"
    ratio = f"{_number(row.ratio)} [{_number(row.low)}–{_number(row.high)}]"
    sides = (f"{numbers[0]} {row.unit}", f"{numbers[1]} ({row.peer_name})", numbers[2])
    verdict = (f"{sign} {row.goal:g}", "yes" if row.met else "**no**", str(row.runs))
    cells = (f"`{row.name}`", row.what, *sides, ratio, *verdict)
    return "| " + " | ".join(cells) + " |"


def document(rows: list[Row]) -> str:
    notes = [f"- `{r.name}`: {r.note}" for r in rows if r.note]
    return HEAD + "\n".join(map(line, rows)) + "\n" + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    found = [msgspec.json.decode(text, type=Row) for text in sys.stdin if text.strip()]
    sys.stdout.write(document(found))
