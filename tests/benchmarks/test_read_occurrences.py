"""The occurrences of "read" whose tense was told by hand, and the measures on them."""

import gzip
import hashlib
import re
import sys
from collections import Counter

import numpy as np
import pytest
from places import CHECKOUT

sys.path.insert(0, str(CHECKOUT))

from benchmarks.quality import probes
from benchmarks.quality import read_occurrences as occurrences


def test_books_have_both_tenses_and_like_subjects():
    rows = occurrences.read_books()
    assert Counter(each.label for each in rows) == {"past": 65, "present": 65}
    assert all(each.words[each.place] == "read" for each in rows)
    assert len({each.words for each in rows}) == len(rows)
    # With such a subject the present would be "reads".
    before = Counter(each.words[each.place - 1].lower() for each in rows)
    assert not {"he", "she", "it"} & set(before)


def test_held_out_places_are_those_of_the_text(shared_data):
    rows = occurrences.read_held_out(shared_data / "lm" / "gutenberg_fiction")
    assert all(each.words[each.place] == "read" for each in rows)
    counts = Counter(each.label for each in rows)
    assert sum(counts.values()) == 234
    # Every occurrence of the two files has a label.
    found = 0
    for name in ("valid", "test"):
        with gzip.open(shared_data / "lm" / "gutenberg_fiction" / f"{name}.txt.gz", "rt", encoding="utf-8") as lines:
            found += sum(len(re.findall(r"\bread\b", line)) for line in lines)
    # One of "re-read" is part of a word.
    assert found >= 234
    forms = Counter(each.label for each in occurrences.forms(rows))
    assert forms == {"past form": counts["past"], "present form": 234 - counts["past"] - 47 - counts["unclear"]}
    assert min(forms.values()) >= 60


@pytest.fixture
def places(tmp_path):
    """A text of one line, and a file that names the second of its sentences."""
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as text:
        text.write("\nOne came. They read it, then left.\n")
    digest = hashlib.sha256(b"They read it , then left .").hexdigest()[:12]
    (tmp_path / "places.tsv").write_text(f"# A remark\npast\ta.txt.gz\t2\t3\t10\t4\t{digest}\n", encoding="utf-8")
    return tmp_path


def test_places_are_read(places):
    (row,) = occurrences.read_held_out(places, places / "places.tsv")
    assert row.words == ("They", "read", "it", ",", "then", "left", ".")
    assert (row.label, row.place, row.group) == ("past", 1, "a.txt.gz:2")


def test_changed_text_is_refused(places):
    with gzip.open(places / "a.txt.gz", "wt", encoding="utf-8") as text:
        text.write("\nOne came. They read it, then went.\n")
    with pytest.raises(ValueError, match=r"Line 2 of .*a\.txt\.gz is not the text that was labelled"):
        occurrences.read_held_out(places, places / "places.tsv")


def test_absent_text_is_named(places):
    (places / "a.txt.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.txt\.gz does not exist\. .*HF_ELMO_SHARED_DATA"):
        occurrences.read_held_out(places, places / "places.tsv")


@pytest.mark.parametrize(
    "line", ["past\t1\tbook\tI wrote", "past\t7\tbook\tI read", "past\tx\tbook\tI read", "past\t1"]
)
def test_malformed_lines_are_refused(tmp_path, line):
    (tmp_path / "books.tsv").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"books\.tsv, line 1: "):
        occurrences.read_books(tmp_path / "books.tsv")


def test_nearest_share():
    """Three of four have a nearest of their own label; of one group none is a neighbour; ties count their share."""
    similarities = np.array([[1, 0.9, 0.2, 0.1], [0.9, 1, 0.3, 0.0], [0.2, 0.3, 1, 0.1], [0.1, 0.0, 0.1, 1]])
    labels = ["a", "a", "b", "b"]
    # Rows 0 and 1 find each other, row 2 finds row 1, row 3 finds rows 0 and 2 together.
    assert occurrences.nearest_share(similarities, labels, list("wxyz")) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert occurrences.nearest_share(similarities, labels, list("wwyz")) == pytest.approx((0 + 0 + 0 + 0.5) / 4)


def test_cross_validation_never_sees_the_tested_group():
    """Vectors that tell the group and nothing else are of no use; vectors that tell the label are always right."""
    generator = np.random.default_rng(0)
    groups = [str(number // 4) for number in range(80)]
    labels = ["a" if generator.random() < 0.5 else "b" for _ in range(20) for _ in range(4)]
    by_group = dict(zip(groups, labels, strict=True))
    labels = [by_group[group] for group in groups]
    tells_group = np.eye(20)[[int(group) for group in groups]].astype(np.float32)
    tells_label = np.array([[label == "a", generator.normal()] for label in labels], dtype=np.float32)
    assert probes.cross_validated(tells_group, labels, groups) < 0.75
    assert probes.cross_validated(tells_label, labels, groups, strength=1) == 1


def test_baseline_sees_two_words_on_each_side():
    rows = [
        occurrences.Occurrence("past", ("I", "read", "it"), 1, "0"),
        occurrences.Occurrence("past", ("They", "read", "it"), 1, "1"),
    ]
    one, other = occurrences.two_words_on_each_side(rows)
    # Two places of four differ in nothing but "i" and "they"; beyond the ends are boundaries.
    assert (one.sum(), other.sum(), (one * other).sum()) == (4, 4, 3)


def test_layer_0_does_not_know_the_tense(small_run):
    shares = small_run["rows"]["tense, other books"]["share"]
    # 130 times the same vector: all others are the nearest, and of them 64 of 129 are right.
    assert shares["layer 0"]["triples"] == 0.5
    assert shares["layer 0"]["nearest"] == pytest.approx(64 / 129)
    assert set(shares) == {"layer 0", "layer 1", "layer 2", "average", "two words on each side"}
    assert all(0 <= share <= 1 for each in shares.values() for share in each.values())


@pytest.fixture
def small_run(tiny_model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_ELMO_SHARED_DATA", str(tmp_path / "absent"))
    found = occurrences.main(["--model", str(tiny_model_folder), "--output", str(tmp_path / "read.json")])
    assert "are left out: there is no" in capsys.readouterr().out
    return found
