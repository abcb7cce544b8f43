"""The question answering pipeline: offsets, windows, scores, inputs of every form; and learning from real questions."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from amounts import examples, first_of
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from isolated import run_isolated
from small_models import fill, small_config
from torch.utils.data import Dataset as TorchDataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, pipeline

from hf_elmo import ElmoForQuestionAnswering, ElmoModel, ElmoQuestionAnsweringPipeline, ElmoTokenizer

QUESTION = "Who wrote the book about the creature?"
CONTEXT = (
    "Mary Shelley (30 August 1797 – 1 February 1851) wrote Frankenstein, at eighteen. It wasn't her last novel: "
    "«Valperga», the naïve Mathilda and 最後の人 followed — the 👩‍🔬 of science fiction, said Brian Aldiss."
)
OPTIONS = {"top_k": 5, "handle_impossible_answer": True}


def make_pipeline(padding_side="right", **fields):
    config = small_config(task_encoder_size=6, max_characters_per_token=50, **fields)
    model = fill(ElmoForQuestionAnswering(config), seed=1)
    with torch.no_grad():
        # The scores of random weights are near each other; further apart, mistakes are seen.
        for layer in (model.start_scores, model.end_scores):
            layer.weight.mul_(30)
    tokenizer = ElmoTokenizer.create(padding_side=padding_side)
    return pipeline("elmo-question-answering", model=model, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def answerer():
    return make_pipeline()


def assert_alike(answers, expected):
    if isinstance(expected, dict):
        answers, expected = [answers], [expected]
    assert [{**answer, "score": None} for answer in answers] == [{**answer, "score": None} for answer in expected]
    scores = [answer["score"] for answer in expected]
    assert [answer["score"] for answer in answers] == pytest.approx(scores, rel=1e-4, abs=1e-7)


def answers_by_hand(answerer, question, context, max_answer_len=15):
    """All answers of one window, by the definition: every span's product of two softmaxes over the whole row."""
    batch = answerer.tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    kinds = batch.sequence_ids(0)
    with torch.no_grad():
        output = answerer.model(**batch)
    start, end = (torch.softmax(output[name][0].double(), 0) for name in ("start_logits", "end_logits"))
    answers = {}
    words = [place for place, kind in enumerate(kinds) if kind == 1]
    for i, j in itertools.combinations_with_replacement(words, 2):
        if j - i < max_answer_len:
            key = context[offsets[i][0] : offsets[j][1]].lower()
            answers.setdefault(key, []).append(((start[i] * end[j]).item(), offsets[i][0], offsets[j][1]))
    spans = {key: max(found)[1:] for key, found in answers.items()}
    found = [
        {"score": sum(s for s, *_ in scores), "start": spans[key][0], "end": spans[key][1]}
        for key, scores in answers.items()
    ]
    for answer in found:
        answer["answer"] = context[answer["start"] : answer["end"]]
    found.append({"score": (start[0] * end[0]).item(), "start": 0, "end": 0, "answer": ""})
    return sorted(found, key=lambda answer: -answer["score"])


# Scores and offsets


@pytest.mark.parametrize("max_answer_len", [1, 3, 15, 1000])
def test_answers_are_the_likeliest_spans_of_the_context(answerer, max_answer_len):
    expected = answers_by_hand(answerer, QUESTION, CONTEXT, max_answer_len)
    answers = answerer(question=QUESTION, context=CONTEXT, max_answer_len=max_answer_len, **OPTIONS)
    assert_alike(answers, expected[:5])
    assert len({answer["score"] for answer in answers}) == 5
    assert list(answers[0]) == ["score", "start", "end", "answer"]
    assert [type(value) for value in answers[0].values()] == [float, int, int, str]
    answers = answerer(question=QUESTION, context=CONTEXT, max_answer_len=max_answer_len, top_k=3)
    assert_alike(answers, [answer for answer in expected if answer["answer"]][:3])


