"""Ray Data and Spark on one machine, two workers each, one of which is killed; .ci/engines runs this."""

import os
import shutil
import sys
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import HELPERS

from hf_elmo import Embedder
from hf_elmo.vectors.bulk.tables import with_fixed_sizes, with_vectors

TEXTS = [f"I read book {number} ." if number % 5 else "" for number in range(40)]
TEXTS[17] = "fatal words"
TABLE = pa.table({"id": range(len(TEXTS)), "text": TEXTS})

# Dear, and not in the extra test: engines start processes that import torch.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")]


def check(table, embedder, ids="id"):
    """Every row once, with the vectors of one process."""
    expected = with_vectors(embedder, TABLE)
    table = with_fixed_sizes(table, embedder.dim).sort_by(ids)
    assert table[ids].to_pylist() == expected["id"].to_pylist()
    assert table["words"].to_pylist() == expected["words"].to_pylist()
    assert table.schema.field("vectors").type == expected.schema.field("vectors").type
    for ours, theirs in zip(table["vectors"].to_pylist(), expected["vectors"].to_pylist(), strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-5)


def died(marker):
    """Whether the process of the marker is no more: gone, or not yet buried by its parent."""
    number = int(marker.read_text(encoding="utf-8"))
    for _ in range(100):
        if not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def start_ray(ray, attempts=5):
    """Ray gives its processes 30 seconds to start, which a machine with other work may not keep."""
    for attempt in range(attempts):
        try:
            ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
            return
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == attempts - 1:
                raise
            ray.shutdown()


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    variables = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(HELPERS))
        start_ray(ray)
        yield ray
        ray.shutdown()


def test_ray_with_an_actor_killed(ray, tmp_path, tiny_model_folder):
    import ray.data
    from dying_workers import DyingBatch

    from hf_elmo.integrations.ray import embed

    marker = tmp_path / "died"
    blocks = [TABLE.slice(start, 5) for start in range(0, len(TABLE), 5)]
    rows = embed(
        ray.data.from_arrow(blocks), workers=2, batch_rows=5, model=str(tiny_model_folder), embed_batch=DyingBatch,
        marker=str(marker),
    )  # fmt: skip
    rows.write_parquet(str(tmp_path / "out"))
    assert died(marker)
    check(pq.read_table(tmp_path / "out"), Embedder(tiny_model_folder))


def test_ray_keeps_a_cpu_for_itself(ray):
    import ray.data

    from hf_elmo.integrations.ray import embed

    with pytest.raises(ValueError, match="3 workers were asked for, but Ray has 3 CPUs, one of which must stay free"):
        embed(ray.data.from_arrow(TABLE), workers=3)


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    sql = pytest.importorskip("pyspark.sql", reason="needs the extra spark")
    if shutil.which("java") is None:
        pytest.skip("needs a Java runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        # A task is tried again when its worker dies, which local mode does not do unless it is told.
        builder = sql.SparkSession.builder.master("local[2, 4]").config("spark.ui.enabled", "false")
        builder = builder.config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("spark")))
        session = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
        session = session.getOrCreate()
        session.sparkContext.setLogLevel("OFF")
        yield session
        session.stop()


def test_spark_with_a_worker_killed(spark, tmp_path, tiny_model_folder):
    from dying_workers import DyingPartition

    from hf_elmo.integrations.spark import embed, schema

    marker, embedder = tmp_path / "died", Embedder(tiny_model_folder, threads=1)
    frame = spark.createDataFrame(TABLE.to_pandas()).repartition(4)
    frame.mapInPandas(DyingPartition(embedder, str(marker)), schema(frame, embedder)).write.parquet(
        str(tmp_path / "out")
    )
    assert died(marker)
    check(pq.read_table(tmp_path / "out"), embedder)
    # And all layers, pooled, as a user calls it.
    pooled = Embedder(tiny_model_folder, layers="all", pooling="max", threads=1)
    found = {row.id: row.vector for row in embed(frame.limit(3), pooled).collect()}
    for number, vector in found.items():
        expected = with_vectors(pooled, TABLE.slice(number, 1))["vector"][0].as_py()
        if vector is None:
            assert expected is None
        else:
            np.testing.assert_allclose(vector, expected, atol=1e-5)
    with pytest.raises(ValueError, match="Spark has no float16"):
        embed(frame, Embedder(tiny_model_folder, dtype="float16"))
