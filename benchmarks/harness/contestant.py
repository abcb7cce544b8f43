"""One program of a comparison, in a process of its own: reads requests, a JSON object on a line each, and answers them.

    PYTHON contestant.py NAME [--threads N]

PYTHON is that of the environment in which the program is installed, so nothing of hf_elmo is imported here but for
hf_elmo itself. Every program gets words that are split already, as lists of strings, and gives all three layers of each
word as numpy arrays or tensors; reading files and storing results is not timed.

Each sentence begins with a fresh LSTM state everywhere. The others carry it from batch to batch, so it is put back
before each batch, which costs them nothing that could be measured.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import json
import os
import resource
import sys
import time
import traceback
from itertools import chain
from unittest.mock import MagicMock


class Contestant:
    """What every program of the comparison does; `words` are sentences as lists of words throughout.

    Attributes:
        distributions: Packages whose versions are recorded.
    """

    distributions: tuple[str, ...] = ()

    def __init__(self, threads: int):
        self.threads = threads
        self.import_all()

    def lacking(self) -> Exception:
        """What to raise for a task that the program, or this comparison of it, has not."""
        return Unavailable(f"not compared: {type(self).__name__}")

    def import_all(self) -> None:
        """Imports whatever the program needs, so that loading a model is that alone."""
        raise self.lacking()

    def load(self, folder: str, kind: str, trained: bool) -> None:
        """Loads the model of a folder (see `material.py`): `kind` is `fp32`, `bf16` or `int8`."""
        raise self.lacking()

    def read(self, words: list[list[str]]):
        """All layers of one batch, as the program gives them."""
        raise self.lacking()

    def read_corpus(self, words: list[list[str]], batch: int):
        """All layers of many sentences, in batches of about this many of similar length: yields number and array."""
        raise self.lacking()

    def sentences_of(self, output, words) -> list:
        """What `read` gave as an array ``(layers, words, dim)`` for each sentence, boundaries left out."""
        raise self.lacking()

    def train_step(self, words: list[list[str]]):
        """Forward and backward pass of the biLM, with the gradients of all of its parameters."""
        raise self.lacking()

    def character_gradient(self):
        """The gradient of the character embedding after `train_step`: what has come through all layers."""
        raise self.lacking()

    def character_rows(self, words: list[list[str]]):
        """The rows of characters of all words."""
        raise self.lacking()

    def tokenize(self, words: list[list[str]]):
        """All that the model reads, as tensors."""
        raise self.lacking()


class HfElmo(Contestant):
    """hf_elmo by its public interface."""

    distributions = ("hf_elmo", "torch", "transformers", "tokenizers", "numpy", "safetensors")

    def import_all(self) -> None:
        import torch
        import transformers
        from transformers import AutoModel, AutoTokenizer

        import hf_elmo.vectors.embedding
        from hf_elmo import ElmoModel, ElmoTokenizer  # noqa: F401  (whatever is imported late is imported now)
        from hf_elmo.model.tokenization_elmo import character_rows

        torch.set_num_threads(self.threads)
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.torch, self.auto_model, self.auto_tokenizer = torch, AutoModel, AutoTokenizer
        self.embed_sentences, self.rows = hf_elmo.vectors.embedding.embed_sentences, character_rows

    def load(self, folder: str, kind: str, trained: bool) -> None:
        if kind == "int8":
            self.model = load_int8(os.path.join(folder, "fp32"))
        else:
            dtype = self.torch.bfloat16 if kind == "bf16" else self.torch.float32
            options = {"dropout": 0.0, "representation_dropout": 0.0} if trained else {}
            self.model = self.auto_model.from_pretrained(os.path.join(folder, kind), dtype=dtype, **options)
        self.model.train(trained)
        self.tokenizer = self.auto_tokenizer.from_pretrained(os.path.join(folder, "fp32"))

    def read(self, words):
        with self.torch.inference_mode():
            return self.model(**self.tokenize(words), output_hidden_states=True).hidden_states

    def sentences_of(self, output, words):
        layers = self.torch.stack(output).float().numpy()
        return [layers[:, row, 1 : len(sentence) + 1] for row, sentence in enumerate(words)]

    def read_corpus(self, words, batch):
        # The words of a batch of this many sentences of mean length.
        batch_words = round(batch * sum(len(sentence) + 2 for sentence in words) / len(words))
        embedded = self.embed_sentences(self.model, self.tokenizer, words, layers="all", batch_words=batch_words)
        for number, result in enumerate(embedded):
            yield number, result.vectors

    def train_step(self, words):
        self.model.zero_grad(set_to_none=True)
        layers = self.model(**self.tokenize(words), output_hidden_states=True).hidden_states
        sum(layer.square().mean() for layer in layers).backward()

    def character_gradient(self):
        return self.model.character_encoder.char_embedding.weight.grad[1:].numpy()

    def character_rows(self, words):
        return self.rows(list(chain.from_iterable(words)))[0]

    def tokenize(self, words):
        return self.tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")


def load_int8(folder: str):
    """hf_elmo's model in int8, by its documented one-liner."""
    from transformers import AutoModel

    import hf_elmo

    return hf_elmo.quantize(AutoModel.from_pretrained(folder))


