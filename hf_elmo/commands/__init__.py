"""The commands of `hf-elmo`, a file each, and what they share. Terminals and progress bars are known only here."""
