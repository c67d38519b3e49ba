"""The options that training commands share, declared once; `settings_from_options.py` turns them into settings."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import typer

DATA, MODEL, TRAINING, RUNNING = "Data and split", "Model and remedies", "Training", "Running"

Text = str | None
Whole = int | None
Number = float | None


def option(panel: str, text: str, *names: str, default: Any = None, **shown: Any) -> Any:
    """A field of a class of options, with its place and text in the help.

    Without `names` the option has the name of its field; a field in SHORT_NAMES gives that setting. `shown` goes to
    `typer.Option`.
    """
    declared = typer.Option(default, *names, help=text, rich_help_panel=panel, **shown)
    return field(default=default, metadata={"option": declared})


@dataclass(frozen=True)
class TrainOptions:
    """The options of `dlx train`, which the commands that compare variants also have."""

    data: Text = option(DATA, "Folder of volumes (iSeg, nnU-Net or Decathlon layout), or 'phantom'.")
    val: Text = option(DATA, "Validation subjects by name: subject-1,subject-2.")
    fold: Text = option(DATA, "Validate on this fold, from 0, or on each in turn: all.")
    folds: Whole = option(DATA, "Number of folds (with --fold); 5 by default.")
    val_fraction: Number = option(DATA, "Share of the subjects to validate on.")
    splits_file: Text = option(DATA, "An nnU-Net splits_final.json; --fold picks its entry, or all.")
    train_subjects: Whole = option(DATA, "Number of training subjects to use. All by default.")
    cache_dir: Path | None = option(
        DATA, "Folder of the data cache.", envvar="DLX_CACHE_DIR", show_default="~/.cache/dlx"
    )
    verify_data: bool = option(
        DATA, "Read every image file again instead of trusting the cache.", "--verify-data", default=False
    )
    model: Text = option(MODEL, "A network, with arguments if needed: unet2:width=32; your own: my_net.py:Net.")
    trust_code: bool = option(
        MODEL, "Load the code of a network of your own that a TOML file names.", "--trust-code", default=False
    )
    dropout: Number = option(MODEL, "Dropout rate p, from 0 to below 1.")
    dropout_kind: Text = option(MODEL, "dropout, dropout2d or dropout3d.")
    dropout_where: Text = option(MODEL, "every (block), decoder or bottleneck.")
    loss: Text = option(MODEL, "A loss or a sum of losses: dice+ce, lovasz+focal.")
    init_from: Text = option(MODEL, "Start from the weights of this checkpoint.")
    recipe: Text = option(
        TRAINING,
        "Settings to start from: quick (minutes on a CPU), strong (a better baseline) or notes (the study in full).",
        show_default="quick",
    )
    config: Path | None = option(TRAINING, "TOML file of settings that override the recipe's.")
    epochs: Whole = option(TRAINING, "Number of epochs.")
    steps_per_epoch: Whole = option(TRAINING, "Optimizer steps per epoch.")
    batch_size: Whole = option(TRAINING, "Patches per step.")
    lr: Number = option(TRAINING, "Initial learning rate.")
    weight_decay: Number = option(TRAINING, "Weight decay.")
    optimizer: Text = option(TRAINING, "adamw, adam or sgd.")
    scheduler: Text = option(TRAINING, "constant, linear-tail, step:step_size=30,gamma=0.1 ...")
    patience: Whole = option(TRAINING, "Stop after this many epochs without a better validation Dice.")
    clip_grad_norm: Number = option(TRAINING, "Clip the norm of the gradients to this value.")
    ema: Number = option(TRAINING, "Decay of the moving average of weights, e.g. 0.99.")
    set_: list[str] | None = option(
        TRAINING,
        "Any setting, e.g. model.levels=3, data.normalize=ct (for CT), data.spacing_mm=median, data.orientation=LPS; "
        "repeatable. `dlx settings` lists all.",
        "--set",
        metavar="KEY=VALUE",
    )
    seed: Whole = option(RUNNING, "One seed. 0 by default.")
    seeds: Text = option(RUNNING, "Several seeds, one trial each: a number (5 means 0 to 4) or a list (0,3,7).")
    device: Text = option(RUNNING, "auto, cpu, cuda, cuda:1 or mps.")
    precision: Text = option(RUNNING, "auto, float32 or bf16.")
    threads: Whole = option(RUNNING, "CPU threads of a trial.")
    out: Path | None = option(RUNNING, "Folder of the records.", show_default="runs/DATA-MODEL")
    resume: bool = option(
        RUNNING,
        "Resume the unfinished trials of RUN (by default --out) with their recorded settings. With --epochs, train a "
        "finished run longer.",
        "--resume",
        default=False,
        metavar="[RUN]",
    )
    resume_run: Path | None = option(RUNNING, "", "--resume-run", hidden=True)  # `--resume RUN` becomes both options
    fresh: bool = option(RUNNING, "Discard earlier results of these settings and start over.", "--fresh", default=False)
    retry_failed: bool = option(RUNNING, "Run trials again that failed or diverged.", "--retry-failed", default=False)
    max_parallel: Whole = option(
        RUNNING,
        "Maximum number of trials that run at once.",
        show_default="cores / threads of a trial; 1 on a GPU",
    )
    executor: Text = option(
        RUNNING,
        "Where trials run: local (worker processes) or dask (a dask.distributed cluster).",
        show_default="local",
    )
    scheduler_address: Text = option(RUNNING, "Address of a running dask scheduler: tcp://host:8786, tls://host:8786.")
    cluster: Text = option(RUNNING, "Start workers by a job scheduler: slurm, pbs, lsf or sge (with --cluster-file).")
    cluster_file: Path | None = option(RUNNING, "TOML file whose section [cluster] says what each job asks for.")
    keep_going: bool = option(
        RUNNING, "If a trial fails, run the others or stop.", "--keep-going/--fail-fast", default=True
    )
    no_pictures: bool = option(
        RUNNING, "Record and show no slices of validation cases on the HTML page.", "--no-pictures", default=False
    )
    dry_run: bool = option(
        RUNNING, "Show the settings and the estimated cost; write nothing.", "--dry-run", default=False
    )
    tensorboard: bool = option(
        RUNNING, "Write TensorBoard's files live, to FOLDER/tensorboard.", "--tensorboard", default=False
    )
    mlflow: bool = option(RUNNING, "Write an MLflow run for each trial, to FOLDER/mlruns.", "--mlflow", default=False)
    as_json: bool = option(RUNNING, "Print one JSON document and nothing else.", "--json", default=False)
    quiet: bool = option(RUNNING, "Print only the result, no progress.", "--quiet", "-q", default=False)

    @property
    def is_quiet(self) -> bool:
        """True if no progress is shown: with --quiet, and with --json, which prints nothing but the document."""
        return self.quiet or self.as_json


@dataclass(frozen=True)
class StudyOptions(TrainOptions):
    """The options of commands that compare variants with a control."""

    # hidden, and refused with an explanation: running a study's command again resumes the study
    resume: bool = option(RUNNING, "", "--resume", default=False, hidden=True)
    smallest_effect: Number = option(
        RUNNING,
        "The smallest difference that matters to you, in Dice; declared before the start.",
        show_default="0.01",
    )
    scope: Text = option(
        RUNNING,
        "Whom verdicts are to hold for: seeds, patients, procedure (new training sets); declared before the start.",
        show_default="the widest that the design carries",
    )
    per_class: bool = option(RUNNING, "Show the validation Dice of each class too.", "--per-class", default=False)
    per_case: bool = option(RUNNING, "Show the hardest validation cases too.", "--per-case", default=False)


def spell_option(name: str) -> str:
    """`--batch-size` for the field `batch_size`."""
    return f"--{name.strip('_').replace('_', '-')}"


def takes_options(
    kind: type[TrainOptions], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `kind`, except those in `without`, which the command declares itself.

    On the command line each field is an option of its own; the command receives them as one argument, `options`.
    """
    added = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.metadata["option"], annotation=f.type)
        for f in fields(kind)
        if f.name not in without
    ]

    def add_options(command: Callable[..., None]) -> Callable[..., None]:
        parameters = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

        def expanded_command(**given: Any) -> None:
            options = kind(**{p.name: given.pop(p.name) for p in added})
            command(options=options, **given)

        expanded_command.__name__, expanded_command.__doc__ = command.__name__, command.__doc__
        expanded_command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        expanded_command.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return expanded_command

    return add_options
