"""What transformers and typer work out in a process when they are first used: done when this is imported."""

import contextlib

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("elmo")
# typer takes it where it is installed.
with contextlib.suppress(ImportError):
    from pydantic import TypeAdapter  # noqa: F401
