"""Corpora of any size to folders of shards: inputs, shards, the folder, and the run of one process."""