def test_equal_answers_count_as_one_at_the_place_of_the_best(answerer):
    context = "Berlin , berlin , BERLIN"
    expected = answers_by_hand(answerer, "Where?", context)
    answers = answerer(question="Where?", context=context, top_k=50, handle_impossible_answer=True)
    assert_alike(answers, expected)
    assert len(answers) == len({answer["answer"].lower() for answer in answers})
    assert sum(answer["answer"].lower() == "berlin" for answer in answers) == 1


def test_no_answer_wins_if_it_is_likeliest():
    answerer = make_pipeline()
    with torch.no_grad():
        answerer.model.no_answer_scores.bias.fill_(50)
    answer = answerer(question=QUESTION, context=CONTEXT, handle_impossible_answer=True)
    assert answer == {"score": pytest.approx(1), "start": 0, "end": 0, "answer": ""}
    assert answerer(question=QUESTION, context=CONTEXT)["answer"] != ""


# White space alone is an error; everything else is text, lone surrogates too.
TEXTS = st.text(st.characters(), min_size=1, max_size=60).filter(str.strip)


@examples(60)
@given(context=TEXTS, question=TEXTS, window=st.integers(2, 12), data=st.data())
def test_every_answer_is_a_slice_of_its_context(answerer, context, question, window, data):
    words = answerer.tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    question_length = min(4, len(answerer.tokenizer.tokenize(question)))
    answers = answerer(
        question=question,
        context=context,
        max_question_len=4,
        max_seq_len=question_length + 4 + window,
        doc_stride=data.draw(st.integers(0, window - 1)),
        top_k=8,
    )
    answers = [answers] if isinstance(answers, dict) else answers
    assert answers
    for answer in answers:
        assert answer["answer"] == context[answer["start"] : answer["end"]] != ""
        assert answer["start"] in {start for start, _ in words}
        assert answer["end"] in {end for _, end in words}
        assert 0 <= answer["score"] <= 1 + 1e-9
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert len({a["answer"].lower() for a in answers}) == len(answers)


# Windows


def test_windows_change_nothing_where_all_fits(answerer):
    expected = answerer(question=QUESTION, context=CONTEXT, **OPTIONS)
    words = len(answerer.tokenizer(QUESTION, CONTEXT)["input_ids"])
    for size in (words, words + 1, 100_000):
        assert answerer(question=QUESTION, context=CONTEXT, max_seq_len=size, doc_stride=5, **OPTIONS) == expected
    assert answerer(question=QUESTION, context=CONTEXT, max_seq_len=words - 1, **OPTIONS) != expected


def test_windows_cover_the_context_with_the_stride_in_common(answerer):
    question_words = len(answerer.tokenizer.tokenize(QUESTION))
    size, stride = question_words + 4 + 10, 3
    windows = list(answerer.preprocess({"question": QUESTION, "context": CONTEXT}, stride, 64, size))
    assert [window["is_last"] for window in windows] == [False] * (len(windows) - 1) + [True]
    slices = [[CONTEXT[start:end] for start, end in window["window"].offsets] for window in windows]
    assert all(len(words) == 10 for words in slices[:-1])
    assert all(one[-3:] == other[:3] for one, other in itertools.pairwise(slices))
    assert [word for number, words in enumerate(slices) for word in words[3 * (number > 0) :]] == (
        answerer.tokenizer.tokenize(CONTEXT)
    )


