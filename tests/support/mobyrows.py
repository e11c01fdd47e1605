"""Tables of moby's patternmatcher (Debian: golang-github-moby-patternmatcher-dev), read where they stand."""

from __future__ import annotations

from pathlib import Path

SOURCE = Path("/usr/share/gocode/src/github.com/moby/patternmatcher/patternmatcher_test.go")
STRING = r'("(?:[^"\\]|\\.)*")'
"""A string literal of Go, in a regular expression."""
