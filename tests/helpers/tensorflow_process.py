"""Another Python that has TensorFlow: writes checkpoints as bilm-tf's training does, and reads them for this one.

As a program it reads requests from its standard input, a JSON object per line, and answers each with one. As a module
it is the other end. TensorFlow and torch in one environment are often not to be had, and need not be.
"""

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np

PYTHON = "HF_ELMO_TENSORFLOW_PYTHON"


def find_python():
    """A Python that has TensorFlow; None if there is none."""
    return os.environ.get(PYTHON) or (sys.executable if importlib.util.find_spec("tensorflow") else None)


class TensorFlowProcess:
    """The other process.

    Args:
        python: The program to run.
        folder: Where arrays go to and fro; removed by whoever made it.
    """

    def __init__(self, python, folder):
        self.folder = Path(folder)
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        self.process = subprocess.Popen(
            [python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, do, **arguments):
        """Runs one of the functions below there.

        Raises:
            RuntimeError: with what was raised there.
        """
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process with TensorFlow has ended: {self.process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def write(self, prefix, arrays, **how):
        """Writes a checkpoint, as `write` below."""
        np.savez(self.folder / "arrays.npz", **arrays)
        self.ask("write", prefix=str(prefix), arrays=str(self.folder / "arrays.npz"), **how)

    def stand_in(self):
        """What a program that imports TensorFlow needs to read checkpoints, as a module: TensorFlow does it, there."""
        ask, path = self.ask, str(self.folder / "array.npy")

        class Reader:
            def __init__(self, prefix):
                self.prefix = prefix
                self.shapes, self.dtypes = ask("variables", prefix=prefix)

            def get_variable_to_shape_map(self):
                return self.shapes

            def get_variable_to_dtype_map(self):
                return {key: types.SimpleNamespace(name=name) for key, name in self.dtypes.items()}

            def get_tensor(self, key):
                ask("read", prefix=self.prefix, key=key, path=path)
                return np.load(path)

        module = types.ModuleType("tensorflow")
        # Libraries look whether there is one.
        module.__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)

        def save(prefix, tensor_names, shape_and_slices, tensors):
            assert set(shape_and_slices) == {""}
            np.savez(self.folder / "saved.npz", **{str(place): array for place, array in enumerate(tensors)})
            ask("save", prefix=prefix, names=list(tensor_names), arrays=str(self.folder / "saved.npz"))

        module.train = types.SimpleNamespace(load_checkpoint=Reader)
        module.raw_ops = types.SimpleNamespace(SaveV2=save)
        return module

    def restore(self, folder, shapes):
        """The values of variables, as a program of TensorFlow 1 restores them: `restore` below."""
        path = str(self.folder / "restored.npz")
        self.ask("restore", folder=str(folder), shapes=shapes, path=path)
        with np.load(path) as file:
            return {name: file[str(place)] for place, name in enumerate(shapes)}

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def write(prefix, arrays, step, shards=1, dtypes=(), optimizer="Adagrad", others=()):
    """Writes a checkpoint after one step of an optimiser, as bilm-tf's `train` does.

    Args:
        prefix: Its path, without the number of the step.
        arrays: Path of an .npz file of variables by name.
        step: Number of the step.
        shards: Write so many data files, with the softmax cut into three.
        dtypes: Pairs of a variable's name and a dtype other than float32.
        optimizer: Adagrad, as in the original, or Adam.
        others: Names of further variables, single numbers.
    """
    import tensorflow.compat.v1 as tf

    with np.load(arrays) as file:
        values = dict(file)
    # As in bilm-tf's time; and the others are slow.
    tf.disable_resource_variables()
    with tf.Graph().as_default(), tf.device("/cpu:0"):
        # As there: a float32 beside the model's own scope.
        global_step = tf.get_variable("global_step", [], initializer=tf.constant_initializer(0), trainable=False)
        for name in ("train_perplexity", *others):
            tf.get_variable(name, [], initializer=tf.constant_initializer(0.0), trainable=False)
        parts = {}
        for number, (name, value) in enumerate(values.items()):
            partitioned = shards > 1 and name.startswith("lm/softmax")
            with tf.device(f"/cpu:{number % shards}"):
                variable = tf.get_variable(
                    name,
                    value.shape,
                    dtype=tf.as_dtype(dict(dtypes).get(name, "float32")),
                    partitioner=tf.fixed_size_partitioner(3) if partitioned else None,
                    initializer=tf.zeros_initializer(),
                )
                parts[name] = list(variable) if partitioned else [variable]
        make = {"Adagrad": lambda: tf.train.AdagradOptimizer(0.2, initial_accumulator_value=1.0)}
        make["Adam"] = lambda: tf.train.AdamOptimizer(0.001)
        trainable = [part for part in tf.trainable_variables() if part.dtype.base_dtype == tf.float32]
        gradients = [(tf.ones(part.shape), part) for part in trainable]
        train_op = make[optimizer]().apply_gradients(gradients, global_step=global_step)
        saver = tf.train.Saver(tf.global_variables(), max_to_keep=None, sharded=shards > 1)
        with tf.Session(config=tf.ConfigProto(device_count={"CPU": shards})) as session:
            session.run(tf.global_variables_initializer())
            session.run(train_op)
            for name, value in values.items():
                ends = np.cumsum([part.shape.as_list()[0] for part in parts[name]])
                for part, rows in zip(parts[name], np.split(value, ends[:-1])):
                    part.load(rows, session)
            global_step.load(np.float32(step), session)
            # The graph, which nothing here reads, is what takes the time.
            saver.save(session, prefix, global_step=global_step, write_meta_graph=shards > 1)


def variables(prefix):
    """Shapes and dtypes by name, as `tf.train.load_checkpoint` tells them."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    dtypes = {key: dtype.name for key, dtype in reader.get_variable_to_dtype_map().items()}
    return reader.get_variable_to_shape_map(), dtypes


def read(prefix, key, path):
    """Reads a variable into an .npy file."""
    import tensorflow as tf

    np.save(path, tf.train.load_checkpoint(prefix).get_tensor(key))


def save(prefix, names, arrays):
    """What `tf.raw_ops.SaveV2` does with arrays of an .npz file, one after the other."""
    import tensorflow as tf

    with np.load(arrays) as file:
        tensors = [file[str(place)] for place in range(len(names))]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)


def restore(folder, shapes, path):
    """Restores variables into a graph, as bilm-tf's programs do, and writes their values to an .npz file.

    Args:
        folder: The checkpoint's folder, whose file `checkpoint` names it.
        shapes: Shapes by the variables' names.
        path: Of the .npz file.
    """
    import tensorflow.compat.v1 as tf

    tf.disable_resource_variables()
    with tf.Graph().as_default():
        made = [tf.get_variable(name, shape, dtype=tf.float32) for name, shape in shapes.items()]
        with tf.Session() as session:
            tf.train.Saver().restore(session, tf.train.latest_checkpoint(folder))
            values = session.run(made)
    np.savez(path, **{str(place): value for place, value in enumerate(values)})


def export(folder, arrays):
    """Writes a SavedModel with the variables of an .npz file, as a module of TensorFlow Hub has them.

    Args:
        folder: Of the module.
        arrays: Path of the .npz file.
    """
    import tensorflow.compat.v1 as tf

    tf.disable_resource_variables()
    with np.load(arrays) as file, tf.Graph().as_default():
        variables = {name: tf.get_variable(name, file[name].shape, dtype=tf.float32) for name in file}
        with tf.Session() as session:
            for name, variable in variables.items():
                variable.load(file[name], session)
            builder = tf.saved_model.Builder(folder)
            builder.add_meta_graph_and_variables(session, [])
            builder.save()


def main():
    functions = {each.__name__: each for each in (write, variables, read, save, restore, export)}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": functions[request.pop("do")](**request)}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