def test_the_best_window_of_an_answer_counts(answerer):
    question_words = len(answerer.tokenizer.tokenize(QUESTION))
    size, stride = question_words + 4 + 12, 6
    options = {"max_seq_len": size, "doc_stride": stride, "top_k": 400, "handle_impossible_answer": True}
    answers = answerer(question=QUESTION, context=CONTEXT, max_answer_len=4, **options)
    best: dict[str, dict] = {}
    empty = []
    for window in answerer.preprocess({"question": QUESTION, "context": CONTEXT}, stride, 64, size):
        left, right = window["window"].offsets[0][0], window["window"].offsets[-1][1]
        for answer in answers_by_hand(answerer, QUESTION, CONTEXT[left:right], 4):
            if not answer["answer"]:
                empty.append(answer["score"])
            elif answer["score"] > best.get(answer["answer"].lower(), {"score": 0})["score"]:
                moved = {**answer, "start": answer["start"] + int(left), "end": answer["end"] + int(left)}
                best[answer["answer"].lower()] = moved
    expected = [*best.values(), {"score": min(empty), "start": 0, "end": 0, "answer": ""}]
    assert len(empty) > 3
    assert_alike(answers, sorted(expected, key=lambda answer: -answer["score"]))


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("question_segment", [0, 1])
def test_batches_change_nothing(padding_side, question_segment):
    answerer = make_pipeline(padding_side, question_segment=question_segment)
    examples = [
        {"question": QUESTION, "context": CONTEXT},
        {"question": "Where?", "context": "In Bath."},
        {"question": "What did Brian Aldiss say about her, if anything?", "context": CONTEXT[60:] + CONTEXT[:60]},
    ]
    one_by_one = [answerer(example, max_seq_len=30, **OPTIONS) for example in examples]
    assert len({answers[0]["answer"] for answers in one_by_one}) > 1
    for size in (2, 4, 50):
        together = answerer(examples, max_seq_len=30, batch_size=size, **OPTIONS)
        for answers, expected in zip(together, one_by_one, strict=True):
            assert_alike(answers, expected)


def test_the_side_of_the_padding_is_not_the_order_of_the_segments():
    assert_alike(
        make_pipeline("left")(question=QUESTION, context=CONTEXT, **OPTIONS),
        make_pipeline("right")(question=QUESTION, context=CONTEXT, **OPTIONS),
    )


def test_long_questions_are_cut_and_long_windows_are_the_default(answerer, caplog):
    question = "Who " * 70
    cut = answerer(question=question, context=CONTEXT, **OPTIONS)
    assert_alike(cut, answerer(question="Who " * 64, context=CONTEXT, **OPTIONS))
    assert "70 words was cut behind 64 (max_question_len)" in caplog.text
    assert cut != answerer(question=question, context=CONTEXT, max_question_len=100, **OPTIONS)
    windows = list(answerer.preprocess({"question": QUESTION, "context": "so " * 4000}))
    assert [window["input_ids"].shape[1] for window in windows][:2] == [2048, 2048]
    assert sum(len(window["window"].places) for window in windows) == 4000 + 128 * (len(windows) - 1)


# Forms of input


def test_all_forms_of_input_ask_the_same(answerer):
    class Rows(TorchDataset):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            return examples[number]

    other = "When?"
    one, two = answerer(question=[QUESTION, other], context=[CONTEXT, CONTEXT])
    assert one != two
    examples = [{"question": QUESTION, "context": CONTEXT, "id": "x"}, {"question": other, "context": CONTEXT}]
    example_object = SimpleNamespace(question_text=QUESTION, context_text=CONTEXT)
    for single in (
        answerer(question=QUESTION, context=CONTEXT),
        answerer(QUESTION, CONTEXT),
        answerer(examples[0]),
        answerer([examples[0]]),
        answerer(example_object),
        answerer(question=[QUESTION], context=CONTEXT),
    ):
        assert_alike(single, one)
    for several in (
        answerer(examples),
        answerer(*examples),
        answerer([example_object, examples[1]]),
        answerer(question=[QUESTION, other], context=CONTEXT),
        answerer({"question": [QUESTION, other], "context": CONTEXT}),
        answerer(Dataset.from_list([{"question": q, "context": CONTEXT} for q in (QUESTION, other)])),
        list(answerer(example for example in examples)),
        list(answerer(Rows())),
        list(answerer(iter_examples for iter_examples in [example_object, examples[1]])),
        answerer(examples, batch_size=2, align_to_words=False),
    ):
        assert_alike(several[0], one)
        assert_alike(several[1], two)
    one, two = answerer(question=QUESTION, context=[CONTEXT, "She."])
    assert one["answer"] in CONTEXT
    assert two["answer"] in "She."
    assert answerer([]) == []


