# %% [markdown]
# # The read example
#
# *Read* is one spelling and several words. In "I **read** the book yesterday" it is past tense and rhymes with *red*;
# in "can you **read** the letter now" it rhymes with *reed*; and "a good **read**" is a noun. A table of word vectors,
# such as GloVe's, has one row for all of them. ELMo ([Peters et al. 2018](https://arxiv.org/abs/1802.05365)) gives each
# occurrence a vector of its own, made from the whole sentence.
#
# This page follows the word through the model: from characters, through three layers, to the mix that a task learns.
# Everything here is run, with the small model that comes with the package, when the page is built.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

import hf_elmo
from hf_elmo.explore.plot import plot_senses, plot_similarity
from hf_elmo.explore.word_comparison import similarities
from hf_elmo.vectors.embedding import embed_sentences

plt.rcParams.update({"figure.dpi": 110, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
logging.disable_progress_bar()
tokenizer = AutoTokenizer.from_pretrained(hf_elmo.bundled())
model = AutoModel.from_pretrained(hf_elmo.bundled()).eval()
print(f"{model.num_parameters():,} parameters; vectors of {model.config.hidden_size} numbers")

# %% [markdown]
# ## From characters
#
# The model never sees "read". It sees a row of 50 integers: a mark for the begin of a word, the word's UTF-8 bytes
# (each one up, because 0 is padding), a mark for its end, and filling.

# %%
encoded = tokenizer(["I", "read"], is_split_into_words=True, return_tensors="pt")
print("words      ", tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]))
print("shape      ", tuple(encoded["character_ids"].shape), "(sentences, words, characters)")
print("row of read", encoded["character_ids"][0, 2, :9].tolist(), "...")

# %% [markdown]
# So no word is unknown. Whatever can be typed has a row, and a vector.
#
# ## What the character CNN sees
#
# Each character becomes a small vector, and filters of one to five characters slide over the word. Of each filter only
# its highest value is kept, wherever in the word that was. Which part of the word do the filters pick? Below, for each
# width, the number of filters whose highest value is at the window that *begins* at a character.


# %%
def winners(word):
    """How many filters of each width have their maximum at each window of a word: (widths, characters)."""
    inputs = tokenizer([word], is_split_into_words=True, add_special_tokens=False, return_tensors="pt")
    encoder = model.character_encoder
    with torch.no_grad():
        characters = encoder.char_embedding(inputs["character_ids"][0]).transpose(1, 2)
        best = [convolution(characters)[0].argmax(dim=-1) for convolution in encoder.convolutions]
    length = len(word.encode()) + 2
    return np.stack([np.bincount(places.clamp(max=length), minlength=length + 1) for places in best])


words = ["read", "reading", "unreadable"]
figure, axes = plt.subplots(1, len(words), figsize=(9, 2.4), width_ratios=[len(word) + 3 for word in words])
widths = [width for width, _ in model.config.filters]
for axis, word in zip(axes, words):
    counts = winners(word)
    axis.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues", aspect="auto", vmin=0)
    axis.set_xticks(range(counts.shape[1]), ["‹", *word, "›", "…"])
    axis.set_yticks(range(len(widths)), widths)
    for (y, x), count in np.ndenumerate(counts):
        if count:
            dark = count > 0.5 * counts[y].max()
            axis.text(x, y, count, ha="center", va="center", fontsize=6, color="white" if dark else "black")
axes[0].set_ylabel("width of filters")
figure.suptitle("Where filters find their maximum (‹ and › are the ends of the word, … the filling)")
figure.tight_layout()

# %% [markdown]
# A highway layer and a projection make one vector of the maxima. That vector knows the spelling, and what
# spelling says about meaning; it does not know the sentence. Cosines between such vectors, with two slips of the
# pen, and two words that nobody has used before:

