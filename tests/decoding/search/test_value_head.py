"""A head on the states of a tiny language model: reads the right states, learns what there is."""

import dataclasses
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.decoding import decode  # noqa: E402
from infalign.decoding.search import (  # noqa: E402
    BlockSearch,
    HeadFit,
    RewardValue,
    ValueHead,
    controlled,
    fit_value_head,
    fit_value_head_to_store,
    value_error,
)
from infalign.decoding.search.fitting import (  # noqa: E402
    _Examples,
    _layers,
    _network,
    _targets,
    _trained,
)
from infalign.decoding.search.states import all_states, examples, last_states  # noqa: E402
from infalign.policies import CausalLM  # noqa: E402
from infalign.prompts import Prompt  # noqa: E402
from infalign.protocols import Response, Sampling  # noqa: E402
from infalign.quantile.calibration import EmpiricalCalibration  # noqa: E402
from infalign.rollouts import RolloutStore, collect, score  # noqa: E402

SHARP = Sampling(temperature=0.4, max_new_tokens=4)
CELLS = np.array([0.0, 0.5, 1.0, 1.5])
TEXTS = [f"the film {i} is" for i in range(60)]


class Liked:
    """Each token is liked as the model's own embedding says; a response, the sum of it."""

    name = "liked"

    def __init__(self, lm):
        weights = lm.head.weight.detach().numpy()
        likes = weights @ np.random.default_rng(3).normal(size=weights.shape[1])
        self.likes = likes / likes.std()
        self.of_text = {}

    def of(self, responses):
        found = np.array([[self.likes[list(r.token_ids)].sum() for r in row] for row in responses])
        self.of_text |= {
            r.text: value
            for row, values in zip(responses, found, strict=True)
            for r, value in zip(row, values, strict=True)
        }
        return found

    def __call__(self, prompts, responses):
        return np.array([[self.of_text.get(text, 0.0) for text in row] for row in responses])


@dataclasses.dataclass
class Learned:
    lm: object
    reward: Liked
    rollouts: list
    rewards: np.ndarray
    fresh: list
    fresh_rewards: np.ndarray
    constant: float
    heads: dict


@pytest.fixture(scope="module")
def learned(tiny_llama, tokenizer):
    lm = CausalLM(tiny_llama(len(tokenizer)), tokenizer, SHARP, dtype="float32")
    rng = np.random.default_rng(0)
    reward = Liked(lm)
    rollouts, fresh = lm.sample(TEXTS, 8, rng), lm.sample(TEXTS, 8, rng)
    rewards, fresh_rewards = reward.of(rollouts), reward.of(fresh)
    lengths = np.array([[len(r.token_ids) + 1 for r in row] for row in fresh])
    squares = (fresh_rewards - rewards.mean()) ** 2
    constant = float((lengths * squares).sum() / lengths.sum())
    return Learned(lm, reward, rollouts, rewards, fresh, fresh_rewards, constant, {})


def fitted(learned, shuffled=False, **settings):
    fit, rng, rewards = HeadFit(**settings), np.random.default_rng(1), learned.rewards
    if shuffled:
        rewards = np.random.default_rng(2).permutation(rewards.ravel()).reshape(rewards.shape)
    if (shuffled, fit) not in learned.heads:
        learned.heads[shuffled, fit] = fit_value_head(
            learned.lm, TEXTS, learned.rollouts, rewards, fit=fit, rng=rng
        )
    return learned.heads[shuffled, fit]


def plain_state(lm, prompt, ids):
    """The last hidden state of one sequence, read on its own."""
    read = torch.tensor([[*lm.contexts([prompt])[0], *ids]])
    with torch.no_grad():
        return lm.body(input_ids=read, use_cache=False).last_hidden_state[0].numpy()


