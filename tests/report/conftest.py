"""The example report and its page, made once."""

import importlib.util
from pathlib import Path

import pytest

from infalign.report import Report, write_report


@pytest.fixture(scope="session")
def example() -> Report:
    """Two acts with every part filled."""
    path = Path(__file__).with_name("example_report.py")
    spec = importlib.util.spec_from_file_location("example_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.example_report()


@pytest.fixture(scope="session")
def folder(example: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example report was written."""
    return write_report(example, tmp_path_factory.mktemp("report")).parent
