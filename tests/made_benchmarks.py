"""Records of benchmarks made by hand: of a step in 2D and 3D, of the time to a Dice, of Dice over time.

Nothing here is measured; the tests of tables, ratios, checks and figures read it as they would read a measured record.
"""


def step_document(**seconds):
    """A record in which each contender took these seconds, repeat by repeat; `None` is an error."""
    run = {"precision": "bf16", "parameters": 5, "cold_s": 3.0, "peak_mib": 100.0}
    return {
        "kind": "step",
        "device": "cpu",
        "date": "2026-01-01",
        "machine": {"device": "a processor", "cores": 2, "torch": "2"},
        "quiet": {"busy_cores": 0.0},
        "workload": {"width": 64, "slices": 64, "side": 64, "loss": "lovasz+focal"},
        "ceilings": {
            "matmul_bf16_gflops": 1000.0,
            "matmul_float32_gflops": 200.0,
            "copy_gb_per_s": 10.0,
            "step_gflop": 1700.0,
        },
        "runs": {
            name: [{"error": "not here"}] if times is None else [{"step_s": time, **run} for time in times]
            for name, times in seconds.items()
        },
    }


DOCUMENT = step_document(
    **{
        "dlx": [2.0, 2.0, 1.0],
        "dlx, cross-entropy": [2.0, 1.9, 1.0],
        "notes' loop": [12.0, 10.0, 9.0],
        "tuned loop": [2.2, 2.6, 3.0],
        "tuned loop, compiled": [3.0, 2.2, 3.0],
        "MONAI, as it comes": None,
    }
)
DOCUMENT_3D = {
    **step_document(
        **{
            "dlx": [1.0, 1.1, 1.0],
            "dlx, float32": [2.0, 2.0, 2.5],
            "MONAI, as it comes": [1.2, 1.2, 1.2],
            "nnU-Net's trainer, our network": [2.6, 2.6, 2.6],
        }
    ),
    "kind": "step-3d",
    "workload": {"width": 16, "slices": 64, "side": 64, "patch": [40, 56, 40], "patches": 2, "loss": "dice+ce"},
}
DOCUMENT_3D["ceilings"] = {**DOCUMENT_3D["ceilings"], "convolution_float32_gflops": 1000.0}


def dice_document(ours, theirs):
    runs = {"dlx": ours, "MONAI, as it comes": theirs}
    made = {
        name: [
            {"seed": 0, "reached_s": at, "dice": 0.87 if at else 0.85, "looks": [[at or 120.0, 0.85]], "wall_s": 30.0}
            for at in times
        ]
        for name, times in runs.items()
    }
    return {**DOCUMENT, "kind": "dice", "target": 0.86, "limit_s": 120.0, "note": "a note", "runs": made}


FACTS = {"looking_s": 30.0, "steps": 7, "parameters": 8, "quiet": {"busy_cores": 0.0}}
CURVE = {
    **{key: value for key, value in DOCUMENT.items() if key not in ("workload", "ceilings", "quiet")},
    "kind": "dice-curve",
    "data": "Task04_Hippocampus",
    "limit_s": 3600.0,
    "seed": 0,
    "threads": 2,
    "note": "a note",
    "runs": {
        name: {"looks": looks, "mirrored_look": mirrored, "wall_s": wall_s, **FACTS, **more}
        for name, looks, mirrored, wall_s, more in (
            ("dlx, quick", [[10.0, 0.8], [18.0, 0.867]], None, 25.0, {}),
            ("dlx, strong", [[60.0, 0.85], [300.0, 0.87], [720.0, 0.8804]], None, 810.0, {}),
            ("MONAI, its recipe", [[60.0, 0.0], [900.0, 0.86], [3600.0, 0.875]], [3600.0, 0.886], 4000.0, {}),
            ("nnU-Net, stock", [[120.0, 0.7], [1800.0, 0.85]], None, 1900.0, {"ended": "killed"}),
        )
    },
}
