"""Counting ranks: the integers of a search row by row, whichever way they are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign.quantile import ranks
from infalign.quantile.ranks import FEW, count_ranks

MANY = 3 * FEW
TINY = 5e-324
EDGES = [
    -np.finfo(float).max,
    -1.0,
    -TINY,
    -0.0,
    0.0,
    TINY,
    2 * TINY,
    1.0,
    np.nextafter(1, 2),
    1e308,
]


def row_by_row(reference, rows, values):
    below, up_to = (
        np.array(
            [np.searchsorted(reference[r], v, side) for r, v in zip(rows, values, strict=True)]
        ).reshape(values.shape)
        for side in ("left", "right")
    )
    return below, up_to - below


def assert_same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == np.int64
        np.testing.assert_array_equal(a, b)


@st.composite
def problems(draw):
    k, n = draw(st.integers(2, 9)), draw(st.integers(1, 3))
    numbers = st.sampled_from(EDGES) | st.floats(-2, 2, width=16)
    row = st.lists(numbers, min_size=k, max_size=k)
    reference = np.sort(np.array(draw(st.lists(row, min_size=1, max_size=4))), axis=1)
    rows = draw(st.lists(st.integers(0, len(reference) - 1), max_size=MANY))
    wanted = st.lists(numbers, min_size=n, max_size=n)
    values = draw(st.lists(wanted, min_size=len(rows), max_size=len(rows)))
    return reference, rows, np.array(values).reshape(len(rows), n)


@given(problems())
def test_ranks_are_those_of_a_search_row_by_row(problem):
    assert_same(count_ranks(*problem), row_by_row(*problem))


@pytest.mark.parametrize("k", [1, 2, 3, 64, 100, 127])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_batches_meet_without_a_seam(monkeypatch, k, n, ties):
    rng = np.random.default_rng(k)
    monkeypatch.setattr(ranks, "BATCH", 97)
    reference, values = rng.normal(size=(30, k)), rng.normal(size=(400, n))
    if ties:
        reference, values = reference.round(), values.round()
    reference, rows = np.sort(reference, axis=1), rng.integers(0, 30, 400)
    wanted = row_by_row(reference, rows, values)
    assert wanted[1].any() == ties
    assert_same(count_ranks(reference, rows, values), wanted)


def test_mapped_files_and_strided_arrays_are_searched_alike(tmp_path):
    rng = np.random.default_rng(0)
    reference = np.sort(rng.normal(size=(8, 10)).round(1), axis=1)
    rows, values = rng.integers(0, 8, MANY), rng.normal(size=(MANY, 2)).round(1)
    np.save(tmp_path / "reference.npy", reference)
    mapped = np.load(tmp_path / "reference.npy", mmap_mode="r")
    wanted = row_by_row(reference, rows, values)
    for same in (mapped, np.asfortranarray(reference), np.repeat(reference, 2, axis=0)[::2]):
        assert_same(count_ranks(same, rows, values), wanted)
    assert_same(count_ranks(reference, rows, values[:, ::-1][:, ::-1]), wanted)


@pytest.mark.parametrize("many", [1, MANY])
def test_a_row_that_is_not_there_is_refused(many):
    with pytest.raises(IndexError):
        count_ranks(np.zeros((3, 4)), np.full(many, 3), np.ones((many, 1)))


def test_no_rewards_have_no_ranks():
    for shape in ((0, 1), (MANY, 0)):
        below, ties = count_ranks(np.zeros((3, 4)), [0] * shape[0], np.empty(shape))
        assert below.shape == ties.shape == shape
