"""A TRL run on the way: killed, resumed, stopped at a KL, and the policy given back."""

import random

import numpy as np
import pytest
import torch

from infalign.integrations.trl import TRL
from infalign.training import Descent


def trainable(policy):
    return {n: p.detach().clone() for n, p in policy.module.named_parameters() if p.requires_grad}


class Killed(Exception):
    """In place of a power cut."""


def run(bench, directory, steps=6, kill_at=None, trainer="rloo", **settings):
    def follow(row):
        if row["step"] == kill_at:
            raise Killed

    descent = Descent(
        steps=steps, learning_rate=3e-3, checkpoint_every=2, prompts_per_step=3, **settings
    )
    solver = TRL(descent, k=4, trainer=trainer)
    rng = np.random.default_rng(7)
    return solver.train(bench.policy, bench.problem, directory=directory, callback=follow, rng=rng)


def timeless(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_killed_run_ends_where_it_would_have_ended(bench, tmp_path):
    whole, other = bench(), bench()
    expected = run(whole, tmp_path / "whole", schedule="cosine")
    with pytest.raises(Killed):
        run(other, tmp_path / "killed", kill_at=4, schedule="cosine")
    torn = tmp_path / "killed" / "trl" / "checkpoint-6"  # a checkpoint that was being written
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    again = bench()
    result = run(again, tmp_path / "killed", schedule="cosine")
    assert timeless(result.rows) == timeless(expected.rows)
    assert [row["step"] for row in result.rows] == list(range(6))
    assert [c.step for c in result.checkpoints] == [2, 4, 6]
    weights = trainable(whole.policy)
    assert all(torch.equal(weights[name], value) for name, value in trainable(again.policy).items())
    lines = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 6


def test_a_finished_run_is_read_back_and_a_longer_one_goes_on(bench, tmp_path):
    one, two, three, long = (bench() for _ in range(4))
    first = run(one, tmp_path / "run", steps=4)
    again = run(two, tmp_path / "run", steps=4, kill_at=0)  # would be killed if it trained
    assert timeless(again.rows) == timeless(first.rows)
    moved = trainable(one.policy)
    assert all(torch.equal(moved[name], value) for name, value in trainable(two.policy).items())
    more = run(three, tmp_path / "run", steps=6)
    whole = run(long, tmp_path / "long", steps=6)
    assert timeless(more.rows) == timeless(whole.rows)
    with pytest.raises(ValueError, match="holds a run with another"):
        TRL(Descent(steps=4, learning_rate=1.0), k=4).train(
            one.policy, one.problem, directory=tmp_path / "run", rng=np.random.default_rng(7)
        )


def test_it_stops_at_the_policy_whose_kl_reached_the_target(bench, tmp_path):
    free, stopped = bench(), bench()
    kls = [row["kl"] for row in run(free, None).rows]
    last = int(np.argmax(kls))
    assert last >= 1
    target = (kls[last] + max(kls[:last])) / 2  # first reached at the highest of all
    result = run(stopped, tmp_path, target_kl=target)
    assert (result.stopped, result.steps, len(result.rows)) == ("target_kl", last, last + 1)
    assert [row["kl"] for row in result.rows] == kls[: last + 1]
    assert result.checkpoints[-1].step == last
    kept = torch.load(result.checkpoints[-1].path, weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in trainable(stopped.policy).items())
    again = bench()
    assert timeless(run(again, tmp_path, target_kl=target).rows) == timeless(result.rows)


def test_the_policy_and_the_generators_come_back_as_they_were(bench):
    one = bench()
    base = one.policy.module.get_base_model()
    config, pad = base.generation_config, one.policy.tokenizer.pad_token
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    run(one, None, steps=2)
    assert base.generation_config is config
    assert one.policy.tokenizer.pad_token == pad
    assert list(one.policy.module.peft_config) == ["default"]
    assert "forward" not in vars(base)
    assert not one.policy.module.training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])
    with one.policy.reference():
        again = one.policy.sample(one.problem.texts, 32, np.random.default_rng(0))
    assert again == one.problem.rollouts


def test_a_forward_that_was_there_before_is_there_again(bench):
    """Hooks of other libraries stand in the same place as TRL's own."""
    one = bench()
    base = one.policy.module.get_base_model()
    own = type(base).forward.__get__(base)
    base.forward = own
    run(one, None, steps=1)
    assert vars(base)["forward"] is own


def test_rows_say_what_those_of_the_built_in_solver_say(bench):
    rows = run(bench(), None, steps=2).rows
    said = {"step", "rate", "kl", "training_reward", "reward", "gap", "quantile", "gradient_norm"}
    assert said <= set(rows[0])
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert rows[1]["rate"] == 3e-3


@pytest.mark.filterwarnings("ignore:GRPO charges")
def test_grpo_runs_too(bench, tmp_path):
    result = run(bench(), tmp_path, steps=3, trainer="grpo")
    assert result.steps == 3
    assert result.rows[2]["kl"] > 0
