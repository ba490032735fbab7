"""The arena: stores, equal KL, judged win rates, runs made once; the table is what was measured."""

import itertools
import re

import numpy as np
import pytest
from benchmarks.arena import runs, sources
from benchmarks.arena.measuring import at_kl, compared, divergences, read, wins
from benchmarks.arena.pieces import piece
from benchmarks.arena.program import program
from benchmarks.arena.results import save
from benchmarks.arena.runs import Run, ensure, kept
from benchmarks.arena.store import Store
from benchmarks.methods import Transformed
from benchmarks.worlds.made import made

from benchmarks import bench
from infalign import BestOfN, EmpiricalCalibration
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Exponential, Identity
from infalign.training import CalibratedReward, EnumeratedReward


def tilted(world, kl):
    rewards = world.judges["training"]
    return tilt_atoms(world.law, rewards, beta_for_atoms_kl(world.law, rewards, kl))


def test_a_converged_law_brought_to_a_kl_is_the_tilt_at_that_kl():
    """The same training reward at a larger β, one for all prompts; a mixture of laws is not."""
    world = made()
    far = tilted(world, 1.2)
    assert at_kl(far, world.law, 0.5) == pytest.approx(tilted(world, 0.5), abs=1e-6)
    mixed = 0.5 * far + 0.5 * world.law
    same_kl = tilted(world, float(divergences(mixed, world.law).mean()))
    assert np.abs(mixed - same_kl).max() > 1e-2


def test_no_law_is_read_beyond_where_it_is():
    world = made()
    assert at_kl(tilted(world, 0.5), world.law, 0.6) is None
    assert read(tilted(world, 0.5), world, "train", BestOfN(4), kl=0.6) is None


def test_the_judged_win_rate_is_the_enumerated_one():
    """Best-of-2 on both sides, picked by the training reward and judged by gold; all pairs."""
    world = made(prompts=2, responses=4)
    law, gold, training = tilted(world, 0.5), world.judges["gold"], world.judges["training"]
    for p, found in enumerate(wins(law, world, "train", BestOfN(2), "gold")):
        total = 0.0
        for a, b, c, d in itertools.product(range(4), repeat=4):
            ours, theirs = (max(pair, key=lambda i: training[p, i]) for pair in ((a, b), (c, d)))
            mass = law[p, a] * law[p, b] * world.law[p, c] * world.law[p, d]
            won = gold[p, ours] > gold[p, theirs]
            total += mass * (1.0 if won else 0.5 if ours == theirs else 0.0)
        assert found == pytest.approx(total, abs=1e-12)
    other = wins(law, world, "train", BestOfN(2), "training")
    assert np.abs(other - wins(law, world, "train", BestOfN(2), "gold")).max() > 0.01


def test_a_difference_is_paired_by_prompt():
    world = made()
    ours, theirs = (read(tilted(world, kl), world, "train", BestOfN(4)) for kl in (0.8, 0.7))
    paired = compared(ours, theirs)
    assert paired.value == pytest.approx(ours.win_rate.value - theirs.win_rate.value)
    assert paired.se < 0.5 * np.hypot(ours.win_rate.se, theirs.win_rate.se)


@pytest.mark.parametrize("transform", [Identity(), Exponential(10.0)])
def test_a_store_calibrates_as_the_library_does(transform):
    world = made()
    ids, law, rewards = tuple("abcdefgh"), world.law, world.judges["training"]
    exact = EnumeratedReward.of_transform(ids, world.responses, law, rewards, transform)
    assert Store(law, rewards).training_rewards(transform) == pytest.approx(exact.training_rewards)

    drawn = Store.drawn(law, rewards, 16, np.random.default_rng(0))
    of_store = np.stack([np.repeat(r, n) for r, n in zip(rewards, drawn.counts, strict=True)])

    class Listed:
        name = "listed"

        def __call__(self, prompts, responses):
            return rewards

    calibrated = CalibratedReward(Listed(), EmpiricalCalibration(ids, of_store), transform)
    texts = [list(row) for row in world.responses]
    assert drawn.training_rewards(transform) == pytest.approx(calibrated(ids, ids, texts))
    exactly = Store(law, rewards).training_rewards(transform)
    assert np.abs(drawn.training_rewards(transform) - exactly).max() > 0.01


