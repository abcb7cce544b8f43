"""Text to a trained biLM: the counted corpus, batches, checkpoints, the trainer."""
