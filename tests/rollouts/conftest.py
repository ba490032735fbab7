"""The small store, whole, and with rewards."""

import sys
from pathlib import Path

import pytest

from infalign.rollouts import score

sys.path.insert(0, str(Path(__file__).parent))  # for `small_store.py`

from small_store import CHUNK, PROMPTS, Length, collected, contents


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """What a run that was never stopped leaves."""
    path = tmp_path_factory.mktemp("whole") / "s"
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    return contents(path)


@pytest.fixture
def scored(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS)
    score(store, Length(name="other/length"), PROMPTS[:3])
    return store
