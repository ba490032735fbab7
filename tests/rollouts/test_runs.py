"""Runs: intervals on a line answer as sets of samples would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign.rollouts.runs import LINE, OverlapError, Runs, expanded

PROMPTS = 4


@st.composite
def shelves(draw):
    """Blocks that share no sample, and what a dictionary of them says."""
    held: dict[tuple[int, int], tuple[int, int]] = {}
    runs = Runs.none()
    for shard in range(draw(st.integers(0, 4))):
        numbers = draw(st.lists(st.integers(0, PROMPTS - 1), min_size=1, unique=True))
        samples = draw(st.lists(st.integers(0, 9), min_size=1, unique=True))
        if any((n, i) in held for n in numbers for i in samples):
            continue
        places = [(n, i) for n in numbers for i in samples]
        held |= {place: (shard, row) for row, place in enumerate(places)}
        runs += Runs.block(np.array(numbers), samples, shard)
    return runs, held


def samples_of(held, number):
    return {i for n, i in held if n == number}


@given(shelves())
def test_counts_prefixes_and_samples(shelf):
    runs, held = shelf
    numbers = np.arange(-1, PROMPTS + 1)
    there = [samples_of(held, n) for n in numbers]
    assert runs.counts(numbers).tolist() == [len(s) for s in there]
    prefix = [next(i for i in range(11) if i not in s) for s in there]
    assert runs.prefix(numbers).tolist() == prefix
    assert [runs.samples(n) for n in range(PROMPTS)] == there[1:-1]


@given(
    shelves(), st.lists(st.tuples(st.integers(0, PROMPTS), st.integers(0, 9), st.integers(0, 9)))
)
def test_pieces_are_where_the_samples_stand(shelf, wanted):
    runs, held = shelf
    begin = np.array([n * LINE + i for n, i, _ in wanted], dtype=np.int64)
    end = begin + np.array([count for *_, count in wanted], dtype=np.int64)
    asked = [divmod(place, LINE) for place in expanded(begin, end - begin).tolist()]
    pieces = runs.pieces(begin, end)
    found = {
        target: (shard, row)
        for shard, rows, targets in pieces.by_shard()
        for row, target in zip(rows.tolist(), targets.tolist(), strict=True)
    }
    assert found == {t: held[place] for t, place in enumerate(asked) if place in held}
    covered = [all((n, j) in held for j in range(i, i + c)) for n, i, c in wanted if c]
    assert runs.cover(begin, end)[end > begin].tolist() == covered


@given(shelves())
def test_a_sample_held_twice_is_refused(shelf):
    runs, held = shelf
    for number, sample in held:
        with pytest.raises(OverlapError) as error:
            runs + Runs.block(np.array([number]), [sample], 9)
        assert 9 in error.value.shards
        break