@pytest.mark.parametrize(
    ("arguments", "keywords", "kind", "message"),
    [
        ((), {}, ValueError, "are needed"),
        ((), {"question": "Who?"}, ValueError, "are needed"),
        (({"question": "Who?"},), {}, KeyError, "no 'context'"),
        (({"question": "Who?", "context": None},), {}, ValueError, "context must be a string"),
        (({"question": "", "context": "He."},), {}, ValueError, "question must be a string with at least one word"),
        (({"question": "Who?", "context": " \n\t"},), {}, ValueError, "context must be a string with at least one"),
        (({"question": "\u3000\u2028", "context": "He."},), {}, ValueError, "question must be"),
        (("Who?",), {}, ValueError, "An example is a dictionary"),
        ((3,), {}, ValueError, "An example is a dictionary"),
        (("Who?", "He."), {"context": "She."}, ValueError, "not all of them"),
        ((), {"question": ["a", "b"], "context": ["c"]}, ValueError, "2 questions, but 1 contexts"),
        (("Who?", "He."), {"top_k": 0}, ValueError, "top_k must be at least 1"),
        (("Who?", "He."), {"max_answer_len": 0}, ValueError, "max_answer_len must be at least 1"),
        (("Who?", "He."), {"max_seq_len": 6}, ValueError, "max_seq_len to more than 6"),
        (("Who?", "He."), {"max_seq_len": 8, "doc_stride": 2}, ValueError, "doc_stride .2. must be less than the 2"),
        (("Who?", "He."), {"doc_stride": -1}, ValueError, "doc_stride must be at least 0"),
        (("Who?", "He."), {"topk": 2}, TypeError, "topk"),
    ],
)
def test_bad_input_is_refused(answerer, arguments, keywords, kind, message):
    with pytest.raises(kind, match=message):
        answerer(*arguments, **keywords)


def test_a_model_without_answers_is_refused():
    with pytest.raises(ValueError, match="ElmoModel does not answer questions"):
        pipeline("elmo-question-answering", model=ElmoModel(small_config()), tokenizer=ElmoTokenizer.create())


def test_a_model_whose_weights_are_not_numbers_gives_no_answers():
    answerer = make_pipeline()
    with torch.no_grad():
        answerer.model.fusion.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"scores are not finite \(NaN.*weights of the model"):
        answerer(question=QUESTION, context=CONTEXT)


def test_a_model_in_training_answers_without_chance():
    answerer = make_pipeline()
    model = answerer.model.train()
    again = pipeline("elmo-question-answering", model=model, tokenizer=answerer.tokenizer)
    answers = [again(question=QUESTION, context=CONTEXT, **OPTIONS) for _ in range(2)]
    assert answers[0] == answers[1]


# From folders


ELSEWHERE = """
import json, sys
from transformers import pipeline
answerer = pipeline("question-answering", model=sys.argv[1], trust_remote_code=True)
answers = answerer(**json.loads(sys.argv[2]), **json.loads(sys.argv[3]))
answerer.save_pretrained(sys.argv[4])
print(json.dumps([type(answerer.tokenizer).__name__, answers]))
"""


