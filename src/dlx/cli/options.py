"""The options that training commands share, declared once; `settings_from_options.py` turns them into settings."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

DATA, MODEL, TRAINING, RUNNING = "Data and split", "Model and remedies", "Training", "Running"

Text = str | None
Whole = int | None
Number = float | None


@dataclass(frozen=True)
class TrainOptions:
    """The options of `dlx train`, which the commands that compare variants also have."""

    data: Annotated[
        Text,
        typer.Option(help="Folder of volumes (iSeg, nnU-Net or Decathlon layout), or 'phantom'.", rich_help_panel=DATA),
    ] = None
    val: Annotated[
        Text, typer.Option(help="Validation subjects by name: subject-1,subject-2.", rich_help_panel=DATA)
    ] = None
    fold: Annotated[Whole, typer.Option(help="Validate on this fold, from 0.", rich_help_panel=DATA)] = None
    folds: Annotated[Whole, typer.Option(help="Number of folds (with --fold).", rich_help_panel=DATA)] = None
    val_fraction: Annotated[
        Number, typer.Option(help="Share of the subjects to validate on.", rich_help_panel=DATA)
    ] = None
    splits_file: Annotated[
        Text, typer.Option(help="An nnU-Net splits_final.json; --fold picks its entry.", rich_help_panel=DATA)
    ] = None
    train_subjects: Annotated[
        Whole, typer.Option(help="Number of training subjects to use. All by default.", rich_help_panel=DATA)
    ] = None
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="DLX_CACHE_DIR",
            help="Folder of the data cache.",
            show_default="~/.cache/dlx",
            rich_help_panel=DATA,
        ),
    ] = None
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data",
            help="Read every image file again instead of trusting the cache.",
            rich_help_panel=DATA,
        ),
    ] = False
    model: Annotated[
        Text, typer.Option(help="Name of a network, with arguments if needed: unet2:width=32.", rich_help_panel=MODEL)
    ] = None
    dropout: Annotated[Number, typer.Option(help="Dropout rate p, from 0 to below 1.", rich_help_panel=MODEL)] = None
    dropout_kind: Annotated[Text, typer.Option(help="dropout, dropout2d or dropout3d.", rich_help_panel=MODEL)] = None
    dropout_where: Annotated[
        Text, typer.Option(help="every (block), decoder or bottleneck.", rich_help_panel=MODEL)
    ] = None
    loss: Annotated[
        Text, typer.Option(help="A loss or a sum of losses: dice+ce, lovasz+focal.", rich_help_panel=MODEL)
    ] = None
    init_from: Annotated[
        Text, typer.Option(help="Start from the weights of this checkpoint.", rich_help_panel=MODEL)
    ] = None
    recipe: Annotated[
        Text,
        typer.Option(
            help="Settings to start from: quick (minutes on a CPU) or notes (the study in full).",
            show_default="quick",
            rich_help_panel=TRAINING,
        ),
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings that override the recipe's.", rich_help_panel=TRAINING)
    ] = None
    epochs: Annotated[Whole, typer.Option(help="Number of epochs.", rich_help_panel=TRAINING)] = None
    steps_per_epoch: Annotated[Whole, typer.Option(help="Optimizer steps per epoch.", rich_help_panel=TRAINING)] = None
    batch_size: Annotated[Whole, typer.Option(help="Patches per step.", rich_help_panel=TRAINING)] = None
    lr: Annotated[Number, typer.Option(help="Initial learning rate.", rich_help_panel=TRAINING)] = None
    weight_decay: Annotated[Number, typer.Option(help="Weight decay.", rich_help_panel=TRAINING)] = None
    optimizer: Annotated[Text, typer.Option(help="adamw, adam or sgd.", rich_help_panel=TRAINING)] = None
    scheduler: Annotated[
        Text,
        typer.Option(help="constant, linear-tail, step:step_size=30,gamma=0.1 ...", rich_help_panel=TRAINING),
    ] = None
    patience: Annotated[
        Whole,
        typer.Option(help="Stop after this many epochs without a better validation Dice.", rich_help_panel=TRAINING),
    ] = None
    clip_grad_norm: Annotated[
        Number, typer.Option(help="Clip the norm of the gradients to this value.", rich_help_panel=TRAINING)
    ] = None
    ema: Annotated[
        Number, typer.Option(help="Decay of the moving average of weights, e.g. 0.99.", rich_help_panel=TRAINING)
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, e.g. model.levels=3; repeatable. `dlx settings` lists all.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    seed: Annotated[Whole, typer.Option(help="One seed. 0 by default.", rich_help_panel=RUNNING)] = None
    seeds: Annotated[
        Text,
        typer.Option(
            help="Several seeds, one trial each: a number (5 means 0 to 4) or a list (0,3,7).",
            rich_help_panel=RUNNING,
        ),
    ] = None
    device: Annotated[Text, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=RUNNING)] = None
    precision: Annotated[Text, typer.Option(help="auto, float32 or bf16.", rich_help_panel=RUNNING)] = None
    threads: Annotated[Whole, typer.Option(help="CPU threads of a trial.", rich_help_panel=RUNNING)] = None
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the records.", show_default="runs/DATA-MODEL", rich_help_panel=RUNNING),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the unfinished trials in --out with their recorded settings.",
            rich_help_panel=RUNNING,
        ),
    ] = False
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Discard earlier results of these settings and start over.", rich_help_panel=RUNNING
        ),
    ] = False
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Run trials again that failed or diverged.", rich_help_panel=RUNNING),
    ] = False
    max_parallel: Annotated[
        Whole,
        typer.Option(
            help="Maximum number of trials that run at once.",
            show_default="cores / threads of a trial; 1 on a GPU",
            rich_help_panel=RUNNING,
        ),
    ] = None
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going/--fail-fast",
            help="If a trial fails, run the others or stop.",
            rich_help_panel=RUNNING,
        ),
    ] = True
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the settings and the estimated cost; write nothing.", rich_help_panel=RUNNING
        ),
    ] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON document and nothing else.", rich_help_panel=RUNNING),
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the result, no progress.", rich_help_panel=RUNNING)
    ] = False


@dataclass(frozen=True)
class StudyOptions(TrainOptions):
    """The options of commands that compare variants with a control."""

    # hidden, and refused with an explanation: running a study's command again resumes the study
    resume: Annotated[bool, typer.Option("--resume", hidden=True)] = False
    smallest_effect: Annotated[
        Number,
        typer.Option(
            help="The smallest difference that matters to you, in Dice; declared before the start.",
            show_default="0.01",
            rich_help_panel=RUNNING,
        ),
    ] = None
    per_class: Annotated[
        bool,
        typer.Option("--per-class", help="Show the validation Dice of each class too.", rich_help_panel=RUNNING),
    ] = False


def takes_options(
    kind: type[TrainOptions], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `kind`, except those in `without`, which the command declares itself.

    On the command line each field is an option of its own; the command receives them as one argument, `options`.
    """
    shown = [f for f in fields(kind) if f.name not in without]

    def add_options(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
        added = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in shown
        ]

        def expanded_command(**given: Any) -> None:
            options = kind(**{f.name: given.pop(f.name) for f in shown})
            command(options=options, **given)

        expanded_command.__name__, expanded_command.__doc__ = command.__name__, command.__doc__
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        expanded_command.__signature__ = inspect.Signature([*keyword_only, *added])  # type: ignore[attr-defined]
        expanded_command.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return expanded_command

    return add_options
