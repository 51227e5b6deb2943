"""The transition table, held against what it promises."""

from hypothesis import given, strategies as st

from sitq.protocol.lifecycle import FINAL, TRANSITIONS, Move, TaskState, advance, sources, target


@given(st.sampled_from(TaskState), st.sampled_from(Move))
def test_a_move_is_legal_exactly_where_the_table_says_so(state, move) -> None:
    assert advance(state, move) == TRANSITIONS.get((state, move))
    assert (state in sources(move)) == ((state, move) in TRANSITIONS)


def test_nothing_leaves_a_final_state() -> None:
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_every_state_can_be_left_or_is_final_and_every_final_state_can_be_reached() -> None:
    assert {state for state, _ in TRANSITIONS} | FINAL == set(TaskState)
    assert set(TRANSITIONS.values()) >= FINAL


def test_every_move_leads_to_one_state_from_somewhere() -> None:
    for move in Move:
        assert sources(move)
        assert {advance(state, move) for state in sources(move)} == {target(move)}


def test_every_way_ends_in_a_final_state() -> None:
    ends = set(FINAL)
    while more := {s for (s, _), to in TRANSITIONS.items() if to in ends and s not in ends}:
        ends |= more
    assert ends == set(TaskState)


def test_only_a_reserve_starts_a_task() -> None:
    assert [move for (_, move), to in TRANSITIONS.items() if to is TaskState.RUNNING] == [
        Move.RESERVE
    ]
