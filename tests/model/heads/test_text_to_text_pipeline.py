"""The pipelines that write."""

import pytest
from small_translator import SOURCES, save_translator, small_decoder, small_translator, target_tokenizer, two_tokenizers
from transformers import pipeline

from hf_elmo import ElmoEncoderDecoderTokenizer, ElmoTextToTextPipeline, ElmoTokenizer

TASKS = {"elmo-translation": "translation_text", "elmo-summarization": "summary_text"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_translator(tmp_path_factory.mktemp("translator")))


@pytest.fixture(scope="module")
def translate(folder):
    return pipeline("elmo-translation", model=folder, max_new_tokens=8)


@pytest.mark.parametrize("task", TASKS)
def test_what_it_writes_is_what_generate_writes(task, folder):
    pipe = pipeline(task, model=folder)
    assert type(pipe) is ElmoTextToTextPipeline
    tokenizer = two_tokenizers()
    for text in SOURCES[:2]:
        written = small_translator().generate(**tokenizer(text, return_tensors="pt"), num_beams=3, max_new_tokens=8)
        expected = tokenizer.decode(written[0], skip_special_tokens=True).strip()
        assert pipe(text, num_beams=3, max_new_tokens=8) == [{TASKS[task]: expected}]


def test_one_text_or_many(translate):
    alone = [translate(text) for text in SOURCES]
    assert len({result[0]["translation_text"] for result in alone}) > 1
    for size in (1, 3):
        assert translate(SOURCES, batch_size=size) == [result[0] for result in alone]
    assert translate(SOURCES[:1]) == alone[0]
    assert list(translate(text for text in SOURCES)) == alone
    assert translate([]) == []


def test_several_texts_for_each(translate):
    several = translate(SOURCES[:2], num_beams=3, num_return_sequences=3, batch_size=2)
    assert [len(each) for each in several] == [3, 3]
    assert several[0] == translate(SOURCES[0], num_beams=3, num_return_sequences=3)
    assert several[0][0] == translate(SOURCES[0], num_beams=3)[0]


def test_sources_are_cut_on_request(translate):
    # <S>, a word and </S>.
    assert translate(SOURCES[1], truncation=True, max_source_length=3) == translate(SOURCES[1].split()[0])


def test_bad_sources_and_options(translate):
    with pytest.raises(ValueError, match="has no words"):
        translate(" ")
    with pytest.raises(TypeError, match=r"A source must be a text \(str\), was: int"):
        translate([SOURCES[0], 3])
    with pytest.raises(TypeError, match="options of this pipeline have names"):
        translate(SOURCES[0], 4)
    with pytest.raises(ValueError, match="number_of_beams"):
        translate(SOURCES[0], number_of_beams=4)
    with pytest.raises(ValueError, match="decoder has positions for 48"):
        translate(SOURCES[0], max_new_tokens=100)


def test_bad_parts():
    model = small_translator()
    with pytest.raises(ValueError, match=r"needs an ElmoEncoderDecoderTokenizer.*was: TokenizersBackend"):
        pipeline("elmo-translation", model=model, tokenizer=target_tokenizer())
    with pytest.raises(ValueError, match="GPT2LMHeadModel does not write texts"):
        pipeline("elmo-translation", model=small_decoder(), tokenizer=two_tokenizers())
    with pytest.raises(ValueError, match="has 300 tokens, but the decoder's vocabulary has 200"):
        pipeline("elmo-translation", model=small_translator(vocab_size=200), tokenizer=two_tokenizers())
    model.generation_config.eos_token_id = 5
    with pytest.raises(ValueError, match=r"ends a text with the id 3 \(</S>\), but the model with \[5\]"):
        pipeline("elmo-translation", model=model, tokenizer=two_tokenizers())
    target = target_tokenizer()
    target.add_tokens(["new"])
    grown = ElmoEncoderDecoderTokenizer(ElmoTokenizer.create(), target)
    with pytest.raises(ValueError, match="has 301 tokens"):
        pipeline("elmo-translation", model=small_translator(), tokenizer=grown)
