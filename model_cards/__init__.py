"""Data for model cards: the template, facts about published originals, and the cards of bundled models."""
