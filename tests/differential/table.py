"""All cases, by what they are about."""

from __future__ import annotations

from tests.differential import config, copying, language, stages
from tests.differential.case import Case

CASES: tuple[Case, ...] = (*language.CASES, *config.CASES, *copying.CASES, *stages.CASES)
