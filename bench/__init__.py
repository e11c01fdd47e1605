"""Performance, as ratios against peers in one run. Never a timed test: nothing here fails a build."""