class AllenNlp(Contestant):
    """AllenNLP 2.10.1: `_ElmoBiLm`, which is what its `Elmo` and `ElmoEmbedder` run, without a mix."""

    distributions = ("allennlp", "torch", "numpy", "h5py")

    def import_all(self) -> None:
        hide_torchvision()
        import torch
        from allennlp.modules.elmo import _ElmoBiLm, batch_to_ids

        torch.set_num_threads(self.threads)
        self.torch, self.bilm, self.batch_to_ids = torch, _ElmoBiLm, batch_to_ids

    def load(self, folder: str, kind: str, trained: bool) -> None:
        if kind != "fp32":
            raise Unavailable(f"AllenNLP has no {kind}")
        files = (os.path.join(folder, "hdf5", name) for name in ("options.json", "weights.hdf5"))
        self.model = self.bilm(*files, requires_grad=trained)
        self.model.train(trained)

    def read(self, words):
        self.model._elmo_lstm.reset_states()
        with self.torch.inference_mode():
            return self.model(self.batch_to_ids(words))["activations"]

    def sentences_of(self, output, words):
        layers = self.torch.stack(output).numpy()
        return [layers[:, row, 1 : len(sentence) + 1] for row, sentence in enumerate(words)]

    def read_corpus(self, words, batch):
        return _sorted_by_length(self, words, batch)

    def train_step(self, words):
        self.model._elmo_lstm.reset_states()
        self.model.zero_grad(set_to_none=True)
        layers = self.model(self.batch_to_ids(words))["activations"]
        sum(layer.square().mean() for layer in layers).backward()

    def character_gradient(self):
        return self.model._token_embedder._char_embedding_weights.grad[1:].numpy()

    def character_rows(self, words):
        return self.batch_to_ids(words)

    def tokenize(self, words):
        return self.batch_to_ids(words)


class SimpleElmo(Contestant):
    """simple_elmo 0.9.2 on TensorFlow. One session is kept, and its warm-up is off: both favour it."""

    distributions = ("simple_elmo", "tensorflow_cpu", "tf_keras", "numpy")

    def import_all(self) -> None:
        # Its LSTM is one of Keras 2.
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import logging

        import tensorflow
        from simple_elmo import ElmoModel
        from simple_elmo.elmo import weight_layers

        # It sets up logging of its own, of every batch.
        logging.basicConfig(level=logging.ERROR)
        self.tf, self.elmo, self.weight_layers = tensorflow.compat.v1, ElmoModel, weight_layers

    def load(self, folder: str, kind: str, trained: bool) -> None:
        if kind != "fp32" or trained:
            raise Unavailable("simple_elmo reads in fp32 only")
        self.tf.reset_default_graph()
        self.model = self.elmo()
        self.model.load(os.path.join(folder, "hdf5"), max_batch_size=128)
        configuration = self.tf.ConfigProto(
            intra_op_parallelism_threads=self.threads, inter_op_parallelism_threads=self.threads
        )
        self.session = self.tf.Session(config=configuration)
        self.model.elmo_sentence_input = self.weight_layers(
            "input", self.model.sentence_embeddings_op, use_layers="all"
        )
        self.session.run(self.tf.global_variables_initializer())
        # The states have no names of their own.
        states = [variable for variable in self.tf.global_variables() if "/Variable" in variable.op.name]
        self.reset = self.tf.group(*(variable.initializer for variable in states))

    def read(self, words):
        self.session.run(self.reset)
        self.model.batch_size = len(words)
        return self.model.get_elmo_vectors(words, warmup=False, layers="all", session=self.session)

    def sentences_of(self, output, words):
        return [layers[:, : len(sentence)] for layers, sentence in zip(output, words)]

    def read_corpus(self, words, batch):
        return _sorted_by_length(self, words, batch)


class FastElmo(Contestant):
    """pytorch-fast-elmo 0.6.12 without a mix. It feeds `<S>` and `</S>` itself, and gives the words alone."""

    distributions = ("pytorch_fast_elmo", "pytorch_stateful_lstm", "torch", "numpy", "h5py")

    def import_all(self) -> None:
        import torch
        from pytorch_fast_elmo import FastElmoPlainEncoder, batch_to_char_ids

        torch.set_num_threads(self.threads)
        self.torch, self.encoder, self.batch_to_char_ids = torch, FastElmoPlainEncoder, batch_to_char_ids

    def load(self, folder: str, kind: str, trained: bool) -> None:
        if kind != "fp32" or trained:
            raise Unavailable("pytorch-fast-elmo reads in fp32 only")
        self.model = self.encoder(*(os.path.join(folder, "hdf5", name) for name in ("options.json", "weights.hdf5")))

    def read(self, words):
        for lstm in (self.model.forward_lstm, self.model.backward_lstm):
            lstm.reset_states()
        with self.torch.inference_mode():
            layers, _ = self.model(self.batch_to_char_ids(words))
        return layers

    def sentences_of(self, output, words):
        layers = self.torch.stack(output).numpy()
        return [layers[:, row, : len(sentence)] for row, sentence in enumerate(words)]

    def read_corpus(self, words, batch):
        return _sorted_by_length(self, words, batch)

    def character_rows(self, words):
        return self.batch_to_char_ids(words)

    def tokenize(self, words):
        return self.batch_to_char_ids(words)


