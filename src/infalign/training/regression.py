"""Quantile regression of the log-ratio over stored rollouts, on `transformers.Trainer`.

At the optimum log(π/π_ref) = Φ/β − log Z for every response, and log Z is known. So each stored
rollout is a regression target by itself: no pairs, no baseline, no sampling. Everything that makes
training run elsewhere (accelerate, DDP, FSDP, DeepSpeed) is the Trainer's; its loss, its collator
and the order of its data are ours. That order is :meth:`Descent.batch`'s whatever the number of
processes, so several processes take the steps that one would take.
"""

import contextlib
import dataclasses
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from infalign.rollouts.shards import write_atomically
from infalign.training import checkpoints, processes
from infalign.training.descent import Descent, identifying, identity_of
from infalign.training.fit import stored_log_prob
from infalign.training.measure import measured_row
from infalign.training.solver import (
    Callback,
    Checkpoint,
    Problem,
    Row,
    Solver,
    TrainablePolicy,
    TrainingResult,
)

if TYPE_CHECKING:
    import transformers

__all__ = ["Regression"]


@final
@dataclasses.dataclass(frozen=True)
class Regression(Solver):
    """Minimises (Φ̄/β − log Z − log(π/π_ref))², in nats², over stored rollouts.

    This is (Φ̄ − β·log Z − β·log(π/π_ref))²/β²: the same minimiser, in a unit that does not depend
    on Φ's scale. log Z is the exact finite sum over the rollouts it is trained on, not the integral
    over a continuous quantile, and reference log-probabilities are those of the store. Right for
    rollouts that cover what the tilt wants; slower per unit of gain than online training, and a
    high learning rate makes it collapse.

    The log's `loss` is the mean squared distance from the target in nats²; `kl`, `gap` and
    `win_rate` appear where the policy is measured (`descent.measure_every`).

    Under `accelerate launch` several processes share out the prompts of every step: the same steps
    in the same order, so the weights of one process up to rounding. The main process alone
    measures, logs, calls the callback and writes; `directory` must be one that all of them see.

    Reference: the pointwise loss of "Quantile Reward Policy Optimization" (arXiv:2507.08068), with
    the finite-K log Z in place of its continuous one.
    """

    descent: Descent = dataclasses.field(default_factory=Descent)
    """How steps are taken; schedules are the Trainer's own of the same name."""
    prompts_per_pass: int = 8
    """Prompts, with all K rollouts, in one forward and backward pass: memory, not mathematics."""

    def train(
        self,
        policy: TrainablePolicy,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        self.descent.refuse_blind_stop()
        checkpoints.trainable_weights(policy.module)  # refuse a frozen policy before any work
        crew = processes.joined(cpu=_is_on_cpu(policy))
        rows = regression_rows(problem)
        seed = processes.same_everywhere(int(rng.integers(2**31)))
        with contextlib.ExitStack() as stack:
            stack.enter_context(_undisturbed_generators())
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            where = Path(processes.same_everywhere(scratch)) if directory is None else directory
            self._claim(where, identity_of(problem, seed), writes=crew.is_main_process)
            result = self._run(policy, problem, rows, where, callback, seed)
            crew.wait_for_everyone()  # before the main process clears its scratch folder
        return result if directory is not None else dataclasses.replace(result, checkpoints=())

    def _claim(self, directory: Path, identity: dict[str, Any], *, writes: bool) -> None:
        """Names the run in its directory, or refuses the directory of another run."""
        identity = {**identity, "solver": "regression", **identifying(self)}
        text = checkpoints.identity_text(identity)
        main = processes.same_everywhere(text)
        checkpoints.refuse_other_run(directory, main, identity)  # another process's problem
        name = directory / "run.json"
        if name.exists():
            checkpoints.refuse_other_run(directory, name.read_text("utf-8"), identity)
        if writes:
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(name, text.encode(), directory)

    def _run(
        self,
        policy: TrainablePolicy,
        problem: Problem,
        rows: list[dict[str, Any]],
        directory: Path,
        callback: Callback | None,
        seed: int,
    ) -> TrainingResult:
        import transformers

        from infalign.training import log_ratio_trainer as ours

        descent, began = self.descent, time.monotonic()

        def measure(step: int) -> Row:
            batch = problem.select(descent.batch(step, len(problem.prompts), seed))
            step_rng = np.random.default_rng([seed, 0, step])
            return measured_row(policy, batch, descent.measure_k, step_rng)

        trainer = ours.LogRatioTrainer(
            model=ours.LogRatio(policy),
            args=self._arguments(policy, directory, len(rows), seed),
            data_collator=ours.collate,
            train_dataset=ours.InOrder(rows, descent, seed),  # pyright: ignore[reportArgumentType]
        )
        journal = ours.Journal(trainer, policy.module, directory, measure, descent, callback)
        trainer.add_callback(journal)
        trainer.remove_callback(transformers.PrinterCallback)  # stdout is for results
        ours.go_on(trainer, journal, processes.same_everywhere(_last_checkpoint(directory)))
        return TrainingResult(
            ours.rows_of(trainer.state.log_history),
            trainer.state.global_step,
            journal.stopped,
            _kept(directory),
            time.monotonic() - began,
        )

    def _arguments(
        self, policy: TrainablePolicy, directory: Path, prompts: int, seed: int
    ) -> "transformers.TrainingArguments":
        import transformers

        descent = self.descent
        per_step = min(descent.prompts_per_step or prompts, prompts)
        per_pass, passes = processes.shares(per_step, self.prompts_per_pass, processes.started())
        warm = "constant_with_warmup" if descent.warmup else "constant"
        return transformers.TrainingArguments(
            output_dir=str(directory),
            max_steps=descent.steps,
            learning_rate=descent.learning_rate,
            lr_scheduler_type=warm if descent.schedule == "constant" else descent.schedule,
            warmup_steps=descent.warmup,
            weight_decay=descent.weight_decay,
            adam_beta1=descent.betas[0],
            adam_beta2=descent.betas[1],
            max_grad_norm=descent.max_gradient_norm or float("inf"),
            per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=passes,
            save_strategy="steps",
            save_steps=descent.checkpoint_every or max(descent.steps, 1),
            save_total_limit=2,  # to resume from; all weights-*.pt stay
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["wanted"],
            dataloader_pin_memory=False,
            seed=seed,
            ddp_find_unused_parameters=False,  # log π depends on all that is trained
            use_cpu=_is_on_cpu(policy),
        )


def regression_rows(problem: Problem) -> list[dict[str, Any]]:
    """Per prompt: its rollouts and the log-probability wanted of each, log π_ref + Φ̄/β − log Z."""
    stored, reference = problem.stored(), stored_log_prob(problem)
    _, training_rewards = problem.rewards.atoms(problem.ids)
    if training_rewards.shape != reference.shape:
        raise ValueError(
            f"the training reward knows {training_rewards.shape} rollouts and the problem has "
            f"{reference.shape}; both must be the same rollouts in the same order."
        )
    log_partition = problem.rewards.log_partition(problem.beta, problem.ids)
    wanted = reference + training_rewards / problem.beta - log_partition[:, None]
    return [
        {"prompt": text, "responses": list(responses), "wanted": row}
        for text, responses, row in zip(problem.texts, stored, wanted, strict=True)
    ]


def _is_on_cpu(policy: TrainablePolicy) -> bool:
    return next(policy.module.parameters()).device.type == "cpu"


def _kept(directory: Path) -> tuple[Checkpoint, ...]:
    paths = sorted(directory.glob("weights-*.pt"))
    return tuple(Checkpoint(int(path.stem.removeprefix("weights-")), path) for path in paths)


def _last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint folder that was finished: its weights file is written last."""
    finished = [
        folder
        for folder in directory.glob("checkpoint-*")
        if checkpoints.weights_path(directory, int(folder.name.split("-")[1])).exists()
    ]
    return max(finished, key=lambda folder: int(folder.name.split("-")[1]), default=None)


@contextlib.contextmanager
def _undisturbed_generators() -> Iterator[None]:
    """The Trainer seeds the global generators; put them back as they were."""
    import torch

    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
