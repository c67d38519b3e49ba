"""(d) nnU-Net's trainer, v2: `nnUNetTrainer.train_step` as it is installed, fed with ready batches.

Included: moving the batch to the device, autocast as it decides (none on a CPU; float16 with a GradScaler on CUDA),
forward, loss, backward, clipping to norm 12, the optimizer's step, reading the loss. Not included: its loader, whose
worker processes would take the same cores from training, and its augmentation, which no other contender has; leaving
them out favours nnU-Net. torch.compile is on where the trainer turns it on: on CUDA, and not on a CPU.

Variants:
- "" (equal work): our network, the loss and the optimizer of all contenders.
- own: our network, its own loss (Dice + cross-entropy, no deep supervision) and optimizer (SGD, Nesterov 0.99).
- stock (unequal work): the network it plans for such slices or patches, deep supervision, its own loss and optimizer.

In bf16 the network runs under autocast to bf16, which the trainer itself would not do on a CPU.
"""

import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.plain import LOSSES, count_parameters, make_network, make_optimizer
from benchmarks.workload import Step, Workload, main

DATASET = "Dataset999_Random"


def make_step(workload: Workload) -> tuple[Step, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(workload, Path(folder))
    batches = [make_batch(workload, index, trainer) for index in range(workload.count)]
    if workload.is_bf16 and workload.device.startswith("cuda"):
        torch.set_autocast_dtype("cuda", torch.bfloat16)
    precision = "float16" if workload.device.startswith("cuda") and not workload.is_bf16 else workload.precision
    facts = {
        "parameters": count_parameters(trainer.network),
        "version": metadata.version("nnunetv2"),
        "precision": precision,
    }
    return lambda index: trainer.train_step(batches[index]), facts


def make_trainer(workload: Workload, folder: Path) -> Any:
    """A trainer made ready by its own `initialize`, in folders that need not outlive it."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Trainer(nnUNetTrainer):
        """The network, loss and optimizer of all contenders in nnU-Net's own training step."""

        def build_network_architecture(self, *_: Any) -> nn.Module:
            return Network(workload)

        def _build_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
            if workload.variant == "own":
                return super()._build_loss()
            loss_of = LOSSES[workload.loss]
            return lambda logits, target: loss_of(logits, target[:, 0].long())

        def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
            if workload.variant == "own":
                return super().configure_optimizers()
            return make_optimizer(workload, self.network), None

    plans, dataset = make_plans(workload, folder)
    kind = nnUNetTrainer if workload.variant == "stock" else Trainer
    trainer = kind(plans, configuration(workload), 0, dataset, torch.device(workload.device))
    trainer.enable_deep_supervision = workload.variant == "stock"
    trainer.initialize()
    trainer.network.train()
    return trainer


class Network(nn.Module):
    """Our network; under autocast to bf16 where that is asked for."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.network = make_network(workload)
        self.is_autocast = workload.is_bf16 and workload.device == "cpu"  # on CUDA the trainer's own autocast rules

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_autocast):
            return self.network(image)


def configuration(workload: Workload) -> str:
    return "2d" if workload.dims == 2 else "3d_fullres"


def make_plans(workload: Workload, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What its own planner plans for images of the workload's slices or patches, and the dataset.json of these."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    dataset = {
        "channel_names": {str(c): "MRI" for c in range(workload.channels)},
        "labels": {"background": 0, **{f"class {k}": k for k in range(1, workload.classes)}},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "dataset": {"case": {"images": ["case.nii.gz"], "label": "case.nii.gz"}},
    }
    shape = list(workload.extent)
    fingerprint = {"spacings": [[1.0] * 3], "shapes_after_crop": [shape], "median_relative_size_after_cropping": 1.0}
    for content, path in ((dataset, f"raw/{DATASET}/dataset.json"), (fingerprint, f"preprocessed/{DATASET}/")):
        target = folder / (path if path.endswith("json") else path + "dataset_fingerprint.json")
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(content))
    planner = ExperimentPlanner(DATASET)
    name, sides = configuration(workload), np.array(shape[-workload.dims :])
    plan = planner.get_plans_for_configuration(np.ones(workload.dims), sides, f"nnUNetPlans_{name}", 1e9, {})
    plan |= {"batch_dice": True, "batch_size": workload.batch_shape[0]}
    prepared = folder / f"preprocessed/{DATASET}/{plan['data_identifier']}"
    prepared.mkdir()
    (prepared / "case.npz").touch()  # the trainer asks for the kind of its prepared files, and reads none
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "configurations": {name: plan},
        "label_manager": "LabelManager",
        "continue_training": False,
    }
    return json.loads(json.dumps(plans, default=lambda value: value.tolist())), dataset


def make_batch(workload: Workload, index: int, trainer: Any) -> dict[str, Any]:
    """A step's batch as its loader hands it over; with deep supervision a target for each resolution."""
    generator = torch.Generator().manual_seed(index)
    batch, channels, *sides = workload.batch_shape
    data = torch.randn(batch, channels, *sides, generator=generator)
    target = torch.randint(workload.classes, (batch, 1, *sides), generator=generator).to(torch.int16)
    scales = trainer._get_deep_supervision_scales() if workload.variant == "stock" else None
    if scales is None:
        return {"data": data, "target": target}
    levels = [tuple(slice(None, None, round(1 / scale)) for scale in level) for level in scales]
    return {"data": data, "target": [target[(slice(None), slice(None), *level)].contiguous() for level in levels]}


if __name__ == "__main__":
    main(make_step)
