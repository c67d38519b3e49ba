"""Who runs in the step benchmark, in the order of the tables of 2D and of 3D. All of a table train with the same
volumes, batch, loss, optimizer and number of parameters, but for the rows that say otherwise; the precision of each is
in the table.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parents[1] / ".venv-nnunet/bin/python"  # made by `make bench-peers`
NEEDS = {"monai_loop": "monai", "monai_3d_dice": "monai", "nnunet_trainer": "nnunetv2", "nnunet_dice": "nnunetv2"}


@dataclass(frozen=True)
class Contender:
    """A row of the table: a module of this package, run with these changes to the workload."""

    name: str
    module: str
    precision: str = "bf16"
    variant: str = ""
    loss: str = ""  # another one than the workload's
    note: str = ""  # what is not as in the other rows

    def python(self) -> str:
        """The interpreter that has what it needs; LookupError says what is missing."""
        needs = NEEDS.get(self.module)
        if needs is None or importlib.util.find_spec(needs) is not None:
            return sys.executable
        if needs == "nnunetv2" and PEERS.exists():
            return str(PEERS)
        hint = " (make bench-peers)" if needs == "nnunetv2" else ""
        raise LookupError(f"{needs} is not installed{hint}")


DLX, CROSS_ENTROPY = "dlx", "dlx, cross-entropy"
NOTES, TUNED, COMPILED = "notes' loop", "tuned loop", "tuned loop, compiled"
MONAI, MONAI_BF16 = "MONAI, as it comes", "MONAI, bf16"
NNUNET, NNUNET_BF16 = "nnU-Net's trainer, our network", "nnU-Net's trainer, bf16"
DLX_FLOAT32, NNUNET_STOCK = "dlx, float32", "nnU-Net, stock"

CONTENDERS = (
    Contender(DLX, "dlx_engine"),
    Contender(CROSS_ENTROPY, "dlx_engine", loss="ce", note="another loss"),
    Contender(DLX_FLOAT32, "dlx_engine", precision="float32"),
    Contender(NOTES, "notes_loop", precision="float32"),
    Contender("notes' loop, bf16", "notes_loop"),
    Contender(TUNED, "tuned_loop"),
    Contender(COMPILED, "tuned_loop", variant="compile"),
    Contender(MONAI, "monai_loop", precision="float32"),
    Contender(MONAI_BF16, "monai_loop"),
    Contender(NNUNET, "nnunet_trainer", precision="float32"),
    Contender(NNUNET_BF16, "nnunet_trainer"),
    Contender(
        "nnU-Net's trainer, its loss", "nnunet_trainer", "float32", "own", note="its own loss (Dice + CE) and SGD"
    ),
    Contender(NNUNET_STOCK, "nnunet_trainer", "float32", "stock", note="unequal work: its own network, loss and SGD"),
)

CONTENDERS_3D = (
    Contender(DLX, "dlx_engine"),
    Contender(DLX_FLOAT32, "dlx_engine", precision="float32"),
    Contender(TUNED, "tuned_loop"),
    Contender(MONAI, "monai_loop", precision="float32"),
    Contender(MONAI_BF16, "monai_loop"),
    Contender(NNUNET, "nnunet_trainer", precision="float32"),
    Contender(NNUNET_BF16, "nnunet_trainer"),
    Contender(NNUNET_STOCK, "nnunet_trainer", "float32", "stock", note="unequal work: its own network, loss and SGD"),
)


def selected(parser: argparse.ArgumentParser, only: str | None, names: Sequence[str]) -> list[str]:
    """Those of `names` that `--only` lists, separated by ';', in the order of the table; all if it is not given. An
    unknown name ends the program with a usage error."""
    asked = names if only is None else [name.strip() for name in only.split(";")]
    if unknown := [name for name in asked if name not in names]:
        parser.error(f"--only: no contender is named {'; '.join(map(repr, unknown))} (known: {'; '.join(names)})")
    return [name for name in names if name in asked]
