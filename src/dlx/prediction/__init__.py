"""Predictions of trained networks for new scans: `prediction.predict.predict` is the whole of it for other code.

`runs` finds the checkpoints, `trained_network` loads one, `scans` lists the images, `ensemble` predicts one scan,
`manifest` knows what an output folder holds, and `output_folder` writes into it.
"""
