"""What is to be said to the user about scans that were predicted: how they were prepared, and unclear headers."""

from dataclasses import dataclass, field

from dlx.data.intensities.measures import MASK_VALUES
from dlx.data.layouts.listing import name_some
from dlx.data.notes import FileNote, describe_notes
from dlx.prediction.ensemble import Ensemble, PredictedScan
from dlx.settings.text import counted

SHOWN = 3  # names in a line


@dataclass
class Seen:
    """How the scans so far were prepared."""

    notes: list[FileNote] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    without_orientation: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)

    def add(self, scan: str, predicted: PredictedScan) -> None:
        """Takes what is to be said of a scan."""
        self.notes += predicted.notes
        for names, is_one in (
            (self.turned, predicted.was_turned),
            (self.resampled, predicted.was_resampled),
            (self.without_orientation, not predicted.orientation),
            (self.masks, predicted.looks_like_mask),
        ):
            names += [scan] if is_one else []

    def lines(self, ensemble: Ensemble) -> list[str]:
        """A line for each kind of remark."""
        lines = list(describe_notes(self.notes))
        grids = [grid for member in ensemble.members if (grid := member.trained.dataset.grid) is not None]
        codes = sorted({grid.orientation for grid in grids if grid.orientation})
        if self.without_orientation and codes:
            lines.append(
                f"the headers of {counted(len(self.without_orientation), 'scan')} give no orientation "
                f"({name_some(self.without_orientation, SHOWN)}): they were predicted as they are stored, though the "
                f"runs were trained on images in {' and '.join(codes)}"
            )
        if self.masks:
            what = "a mask" if len(self.masks) == 1 else "masks"
            lines.append(
                f"{counted(len(self.masks), 'scan')} ({name_some(self.masks, SHOWN)}) may be {what}, given by mistake: "
                f"all values are whole numbers, at most {MASK_VALUES} different ones"
            )
        for names, what in (
            (self.turned, "turned to the orientation"),
            (self.resampled, "resampled to the voxel size"),
        ):
            if names:
                verb = "was" if len(names) == 1 else "were"
                lines.append(
                    f"{counted(len(names), 'scan')} ({name_some(names, SHOWN)}) {verb} {what} that the runs were "
                    "trained on; labels are on the voxels of the files"
                )
        return lines
