"""Claim 1 on free text, on a tiny random model: what is compared, and that it could fail."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from benchmarks.arena.store import Store
from benchmarks.frontier import text
from benchmarks.frontier.text_measuring import measure
from benchmarks.frontier.text_methods import prepared
from benchmarks.frontier.text_smoke import SCHEDULE, made
from benchmarks.frontier.text_training import Paired, columns_of
from benchmarks.frontier.text_world import stored
from benchmarks.methods import METHODS


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    output = tmp_path_factory.mktemp("text") / "text.json"
    found = text.main(["--smoke", "--output", str(output)])
    assert json.loads(output.read_text())["worlds"].keys() == found["worlds"].keys()
    return found["worlds"]["made"]


def last(world, method, split, judge, procedure="best-of-4"):
    rows = next(m for m in world["methods"] if m["name"] == method)["checkpoints"]
    keys = {"split": split, "judge": judge, "procedure": procedure}
    found = [row for row in rows if keys.items() <= row.items()]
    return max(found, key=lambda row: row["step"])


def test_every_method_moves_and_wins_on_the_prompts_it_was_trained_on(result):
    assert [m["name"] for m in result["methods"]] == list(text.SMOKE[2])
    for method in text.SMOKE[2]:
        row = last(result, method, "train", "training")
        assert row["kl"]["value"] > 0.1
        # One of five fails by chance with probability 0.1 if nothing was learnt; the seed is fixed.
        assert row["win_rate"]["value"] > 0.5 + 2 * row["win_rate"]["se"]
        assert row["win_rate"]["value"] < row["limit"]


def test_both_estimates_of_the_kl_agree(result):
    for method in text.SMOKE[2]:
        row = last(result, method, "held-out", "training")
        error = np.hypot(row["kl"]["se"], row["k1"]["se"])
        assert abs(row["kl"]["value"] - row["k1"]["value"]) < 5 * error


def test_a_gold_judge_of_the_same_order_says_the_same(result):
    for method in text.SMOKE[2]:
        rows = [last(result, method, "held-out", judge) for judge in ("training", "gold")]
        assert rows[0]["win_rate"] == rows[1]["win_rate"]


def test_a_comparison_is_paired_and_at_one_kl(result):
    rows = [row for row in result["compared"] if row["method"] == "raw" and "ahead" in row]
    assert rows
    for row in rows:
        same = {key: row[key] for key in ("split", "judge", "procedure", "kl")}
        ours = next(
            other
            for other in result["compared"]
            if other["method"] == "optimal" and same.items() <= other.items()
        )
        difference = ours["win_rate"]["value"] - row["win_rate"]["value"]
        assert row["ahead"]["value"] == pytest.approx(difference, abs=2e-5)


def test_table_and_figure_say_what_was_measured(result, tmp_path):
    text_shown = pytest.importorskip("benchmarks.frontier.text_shown")
    whole = {"worlds": {"made": result}}
    lines = "\n".join(text_shown.tables(whole))
    for method in text.SMOKE[2]:
        assert f"{last(result, method, 'train', 'training')['win_rate']['value']:.3f}" in lines
    (row,) = text_shown.rows(whole)
    low, high = max(
        (compared["kl"], compared["ahead"]["low"], compared["ahead"]["high"])
        for compared in result["compared"]
        if compared["method"] == "raw"
        and (compared["split"], compared["judge"]) == ("train", "training")
        and compared["procedure"] == "best-of-4"
    )[1:]
    assert row.holds is (None if low < 0 < high else low > 0)
    text_shown.draw(whole, tmp_path)
    assert 5_000 < (tmp_path / "text.png").stat().st_size < 150_000


def test_rewards_dealt_out_at_random_teach_nothing(tmp_path):
    world = dataclasses.replace(made(), root=tmp_path)
    policy = world.policy(0)
    store = stored(world, policy, lambda _: None)
    rng = np.random.default_rng(0)
    store = dataclasses.replace(store, rewards=rng.permuted(store.rewards, axis=1))
    solver, problem = prepared("raw", world, store, SCHEDULE)
    solver.train(policy, problem, rng=rng)
    found = measure(policy, world, store, SCHEDULE.steps, last=False).measurement
    wins = found.wins["train", "training", "best-of-4"]
    assert found.kl["train"].mean() > 0.1  # it moved all the same
    assert wins.mean() < 0.5 + 2 * wins.std(ddof=1) / np.sqrt(len(wins))


def test_a_sum_over_some_columns_is_unbiased():
    rng = np.random.default_rng(0)
    law, value = rng.dirichlet(np.ones(5), 2), rng.normal(size=(2, 5))
    sums = []
    for picks in itertools.combinations(range(5), 3):
        drawn = columns_of({"law": law, "value": value}, np.array([picks, picks]))
        sums.append((drawn["law"] * drawn["value"]).sum(1))
    np.testing.assert_allclose(np.mean(sums, 0), (law * value).sum(1))


def test_pairs_keep_their_places():
    table = np.arange(16.0).reshape(1, 4, 4) - 8
    assert columns_of({"leads": table}, np.array([[3, 1]]))["leads"][0].tolist() == [
        [table[0, 3, 3], table[0, 3, 1]],
        [table[0, 1, 3], table[0, 1, 1]],
    ]


def test_qrpo_on_rollouts_is_at_rest_at_its_tilt_and_nowhere_else():
    torch = pytest.importorskip("torch")
    rewards = np.random.default_rng(1).normal(size=(2, 8))
    store = Store(np.full((2, 8), 1 / 8), rewards, 8)
    method = METHODS["qrpo"].make(made().procedure, 0.5)
    tables = method.tables(store)
    picks = np.array([[0, 1, 4, 6], [2, 3, 5, 7]])
    given = {name: torch.as_tensor(t) for name, t in columns_of(tables, picks).items()}
    mass = torch.full((2, 4), 1 / 4, dtype=torch.float64)
    tilted = tables["target"]
    assert np.exp(tilted).mean(1) == pytest.approx(1)  # it is a law on the rollouts
    at_tilt = torch.as_tensor(np.take_along_axis(tilted, picks, 1))
    assert method.loss(at_tilt, mass, given).max() < 1e-20
    assert method.loss(0 * at_tilt, mass, given).min() > 1e-3


def test_pairs_are_at_rest_at_the_tilt_whatever_its_constant():
    torch = pytest.importorskip("torch")
    phi = np.random.default_rng(3).normal(size=(2, 8))
    store = Store(np.full((2, 8), 1 / 8), phi, 8)
    tables = {name: torch.as_tensor(t) for name, t in Paired(phi).tables(store).items()}
    mass = tables["masses"]
    assert Paired(phi).loss(torch.as_tensor(phi + 0.7), mass, tables).max() < 1e-20
    assert Paired(phi).loss(torch.as_tensor(0.9 * phi), mass, tables).min() > 1e-3


def test_ipo_on_rollouts_aims_at_the_calibrated_tilt():
    torch = pytest.importorskip("torch")
    rewards = np.random.default_rng(2).normal(size=(1, 8))
    store = Store(np.full((1, 8), 1 / 8), rewards)
    tables = METHODS["ipo"].make(made().procedure, 0.5).tables(store)
    picks = np.array([[0, 2, 5, 7]])
    given = {name: torch.as_tensor(t) for name, t in columns_of(tables, picks).items()}
    log_ratio = torch.zeros((1, 4), dtype=torch.float64, requires_grad=True)
    mass = torch.full((1, 4), 1 / 4, dtype=torch.float64)
    METHODS["ipo"].make(made().procedure, 0.5).loss(log_ratio, mass, given).sum().backward()
    order = np.argsort(rewards[0, picks[0]])
    assert (np.diff(-log_ratio.grad.numpy()[0][order]) > 0).all()  # more reward, more push
