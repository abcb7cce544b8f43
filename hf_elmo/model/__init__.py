"""ELMo itself: all that a saved folder carries. It imports transformers, torch, numpy, tokenizers and itself, nothing else."""
