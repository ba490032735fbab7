"""`infalign export`: what it teaches, and what it refuses before any work."""

import pytest

ENGINES = ("trl", "verl", "openrlhf")


def test_help_names_the_engines(infalign_command):
    code, out, _ = infalign_command("export", "--help")
    assert code == 0
    assert all(engine in out for engine in ENGINES)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_has_an_example_and_refuses_a_missing_file(infalign_command, engine):
    _, out, _ = infalign_command("export", engine, "--help")
    assert f"infalign export {engine} experiment.yaml" in out
    code, _, err = infalign_command("export", engine, "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml" in err
    assert infalign_command("export", engine, "nowhere.yaml", "--samples", "1")[0] == 2
