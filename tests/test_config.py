"""The experiment file: what is written is what is run, and mistakes are met by name."""

import dataclasses
import inspect
import subprocess
import sys
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign import config
from infalign.config import (
    BestOfN,
    CallableReward,
    CausalLM,
    ChoiceLM,
    ClassifierReward,
    EmbeddedReward,
    Evaluate,
    ExactSolver,
    Experiment,
    ExponentialTransform,
    FitSolver,
    IdentityProcedure,
    LogTransform,
    LoRA,
    MedianOfN,
    OfflineSolver,
    OnlineSolver,
    OptimalTransform,
    OrderStatistic,
    Prompts,
    Report,
    Rollouts,
    WorstOfN,
    dump_experiment,
    load_experiment,
    validate_experiment,
)
from infalign.decoding.voting.extracting import EXTRACT_NAMES

SECTIONS = [
    member
    for member in map(config.__dict__.get, config.__all__)
    if dataclasses.is_dataclass(member) and isinstance(member, type)
]


def loaded(tmp_path, text):
    path = tmp_path / "experiment.yaml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path)


# What is written is what is run.

POSITIVE = st.floats(1e-12, 1e12)
COUNT = st.integers(1, 10**6)
DIALS = st.one_of(
    st.fixed_dictionaries({"kl": POSITIVE}), st.fixed_dictionaries({"beta": POSITIVE})
)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
POLICIES = st.one_of(
    st.builds(
        CausalLM,
        model=NAMES,
        temperature=POSITIVE,
        max_new_tokens=COUNT,
        stop=st.lists(st.text("\n\"'ab", min_size=1), max_size=3).map(tuple),
        dtype=st.sampled_from(["auto", "float32", "bfloat16"]),
        lora=st.builds(LoRA, rank=COUNT, layers=st.none() | COUNT),
    ),
    st.builds(ChoiceLM, candidates=st.integers(2, 999), threads=COUNT),
)
REWARDS = st.one_of(
    st.builds(ClassifierReward, model=NAMES, label=st.none() | st.integers(0, 9) | NAMES),
    st.builds(CallableReward, function=st.just("my.rewards:brevity"), name=st.none() | NAMES),
)
SOLVERS = st.one_of(
    st.builds(lambda dial, **rest: OnlineSolver(**dial, **rest), DIALS, steps=COUNT),
    st.builds(lambda dial, **rest: FitSolver(**dial, **rest), DIALS, learning_rate=POSITIVE),
    st.builds(lambda dial, **rest: OfflineSolver(**dial, **rest), DIALS, stop_at_kl=POSITIVE),
)
EXPERIMENTS = st.builds(
    Experiment,
    name=NAMES,
    seed=st.integers(0, 2**63),
    prompts=st.builds(Prompts, path=NAMES, train=COUNT, test=COUNT),
    policy=POLICIES,
    rollouts=st.builds(Rollouts, k=st.integers(2, 999)),
    reward=REWARDS,
    gold=st.none() | st.just(EmbeddedReward(name="gold")),
    procedure=st.one_of(
        st.builds(BestOfN, n=st.integers(1, 32)),
        st.builds(WorstOfN, n=st.integers(1, 32)),
        st.builds(MedianOfN, n=st.integers(1, 32)),
        st.just(OrderStatistic(probabilities=(0.25, 0.5, 0.25))),
        st.just(IdentityProcedure()),
    ),
    transform=st.one_of(
        st.just(OptimalTransform()),
        st.just(LogTransform()),
        st.builds(ExponentialTransform, t=POSITIVE.map(lambda t: -t)),
    ),
    training=SOLVERS,
    report=st.builds(Report, title=st.none() | NAMES),
)


@settings(max_examples=60, deadline=None)
@given(experiment=EXPERIMENTS)
def test_an_experiment_survives_being_written_and_read(tmp_path_factory, experiment):
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(dump_experiment(experiment), encoding="utf-8")
    assert load_experiment(path) == experiment


def test_an_answer_is_read_in_the_ways_that_votes_know():
    known = typing.get_type_hints(config.MajorityVote)["extract"]
    assert typing.get_args(known) == EXTRACT_NAMES


def test_the_default_experiment_is_valid_and_writes_every_default():
    text = dump_experiment(Experiment())
    for section in (Experiment, Prompts, CausalLM, LoRA, Rollouts, Evaluate, Report, OnlineSolver):
        for field in dataclasses.fields(section):
            assert f"{field.name}:" in text
    assert validate_experiment({}) == Experiment()


def test_what_a_file_leaves_out_has_its_default(tmp_path):
    experiment = loaded(tmp_path, "rollouts: {k: 64}\ntransform: log\n")
    assert experiment == Experiment(rollouts=Rollouts(k=64), transform=LogTransform())


def test_a_kind_may_stand_alone_where_it_says_it_all(tmp_path):
    text = "transform: optimal\nprocedure: identity\npolicy: choice_lm\nauditors: [embedded]\n"
    text += "reward: {kind: callable, function: 'my:reward'}\n"
    experiment = loaded(tmp_path, text)
    assert experiment.transform == OptimalTransform()
    assert experiment.procedure == IdentityProcedure()
    assert experiment.policy == ChoiceLM()
    assert experiment.auditors == (EmbeddedReward(),)


