"""How a task's policy stands in its row: as nothing for most tasks, and else as a list in JSON.

`max_crashes` has a column of its own.
"""

import json

from sitq.protocol.ops import NO_POLICY, RetryPolicy, TaskPolicy


def dump_policy(policy: TaskPolicy) -> str | None:
    """Return the column's text; None for what most tasks have."""
    if policy is NO_POLICY or (policy.timeout is None and policy.retry == NO_POLICY.retry):
        return None
    retry = policy.retry
    return json.dumps(
        [
            policy.timeout,
            retry.attempts,
            retry.delay,
            retry.factor,
            retry.max_delay,
            retry.jitter,
        ]
    )


def load_policy(text: str | None, max_crashes: int) -> TaskPolicy:
    """Return what is in the two columns. Raises `ValueError` if it is damaged."""
    if text is None:
        if max_crashes == NO_POLICY.max_crashes:
            return NO_POLICY
        return TaskPolicy(max_crashes=max_crashes)
    match json.loads(text):
        case [
            None | int() | float() as timeout,
            int() as attempts,
            int() | float() as delay,
            int() | float() as factor,
            int() | float() as max_delay,
            int() | float() as jitter,
        ]:
            retry = RetryPolicy(attempts, delay, factor, max_delay, jitter)
            return TaskPolicy(timeout, retry, max_crashes)
        case _:
            raise ValueError(f"{text!r} is no policy")
