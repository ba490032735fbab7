import pytest

from infalign.cli.changes import changed


def test_the_original_stays():
    data = {"training": {"kl": 1.0}}
    assert changed(data, "training.kl=2")["training"] == {"kl": 2}
    assert data == {"training": {"kl": 1.0}}


def test_sections_that_are_not_there_are_made():
    assert changed({"rollouts": None}, "rollouts.k=8") == {"rollouts": {"k": 8}}
    assert changed({}, "policy.lora.rank=4") == {"policy": {"lora": {"rank": 4}}}


def test_places_in_lists_are_numbers():
    data = {"auditors": ["embedded", {"kind": "embedded", "name": "gold"}]}
    assert changed(data, "auditors.1.name=vader")["auditors"][1]["name"] == "vader"
    assert changed(data, "auditors.0.name=vader")["auditors"][0] == {
        "kind": "embedded",
        "name": "vader",
    }
    with pytest.raises(ValueError, match="no place in a list of 2"):
        changed(data, "auditors.2.name=vader")


def test_values_are_yaml():
    assert changed({}, "evaluate.ns=[1, 2]") == {"evaluate": {"ns": [1, 2]}}
    assert changed({}, "training.kl=null") == {"training": {"kl": None}}
    assert changed({}, "report.title=a = b") == {"report": {"title": "a = b"}}


@pytest.mark.parametrize(
    "change", ["kl", "=1", "training.=1", "training..kl=1", "a=[1", "name.x=1"]
)
def test_what_is_no_change_is_refused(change):
    with pytest.raises(ValueError, match="--set"):
        changed({"name": 3}, change)
