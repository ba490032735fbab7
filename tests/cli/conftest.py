"""A command line in this process, and a pipeline that notes what it is asked for."""

import logging
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import infalign
from infalign.cli import app, failing
from infalign.decoding import Decoded
from infalign.prompts import Prompt
from infalign.protocols import Response


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """What a command changes for its own process is as before afterwards."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    log = logging.getLogger("infalign")
    monkeypatch.setattr(log, "handlers", list(log.handlers))
    monkeypatch.setattr(log, "propagate", log.propagate)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    failing.set_debug(False)


@pytest.fixture
def infalign_command(capsys, monkeypatch):
    """Runs `infalign` with arguments; returns exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["infalign", *arguments])
        with pytest.raises(SystemExit) as end:
            app.run()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


class FakeStudy:
    """What the verbs look at."""

    def __init__(self, experiment, show):
        self.experiment, self.show = experiment, show
        self.folder = Path(experiment.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prompts = {"train": [], "held-out": [Prompt.from_text("Say something.")]}


class FakePipeline(types.ModuleType):
    """Notes the stages it is asked for; `breaks` maps a stage to what it raises."""

    def __init__(self):
        super().__init__("infalign.pipeline")
        self.calls, self.breaks = [], {}
        for stage in ("rollout", "reward", "calibrate", "train", "evaluate"):
            setattr(self, stage, self._noting(stage))

    def open_study(self, experiment, show):
        self._note("open_study")
        self.study = FakeStudy(experiment, show)
        return self.study

    def decode(self, study, policy):
        self._note("decode", policy)
        candidates = (Response("Fine — «thanks»."), Response("No."))
        prompt = study.prompts["held-out"][0]
        return [Decoded(prompt.id, "No.", 1, candidates, (float(np.float32(0.5)), 0.75))]

    def report(self, study):
        self._note("report")
        return study.folder / "report.html"

    def demo(self, output, show, **settings):
        self._note("demo", output, settings)
        show.say("working")
        return Path(output) / "report.html"

    def _noting(self, stage):
        return lambda study, *rest: self._note(stage, *rest)

    def _note(self, *call):
        self.calls.append(call)
        if call[0] in self.breaks:
            raise self.breaks[call[0]]


@pytest.fixture
def pipeline(monkeypatch):
    fake = FakePipeline()
    monkeypatch.setitem(sys.modules, "infalign.pipeline", fake)
    monkeypatch.setattr(infalign, "pipeline", fake, raising=False)
    return fake


@pytest.fixture
def experiment_file(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(f"name: a test\noutput: {tmp_path / 'out'}\n")
    return path