# %%
words = ["read", "reads", "reader", "raed", "written", "wrote", "wrtoe", "London", "Paris", "glorping", "glorped"]
similar = similarities(model, tokenizer, words, words).layers[0]
# A typing error is nearer to the word than a word of another spelling is.
assert similar[words.index("wrote"), words.index("wrtoe")] > similar[words.index("wrote"), words.index("London")]
plot_similarity(model, tokenizer, words, words, layers=0, title="Without context: cosines of spelling")

# %% [markdown]
# ## The three layers
#
# Two LSTMs read the sentence, one from left to right and one from right to left, two layers of each; both were trained
# to predict the next word. So a word has three vectors: one without context, one of the first layer, one of the second.
# Here is *read* in 32 sentences, eight for each use: past, present, infinitive and noun.

# %%
path = next(
    folder / "benchmarks" / "quality" / "read_senses.tsv"
    for folder in [Path.cwd(), *Path.cwd().parents]
    if (folder / "benchmarks" / "quality" / "read_senses.tsv").exists()
)
rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
senses = np.array([sense for sense, _ in rows])
sentences = [text.split() for _, text in rows]
for sense in dict.fromkeys(senses):
    print(f"{sense:>10}: {' '.join(sentences[list(senses).index(sense)])}")

embedded = embed_sentences(model, tokenizer, sentences, layers="all")
read = np.stack([sentence.vectors[:, sentence.words.index("read")] for sentence in embedded], axis=1)
print("\nvectors of read:", read.shape, "(layers, sentences, dim)")
assert np.allclose(read[0], read[0, 0])  # without context there is one "read"

# %% [markdown]
# The layer without context (layer 0) has only one *read*. For the others, a plane through the cloud of vectors in which
# they are spread most (principal components):

# %%
plot_senses(model, tokenizer, sentences, "read", senses, layers=[0, 1, 2])

# %% [markdown]
# How often is the nearest neighbour of the same use?


# %%
def cosines(a, b):
    """Cosines between the rows of two matrices."""
    a, b = (matrix / np.linalg.norm(matrix, axis=-1, keepdims=True) for matrix in (a, b))
    return a @ b.T


def nearest_agree(vectors):
    """The share of sentences whose nearest neighbour (by cosine) has the same use."""
    similarity = cosines(vectors, vectors)
    np.fill_diagonal(similarity, -np.inf)
    return (senses[similarity.argmax(axis=1)] == senses).mean()


names = ["without context", "first biLSTM layer", "second biLSTM layer"]
agree = [nearest_agree(vectors) for vectors in read[1:]]
for name, share in zip(names[1:], agree):
    print(f"{name}: the nearest neighbour is of the same use in {share:.0%} of the sentences (by chance: {7 / 31:.0%})")
assert min(agree) > 2 * 7 / 31

# %% [markdown]
# Nobody told the model about tenses: to predict the words around, it had to find out. (Eight sentences for each use
# show what can be seen; they measure nothing. `benchmarks/quality/senses.py` measures.)
#
# ## Two sentences, word by word
#
# How alike are the words of two sentences, layer by layer? Look at the crossing of *read* and *read*, 1 in layer 0.

# %%
pair = [["I", "read", "the", "book", "yesterday", "."], ["Can", "you", "read", "the", "letter", "now", "?"]]
crossing = similarities(model, tokenizer, *pair).layers[:, 1, 2]
print("read and read:", ", ".join(f"{value:.3f}" for value in crossing))
assert crossing[0] > 0.999 > max(crossing[1:])
plot_similarity(model, tokenizer, *pair)

# %% [markdown]
# ## The mix that a task learns
#
# Which layer is best? That depends on the task, so ELMo lets the task say: its representation is a weighted sum,
# `gamma * (s0 * layer0 + s1 * layer1 + s2 * layer2)`, where the weights `s` are a softmax of three learned numbers.
# Let the task be to tell the four uses of *read* from one another, with nothing but a mix and a linear layer:

# %%
torch.manual_seed(0)
layers = [torch.from_numpy(vectors).unsqueeze(0) for vectors in read]
labels = torch.from_numpy(np.unique(senses, return_inverse=True)[1])
mix = hf_elmo.model.modeling_elmo.ScalarMix(len(layers))
linear = torch.nn.Linear(model.config.hidden_size, 4)
optimizer = torch.optim.Adam([*mix.parameters(), *linear.parameters()], lr=0.02, weight_decay=1e-3)
shares, losses = [], []
for _ in range(150):
    loss = torch.nn.functional.cross_entropy(linear(mix(layers)[0]), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    shares.append(mix.weights.detach().softmax(dim=0).numpy())

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6))
axes[0].plot(losses)
axes[0].set(xlabel="step", ylabel="loss")
axes[1].stackplot(range(len(shares)), np.transpose(shares), labels=names, alpha=0.85)
axes[1].set(xlabel="step", ylabel="share of the mix", ylim=(0, 1))
axes[1].legend(fontsize=7, loc="lower left")
figure.tight_layout()
print({name: round(float(share), 2) for name, share in zip(names, shares[-1])}, "gamma", round(mix.gamma.item(), 2))
# The layer without context cannot help here, and loses.
assert shares[-1][0] < 1 / 3
assert losses[-1] < 0.5 * losses[0]

# %% [markdown]
# In a model of your own the mixes are `model.base_model.scalar_mixes`, trained along with the task's head.
#
# ## Other spellings, other alphabets
#
# The vocabulary is open in every layer. Spell the word wrong, and the sentence still says what it must be:

# %%
spellings = ["read", "raed", "reaad", "READ", "zebra"]
variants = [["Yesterday", "I", spelling, "the", "whole", "book", "."] for spelling in spellings]
vectors = [sentence.vectors[:, 2] for sentence in embed_sentences(model, tokenizer, variants, layers="all")]
likeness = np.array([[cosines(v[None, layer], vectors[0][None, layer])[0, 0] for layer in range(3)] for v in vectors])
figure, axis = plt.subplots(figsize=(6, 2.6))
for number, name in enumerate(names):
    axis.bar(np.arange(1, len(spellings)) + 0.25 * (number - 1), likeness[1:, number], width=0.25, label=name)
axis.set_xticks(range(1, len(spellings)), spellings[1:])
axis.axhline(0, color="black", linewidth=0.6)
axis.set(ylabel="cosine with read", title="Yesterday I ____ the whole book .")
axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
figure.tight_layout()
# In the second layer both slips of the pen are nearer to the word than without context.
assert (likeness[1:3, 2] > likeness[1:3, 0]).all()

# %% [markdown]
# Capitals, though, are other bytes, which no table says belong to the same letters: to a small model READ is far away.
#
# ## The state
#
# An LSTM carries a state from word to word. Here it begins with zeros in every sentence, so that a sentence's vectors
# depend on that sentence alone. The original programs carried it from batch to batch. Both are one argument away, and
# reading a text in two parts gives what reading it at once gives, if the state is passed on:

# %%
text = ["I", "read", "the", "book", "yesterday", "and", "liked", "it", "."]


def forward_half(words, state=None):
    """The second layer's forward half, and the state behind the words."""
    inputs = tokenizer(words, is_split_into_words=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, state=state, return_state=True, output_hidden_states=True)
    return output.hidden_states[2][0, :, : model.config.projection_dim], output.state


whole, _ = forward_half(text)
first, state = forward_half(text[:5])
carried, _ = forward_half(text[5:], state)
afresh, _ = forward_half(text[5:])
for name, second in (("carried on", carried), ("begun afresh", afresh)):
    difference = (torch.cat([first, second]) - whole).abs().amax(dim=1)
    print(f"state {name:>12}:", " ".join(f"{word}={value:.1g}" for word, value in zip(text, difference)))
assert torch.allclose(torch.cat([first, carried]), whole, atol=1e-5)
assert not torch.allclose(torch.cat([first, afresh]), whole, atol=1e-2)

# %% [markdown]
# (Only the forward direction: the backward one reads from the end, which the first part cannot know.)
#
# From here: [the models](reference/models.md), [task heads](reference/heads.md), and the
# [language model](reference/language_models.md) that all of this was learned by.