@pytest.mark.parametrize("copies", first_of([1, 2]))
def test_a_folder_answers_with_the_package_and_without_it(answerer, tmp_path, copies):
    folder, copy = tmp_path / "model", tmp_path / "copy"
    answerer.model.save_pretrained(folder)
    answerer.tokenizer.save_pretrained(folder)
    asked = {"question": QUESTION, "context": CONTEXT}
    expected = answerer(**asked, **OPTIONS)
    here = pipeline("elmo-question-answering", model=str(folder))
    assert isinstance(here, ElmoQuestionAnsweringPipeline)
    assert_alike(here(**asked, **OPTIONS), expected)

    for source, target in [(folder, copy), (copy, tmp_path / "copy of the copy")][:copies]:
        arguments = ["-c", ELSEWHERE, source, json.dumps(asked), json.dumps(OPTIONS), target]
        tokenizer, answers = json.loads(run_isolated(arguments, tmp_path).stdout.splitlines()[-1])
        assert tokenizer == "ElmoTokenizer"
        assert_alike(answers, expected)
    assert json.loads((copy / "config.json").read_text(encoding="utf-8"))["custom_pipelines"]["question-answering"][
        "impl"
    ] == ("question_answering_pipeline.ElmoQuestionAnsweringPipeline")
    here.save_pretrained(tmp_path / "from here")
    again = pipeline("elmo-question-answering", model=str(tmp_path / "from here"))
    assert_alike(again(**asked, **OPTIONS), expected)


# Learning


def squad_examples(shared_data, count):
    """The first questions of the training set, one per context, with contexts of at most 300 characters."""
    file = shared_data / "qa" / "squad_v1.1_train_partial" / "train-prefix.json"
    paragraphs = [p for article in json.loads(file.read_text(encoding="utf-8"))["data"] for p in article["paragraphs"]]
    short = [p for p in paragraphs if len(p["context"]) <= 300]
    for number, paragraph in enumerate(short[::2][:count]):
        question = paragraph["qas"][number % len(paragraph["qas"])]
        yield {"question": question["question"], "context": paragraph["context"], **question["answers"][0]}


@pytest.mark.slow
def test_a_handful_of_real_questions_is_learnt_by_heart(tiny_model_folder, shared_data, tmp_path):
    tokenizer = ElmoTokenizer.from_pretrained(tiny_model_folder)
    examples = list(squad_examples(shared_data, 8))
    # Two questions get the context of another: they have no answer.
    for one, other in ((0, 3), (5, 6)):
        examples[one] = {"question": examples[one]["question"], "context": examples[other]["context"], "text": ""}

    def features(example):
        encoded = tokenizer(example["question"], example["context"], return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")
        words = [place for place, kind in enumerate(encoded.sequence_ids()) if kind == 1]
        start, end = 0, 0
        if example["text"]:
            first = example["answer_start"]
            last = first + len(example["text"])
            (start,) = [place for place in words if offsets[place][0] == first]
            (end,) = [place for place in words if offsets[place][1] == last]
        return {**encoded, "start_positions": start, "end_positions": end}

    torch.manual_seed(0)
    fields = {"task_encoder_size": 32, "task_encoder_layers": 1, "task_dropout": 0.0, "representation_dropout": 0.0}
    model = ElmoForQuestionAnswering.from_pretrained(tiny_model_folder, initializer_range=0.1, **fields)
    frozen = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    arguments = TrainingArguments(
        output_dir=tmp_path,
        max_steps=100,
        learning_rate=0.01,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    collator = DataCollatorWithPadding(tokenizer)
    Trainer(model, arguments, train_dataset=list(map(features, examples)), data_collator=collator).train()
    assert all(torch.equal(value, frozen[name]) for name, value in model.named_parameters() if name in frozen)

    answerer = pipeline("elmo-question-answering", model=model, tokenizer=tokenizer)
    asked = [{"question": example["question"], "context": example["context"]} for example in examples]
    answers = answerer(asked, handle_impossible_answer=True, batch_size=3)
    assert [answer["answer"] for answer in answers] == [example["text"] for example in examples]
    starts = [example.get("answer_start", 0) for example in examples]
    assert [answer["start"] for answer in answers] == starts
    assert np.mean([answer["score"] for answer in answers]) > 0.3
