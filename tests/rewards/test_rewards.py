"""Rewards: shapes, duplicates, and faults that are named."""

import numpy as np
import pytest

from infalign.protocols import Reward
from infalign.rewards import FunctionReward, HeadReward, LinearHead, PairScores, VaderReward

PROMPTS = ["p0", "p1"]
RESPONSES = [["a", "bb"], ["a", "a"]]


def lengths(prompts, responses):
    return [[len(text) for text in row] for row in responses]


class TestPairScores:
    def test_each_distinct_pair_is_scored_once(self):
        seen = []
        scores = PairScores(lambda pairs: seen.extend(pairs) or [len(r) for _, r in pairs], batch=2)
        assert scores(PROMPTS, RESPONSES).tolist() == [[1, 2], [1, 1]]
        assert sorted(seen) == [("p0", "a"), ("p0", "bb"), ("p1", "a")]
        scores(["p0", "p2"], [["a"], ["a"]])
        assert len(seen) == 4  # only the new prompt's

    def test_the_memory_is_bounded_and_forgetting_changes_no_reward(self):
        calls = []
        scores = PairScores(
            lambda pairs: calls.append(pairs) or [len(r) for _, r in pairs], memory=2
        )
        texts = [["x" * n for n in range(1, 8)]]
        for _ in range(2):
            assert scores(["p"], texts).tolist() == [list(range(1, 8))]
        assert len(calls) == 2

    def test_progress_counts_distinct_pairs(self):
        told = []
        scores = PairScores(lambda pairs: [0.0] * len(pairs), batch=2)
        scores(PROMPTS, RESPONSES, progress=lambda done, of: told.append((done, of)))
        assert told == [(2, 3), (3, 3)]

    @pytest.mark.parametrize("responses", [[["a"]], [["a"], ["a", "b"]]])
    def test_ragged_responses_are_refused(self, responses):
        with pytest.raises(ValueError, match="same length"):
            PairScores(lambda pairs: [0.0] * len(pairs))(PROMPTS, responses)

    def test_no_prompts_give_no_rewards(self):
        assert PairScores(lambda pairs: [])([], []).shape == (0, 0)


class TestFunctionReward:
    def test_it_is_a_reward_by_function_or_by_name(self):
        assert isinstance(FunctionReward(lengths), Reward)
        assert FunctionReward(lengths).name == "lengths"
        assert FunctionReward("builtins:sorted", name="mine").name == "mine"
        assert FunctionReward(lengths)(PROMPTS, RESPONSES).tolist() == [[1, 2], [1, 1]]

    def test_prompts_arrive_in_order_and_progress_is_told(self):
        told = []
        prompts = [f"p{i}" for i in range(40)]
        reward = FunctionReward(lambda ps, rs: [[int(p[1:])] for p in ps], "index")
        found = reward(prompts, [["x"]] * 40, progress=lambda done, of: told.append((done, of)))
        assert found[:, 0].tolist() == list(range(40))
        assert told == [(16, 40), (32, 40), (40, 40)]

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("nowhere_at_all:f", "could not be imported"),
            ("math:nothing", "could not be imported"),
            ("math", "is not `module:function`"),
            ("math:pi", "is a float, not a function"),
        ],
    )
    def test_what_cannot_be_imported_is_refused_when_made(self, path, reason):
        with pytest.raises(ValueError, match=reason):
            FunctionReward(path)

    def test_an_exception_names_the_prompt_that_raised(self):
        def picky(prompts, responses):
            if "p18" in prompts:
                raise KeyError("no such film")
            return lengths(prompts, responses)

        with pytest.raises(RuntimeError, match=r"picky raised KeyError.*prompt 18 \('p18'\)") as e:
            FunctionReward(picky)([f"p{i}" for i in range(20)], [["x"]] * 20)
        assert isinstance(e.value.__cause__, KeyError)

    @pytest.mark.parametrize(
        ("returned", "index"),
        [([[1.0, 2.0]], 1), ([[1.0, 2.0], [1.0]], 1), ([[1], [1]], 0), ([[1, 1]] * 3, 1)],
    )
    def test_a_wrong_length_names_the_prompt(self, returned, index):
        with pytest.raises(ValueError, match=f"first wrong at prompt {index}"):
            FunctionReward(lambda ps, rs: returned, "short")(PROMPTS, RESPONSES)

    @pytest.mark.parametrize("returned", [None, 3.0, [1.0, 2.0], [["x", "y"], [1, 2]]])
    def test_what_is_no_table_of_numbers_is_refused(self, returned):
        with pytest.raises(ValueError, match="one number per response"):
            FunctionReward(lambda ps, rs: returned, "odd")(PROMPTS, RESPONSES)

    def test_nan_is_refused_by_prompt_and_response(self):
        with pytest.raises(ValueError, match="returned nan for response 0 of prompt 1"):
            FunctionReward(lambda ps, rs: [[0, 0], [np.nan, 0]], "bad")(PROMPTS, RESPONSES)


