"""What `dlx show` prints: a run or study with its head, tables and files, or a single trial."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dlx.cli.output.console import note, output, print_json
from dlx.cli.output.head import print_indented
from dlx.cli.output.outcome import tracker_lines
from dlx.cli.repeat_commands import repeat_command, resume_command
from dlx.records.archive import StudyRecords, finished, read_study
from dlx.records.folder import StudyFolder
from dlx.records.one_trial import OneTrial, read_trial
from dlx.report.files.document import records_document, trial_entry
from dlx.report.findings.summary import Summary, summarize_study
from dlx.report.shown.changed_settings import changed_settings
from dlx.report.shown.head import recorded_head, trial_head
from dlx.report.shown.recorded_settings import read_settings
from dlx.report.shown.states import TrialState, count_states, state_entry, state_of, states_of
from dlx.report.terminal.grid import Grid, Line, Trimmed
from dlx.report.terminal.shown import bad_ends, epochs_table, hardest_cases_table, settings_table, states_table
from dlx.report.terminal.tables import tables_of
from dlx.report.terminal.trial_tables import seeds_table, trial_table
from dlx.report.wording.head_lines import subset_words
from dlx.study.run_id import spell_run
from dlx.system.characters import visible
from dlx.system.errors import spell_os_error
from dlx.system.shell import shell_command

# what a reader looks for in a run's folder, in this order
REPORT = ("report.html", "report.md", "report.png", "report.svg", "progress.png")
TABLES = ("results.csv", "cases.csv", "epochs.csv", "summary.json", "splits_final.json")
OF_TRIAL = ("last.safetensors", "best.safetensors", "progress.png", "summary.json", "epochs.jsonl", "error.txt")


def print_study(path: Path, *, per_class: bool, per_case: bool, as_json: bool) -> None:
    """Prints a run or study, and notes the look at its verdicts in its folder."""
    records = read_study(path)
    summary, states = summarize_study(records), states_of(records)
    if path.is_dir():
        _note_look(path, summary)
    if as_json:
        files = [str(file) for _, names in files_of(path) for file in names]
        entries = {"progress": [state_entry(found) for found in states], "files": files}
        print_json(records_document(summary, records) | entries)
        return
    console = output()
    for line in recorded_head(records):
        print_indented(line, console)
    console.show(Trimmed((Line(), *_progress(records, states))))
    done = finished(records.trials)
    if len(records.header.variants) == 1 and not records.header.folds and len(done) > 1:
        console.show(seeds_table(done))
    elif done:
        for table in tables_of(summary, records, per_class=per_class, per_case=per_case):
            console.show(table)
    console.print()
    for line in _foot(path, records):
        console.print(visible(line), soft_wrap=True)


def _note_look(folder: Path, summary: Summary) -> None:
    """Notes that verdicts are shown; in a folder that cannot be written they are shown with a warning."""
    try:
        StudyFolder(folder).note_look(summary.look)
    except OSError as error:
        note(f"note     this look at the verdicts is not in the records, where it belongs: {spell_os_error(error)}")


def _progress(records: StudyRecords, states: Sequence[TrialState]) -> list[Grid | Line]:
    """How far the trials are, if not all are done; the causes of bad ends, which a table of variants has itself."""
    if all(found.state == "done" for found in states):
        return []
    header = records.header
    question = [Line(header.question, "bold")] if header.question and not finished(records.trials) else []
    bad = [] if len(header.variants) > 1 else bad_ends(states)
    return [*question, Line(count_states(states), "yellow"), *states_table(states), *bad]


def files_of(path: Path) -> list[tuple[str, list[Path]]]:
    """The files of a run or study that exist, under what they are."""
    if not path.is_dir():
        stem = path.with_suffix("")
        report = [stem.with_name(f"{stem.name}{ending}") for ending in (".md", ".svg", "-levels.svg", ".html")]
        tables = [stem.with_name(f"{stem.name}-{name}") for name in TABLES]
    else:
        report, tables = [path / name for name in REPORT], [path / name for name in TABLES]
    found = [("report", report), ("tables", tables)]
    return [(what, known) for what, files in found if (known := [file for file in files if file.exists()])]


def _in_one_folder(files: Sequence[Path]) -> str:
    """The path of the first file, and the names of the others beside it."""
    return ", ".join([*map(str, files[:1]), *(file.name for file in files[1:])])


def _foot(path: Path, records: StudyRecords) -> Iterator[str]:
    """Where the files are, and the commands that show more, resume and repeat."""
    yield f"records:      {path}"
    for what, files in files_of(path):
        yield f"{what + ':':14}{_in_one_folder(files)}"
    yield from tracker_lines(path)
    begun = [trial.folder for trial in records.trials if trial.folder is not None and trial.folder.is_dir()]
    if begun:
        others = f"   (and {len(begun) - 1} more)" * (len(begun) > 1)
        yield f"each trial:   {shell_command(['dlx', 'show', str(begun[0])])}{others}"
    command = records.header.command
    if any(trial.record is None for trial in records.trials):
        yield f"resume with:  {resume_command(command)}"
    elif command and records.header.continued is None:  # nothing repeats the epochs of the trials that these continue
        yield f"repeat with:  {repeat_command(command)}"


def print_trial(path: Path, *, as_json: bool) -> None:
    """Prints a single trial."""
    trial = read_trial(path)
    history = trial.history
    found = state_of(history, trial.header.epochs if trial.header is not None else 0)
    if as_json:
        print_json(_trial_document(trial, found))
        return
    console = output()
    entry, record = history.entry, history.record
    study = f" of {trial.header.name}" if trial.header is not None else ""
    console.print(visible(f"{entry.label}, {spell_run(entry.run)}{study}: {_state_words(found)}"), style="bold")
    for line in trial_head(trial.header, [history]):
        print_indented(line, console)
    parts: list[Grid | Line] = [Line(), settings_table(changed_settings(trial))]
    settings = read_settings(history.settings())
    if history.epochs:
        subset = subset_words(settings.evaluate.train_subset, len(settings.split.train))
        parts.append(epochs_table(history.epochs, subset))
    console.show(Trimmed((*parts, *bad_ends([found]))))
    if record is not None and record.result is not None:
        console.show(trial_table(record))
        console.show(Trimmed(tuple(hardest_cases_table(record.result))))
    files = [file for name in OF_TRIAL if (file := path / name).exists()]
    if files:
        console.print(visible(f"files:        {_in_one_folder(files)}"), soft_wrap=True)


def _state_words(found: TrialState) -> str:
    """`done`, `running, 12 of 60 epochs`."""
    is_known = found.state != "done" and found.epochs > 0
    return f"{found.state}, {found.num_epochs} of {found.epochs} epochs" if is_known else found.state


def _trial_document(trial: OneTrial, found: TrialState) -> dict[str, object]:
    """A trial as a JSON document."""
    history = trial.history
    record, entry = history.record, history.entry
    ended = trial_entry(record, history.folder, entry.fold) if record is not None else {}
    cases = record.result.val.model_dump(mode="json")["cases"] if record is not None and record.result else None
    return {
        **state_entry(found),
        **ended,
        "study": trial.header.name if trial.header is not None else None,
        "changed_settings": [vars(setting) for setting in changed_settings(trial)],
        "settings": history.settings(),
        "epochs_recorded": [epoch.model_dump(mode="json") for epoch in history.epochs],
        "cases": cases,
    }
