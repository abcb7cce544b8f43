"""ELMo itself, all that a saved folder carries: it imports transformers, torch, numpy, tokenizers and itself alone."""
