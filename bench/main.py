"""`deploy/bench [NAME…] [--json | --markdown] [--runs N] [--list]`: figures against peers, a row each.

`deploy/bench drivers` measures the storage drivers, which have no peer but each other (docs/drivers.md).
"""

from __future__ import annotations

import argparse
import sys
import traceback

import msgspec

from bench import drivers
from bench.figures import FIGURES, Measure
from bench.stage import Stage
from bench.table import Figure, Row, failed, markdown, render, row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="figures whose name begins so; all without")
    parser.add_argument("--json", action="store_true", help="one object per line, for programs")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/performance.md")
    parser.add_argument(
        "--runs", type=int, default=0, help="pairs per figure, instead of each one's own number"
    )
    parser.add_argument("--list", action="store_true", help="names and what they are, without measuring")
    options = parser.parse_args(argv)
    if options.names == ["drivers"]:
        drivers.main()
        return 0
    chosen = [(f, m) for f, m in FIGURES if not options.names or f.name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"no figure begins with {' or '.join(options.names)}; see --list")
    if options.list:
        sys.stdout.writelines(f"{f.name:28} {f.what}\n" for f, _ in chosen)
        return 0
    rows: list[Row] = []
    with Stage() as stage:
        for figure, measure in chosen:
            one = _measured(figure, measure, stage, options.runs or figure.runs)
            rows.append(one)
            if options.json:
                sys.stdout.write(msgspec.json.encode(one).decode() + "\n")
                sys.stdout.flush()
    if not options.json:
        sys.stdout.write((markdown(rows) if options.markdown else render(rows)) + "\n")
    return 0


def _measured(figure: Figure, measure: Measure, stage: Stage, runs: int) -> Row:
    """One figure's row; what goes wrong is said in the row, and the other figures go on."""
    print(f"measuring {figure.name}: {figure.what}", file=sys.stderr)
    try:
        return row(figure, measure(stage, runs))
    except Exception as error:
        traceback.print_exc()
        return failed(figure, f"could not be measured: {error}")


if __name__ == "__main__":
    sys.exit(main())
