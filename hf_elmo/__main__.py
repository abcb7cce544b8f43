"""`python -m hf_elmo`: the command line."""

from .commands.app import main

if __name__ == "__main__":
    main()