def test_numbers_are_read_as_people_write_them(tmp_path):
    # YAML 1.1 takes 5e-4 for text, since it has no dot.
    experiment = loaded(tmp_path, "training: {kind: online, kl: 1, learning_rate: 5e-4}\n")
    assert experiment.training == OnlineSolver(kl=1.0, learning_rate=0.0005)


def test_every_section_is_frozen_and_every_field_explained():
    for section in SECTIONS:
        assert section.__dataclass_params__.frozen
        assert section.__doc__
        assert not section.__doc__.startswith(section.__name__ + "(")  # what dataclass writes
        lineage = [cls for cls in section.__mro__ if dataclasses.is_dataclass(cls)]
        documented = "".join(map(inspect.getsource, lineage))
        for field in dataclasses.fields(section):
            if field.name == "kind" or _is_section(typing.get_type_hints(section)[field.name]):
                continue
            after = documented.split(f"    {field.name}: ", 1)[1].split("\n", 1)[1]
            assert after.lstrip().startswith('"""'), f"{section.__name__}.{field.name}"


def _is_section(hint):
    return hint in SECTIONS or any(map(_is_section, typing.get_args(hint)))


def test_candidates_are_what_one_answer_costs():
    assert IdentityProcedure().candidates == 1
    assert BestOfN(n=5).candidates == WorstOfN(n=5).candidates == MedianOfN(n=5).candidates == 5
    assert OrderStatistic(probabilities=(0.5, 0.0, 0.5)).candidates == 3


def test_reading_the_file_loads_no_torch():
    script = "import infalign.config, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# Mistakes are met by name.

