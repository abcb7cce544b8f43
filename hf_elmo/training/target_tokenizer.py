"""A tokenizer for what a model is to write: byte-level BPE, trained on the targets."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ..model.tokenization_elmo import BOS, EOS, PAD, SPECIAL_WORDS, UNK

# Below this there is no room for the special tokens and all bytes.
_LEAST_TOKENS = len(SPECIAL_WORDS) + 256


def train_target_tokenizer(
    texts: Iterable[str], vocab_size: int = 8000, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) for targets.

    The special tokens are those of `ElmoTokenizer`, in its order: `[PAD]` 0, `[UNK]` 1, `<S>` 2, `</S>` 3. So the ids
    of sources and targets agree. Every text is followed by `</S>`; any text can be written, since all bytes are tokens,
    and `decode` gives it back as it was.

    ```python
    target = hf_elmo.train_target_tokenizer(german_sentences, vocab_size=4000)
    target.decode(target("Ein Hund rennt .")["input_ids"])  # 'Ein Hund rennt .</S>'
    ```

    Args:
        texts: The targets of the training data.
        vocab_size: The most tokens; at least 260, for the special tokens and all bytes.
        model_max_length: Where `truncation=True` cuts, in tokens: the positions of the decoder. None: nowhere.

    Raises:
        TypeError: for one text instead of several.
        ValueError: for a vocabulary too small, and for no texts.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"texts must be several texts, was one {type(texts).__name__}: {texts[:40]!r}.")
    if vocab_size < _LEAST_TOKENS:
        raise ValueError(
            f"vocab_size is {vocab_size}, but the special tokens and all bytes are {_LEAST_TOKENS} tokens: take more, "
            "some thousands as a rule."
        )
    count = 0

    def counted() -> Iterable[str]:
        nonlocal count
        for text in texts:
            count += 1
            yield text

    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_WORDS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(counted(), trainer)
    if not count:
        raise ValueError("There are no texts to train a tokenizer on.")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B:1 {EOS}:1", special_tokens=[(EOS, SPECIAL_WORDS.index(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=model_max_length,
    )