CONTESTANTS = {"hf_elmo": HfElmo, "allennlp": AllenNlp, "simple_elmo": SimpleElmo, "fast_elmo": FastElmo}


class Unavailable(Exception):
    """The program has no such thing."""


class _Absent:
    """Stands in for packages that AllenNLP imports for pictures."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


def hide_torchvision() -> None:
    """Puts an empty torchvision where AllenNLP looks for one."""
    sys.meta_path.insert(0, _Absent())


def _sorted_by_length(contestant: Contestant, words: list[list[str]], batch: int):
    """Reads sentences, the longest first, `batch` at once: yields number and array."""
    order = sorted(range(len(words)), key=lambda number: -len(words[number]))
    for begin in range(0, len(order), batch):
        numbers = order[begin : begin + batch]
        sentences = [words[number] for number in numbers]
        yield from zip(numbers, contestant.sentences_of(contestant.read(sentences), sentences))


def memory() -> dict[str, float]:
    """Memory of this process in MB: the most there was (`peak`), and where the system tells, what there is now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        return {"peak": peak}
    names = {"rss": "VmRSS", "anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    # ru_maxrss would count what the parent had before this program began.
    return {name: int(lines[key].split()[0]) / 2**10 for name, key in names.items() if key in lines}


#: The methods of tasks that give no vectors.
DOES = {"train": "train_step", "rows": "character_rows", "tokenize": "tokenize"}


class Server:
    """Answers requests; the method's name is the request's `do`."""

    def __init__(self, name: str, threads: int):
        begin = time.perf_counter()
        self.contestant = CONTESTANTS[name](threads)
        self.import_seconds = time.perf_counter() - begin
        self.after_imports = memory()

    def hello(self) -> dict:
        """Versions, and what the imports took."""
        versions = {}
        for name in self.contestant.distributions:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = None
        return {
            "versions": {"python": sys.version.split()[0], **versions},
            "import_seconds": self.import_seconds,
            "memory": self.after_imports,
        }

    def load(self, folder: str, kind: str, trained: bool = False) -> dict:
        begin = time.perf_counter()
        self.contestant.load(folder, kind, trained)
        return {"seconds": time.perf_counter() - begin, "memory": memory()}

    def work(
        self, task: str, words: list[list[str]], batch: int, keep: str | None = None, before: list | None = None
    ) -> dict:
        """Does a task once: the seconds that it took. Results go into the file `keep`, afterwards.

        Args:
            task: `batch` (this many sentences at once), `corpus`, `train`, `rows` or `tokenize`.
            words: The sentences.
            batch: How many of them at once.
            keep: An .npy file.
            before: Sentences to do the same with before the clock starts, for half a second at least.
        """
        contestant, results = self.contestant, []
        batches = [words[begin : begin + batch] for begin in range(0, len(words), batch)]
        end = time.perf_counter() + 0.5
        while before:
            getattr(contestant, DOES.get(task, "read"))(before)
            if time.perf_counter() >= end:
                break
        before_usage = resource.getrusage(resource.RUSAGE_SELF)
        begin = time.perf_counter()
        if task == "batch":
            results = [contestant.read(sentences) for sentences in batches]
        elif task == "corpus":
            for result in contestant.read_corpus(words, batch):
                # A program that reads a corpus uses or stores a sentence, then forgets it.
                if keep is not None:
                    results.append(result)
        else:
            for sentences in batches:
                results = getattr(contestant, DOES[task])(sentences)
        seconds = time.perf_counter() - begin
        usage, after = resource.getrusage(resource.RUSAGE_SELF), memory()
        system = {"seconds": usage.ru_stime - before_usage.ru_stime, "faults": usage.ru_minflt - before_usage.ru_minflt}
        if keep is not None:
            self._keep(keep, task, batches, results)
        return {"seconds": seconds, "memory": after, "system": system}

    def _keep(self, path: str, task: str, batches: list, results: list) -> None:
        import numpy as np

        if task == "train":
            np.save(path, self.contestant.character_gradient())
            return
        if task == "batch":
            pairs = zip(results, batches)
            sentences = list(chain.from_iterable(self.contestant.sentences_of(*pair) for pair in pairs))
        else:
            sentences = [layers for _, layers in sorted(results, key=lambda result: result[0])]
        np.save(path, np.concatenate(sentences, axis=1).astype(np.float32))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(CONTESTANTS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--check", action="store_true", help="import everything, and end")
    options = parser.parse_args(arguments)
    # The scripts beside this one must not be found as modules.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    # Answers go where no library prints.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server(options.name, options.threads)
    if options.check:
        print(json.dumps(server.hello()["versions"]), file=answers, flush=True)
        return
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("do"))(**request)
        except Unavailable as reason:
            answer = {"unavailable": str(reason)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
