"""dlx: which remedy helps my segmentation network, and by how much, beyond the noise of the seed?

    import dlx

    print(dlx.train(data="folder", dropout=0.1))
    study = dlx.make_study({"dropout.p": [0, 0.1, 0.3]}, data="folder")
    found = dlx.run(study, "runs/dropout")

The functions below are imported when they are first used, so that `import dlx` takes no time.
"""

TYPE_CHECKING = False  # as typing's; with `python -m dlx` an import here could take a module of the working folder

if TYPE_CHECKING:
    from dlx.api.evaluations import EvaluatedPredictions, evaluate
    from dlx.api.runs import StudyRun, load_run, run, train
    from dlx.api.studies import load_study, make_study
    from dlx.api.tables import RecordTables, read_records
    from dlx.exporting.export import ExportedFile, export
    from dlx.prediction.predict import PredictedCase, predict
    from dlx.study.study import Study
    from dlx.system.errors import DataError, DlxError, SettingError

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "DlxError",
    "EvaluatedPredictions",
    "ExportedFile",
    "PredictedCase",
    "RecordTables",
    "SettingError",
    "Study",
    "StudyRun",
    "evaluate",
    "export",
    "load_run",
    "load_study",
    "make_study",
    "predict",
    "read_records",
    "run",
    "train",
]
MODULES = {
    "dlx.api.evaluations": ("EvaluatedPredictions", "evaluate"),
    "dlx.api.runs": ("StudyRun", "load_run", "run", "train"),
    "dlx.api.studies": ("load_study", "make_study"),
    "dlx.api.tables": ("RecordTables", "read_records"),
    "dlx.exporting.export": ("ExportedFile", "export"),
    "dlx.prediction.predict": ("PredictedCase", "predict"),
    "dlx.study.study": ("Study",),
    "dlx.system.errors": ("DataError", "DlxError", "SettingError"),
}


def __getattr__(name: str) -> object:
    """The public name, from the module that has it."""
    import importlib

    for module, names in MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'dlx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
