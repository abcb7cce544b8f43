"""A model in 8 bits, for reading on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from .character_encoder import ScaledLinear
from .lstm.lstm_layer import LstmLayer, is_quantized
from .lstm.prepacked_weights import quantize_layer
from .products.matrix_products import Int8Linear

if TYPE_CHECKING:
    from .modeling_elmo import ElmoPreTrainedModel

Model = TypeVar("Model", bound="ElmoPreTrainedModel")


def quantize(model: Model) -> Model:
    """Puts the large matrices of a model's biLM into 8 bits: those of the LSTMs, highways and projection.

    Each output has a scale of its own, and inputs are quantised as they come (dynamically). The model takes a quarter
    of the memory of float32, and reads on a CPU only: it can no longer be trained (the parameters that are left are
    frozen), saved, moved or compiled; it can be copied and pickled. Of small LSTMs a float32 copy of the recurrent
    weights is made when single sentences are read, where the processor is quicker so.

    Args:
        model: An `ElmoModel`, or a model on top of one, in any dtype, on the CPU. It is changed.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: for a model that is not on the CPU or quantised already, for weights that are NaN or infinite (of
            which 8 bits would make finite numbers), or if torch has no such products here. Then the model is as it was.

    Examples:
        >>> import hf_elmo
        >>> model = hf_elmo.ElmoModel.from_pretrained(hf_elmo.bundled())
        >>> tokenizer = hf_elmo.ElmoTokenizer.from_pretrained(hf_elmo.bundled())
        >>> small = hf_elmo.quantize(model)
        >>> small(**tokenizer(["I read the book."], return_tensors="pt")).last_hidden_state.dtype
        torch.float32
    """
    base = model.base_model
    if any(parameter.device.type != "cpu" for parameter in base.parameters()) or is_quantized_model(model):
        raise ValueError("Only a model on the CPU that is not quantised yet can be quantised.")
    for name, parameter in base.named_parameters():
        if not parameter.isfinite().all():
            count = int((~parameter.isfinite()).sum())
            raise ValueError(
                f"Of the {parameter.numel()} numbers of {name} {count} are NaN or infinite, and 8 bits would make "
                "finite ones of them: the weights are damaged, load others."
            )
    for layers in (base.bilstm.forward_layers, base.bilstm.backward_layers):
        for layer in layers:
            quantize_layer(cast("LstmLayer", layer))
    encoder = base.character_encoder
    for parent in (*encoder.highways, encoder):
        for name, child in list(parent.named_children()):
            if isinstance(child, ScaledLinear):
                setattr(parent, name, Int8Linear(child))
    for parameter in model.parameters():
        # A view of a file's memory map keeps all of the file in memory.
        parameter.data = parameter.detach().clone()
    # Else to read would record gradients, which there are none of through 8 bits.
    model.requires_grad_(False)
    return model.eval()


def is_quantized_model(model: ElmoPreTrainedModel) -> bool:
    """Whether `quantize` made a model what it is."""
    return any(is_quantized(layer) for layer in model.base_model.bilstm.forward_layers)
