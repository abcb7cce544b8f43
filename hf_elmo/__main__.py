"""`python -m hf_elmo`: the command line."""

from .cli import main

if __name__ == "__main__":
    main()
