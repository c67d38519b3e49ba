"""nnU-Net, stock, on a folder of volumes in the Decathlon's format: a peer of the Dice over time.

Its own fingerprint, planning and preprocessing, which count as training time; its 3d_fullres network, loader,
augmentation, loss, optimizer and rate (planned for 1000 epochs of 250 steps), by `nnUNetTrainer.train_step`. Left out
is what only informs a user: its pseudo Dice after each epoch, checkpoints and plots. Looks predict with its predictor,
without mirroring; at the limit a second one is mirrored, as its own validation is. One process augments: with more,
fewer cores train.
"""

import argparse
import json
import os
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contenders.looking import Looks
from benchmarks.plain import count_parameters, mean_dice

DATASET = "Dataset004_Peer"
CONFIGURATION = "3d_fullres"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", help="JSON: folder, train, val, classes, seed, device, threads, limit_s")
    task = json.loads(parser.parse_args().task)
    looks = Looks(float(os.environ.get("BENCHMARK_STARTED", time.time())), task["limit_s"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("raw", "preprocessed", "results"):
            (folder / name).mkdir()
            os.environ[f"nnUNet_{name}"] = str(folder / name)
        os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": str(task["threads"])}
        link_raw(Path(task["folder"]), folder / "raw" / DATASET)
        prepare(task, folder / "preprocessed" / DATASET)
        torch.set_num_threads(task["threads"])
        train(task, make_trainer(task, folder / "preprocessed" / DATASET), looks)


def link_raw(source: Path, target: Path) -> None:
    """The volumes of a Decathlon folder as links in nnU-Net's layout, with the dataset.json that it wants."""
    described = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
    for case in described["training"]:
        name = Path(case["image"]).name.removesuffix(".nii.gz")
        (target / f"imagesTr/{name}_0000.nii.gz").symlink_to((source / case["image"]).resolve())
        (target / f"labelsTr/{name}.nii.gz").symlink_to((source / case["label"]).resolve())
    dataset = {
        "channel_names": described["modality"],
        "labels": {name: int(value) for value, name in described["labels"].items()},
        "numTraining": len(described["training"]),
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")


def prepare(task: dict[str, Any], prepared: Path) -> None:
    """What `nnUNetv2_plan_and_preprocess -c 3d_fullres` does, and dlx's split as its splits_final.json."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    dataset_id = int(DATASET[7:10])
    quietly = {"verbose": False, "show_progress_bar": False}
    api.extract_fingerprint_dataset(dataset_id, num_processes=task["threads"], **quietly)
    api.plan_experiment_dataset(dataset_id)
    api.preprocess_dataset(dataset_id, configurations=[CONFIGURATION], num_processes=[task["threads"]], **quietly)
    split = [{side: task[side] for side in ("train", "val")}]
    (prepared / "splits_final.json").write_text(json.dumps(split), encoding="utf-8")


def make_trainer(task: dict[str, Any], prepared: Path) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((prepared / "nnUNetPlans.json").read_text(encoding="utf-8")) | {"continue_training": False}
    dataset = json.loads((prepared / "dataset.json").read_text(encoding="utf-8"))
    np.random.seed(task["seed"])
    torch.manual_seed(task["seed"])
    trainer = nnUNetTrainer(plans, CONFIGURATION, 0, dataset, torch.device(task["device"]))
    trainer.on_train_start()
    return trainer


def train(task: dict[str, Any], trainer: Any, looks: Looks) -> None:
    """Trains until the time is over; each look prints the result so far."""
    configuration = trainer.configuration_manager
    facts = {
        "parameters": count_parameters(trainer.network),
        "version": metadata.version("nnunetv2"),
        "patch": list(map(int, configuration.patch_size)),
        "batch": int(configuration.batch_size),
    }
    steps = 0
    while not looks.is_over:
        trainer.on_train_epoch_start()
        for _ in range(trainer.num_iterations_per_epoch):
            trainer.train_step(next(trainer.dataloader_train))
            steps += 1
            if looks.is_due:
                looks.look(lambda mirrors: measure(task, trainer, mirrors=mirrors), {**facts, "steps": steps})
            if looks.is_over:
                break
        trainer.current_epoch += 1
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        loader._finish()  # ends its process, as the trainer does at its end


def measure(task: dict[str, Any], trainer: Any, *, mirrors: bool) -> float:
    """Mean hard Dice of the validation cases in their own voxels."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(use_mirroring=mirrors, device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network, plans, configuration, None, trainer.dataset_json, type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    reader = plans.image_reader_writer_class()
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, task["val"])
    pairs = []
    for name in task["val"]:
        data, _, _, properties = cases.load_case(name)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(data[:]))).cpu()
        prediction = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans, configuration, trainer.label_manager, properties, num_threads_torch=task["threads"]
        )
        mask, _ = reader.read_seg(str(Path(task["folder"]) / f"labelsTr/{name}.nii.gz"))
        pairs.append((torch.from_numpy(np.array(prediction)), torch.from_numpy(np.array(mask[0]))))
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()
    return mean_dice(pairs, task["classes"])


if __name__ == "__main__":
    main()
