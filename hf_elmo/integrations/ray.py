"""Ray Data: a dataset with vectors, from a pool of actors each of which loads the model once.

Two settings of Ray are worth knowing, as variables before `ray.init`: `RAY_worker_niceness=0` (workers have a lower
priority otherwise) and `RAY_AUTH_MODE=disabled` (no token is written into the home folder).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..vectors.bulk.tables import with_vectors
from ..vectors.embedder import Embedder

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data


class EmbedBatch:
    """The class for `Dataset.map_batches`, with `batch_format="pyarrow"`: adds the columns of `with_vectors`.

    Args:
        text_column: The column with the texts, or lists of words.
        threads: Threads of each actor, for which Ray is told nothing: as many as the CPUs that it was asked for.
        options: Those of `Embedder`.
    """

    def __init__(self, text_column: str = "text", threads: int = 1, **options: Any):
        self._text_column, self._embedder = text_column, Embedder(threads=threads, **options)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return with_vectors(self._embedder, batch, self._text_column)


def embed(
    dataset: ray.data.Dataset,
    *,
    workers: int = 2,
    batch_rows: int = 256,
    num_gpus: float = 0,
    text_column: str = "text",
    embed_batch: type[EmbedBatch] = EmbedBatch,
    **options: Any,
) -> ray.data.Dataset:
    """A Ray dataset with further columns `words` and `vectors`, or `vector`.

    Rows of an actor that dies are embedded by another one. Ray stalls where actors hold all of its CPUs and tasks
    before them want one, so one is left free here. For work of equal pieces read with `override_num_blocks` rather
    than `repartition`.

    Args:
        dataset: Its rows have a text, or lists of words.
        workers: Number of actors, each with one CPU.
        batch_rows: Rows that an actor is given at once.
        num_gpus: GPUs, or the share of one, of each actor.
        text_column: The column with the texts.
        embed_batch: The class of actors.
        options: Those of `Embedder`.

    Raises:
        ValueError: if Ray has no CPU left beside the workers.

    Examples:
        ```python
        import ray
        from hf_elmo.integrations.ray import embed

        ray.init(num_cpus=3)
        texts = ray.data.read_text("corpus.txt", override_num_blocks=8)
        embed(texts, workers=2, dtype="float16").write_parquet("vectors")
        ```
    """
    import ray
    from ray.data import ActorPoolStrategy

    if not ray.is_initialized():
        ray.init()
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers < 1 or workers >= cpus:
        raise ValueError(
            f"{workers} workers were asked for, but Ray has {cpus} CPUs, one of which must stay free for its tasks: "
            f"ask for 1 to {cpus - 1}, or start Ray with more (ray.init(num_cpus=...))."
        )
    return dataset.map_batches(
        embed_batch,
        fn_constructor_kwargs={"text_column": text_column, **options},
        batch_format="pyarrow",
        batch_size=batch_rows,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=num_gpus,
    )
