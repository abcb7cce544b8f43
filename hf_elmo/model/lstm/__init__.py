"""The biLM's LSTMs, and the ways to run them: README.md in this folder tells which there are."""
