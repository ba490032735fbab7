"""From the experiment file to the objects it names: the only place that knows both.

Everything heavy is imported where it is made, so that validating an experiment loads no torch.
"""

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

from infalign.config import Experiment
from infalign.config import experiment as sections
from infalign.config import solvers as solver_sections
from infalign.config import text_procedures as text_sections
from infalign.decoding import TextProcedure, text_procedure_from_name
from infalign.prompts import Prompt, load_prompts, render_prompts, split_prompts
from infalign.protocols import Reward, Sampling
from infalign.quantile.names import procedure_from_name, transform_from_name
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.transforms import Identity, Transform

if TYPE_CHECKING:
    from infalign.policies.causal_lm import CausalLM
    from infalign.policies.choice_lm import ChoiceLM
    from infalign.training.descent import Descent
    from infalign.training.solver import Solver

Decoding = RankProcedure | TextProcedure
"""What an experiment may name: with a theory on [0,1], or without."""

__all__ = ["policy_of", "procedure_of", "prompts_of", "reward_of", "solvers_of", "transform_of"]

REVIEW_STOPS = ('"', "\n")
"""An embedded prompt opens a quotation; its end is the end of the response."""


def procedure_of(section: Any) -> Decoding:
    """The procedure of the experiment.

    Raises:
        ValueError: a setting that the procedure refuses.
    """
    settings = {name: value for name, value in vars(section).items() if name != "kind"}
    kind = section.kind
    if isinstance(section, text_sections.TextProcedure):
        return text_procedure_from_name(kind, **settings)
    procedure = procedure_from_name(kind, **settings)
    assert isinstance(procedure, RankProcedure)  # the experiment file knows no others
    return procedure


def transform_of(section: Any, procedure: Decoding, training: Any) -> Transform:
    """Φ; `optimal` is solved for the procedure at the experiment's KL or β.

    For a procedure on text none is known, nor used: the bare quantile.
    """
    if isinstance(procedure, TextProcedure):
        return Identity()
    if section.kind == "optimal":
        dial = {"kl": training.kl} if training.kl is not None else {"beta": training.beta}
        return transform_from_name("optimal", procedure=procedure, **dial)
    settings = {name: value for name, value in vars(section).items() if name != "kind"}
    return transform_from_name(section.kind, **settings)


def prompts_of(section: sections.Prompts) -> tuple[list[Prompt], list[Prompt]]:
    """Training prompts and held-out prompts.

    Raises:
        ValueError: fewer prompts than asked for, or a file that cannot be read.
    """
    if section.path == "embedded":
        from infalign.assets import embedded_prompts

        train = embedded_prompts(section.train, "train")
        test = embedded_prompts(section.test, "test")
        return [Prompt.from_text(t) for t in train], [Prompt.from_text(t) for t in test]
    prompts = load_prompts(section.path, section.field)
    needed = section.train + section.test
    if len(prompts) < needed:
        raise ValueError(
            f"{section.path} has {len(prompts)} distinct prompts; prompts.train = {section.train} "
            f"and prompts.test = {section.test} need {needed}. Lower them, or add prompts."
        )
    return split_prompts(
        prompts, test_count=section.test, train_count=section.train, seed=section.seed
    )


def rendered(prompts: list[Prompt], policy: Any) -> list[Prompt]:
    """Chat prompts as the policy's own template writes them; plain prompts as they are."""
    return render_prompts(prompts, policy.render_chat)


def policy_of(
    section: sections.CausalLM | sections.ChoiceLM, threads: int | None
) -> "CausalLM | ChoiceLM":
    """The reference with an adapter to train.

    Args:
        section: the experiment's `policy`.
        threads: CPU threads where the section leaves them open.
    """
    from infalign.policies.causal_lm import CausalLM
    from infalign.policies.choice_lm import ChoiceLM
    from infalign.policies.loading import LoRA

    embedded, source = section.model == "embedded", source_of(section)
    options: dict[str, Any] = {
        "lora": LoRA(section.lora.rank, section.lora.alpha, layers=section.lora.layers),
        "dtype": section.dtype,
        "threads": section.threads or threads,
    }
    if embedded:
        options["name"] = "SmolLM2-135M-Instruct"
    if isinstance(section, sections.ChoiceLM):
        return ChoiceLM.from_pretrained(source, section.candidates, section.temperature, **options)
    stop = section.stop or (REVIEW_STOPS if embedded else ())
    sampling = Sampling(section.temperature, section.max_new_tokens, tuple(stop))
    return CausalLM.from_pretrained(source, sampling, **options)


