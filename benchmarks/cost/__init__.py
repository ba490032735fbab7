"""What a training step costs: ours and TRL's, on the same tokens of the same model."""