MISTAKES = [
    # unknown keys, at every depth
    ({"prompt": {}}, r"^here: prompt: unknown; did you mean 'prompts'\?$"),
    (
        {"training": {"kind": "online", "kl": 1, "bta": 0.1}},
        r"^here: training\.bta: unknown; did you mean 'beta'\?$",
    ),
    (
        {"policy": {"kind": "causal_lm", "lora": {"rnk": 4}}},
        r"^here: policy\.lora\.rnk: unknown; did you mean 'rank'\?$",
    ),
    ({"rollouts": {"xyz": 4}}, r"^here: rollouts\.xyz: unknown; choose from k, chunk, engine$"),
    (
        {"procedure": {"kind": "identity", "n": 4}},
        r"procedure\.n: unknown; choose from kind$",
    ),
    (
        {"auditors": [{"kind": "callable", "fnction": "a:b"}]},
        r"here: auditors\[0\]\.fnction: unknown; did you mean 'function'\?",
    ),
    # kinds
    (
        {"transform": "optimall"},
        "^here: transform: unknown kind 'optimall'; .* 'optimal'",
    ),
    (
        {"transform": {"kind": "cubic"}},
        "unknown kind 'cubic'; choose from optimal, id",
    ),
    (
        {"policy": {"temperature": 1}},
        "policy: kind is missing; choose from causal_lm, ch",
    ),
    ({"baselines": ["rw"]}, r"^here: baselines\[0\]: 'rw' is not known; did you mean 'raw'\?$"),
    (
        {"reward": {"kind": "embedded", "name": "gld"}},
        r"reward\.name: 'gld' .* mean 'gold'",
    ),
    (
        {"procedure": {"kind": "majority_vote", "n": 4, "extract": "last_nmber"}},
        r"^here: procedure\.extract: 'last_nmber' is not known; did you mean 'last_number'\?$",
    ),
    # shapes and types
    ([], r"^here: the file: \[\] found where keys and values are needed$"),
    ({"prompts": "p.jsonl"}, "^here: prompts: 'p.jsonl' found where keys and values are needed$"),
    ({"policy": {"kind": "causal_lm", "stop": "x"}}, r"policy\.stop: 'x' found; a list is needed"),
    ({"rollouts": {"k": "many"}}, r"^here: rollouts\.k: 'many' found; .* integer"),
    ({"seed": 0.5}, "^here: seed: 0.5 found; .* integer"),
    ({"auditors": [{"kind": "callable"}]}, r"^here: auditors\[0\]\.function: missing$"),
    ({"training": {"kind": "online", "beta": "nan"}}, r"training\.beta: 'nan' found; .* finite"),
    # ranges
    ({"rollouts": {"k": 1}}, "here: rollouts: k is 1; at least 2 .* calibration"),
    ({"rollouts": {"chunk": 0}}, "chunk is 0"),
    ({"prompts": {"train": 0}}, "train is 0"),
    ({"prompts": {"test": 0}}, "test is 0"),
    ({"prompts": {"path": ""}}, "path is empty"),
    ({"prompts": {"field": "q"}}, "embedded prompts have no columns"),
    ({"policy": {"kind": "causal_lm", "temperature": 0}}, "temperature is 0.0; it must be > 0"),
    ({"policy": {"kind": "causal_lm", "max_new_tokens": 0}}, "max_new_tokens is 0"),
    ({"policy": {"kind": "causal_lm", "stop": [""]}}, "stop contains an empty string"),
    ({"policy": {"kind": "choice_lm", "candidates": 1}}, "candidates is 1"),
    ({"policy": {"kind": "choice_lm", "lora": {"layers": 0}}}, "layers is 0"),
    ({"training": {"kind": "online", "beta": 0}}, "here: training: beta is 0.0; .* greater than 0"),
    ({"training": {"kind": "online", "beta": -1}}, "beta is -1.0"),
    ({"training": {"kind": "online", "kl": 0}}, "kl is 0.0"),
    ({"training": {"kind": "online"}}, "kl is None and beta is None; exactly one"),
    (
        {"training": {"kind": "online", "kl": 1, "beta": 1}},
        "kl is 1.0 and beta is 1.0; exact",
    ),
    ({"training": {"kind": "online", "kl": 1, "samples_per_prompt": 1}}, "samples_per_prompt is 1"),
    ({"training": {"kind": "fit", "kl": 1, "refine_steps": -1}}, "refine_steps is -1"),
    ({"training": {"kind": "fit", "kl": 1, "steps": 0}}, "steps is 0"),
    ({"training": {"kind": "exact", "kl": 1, "warmup": -1}}, "warmup is -1"),
    ({"training": {"kind": "offline", "kl": 1, "measure_every": -1}}, "measure_every is -1"),
    (
        {"training": {"kind": "offline", "kl": 1, "measure_every": 0, "stop_at_kl": 1}},
        "measure_every is 0; .* never see its KL",
    ),
    (
        {"training": {"kind": "fit", "kl": 1, "loss": "contrast", "samples_per_prompt": 4}},
        "among all rollouts",
    ),
    ({"transform": {"kind": "exponential", "t": 0}}, "t is 0.0; .* `transform: identity`"),
    ({"procedure": {"kind": "best_of_n", "n": 0}}, "n is 0"),
    ({"procedure": {"kind": "order_statistic", "probabilities": [0.5, 0.6]}}, r"with sum 1\.1"),
    ({"procedure": {"kind": "order_statistic", "probabilities": [1.5, -0.5]}}, "none negative"),
    ({"procedure": {"kind": "order_statistic", "probabilities": []}}, "one for each rank"),
    ({"reward": {"kind": "callable", "function": "rewards.py"}}, "`module:function` is needed"),
    ({"reward": {"kind": "classifier", "model": ""}}, "model is empty"),
    ({"evaluate": {"samples": 1}}, "samples is 1"),
    ({"evaluate": {"ns": []}}, r"ns is \[\]"),
    # what does not fit together
    (
        {"procedure": {"kind": "best_of_n", "n": 33}},
        "samples 33 .* evaluate.samples is 32",
    ),
    ({"evaluate": {"ns": [1, 64]}}, "ns contains 64, but samples is 32"),
    ({"gold": "embedded"}, "what trains cannot judge"),
    ({"auditors": ["embedded"]}, "what trains cannot judge"),
    ({"training": {"kind": "exact", "kl": 1}}, "choose `policy: choice_lm`"),
    ({"training": {"kind": "online", "kl": 1, "prompts_per_step": 99}}, "prompts.train is 48"),
    ({"training": {"kind": "fit", "kl": 1, "samples_per_prompt": 64}}, "rollouts.k = 32"),
    ({"baselines": ["raw", "raw"]}, "each can be trained once"),
    ({"prompts": {"path": "mine.jsonl"}}, "^here: reward: missing; the default one .* mine.jsonl"),
]


@pytest.mark.parametrize(("data", "message"), MISTAKES, ids=[str(data) for data, _ in MISTAKES])
def test_a_mistake_is_refused_where_it_stands(data, message):
    with pytest.raises(ValueError, match=message):
        validate_experiment(data, "here")


def test_all_mistakes_are_listed_at_once():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        validate_experiment({"rollouts": {"k": 1}, "seeds": 3, "transform": "lg"})
    assert len(str(error.value).splitlines()) == 3


def test_ranges_hold_for_experiments_made_in_python_too():
    with pytest.raises(ValueError, match="k is 1"):
        Rollouts(k=1)
    with pytest.raises(ValueError, match="beta is nan"):
        OnlineSolver(beta=float("nan"))
    with pytest.raises(ValueError, match="choice_lm"):
        Experiment(training=ExactSolver(kl=1.0))
    assert Experiment(training=ExactSolver(kl=1.0), policy=ChoiceLM())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"name: \xff\n", "byte 7 is not UTF-8"),
        (b"name: [\n", "not YAML"),
        (b"seed: 1\nseed: 2\n", "(?s)'seed' stands twice.*line 2"),
        (b"rollouts:\n  k: 2\n  k: 3\n", "(?s)'k' stands twice.*line 3"),
        (b"? [a, b]\n: 1\n", "not YAML"),
        (b"- a\n", "where keys and values are needed"),
        (b"name: !!python/object/apply:os.getcwd []\n", "not YAML"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "experiment.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_experiment(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no experiment file at .*nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")