def test_a_run_is_made_once_and_again_when_what_it_depends_on_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    world, run = made(), Run("identity-any-kl0.5", Transformed(Identity(), 0.5))
    (path,) = ensure(world, [run])
    before, law = path.stat().st_mtime_ns, kept(world, run)
    ensure(world, [run, run])
    assert path.stat().st_mtime_ns == before
    path.unlink()
    ensure(world, [run])
    assert np.array_equal(kept(world, run), law)  # the same seed, the same law
    for other in (made(seed=1), made(k=16)):
        assert run.path(other) != path
        with pytest.raises(FileNotFoundError, match="ensure"):
            kept(other, run)
    assert Run(run.label, Transformed(Identity(), 0.6)).path(world) != path


def test_training_arrives_at_the_tilt(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    world = made()
    run = Run("identity", Transformed(Identity(), 0.5))
    ensure(world, [run])
    store = world.store(0)
    phi = store.training_rewards(Identity())
    wanted = tilt_atoms(world.law, phi, beta_for_atoms_kl(world.law, phi, 0.5))
    assert np.abs(kept(world, run) - wanted).sum(1).max() < 0.01
    assert np.abs(kept(world, run) - tilted(world, 0.5)).sum(1).max() > 0.1  # not the raw tilt


def test_a_result_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "result.json", {"value": float("nan")})
    assert not (tmp_path / "result.json").exists()


def test_a_result_is_not_replaced_by_one_that_lacked_the_data(tmp_path):
    path = tmp_path / "result.json"
    save(path, {"absent": {}, "value": 1})
    with pytest.raises(ValueError, match="results of answers"):
        save(path, {"absent": {"answers": "no data"}, "value": 2})
    assert '"value": 1' in path.read_text()
    save(path, {"absent": {}, "value": 2})
    assert '"value": 2' in path.read_text()


def test_a_run_that_was_cut_short_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    world, run = made(), Run("identity-any-kl0.5", Transformed(Identity(), 0.5))
    (path,) = ensure(world, [run])
    law = kept(world, run)
    path.write_bytes(path.read_bytes()[:200])
    ensure(world, [run])
    assert np.array_equal(kept(world, run), law)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "goes on"),
        (ValueError("no such world"), 2, "no such world"),
        (NotADirectoryError(20, "Not a directory", "/a/b"), 2, "/a/b: Not a directory"),
    ],
)
def test_a_benchmark_ends_in_one_line(error, code, said, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        program(main)
    assert ended.value.code == code
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        program(lambda: 1 / 0)


def test_an_unknown_claim_is_refused_with_the_list(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["fronteer"])
    assert ended.value.code == 2
    assert "'fronteer'; there are frontier, prediction" in capsys.readouterr().err


def test_the_table_is_what_was_measured():
    text = (bench.HERE / "README.md").read_text(encoding="utf-8")
    table = text.split(bench.BEGIN)[1].split(bench.END)[0]
    told = [line.split(" | ")[:4] for line in table.strip().split("\n")[2:]]
    assert told == [line.split(" | ")[:4] for line in bench.lines()[2:]], "bench --table"


def test_every_claim_is_measured_and_says_what_it_claims():
    folders = {path.parent.name for path in bench.HERE.glob("*/shown.py")}
    assert folders == {claim.folder for claim in bench.CLAIMS}
    for claim in bench.CLAIMS:
        assert bench.result_of(claim), f"{claim.folder} has no result"
        first = (bench.HERE / claim.folder / "README.md").read_text(encoding="utf-8").split("\n")[0]
        assert len(re.sub(r"^(#+ |Claim: )", "", first)) > 40, f"{claim.folder}: {first!r}"


def test_code_that_is_changed_is_another_code_and_a_comment_is_not(tmp_path, monkeypatch):
    """Also where it is changed two imports away."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    folder = tmp_path / "benchmarks"
    folder.mkdir()

    def code(text):
        (folder / "b.py").write_text(text)
        (folder / "a.py").write_text("from benchmarks.b import x\n")
        sources._tree.cache_clear()
        sources._meaning.cache_clear()
        return sources.code_of("benchmarks.a")

    try:
        first = code("x = 1\n")
        assert code('"""Said."""\nx = 1  # one\n') == first
        assert code("x = 2\n") != first
    finally:
        sources._tree.cache_clear()
        sources._meaning.cache_clear()


def test_a_piece_is_made_once_for_its_settings_and_its_code(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(1)
        return {"value": len(made)}

    assert piece("claim", "name", 1, make, tmp_path, code="a") == {"value": 1}
    assert piece("claim", "name", 1, make, tmp_path, code="a") == {"value": 1}
    assert piece("claim", "name", 2, make, tmp_path, code="a") == {"value": 2}
    assert piece("claim", "name", 1, make, tmp_path, code="b") == {"value": 3}