class TestHeads:
    def test_ridge_recovers_a_linear_rating_whatever_the_features_units(self):
        from infalign.rewards.heads import fit_ridge

        rng = np.random.default_rng(0)
        features = rng.normal(size=(400, 8)) * np.array([1e-3, 1, 1, 1, 1, 1, 1, 1e3])
        ratings = features[:, 0] * 1e3 + features[:, 7] * 1e-3 + 0.5 + 0.1 * rng.normal(size=400)
        head, penalty = fit_ridge(features, ratings)
        assert np.corrcoef(head(features), ratings)[0, 1] > 0.99
        assert penalty == 3.0

    def test_a_head_comes_back_from_its_json(self, tmp_path):
        head = LinearHead(np.array([1 / 3, -2e-7]), 0.1, {"held_out_pearson": 0.5})
        import json

        stored = json.loads(head.to_json())
        np.testing.assert_allclose(stored["weights"], head.weights, rtol=1e-8)
        assert stored["record"] == head.record

    @pytest.mark.parametrize(
        ("name", "size", "pearson"),
        [
            ("minilm-training", 384, 0.65),
            ("smollm2-gold", 576, 0.75),
            ("smollm2-training", 576, 0.75),
        ],
    )
    def test_shipped_heads_say_how_well_they_did(self, name, size, pearson):
        head = LinearHead.shipped(name)
        assert head.weights.shape == (size,)
        assert head.record["held_out_pearson"] > pearson

    def test_what_is_rated_is_the_whole_review(self):
        read = []
        reward = HeadReward(
            "spy",
            lambda texts: read.extend(texts) or np.ones((len(texts), 1)),
            LinearHead(np.array([2.0]), 0.5),
        )
        assert isinstance(reward, Reward)
        found = reward(['Movie review: "A dull', "Hi"], [[" film. "], [" Yo "]])
        assert found.tolist() == [[2.5], [2.5]]
        assert sorted(read) == ["A dull film.", "Yo"]


def test_the_auditor_knows_praise_from_blame():
    pytest.importorskip("vaderSentiment")
    reward = VaderReward()
    assert isinstance(reward, Reward)
    ((good, bad),) = reward(['Movie review: "It is a'], [[" wonderful film.", " terrible film."]])
    assert -1 <= bad < -0.2 < 0.2 < good <= 1


def test_the_training_reward_falls_back_to_smollm2_and_says_so(monkeypatch, caplog):
    """The fake stands for a package index that does not serve MiniLM."""
    from infalign.assets import AssetError
    from infalign.rewards import embedded

    def index(name):
        if name == "all-minilm-l6-v2":
            raise AssetError("no network")
        raise AssetError("SmolLM2 was asked for")

    monkeypatch.setattr(embedded, "asset_folder", index)
    with pytest.raises(AssetError, match="SmolLM2 was asked for"):
        embedded.training_reward()
    assert "falls back to a head on SmolLM2" in caplog.text
