"""Batches of running text and of whole sentences, put together again and compared with the text."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from amounts import examples
from hypothesis import given
from hypothesis import strategies as st

from hf_elmo import ElmoTokenizer
from hf_elmo.training.batches import BatchLoader, RunningText, WholeSentences, WordTable
from hf_elmo.training.corpus import Corpus

CHARS = 8


def corpus_of(lengths, folder) -> Corpus:
    """Sentences of these lengths, in which no word stands twice."""
    sentences = [[f"{number}-{place}" for place in range(length)] for number, length in enumerate(lengths)]
    return Corpus.save(sentences, folder / "corpus", {})


def tokenizer_of(corpus) -> ElmoTokenizer:
    return ElmoTokenizer.create(corpus.vocabulary(), max_characters_per_token=CHARS)


def read_back(batch, direction, tokenizer):
    """What a row reads and predicts, as pairs of words, in the order of reading: one list per row.

    It follows what `ElmoForPreTraining.forward` says of its arguments, not the code that makes the batches.
    """
    mask = batch["attention_mask"].bool()
    name = "character_ids" if direction == 0 or "backward_character_ids" not in batch else "backward_character_ids"
    rows = []
    for row in range(len(mask)):
        pairs = []
        for column in mask[row].nonzero().flatten().tolist():
            if direction == 0:
                target = int(batch["labels"][row, column + 1])
            else:
                # With a column more than words the first one is what stands before the row.
                target = int(batch["backward_labels"][row, column])
            letters = batch[name][row, column].tolist()
            pairs.append((spelt(letters), tokenizer.convert_ids_to_tokens(target)))
        rows.append(pairs if direction == 0 else pairs[::-1])
    return rows


def spelt(letters):
    """A word from its row of characters (ids one up from the bytes; 259 and 260 mark its ends)."""
    inner = letters[letters.index(259) + 1 : letters.index(260)]
    return {(257,): "<S>", (258,): "</S>"}.get(tuple(inner)) or bytes(letter - 1 for letter in inner).decode()


def assert_reads_the_text_once(pairs, corpus, direction):
    """Every word is predicted once, by the word before it in the order of reading."""
    first, last = ("<S>", "</S>") if direction == 0 else ("</S>", "<S>")
    sentences, current = [], None
    for read, predicted in pairs:
        if read == first:
            assert current is None, "a sentence begins within another"
            current = []
        else:
            assert current, "a word is read before a sentence begins"
            assert read == current[-1], "a word is read that was not the last one predicted"
        if predicted == last:
            sentences.append(tuple(current if direction == 0 else current[::-1]))
            current = None
        else:
            current.append(predicted)
    assert current is None
    expected = [tuple(corpus.sentence(number)) for number in range(len(corpus.ends))]
    assert Counter(sentences) == Counter(expected)
    return sentences, expected


streams = st.tuples(
    st.lists(st.integers(1, 9), min_size=12, max_size=40),
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(1, 2),
    st.booleans(),
)


@examples(25)
@given(streams)
def test_running_text_is_the_text(tmp_path_factory, stream):
    lengths, rows, unroll, processes, shuffle = stream
    corpus = corpus_of(lengths, tmp_path_factory.mktemp("text"))
    tokenizer = tokenizer_of(corpus)
    table = WordTable.of(corpus.lexicon, tokenizer)
    if corpus.num_predictions < rows * unroll * processes:
        with pytest.raises(ValueError, match="fewer than one batch"):
            RunningText(corpus, table, rows, unroll, processes=processes)
        return
    parts = [
        RunningText(corpus, table, rows, unroll, seed=3, process=process, processes=processes, shuffle=shuffle)
        for process in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1, "processes would wait for each other for ever"
    orders = []
    for epoch in (0, 1):
        for direction in (0, 1):
            by_row = [[] for _ in range(rows * processes)]
            for process, part in enumerate(parts):
                for number in range(len(part)):
                    batch = part[(epoch, number)]
                    assert batch["character_ids"].shape[1] <= unroll
                    if number < len(part) - 1:
                        assert batch["attention_mask"].shape == (rows, unroll)
                        assert batch["attention_mask"].all(), "only the last batch has padding"
                    # Row r of a batch goes on where row r of the batch before ended.
                    for row, pairs in enumerate(read_back(batch, direction, tokenizer)):
                        by_row[process * rows + row].extend(pairs)
            sizes = [len(row) for row in by_row]
            assert max(sizes) - min(sizes) <= 1
            assert sum(sizes) == corpus.num_predictions
            # A row goes on where the row before it ended, so that the rows together are the whole text.
            order, expected = assert_reads_the_text_once([pair for row in by_row for pair in row], corpus, direction)
            if not shuffle:
                assert order == (expected if direction == 0 else expected[::-1])
            orders.append(order)
    if shuffle:
        assert len({tuple(order) for order in orders}) == 4, "epochs and directions have orders of their own"


@examples(25)
@given(streams)
def test_whole_sentences_are_the_text(tmp_path_factory, stream):
    lengths, rows, unroll, processes, _ = stream
    corpus = corpus_of(lengths, tmp_path_factory.mktemp("text"))
    tokenizer = tokenizer_of(corpus)
    table = WordTable.of(corpus.lexicon, tokenizer)
    words = rows * unroll
    batches_of_all = max(1, round(corpus.num_predictions / (words * processes))) * processes
    too_small = corpus.num_predictions < words * processes
    if too_small or batches_of_all > len(corpus.ends):
        with pytest.raises(ValueError, match="fewer than one batch" if too_small else "sentences are too long"):
            WholeSentences(corpus, table, words, processes=processes)
        return
    parts = [
        WholeSentences(corpus, table, words, seed=3, process=process, processes=processes)
        for process in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    assert len(parts[0]) == pytest.approx(corpus.num_predictions / (words * processes), abs=1)
    for epoch in (0, 1):
        for direction in (0, 1):
            batches = [part[(epoch, number)] for part in parts for number in range(len(part))]
            pairs = [
                pair for batch in batches for row in read_back_sentences(batch, direction, tokenizer) for pair in row
            ]
            assert_reads_the_text_once(pairs, corpus, direction)
    for batch in batches:
        # `Trainer` divides by the number of labels, which is to be that of the predictions.
        predictions = int(batch["attention_mask"].sum()) - len(batch["attention_mask"])
        assert int((batch["labels"] != -100).sum()) == predictions
        assert int((batch["backward_labels"] != -100).sum()) == predictions


def read_back_sentences(batch, direction, tokenizer):
    """As `read_back` for labels of the words themselves: a word predicts the label of its neighbour."""
    mask = batch["attention_mask"].bool()
    labels = batch["labels" if direction == 0 else "backward_labels"]
    rows = []
    for row in range(len(mask)):
        places = mask[row].nonzero().flatten().tolist()
        places = places if direction == 0 else places[::-1]
        rows.append(
            [
                (
                    spelt(batch["character_ids"][row, here].tolist()),
                    tokenizer.convert_ids_to_tokens(int(labels[row, there])),
                )
                for here, there in pairwise(places)
                if labels[row, there] != -100
            ]
        )
    return rows


def test_sentences_of_a_batch_are_of_like_lengths(tmp_path):
    lengths = np.random.default_rng(0).integers(1, 60, 3000)
    corpus = corpus_of(lengths, tmp_path)
    batches = WholeSentences(corpus, WordTable.of(corpus.lexicon, ElmoTokenizer.create()), 640)
    padded = sum(batches[(0, number)]["attention_mask"].numel() for number in range(len(batches)))
    assert padded < 1.1 * (lengths + 2).sum()
    sizes = [int(batches[(0, number)]["attention_mask"].sum()) for number in range(len(batches))]
    assert max(sizes) < 2 * 640
    # Shuffled again, or training would begin with the shortest sentences.
    longest = [batches[(0, number)]["attention_mask"].shape[1] for number in range(20)]
    assert longest != sorted(longest)


def test_words_of_the_table(tmp_path):
    """Rare words are read by their letters and predicted as unknown; so are words that look like special ones."""
    sentences = [["a", "b", "a", "<S>", "[PAD]"], ["a", "b", "é" * 30]]
    corpus = Corpus.save(sentences, tmp_path / "corpus", {})
    tokenizer = ElmoTokenizer.create(["a"])
    table = WordTable.of(corpus.lexicon, tokenizer)
    assert corpus.lexicon == ["a", "b", "<S>", "[PAD]", "é" * 30]
    assert table.word_ids.tolist() == [2, 3, 4, 1, 1, 1, 1]
    expected = tokenizer([["<S>", "</S>", "a", "b"]], is_split_into_words=True, return_tensors="np")
    assert (table.character_ids[:4] == expected["character_ids"][0, [0, -1, 3, 4]]).all()
    assert spelt(table.character_ids[4].tolist()) == "<S>"
    assert table.character_ids[4].tolist()[:5] == [259, ord("<") + 1, ord("S") + 1, ord(">") + 1, 260]
    assert len(bytes(letter - 1 for letter in table.character_ids[6].tolist()[1:49])) == 48


def test_a_loader_skips_at_no_cost_and_knows_its_epoch(tmp_path):
    from accelerate.data_loader import skip_first_batches

    corpus = corpus_of([5] * 40, tmp_path)
    batches = RunningText(corpus, WordTable.of(corpus.lexicon, tokenizer_of(corpus)), 4, 6)
    loader = BatchLoader(batches)
    assert len(loader) == len(batches) == 10
    loader.set_epoch(1)
    expected = [batches[(1, number)]["labels"] for number in range(10)]
    for batch, labels in zip(loader, expected, strict=True):
        assert torch.equal(batch["labels"], labels)
    made = []
    batches.__class__ = type("Counting", (RunningText,), {"__getitem__": lambda self, place: made.append(place) or {}})
    rest = skip_first_batches(loader, 7)
    rest.batch_sampler.batch_sampler.set_epoch(2)
    assert len(list(rest)) == 3
    assert made == [(2, 7), (2, 8), (2, 9)]
