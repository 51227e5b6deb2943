"""Plans that are written by hand: they stay as they are, however the dice may fall."""

from sitq.protocol.ops import TaskPolicy
from sitq.testing.simulation.climate import CALM, STAMPS, NodePlan, Plan, TaskPlan

NODE = NodePlan(
    slots=1,
    poll_interval=0.5,
    lease_for=3.0,
    queues=("default", "mail"),
    reads=STAMPS,
    max_batch=500,
    starts_at=0.0,
    retention=None,
    horizon=0.01,
    quick=0.0,
)
TASK = TaskPlan(
    id="t0",
    at=0.2,
    node=0,
    group=0,
    queue="default",
    priority=0,
    delay=0.0,
    policy=TaskPolicy(),
    stamp="v1",
    takes=0.1,
    style="async",
    fails=0,
    hopeless=False,
    kills=0,
    enqueues=False,
    named=False,
    cancelled_at=None,
    awaited_at=None,
    timeout=None,
)

RESCUED = Plan(
    seed=1,
    climate=CALM,
    presence=True,
    store="sqlite",
    nodes=(NODE._replace(poll_interval=1.0),),
    tasks=(TASK._replace(kills=1), TASK._replace(id="t1", at=0.5, group=1)),
    heals_at=1.0,
)
"""The first of two tasks takes its process down once, and is rescued."""
