"""Writes the golden Keras and TensorFlow files, each with a dump of what a scan must find in it.

    pip install keras==3.15.1 tensorflow-cpu==2.21.0 tf_keras==2.21.0
    python make.py FOLDER

A dump is `{"verdict": …, "rules": […], "kinds": […]}`. The models are small, and the functions in the hostile ones return
their argument.
"""

import json
import os
import shutil
import sys
import tempfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy
import tensorflow as tf
import tf_keras

OUT = os.path.abspath(sys.argv[1])


def dump(name, verdict, rules, kinds):
    with open(os.path.join(OUT, name + ".json"), "w") as out:
        json.dump({"verdict": verdict, "rules": sorted(rules), "kinds": sorted(kinds)}, out, indent=1)
        out.write("\n")


def compiled(k):
    model = k.Sequential([
        k.layers.Input((4,)),
        k.layers.Dense(3, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
        k.layers.BatchNormalization(),
        k.layers.Dropout(0.1),
        k.layers.Dense(2, activation=k.activations.softmax),
    ])
    schedule = k.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model.compile(k.optimizers.Adam(schedule), loss="mse", metrics=["accuracy", k.metrics.AUC()])
    return model


def functional(k):
    a, b = k.layers.Input((6,)), k.layers.Input((6,))
    x = k.layers.Embedding(5, 3)(a)
    y = k.layers.Bidirectional(k.layers.LSTM(2))(x)
    z = k.layers.TimeDistributed(k.layers.Dense(2))(x)
    out = k.layers.Concatenate()([y, k.layers.Flatten()(z), b * 2 + 1])
    return k.Model([a, b], out)


@keras.saving.register_keras_serializable("mine")
class Mine(keras.layers.Layer):
    def call(self, x):
        return x


def save(name, model, verdict="clean", rules=()):
    model.save(os.path.join(OUT, name))
    kinds = ["keras", "hdf5"] if name.endswith(".h5") else ["keras"]
    dump(name, verdict, rules, kinds)


def graph(name, module, verdict, rules=(), kinds=("tensorflow",)):
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        shutil.copy(os.path.join(folder, "saved_model.pb"), os.path.join(OUT, name))
    dump(name, verdict, rules, kinds)


class Module(tf.Module):
    def __init__(self, compute):
        self.weights = tf.Variable(numpy.ones((2, 2), "f4"))
        self.compute = tf.function(lambda x: compute(self, x), input_signature=[tf.TensorSpec([None, 2], tf.float32)])


def write_file(self, x):
    tf.io.write_file("/tmp/inert", "nothing")
    return x


def metadata():
    with tempfile.TemporaryDirectory() as folder:
        model = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Lambda(lambda x: x)])
        model.save(folder, save_format="tf")
        shutil.copy(os.path.join(folder, "keras_metadata.pb"), os.path.join(OUT, "lambda.keras_metadata.pb"))
    os.rename(os.path.join(OUT, "lambda.keras_metadata.pb"), os.path.join(OUT, "keras_metadata.pb"))
    dump("keras_metadata.pb", "dangerous", ["keras-lambda"], ["keras", "tensorflow"])


def lite(name, module, verdict, rules=()):
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.compute.get_concrete_function()], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    with open(os.path.join(OUT, name), "wb") as out:
        out.write(converter.convert())
    dump(name, verdict, rules, ["tflite"])


def main():
    for name, k in (("3", keras), ("2", tf_keras)):
        save(f"compiled_{name}.keras", compiled(k))
        save(f"functional_{name}.keras", functional(k))
        save(f"functional_{name}.h5", functional(k))
        code = k.Sequential([k.layers.Input((2,)), k.layers.Lambda(lambda x: x)])
        save(f"lambda_{name}.keras", code, "dangerous", ["keras-lambda"])
        save(f"lambda_{name}.h5", code, "dangerous", ["keras-lambda"])
    save("custom.keras", keras.Sequential([keras.layers.Input((2,)), Mine()]), "unknown", ["keras-callable"])
    graph("compute.pb", Module(lambda self, x: tf.nn.relu(x @ self.weights)), "clean")
    graph("write_file.pb", Module(write_file), "dangerous", ["tensorflow-operator"])
    graph("python.pb", Module(lambda self, x: tf.py_function(lambda v: v, [x], tf.float32)), "dangerous",
          ["tensorflow-operator"])
    metadata()
    lite("compute.tflite", Module(lambda self, x: tf.nn.relu(x @ self.weights)), "clean")
    lite("write_file.tflite", Module(write_file), "dangerous", ["tensorflow-operator"])


if __name__ == "__main__":
    main()