def source_of(section: sections.CausalLM | sections.ChoiceLM) -> str:
    """The folder or hub id of a policy's weights."""
    if section.model != "embedded":
        return section.model
    from infalign.assets import asset_folder

    return str(asset_folder("smollm2-135m-instruct"))


def reward_of(section: Any) -> Reward:
    """A reward the experiment names."""
    from infalign.rewards.names import reward_from_name

    _see_current_folder()
    return reward_from_name(**vars(section))


def _see_current_folder() -> None:
    """A user's module lies where they start the command; a console script does not look there."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def solvers_of(experiment: Experiment, target: str = "infalign") -> list[tuple[str, "Solver"]]:
    """The solvers that move a policy, in order, each with the name of its folder.

    Args:
        experiment: names them.
        target: the policy; training on what is decoded is the treatment's alone.
    """
    from infalign.training import Exact, Regression

    section = experiment.training
    descent = _descent(section)
    match section:
        case solver_sections.OnlineDecodedSolver():
            return [_decoded(experiment, section, descent, target)]
        case solver_sections.OnlineSolver():
            return [_online(section, descent)]
        case solver_sections.FitSolver():
            return _fit(section, descent)
        case solver_sections.ExactSolver():
            return [("exact", Exact(descent))]
    return [("offline", Regression(descent, prompts_per_pass=section.prompts_per_pass))]


def _descent(section: Any) -> "Descent":
    """How any of the solvers takes its steps."""
    from infalign.training.descent import Descent

    stored = isinstance(section, solver_sections.FitSolver | solver_sections.OfflineSolver)
    return Descent(
        steps=section.steps,
        learning_rate=section.learning_rate,
        schedule=section.schedule,
        warmup=section.warmup,
        max_gradient_norm=section.max_gradient_norm,
        prompts_per_step=section.prompts_per_step,
        checkpoint_every=section.checkpoint_every,
        target_kl=section.stop_at_kl,
        measure_every=section.measure_every if stored else 0,
    )


def _online(section: solver_sections.OnlineSolver, descent: "Descent") -> tuple[str, "Solver"]:
    k, width = section.samples_per_prompt, section.prompts_per_pass
    if section.engine == "trl":
        from infalign.integrations.trl.solver import TRL

        return "trl", TRL(descent, k, section.trainer or "rloo", width)
    from infalign.training import Online

    return "online", Online(descent, k, section.divergence, width)


def _decoded(
    experiment: Experiment,
    section: solver_sections.OnlineDecodedSolver,
    descent: "Descent",
    target: str,
) -> tuple[str, "Solver"]:
    from infalign.training import Online, OnlineDecoded

    k, width = section.samples_per_prompt, section.prompts_per_pass
    if target != "infalign":
        return "online", Online(descent, k, prompts_per_pass=width)
    procedure, given = procedure_of(experiment.procedure), section
    solver = OnlineDecoded(procedure, descent, k, given.replays, given.runs, given.opponents, width)
    return "online_decoded", solver


def _fit(section: solver_sections.FitSolver, descent: "Descent") -> list[tuple[str, "Solver"]]:
    from infalign.training import Fit, Online

    k, width = section.samples_per_prompt, section.prompts_per_pass
    fit = Fit(descent, section.loss, k, width)
    if not section.refine_steps:
        return [("fit", fit)]
    refined = dataclasses.replace(descent, steps=section.refine_steps, measure_every=0)
    return [("fit", fit), ("refine", Online(refined, prompts_per_pass=width))]
