"""Small models of any sort for unit tests, with weights that make mistakes visible."""

import torch

from hf_elmo import ElmoConfig


def small_config(**fields):
    """A small ElmoConfig, every part of the model in it: two layers of 2 x 5, cells of 7, clips that will fire."""
    sizes = {
        "char_embed_dim": 3,
        "filters": [[1, 4], [3, 6]],
        "num_highway_layers": 1,
        "max_characters_per_token": 8,
        "cell_size": 7,
        "projection_dim": 5,
        "cell_clip": 0.6,
        "proj_clip": 0.5,
    }
    return ElmoConfig(**{**sizes, **fields})


def fill(module, seed=0):
    """Fills all parameters with random numbers under which activations are of order 1; returns the module.

    Freshly initialised activations are of order 0.01, where gates are half open and a wrong model is nearly a right
    one. The recurrent weights are smaller than the others, so that rounding errors do not grow from word to word.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            # The outputs of cells are far below 1, and the projection is to bring some of them beyond its clip.
            gain = 4 if "weight_hr" in name else 0.5 if "weight_hh" in name else 1.5
            scale = 1 if "char_embedding" in name else gain / fan_in**0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if "char_embedding" in name:
                parameter[0] = 0
    return module.eval()


def random_words(lengths, chars=8, characters=262, seed=0):
    """Rows of random characters, ``(batch, longest, chars)``, zeros behind each sentence; a third recur."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths, default=0)
    ids = torch.randint(1, characters, (len(lengths), longest, chars), generator=generator)
    recurring = torch.rand(len(lengths), longest, generator=generator) < 1 / 3
    if ids.numel():
        ids[recurring] = ids[0, 0].clone()
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
    return ids


def mask_of(lengths):
    """``(batch, longest)``, bool: true for the first words of each row."""
    return torch.arange(max(lengths, default=0)) < torch.tensor(lengths, dtype=torch.long).unsqueeze(1)
