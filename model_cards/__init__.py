"""Model cards: the template, the facts of the published ELMos, and the cards of bundled models. Data, no code."""
