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


def random_batch(generator, chars=8, characters=262, max_batch=6, max_words=24, words=None, min_size=1):
    """Inputs of a model as tokenizers never make them: padding anywhere, rows without a word, segments of any length.

    Args:
        generator: A `random.Random`.
        chars: Length of a row of characters.
        characters: Number of characters.
        max_batch: The most rows.
        max_words: The most words.
        words: Number of words, if it is to be that.
        min_size: The fewest rows, and the fewest words.

    Returns:
        `input_ids` (below 20), `character_ids`, `attention_mask` and `token_type_ids`.
    """
    batch = generator.randint(min_size, max_batch)
    width = generator.randint(min_size, max_words) if words is None else words
    ids = random_words([width] * batch, chars, characters, seed=generator.randrange(2**31))
    torch_generator = torch.Generator().manual_seed(generator.randrange(2**31))
    share = generator.choice([0.0, 0.2, 0.6])
    mask = torch.rand(batch, width, generator=torch_generator) >= share
    if generator.random() < 0.5:
        # Left padding.
        starts = torch.randint(0, width + 1, (batch, 1), generator=torch_generator)
        mask &= torch.arange(width) >= starts
    changes = torch.rand(batch, width, generator=torch_generator) < generator.choice([0.05, 0.4])
    return {
        "input_ids": torch.randint(0, 20, (batch, width), generator=torch_generator),
        "character_ids": ids,
        "attention_mask": mask.long(),
        "token_type_ids": changes.long().cumsum(dim=1) % 2,
    }


def random_options(generator):
    """Options of a small model, any of them on or off; sizes differ, so that graphs cannot mix them up."""
    has_projection = generator.random() < 0.7
    size = generator.choice([3, 5])
    return {
        "num_layers": generator.randint(1, 2),
        "use_skip_connections": generator.random() < 0.5,
        "projection_dim": size,
        "cell_size": 7 if has_projection else size,
        "cell_clip": generator.choice([None, 0.4]),
        "proj_clip": generator.choice([None, 0.3]),
        "forget_bias": generator.choice([0.0, 1.0]),
        "num_highway_layers": generator.randint(0, 2),
        "activation": generator.choice(["relu", "tanh"]),
        "filters": generator.choice([[[1, 4], [3, 6]], [[2, 5]], [[1, 3], [2, 2], [7, 6]]]),
        "num_representations": generator.randint(1, 2),
        "do_layer_norm": generator.random() < 0.3,
        "representation_dropout": 0.5,
        "dropout": 0.1,
    }
