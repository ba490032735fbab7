import re

import pytest

from infalign.cli.starter import starter_text
from infalign.config import load_experiment

LINES = starter_text().splitlines()
ALTERNATIVES = [place for place, line in enumerate(LINES) if line.startswith("#+")]
ON_TEXT = [
    place
    for place in ALTERNATIVES
    if re.match(r"#\+.*(majority_vote|_decoded|beta:)", LINES[place])
]
"""Alternatives that the file says to choose together."""


def test_init_writes_a_file_that_loads(infalign_command, tmp_path):
    path = tmp_path / "new" / "mine.yaml"
    code, out, err = infalign_command("init", str(path))
    assert (code, out) == (0, f"{path}\n")
    assert f"infalign run {path}" in err
    experiment = load_experiment(path)
    assert (experiment.procedure.candidates, experiment.training.kl) == (4, 1.0)


def test_init_replaces_nothing_unasked(infalign_command, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: precious")
    code, out, err = infalign_command("init", str(path))
    assert (code, out, path.read_text()) == (2, "", "name: precious")
    assert "--force" in err
    assert infalign_command("init", str(path), "--force")[0] == 0
    assert "precious" not in path.read_text()


@pytest.mark.parametrize("place", ALTERNATIVES, ids=lambda place: LINES[place][2:30])
def test_every_alternative_in_it_loads(place, tmp_path):
    lines = list(LINES)
    for chosen in ON_TEXT if place in ON_TEXT else [place]:
        choose(lines, chosen)
    if lines[place].startswith("#+path"):  # which asks for a reward to go with it
        lines[lines.index("reward: embedded")] = "reward: {kind: callable, function: 'my:own'}"
    path = tmp_path / "experiment.yaml"
    path.write_text("\n".join(lines))
    assert load_experiment(path) != load_experiment_text(tmp_path)


def choose(lines, place):
    """Take away the #+, and the line that it stands below."""
    replaced = max(i for i in range(place) if not lines[i].lstrip().startswith("#"))
    indent = re.match(r"\s*", lines[replaced])[0]
    lines[replaced] = indent + lines[place][2:]


def test_the_file_shows_how_to_train_for_a_procedure_on_text(tmp_path):
    assert len(ON_TEXT) == 3
    lines = list(LINES)
    for place in ON_TEXT:
        choose(lines, place)
    path = tmp_path / "experiment.yaml"
    path.write_text("\n".join(lines))
    experiment = load_experiment(path)
    assert (experiment.procedure.kind, experiment.training.kind) == (
        "majority_vote",
        "online_decoded",
    )
    assert (experiment.training.kl, experiment.training.beta) == (None, 0.1)


def load_experiment_text(folder):
    path = folder / "as_written.yaml"
    path.write_text(starter_text())
    return load_experiment(path)
