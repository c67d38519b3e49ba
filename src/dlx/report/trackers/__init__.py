"""The records of trials in the files of other programs that show runs: TensorBoard and MLflow."""
