"""Whether and when an ended container starts again on its host. Pure.

Docker's semantics: `on-failure` counts exits that are not 0 (an unknown exit counts as one), `unless-stopped`
and `always` restart until a person stops them; a stop by a person is a desired phase and never gets here.
"""

from __future__ import annotations

from aio.backoff import delay
from model.spec import RestartPolicy

RETRY, MOST_RETRY = 5.0, 60.0


def wanted(policy: RestartPolicy, *, exit_code: int | None, restarts: int) -> bool:
    """True when the policy asks for another start after this exit."""
    if policy.condition == "no" or (policy.condition == "on-failure" and exit_code == 0):
        return False
    return policy.max_attempts == 0 or restarts < policy.max_attempts


def again(misses: int) -> float:
    """Seconds until a step that failed so many times in a row is tried again: what is in its way seldom goes
    by itself, and whoever takes it away need not wait long."""
    return delay(misses, first=RETRY, limit=MOST_RETRY)


def wait(policy: RestartPolicy, *, failures: int, ran_for: float) -> tuple[int, float]:
    """(failures in a row, seconds to wait): doubling from `delay`, back to it after a run of `window` s."""
    count = 1 if ran_for >= policy.window else failures + 1
    return count, delay(count, first=policy.delay, limit=policy.max_delay)
