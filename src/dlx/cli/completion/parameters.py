"""How the value of each option and argument is completed: by its name, else by its type."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from dlx.cli.completion.candidate import Candidate, Candidates, Completer, Listed, fitting
from dlx.cli.completion.paths import complete_file, complete_run, complete_run_or_label
from dlx.cli.completion.setting_values import (
    arguments,
    complete_assignment,
    complete_part,
    complete_setting_name,
    complete_value,
)
from dlx.settings.short_names import SHORT_NAMES

RECIPES = Path(__file__).parents[2] / "settings/recipes"
SCOPES = ("seeds", "patients", "procedure")


def _recipe(text: str, _words: Sequence[str]) -> Candidates:
    """Completes a recipe, with what its file says in its first line."""
    found = []
    for path in sorted(RECIPES.glob("*.toml")):
        with path.open(encoding="utf-8") as file:
            found.append(Candidate(path.stem, file.readline().partition(":")[2].strip()))
    return fitting(text, found)


def _counted_model(text: str, _words: Sequence[str]) -> Candidates:
    """Completes a network that `count-params` takes: one of segmentation or a classifier, else the user's own file."""
    return complete_part("model", text, also=("classifier",)) or Listed.FILES


def _model(text: str, _words: Sequence[str]) -> Candidates:
    """Completes a network to be trained, else the user's own file."""
    return complete_part("model", text) or Listed.FILES


def _argument_of_models(text: str, words: Sequence[str]) -> Candidates:
    """Completes an argument of the networks that `count-params` is to count."""
    key, equals, value = text.partition("=")
    if equals:
        found = complete_value(f"model.{key.removeprefix('model.')}", value)
        return found if isinstance(found, Listed) else [Candidate(f"{key}={one.value}", one.help) for one in found]
    named = {candidate.value: candidate for word in words for candidate in arguments("model", word.partition(":")[0])}
    return fitting(text, list(named.values()))


def _words(*values: str) -> Completer:
    return lambda text, _: fitting(text, [Candidate(value) for value in values])


def _setting(key: str) -> Completer:
    return lambda text, _: complete_value(key, text)


def _files(*suffixes: str) -> Completer:
    return lambda text, _: complete_file(text, *suffixes)


def _runs(text: str, _words: Sequence[str]) -> Candidates:
    return complete_run(text)


def _runs_and_labels(text: str, _words: Sequence[str]) -> Candidates:
    return complete_run_or_label(text)


def _runs_and_archives(text: str, _words: Sequence[str]) -> Candidates:
    return complete_run(text, suffix=".jsonl")


def _folders(_text: str, _words: Sequence[str]) -> Candidates:
    return Listed.FOLDERS


# parameter -> its completer; `COMMAND.NAME` is of one command, NAME of all that have none of their own
COMPLETERS: dict[str, Completer] = {
    **{name: _setting(key) for name, key in SHORT_NAMES.items()},
    "model": _model,
    "fold": _words("all"),
    "init_from": _files(".safetensors"),
    "splits_file": _files(".json"),
    "recipe": _recipe,
    "config": _files(".toml"),
    "scope": _words(*SCOPES),
    "set_": complete_assignment,
    "out": _folders,
    "cache_dir": _folders,
    "executor": _words("local", "dask"),
    "cluster": _words("slurm", "pbs", "lsf", "sge"),
    "cluster_file": _files(".toml"),
    "resume_run": _runs,
    "count-params.models": _counted_model,
    "count-params.set_": _argument_of_models,
    "sweep-dropout.kind": _setting("dropout.kind"),
    "sweep-dropout.where": _setting("dropout.where"),
    "settings.names": complete_setting_name,
    "run.file": _files(".toml"),
    "report.folders": _runs_and_archives,
    "report.out": lambda _text, _words: Listed.FILES,
    "show.run": _runs_and_archives,
    "predict.runs": _runs_and_labels,
    "export.run": _runs_and_labels,
    "evaluate.predictions": _folders,
    "ls.folder": _folders,
    "make-phantom.folder": _folders,
}


def completer_of(command: str, name: str, callback: Callable[..., Any]) -> Completer | None:
    """The completer of a command's parameter; None if its values cannot be listed. `callback` is the command's
    function.
    """
    named = COMPLETERS.get(f"{command}.{name}") or COMPLETERS.get(name)
    return named or _completer_of_type(_annotation(callback, name))


def _annotation(callback: Callable[..., Any], name: str) -> Any:
    import inspect

    parameter = inspect.signature(callback).parameters.get(name)
    return None if parameter is None else parameter.annotation


def _completer_of_type(annotation: Any) -> Completer | None:
    """A completer of the values of a Literal, of files for a path; also within Annotated, unions and lists."""
    if annotation is Path:
        return lambda _text, _words: Listed.FILES
    if get_origin(annotation) is Literal:
        return _words(*map(str, get_args(annotation)))
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return next((found for one in inner if (found := _completer_of_type(one)) is not None), None)