def test_states_are_those_of_each_sequence_alone(make_lm):
    """Beginnings of several prompts, empty, ended and shared, in no order: to 1e-5."""
    lm = make_lm(SHARP)
    prompts = [TEXTS[1], TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]]
    begun = [(5, 6), (), (5,), (9, 8, 7, 2), (4, 4)]
    found = last_states(lm, prompts, begun)
    alone = [plain_state(lm, *one)[-1] for one in zip(prompts, begun, strict=True)]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    ((states, whose),) = all_states(lm, prompts, begun)
    assert whose.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4]
    alone = [plain_state(lm, p, b)[-len(b) - 1 :] for p, b in zip(prompts, begun, strict=True)]
    np.testing.assert_allclose(states, np.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("hidden", [0, 32])
def test_a_head_tells_more_than_the_constant_and_of_noise_nothing(learned, hidden):
    """On 480 rollouts it has not seen: 0.91 of the constant's error, 1.000 for shuffled rewards.

    Little, because most of what comes is chance: the model's weights are random, too.
    """
    head = fitted(learned, hidden=hidden)
    error = value_error(head, learned.lm, TEXTS, learned.fresh, learned.fresh_rewards)
    assert error < 0.96 * learned.constant
    assert head.record["error"] < head.record["error_of_constant"]
    blind = fitted(learned, shuffled=True, hidden=hidden)
    error = value_error(blind, learned.lm, TEXTS, learned.fresh, learned.fresh_rewards)
    assert error > 0.985 * learned.constant


@pytest.mark.parametrize("beta", [None, 1.0])
def test_the_loss_is_minimal_at_the_exact_value(beta):
    """States that name four cells: the head says each cell's mean, or log mean exp r."""
    rng = np.random.default_rng(0)
    cells, rewards = np.repeat(np.arange(4), 50), rng.normal(size=(4, 50)) + CELLS[:, None]
    shift, slope, targets = _targets(rewards, beta, np.arange(200))
    states = torch.eye(4)[torch.from_numpy(cells)]
    examples = _Examples(states, torch.from_numpy(targets.ravel().astype(np.float32)))
    fit = HeadFit(beta=beta, epochs=2000, penalty=0.0)
    network = _network(fit, examples, rng)
    _trained(network, fit, examples, examples, rng)
    numbers = (np.zeros(4), np.ones(4), shift, slope)
    head = ValueHead(_layers(network), *numbers, identity={})
    mean, soft = rewards.mean(1), np.log(np.exp(rewards).mean(1))
    right, wrong = (mean, soft) if beta is None else (soft, mean)
    np.testing.assert_allclose(head(np.eye(4)), right, atol=0.02)
    assert np.abs(head(np.eye(4)) - wrong).min() > 0.2


def test_a_head_steers_towards_reward_and_a_blind_one_does_not(learned):
    """160 steered responses against 480 plain ones: 0.86 above; a blind head 0.26. Errors 0.16."""
    lm, plain = learned.lm, learned.fresh_rewards.mean()
    gains = []
    for shuffled in (False, True):
        head = fitted(learned, shuffled, hidden=32)
        steered = controlled(lm, head.on(lm), beta=0.7, top=8)
        drawn = steered.sample(TEXTS[:20], 8, np.random.default_rng(3))
        gains.append(learned.reward.of(drawn).mean() - plain)
        found = steered.log_prob(TEXTS[:4], drawn[:4])
        told = np.array([[r.log_prob for r in row] for row in drawn[:4]])
        np.testing.assert_allclose(found, told, atol=1e-4)
    assert gains[0] > 0.6
    assert gains[0] > gains[1] + 0.4


def test_a_head_guides_block_search(learned):
    """30 answers of one beam of 4 children: 1.1 above 480 plain responses, error 0.4."""
    value = fitted(learned, hidden=32).on(learned.lm)
    search = BlockSearch(1, 4, block=1, value=value)
    prompts = [Prompt(str(i), text) for i, text in enumerate(TEXTS[:30])]
    found = decode(learned.lm, prompts, None, search, rng=np.random.default_rng(4))
    rewards = learned.reward.of([one.candidates for one in found])
    assert rewards.mean() > learned.fresh_rewards.mean() + 0.5
    told = learned.lm.log_prob(TEXTS[:30], [one.candidates for one in found])
    own = [[one.candidates[0].log_prob] for one in found]
    np.testing.assert_allclose(own, told, atol=1e-4)


def test_search_runs_on_a_language_model_by_the_reward_of_the_text(learned):
    prompts = [Prompt(str(i), text) for i, text in enumerate(TEXTS[:5])]

    def short(prompts, responses):
        return np.array([[-float(len(text)) for text in row] for row in responses])

    short.name = "short"
    for options in ({}, {"rollouts": 2}, {"beta": 1.0}):
        search = BlockSearch(2, 2, block=2, **options)
        found = decode(learned.lm, prompts, short, search, rng=np.random.default_rng(0))
        assert all(one.text == one.candidates[one.index].text for one in found)


def test_saved_and_loaded_it_is_the_same(learned, tmp_path):
    head = fitted(learned, hidden=8, beta=1.0, epochs=2)
    head.save(tmp_path / "value.safetensors")
    again = ValueHead.load(tmp_path / "value.safetensors")
    states = np.random.default_rng(0).normal(size=(5, 32))
    np.testing.assert_array_equal(again(states), head(states))
    assert (again.fingerprint, again.record) == (head.fingerprint, head.record)
    assert again.on(learned.lm).fingerprint == head.on(learned.lm).fingerprint
    assert fitted(learned, hidden=8, epochs=2).fingerprint != head.fingerprint


def test_what_is_no_head_is_refused(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(OSError, match="missing"):
        ValueHead.load(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError, match="no safetensors file"):
        ValueHead.load(tmp_path / "text")
    save_file({"a": np.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="no value head"):
        ValueHead.load(tmp_path / "other")


def test_a_head_of_another_policy_is_refused(learned, make_lm, trained_lm):
    head = fitted(learned, epochs=1)
    with pytest.raises(ValueError, match=r"another law.*fingerprint"):
        head.on(make_lm(SHARP, seed=1))
    with pytest.raises(ValueError, match=r"another law.*temperature 0\.4 there, temperature 0\.5"):
        head.on(make_lm(dataclasses.replace(SHARP, temperature=0.5)))
    moved = trained_lm(SHARP)
    with pytest.raises(ValueError, match="another law"):
        head.on(moved)


def test_a_head_on_a_large_vocabulary_asks_for_top(learned, monkeypatch):
    value = fitted(learned, epochs=1).on(learned.lm)
    assert controlled(learned.lm, value, 1.0).top is None
    monkeypatch.setattr(sys.modules[controlled.__module__], "_READABLE", 100)
    assert controlled(learned.lm, value, 1.0, top=8).top == 8
    with pytest.raises(ValueError, match="give top"):
        controlled(learned.lm, value, 1.0)
    told = RewardValue(learned.reward, learned.lm)
    with pytest.raises(ValueError, match="give top"):
        controlled(learned.lm, told, 1.0)


def test_a_soft_head_at_a_small_beta_is_finite_or_refused():
    """The largest reward is of a prompt kept apart: a weight relative to it would be 0 of all."""
    rewards = np.array([[0.0, 0.0], [1.0, 1.0]])
    shift, slope, targets = _targets(rewards, 0.02, np.array([0, 0, 1, 1]))
    assert (shift, slope) == (0.0, 0.02)
    np.testing.assert_allclose(targets[0], 1)
    np.testing.assert_allclose(targets[1], np.exp(50), rtol=1e-5)
    with pytest.raises(ValueError, match=r"beta is 0\.001 .*larger beta"):
        _targets(rewards, 0.001, np.array([0, 0, 1, 1]))
    shift, _, targets = _targets(rewards, 0.001, np.array([2, 2, 3, 3]))
    assert shift == 1.0
    np.testing.assert_array_equal(targets, [[0, 0], [1, 1]])


def test_a_part_of_the_examples_is_held_where_there_are_many(learned):
    lm, prompts, responses = learned.lm, TEXTS, learned.rollouts
    everything, rows = examples(lm, prompts, responses, 10**9, np.random.default_rng(0))
    assert len(rows) == sum(len(one.token_ids) + 1 for row in responses for one in row)
    part, whose = examples(lm, prompts, responses, 100, np.random.default_rng(0))
    assert len(part) == len(whose) == 100
    for state, row in zip(part, whose, strict=True):
        same = everything[rows == row]
        assert np.abs(same - state).max(1).min() < 1e-6


def test_a_head_is_fitted_to_a_store(make_lm, tmp_path):
    """Quantiles as rewards: values lie about ½ and within the unit interval's reach."""
    lm = make_lm(SHARP)
    prompts = [Prompt(str(i), text) for i, text in enumerate(TEXTS[:6])]
    store = RolloutStore.open(tmp_path / "store", lm, seed=0)
    collect(lm, prompts, 4, store)

    def long(prompts, responses):
        return np.array([[float(len(text)) for text in row] for row in responses])

    long.name = "long"
    score(store, long, prompts)
    rewards = store.rewards("long", prompts)
    calibration = EmpiricalCalibration(tuple(p.id for p in prompts), rewards)
    rng, fit = np.random.default_rng(0), HeadFit(epochs=2)
    head = fit_value_head_to_store(
        lm, store, prompts, "long", calibration=calibration, fit=fit, rng=rng
    )
    assert head.on(lm).name == "long to come"
    assert (np.abs(head.on(lm)(TEXTS[:6], [()] * 6) - 0.5) < 0.3).all()
    with pytest.raises(ValueError, match="temperature"):
        fit_value_head_to_store(lm.with_sampling(Sampling()), store, prompts, "long", rng=rng)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0"),
        ({"hidden": -1}, "hidden is -1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": True}, "epochs is True"),
        ({"penalty": float("nan")}, "penalty is nan"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        HeadFit(**wrong)


def test_wrong_examples_are_refused(make_lm):
    lm, rng = make_lm(SHARP), np.random.default_rng(0)
    responses = [[Response("a", (5, 2), 0.0)] * 2] * 2
    with pytest.raises(ValueError, match="at least two prompts"):
        fit_value_head(lm, TEXTS[:1], responses[:1], np.zeros((1, 2)), rng=rng)
    with pytest.raises(ValueError, match="one reward per response"):
        fit_value_head(lm, TEXTS[:2], responses, np.zeros((2, 3)), rng=rng)
    rewards = np.array([[0.0, 1.0], [np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"reward \[1\]\[0\] is nan"):
        fit_value_head(lm, TEXTS[:2], responses, rewards, rng=rng)
