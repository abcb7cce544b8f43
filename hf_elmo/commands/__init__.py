"""The commands of `hf-elmo`, which `app.py` lists, and what they share."""
