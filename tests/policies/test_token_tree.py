"""Packing: every sequence can be read back from the tree, and nothing is stored twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign.policies.token_tree import pack

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=6)


def ancestors(packed, row, node):
    """Tokens on the way to a node, by the mask."""
    seen = np.flatnonzero(packed.mask[row, node])
    order = np.argsort(packed.position_ids[row, seen])
    return packed.input_ids[row, seen[order]].tolist()


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8), st.sampled_from([4, 9, 512]))
def test_each_prediction_reads_its_own_history(pairs, row_tokens):
    contexts, responses = zip(*pairs, strict=True)
    packed = pack(contexts, responses, row_tokens)
    width = packed.input_ids.shape[1]
    for index, (context, response) in enumerate(pairs):
        edges = packed.path_edges[packed.path_responses == index]
        assert packed.targets[edges].tolist() == list(response)
        for place, edge in enumerate(edges):
            row, node = divmod(int(packed.nodes[packed.sources[edge]]), width)
            assert ancestors(packed, row, node) == [*context, *response[:place]]
    assert (np.diff(packed.sources) >= 0).all()
    assert len({(s, t) for s, t in zip(packed.sources, packed.targets, strict=True)}) == len(
        packed.targets
    )


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8))
def test_one_row_holds_each_beginning_once(pairs):
    contexts, responses = zip(*pairs, strict=True)
    packed = pack(contexts, responses)
    read = [[*c, *r[:-1]] for c, r in pairs]
    beginnings = {tuple(s[:n]) for s in read for n in range(1, len(s) + 1)}
    assert packed.lengths.tolist() == [len(beginnings)]


def test_rows_stay_within_their_budget_unless_one_sequence_is_longer():
    contexts = [[0] * 3, [1] * 3, [2] * 9, [3] * 2]
    packed = pack(contexts, [[0, 1]] * 4, row_tokens=8)
    assert packed.lengths.tolist() == [8, 10, 3]


def test_a_long_prompt_is_not_repeated_for_every_response():
    """20 tokens and six responses of 6: a row of 24 would hold one of them."""
    responses = [[i, 0, 0, 0, 0, 0, 1] for i in range(6)]
    packed = pack([[9] * 20] * 6, responses, row_tokens=24)
    assert packed.lengths.tolist() == [20 + 3 * 6] * 2
    apart = pack([[i] * 20 for i in range(3)], responses[:3], row_tokens=24)
    assert apart.lengths.tolist() == [26] * 3  # nothing shared: no longer rows


@pytest.mark.parametrize("share", [True, False])
def test_padding_attends_to_itself_only(share):
    packed = pack([[0], [1, 2, 3]], [[1], [1]], row_tokens=3, share=share)
    assert packed.lengths.tolist() == [1, 3]
    if share:
        assert packed.mask[0, 1:].tolist() == [[False, True, False], [False, False, True]]
    else:
        assert packed.mask is None
