"""What a trained language model is good for: perplexity, generation, substitutes, a fill-mask pipeline."""
