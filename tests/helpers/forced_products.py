"""Products of matrices as another processor's row of the table would choose them."""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from hf_elmo.model.lstm import lstm_training, prepacked_weights
from hf_elmo.model.products import matrix_products
from hf_elmo.model.products.processor_table import ProcessorRow


def row_of(float32, sixteen_bits, **fields):
    """A row that takes one product in float32, and one in the dtypes of 16 bits, whatever the number of rows."""
    bands = {"small": ((1, sixteen_bits),), "large": ((1, sixteen_bits),)}
    values = {
        "name": "forced",
        "has": frozenset(),
        "lacks": frozenset(),
        "products": {
            "float32": {"small": ((1, float32),), "large": ((1, float32),)},
            "bfloat16": bands,
            "float16": bands,
        },
        "words_to_widen": 0,
        "words_to_widen_once": 0,
        "pairs": (0, 0),
        "pairs_of_int8": 0,
        "training": "float32",
        "backward": "packed",
        "source": "a test",
    }
    return ProcessorRow(**{**values, **fields})


@contextmanager
def forced(row, large=False):
    """Lets a row count in place of this processor's.

    Args:
        row: The row.
        large: Whether all weights are large ones, of which no copies in float32 are kept.
    """
    with ExitStack() as stack:
        for module in (matrix_products, prepacked_weights, lstm_training):
            stack.enter_context(patch.object(module, "row_in_use", lambda: row))
        if large:
            for module in (matrix_products, prepacked_weights):
                stack.enter_context(patch.object(module, "is_small", lambda numbers: False))
            stack.enter_context(patch.object(prepacked_weights, "_BYTES_TO_COPY_FREELY", 0))
        yield
