"""All cases, by what they are about."""

from __future__ import annotations

from tests.differential import adding, config, copyflags, copying, fetching, ignoring, language, stages
from tests.differential.case import Case

CASES: tuple[Case, ...] = (
    *language.CASES,
    *config.CASES,
    *copying.CASES,
    *copyflags.CASES,
    *adding.CASES,
    *fetching.CASES,
    *ignoring.CASES,
    *stages.CASES,
)
