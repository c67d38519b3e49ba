#!/usr/bin/env bash
# The notes' studies at the notes' size, on a GPU: the `notes` recipe (unet2 at width 64, 150 steps an epoch, 100 epochs)
# on the iSeg-sized phantom and on the hippocampus set; 5 seeds. In the order of their worth, for a machine whose time is
# short; run again it goes on with what is missing.
#   make experiments-gpu                            # EPOCHS=30 where there is less time: the reports say so
# The records stay in runs/full-NAME; the report goes to experiments/full/NAME.md.
set -euo pipefail
cd "$(dirname "$0")/.."
DLX=${DLX:-.venv/bin/dlx}
EPOCHS=${EPOCHS:-100}
read -ra OPTIONS <<< "${OPTIONS:---device cuda}"
HIPPOCAMPUS=(--loss lovasz+focal:double_softmax=true --set batch.kind=patches --set train.steps_per_epoch=150)

run() {
    local name=$1
    shift
    "$DLX" run "experiments/$name.toml" --recipe notes --epochs "$EPOCHS" --out "runs/full-$name" "${OPTIONS[@]}" "$@"
    if [ -e "runs/full-$name/study.json" ]; then
        mkdir -p experiments/full
        "$DLX" report "runs/full-$name" --out "experiments/full/$name" > /dev/null
    fi
}

run weight-sharing-phantom
run dropout-phantom
"$DLX" run experiments/full/linear-tail.toml --out runs/full-linear-tail "${OPTIONS[@]}"
run schedulers "${HIPPOCAMPUS[@]}"
run weight-sharing-hippocampus "${HIPPOCAMPUS[@]}"
run dropout-hippocampus "${HIPPOCAMPUS[@]}"
