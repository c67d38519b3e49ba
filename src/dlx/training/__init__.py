"""What the training step is made of: losses, optimizers, learning-rate schedules, weight initialisation."""
