"""Makes the HDF5 and Keras files of this folder, with h5py 3.16 and Keras 3.15 on torch.

They are committed, since neither is in the tests' environment: `KERAS_BACKEND=torch python make.py` writes them anew
beside this script. Nothing is loaded again, and the callables are names in a JSON text.
"""

import json
import os
import pathlib

os.environ["KERAS_BACKEND"] = "torch"
import h5py  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

HERE = pathlib.Path(__file__).parent
keras.utils.set_random_seed(1)


def benign():
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)])
    dense.compile(optimizer="adam", loss="mse", metrics=["mae"])
    dense.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, name="conv")(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D()(x))
    functional = keras.Model(image, keras.layers.Dense(2, kernel_regularizer="l2")(keras.layers.Dropout(0.5)(x)))
    tokens = keras.Input((5,), dtype="int32")
    y = keras.layers.LSTM(2)(keras.layers.Embedding(10, 3)(tokens))
    text = keras.Model(tokens, keras.layers.Dense(1, activation="sigmoid")(y))
    for name, model in [("dense", dense), ("functional", functional), ("text", text)]:
        model.save(HERE / f"benign-{name}.keras")
        model.save(HERE / f"benign-{name}.h5")
        model.save_weights(HERE / f"benign-{name}.weights.h5")


def lambdas():
    # Compiled under a name of its own, since Keras stores the code with the file it came from.
    double = eval(compile("lambda x: x * 2", "model.py", "eval"))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(double)])
    model.save(HERE / "lambda.keras")
    model.save(HERE / "lambda.h5")


def layer(class_name, config, module="keras.layers"):
    layers = [{"module": module, "class_name": class_name, "config": config, "registered_name": None}]
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": layers}}


def attribute(name, config, text=False):
    with h5py.File(HERE / name, "w") as file:
        value = json.dumps(config)
        # Older Keras wrote bytes of a fixed length, newer a string of variable length in the global heap.
        file.attrs["model_config"] = value if text else value.encode()
        file.attrs["keras_version"] = "2.15.0"
        file.create_dataset("model_weights/dense/kernel", data=np.zeros((2, 2), "f4"))


def configs():
    call = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
    attribute("callable.h5", layer("Lambda", {"function": call, "arguments": {"command": "echo weighbridge"}}))
    attribute("callable-text.h5", layer("Lambda", {"function": call}), text=True)
    code = ["4wEAAAA=", None, None]
    attribute("lambda-legacy.h5", layer("Lambda", {"function": code, "function_type": "lambda", "module": "__main__"}))
    attribute("any-class.h5", layer("Popen", {"args": ["echo"]}, module="subprocess"))
    attribute("own-class.h5", layer("MyLayer", {}, module="evil"))
    dense = {"units": 2, "activation": call}
    attribute("activation.h5", layer("Dense", dense))


def structure():
    with h5py.File(HERE / "external-link.h5", "w") as file:
        file["weights"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["more"] = h5py.ExternalLink("../../other.h5", "/w")
    with h5py.File(HERE / "external-storage.h5", "w") as file:
        file.create_dataset("kernel", (16,), "u1", external=[("/etc/passwd", 0, 16)])
    with h5py.File(HERE / "external-storage-relative.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (4, 4), "f4", external=[("../../secret.bin", 0, 64)])
    with h5py.File(HERE / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset("kernel", layout)
    with h5py.File(HERE / "shape-bomb.h5", "w") as file:
        file.create_dataset("kernel", (2**45,), "f4", chunks=(1024,))
    with h5py.File(HERE / "shape-bomb-latest.h5", "w", libver="latest") as file:
        file.create_dataset("layers/dense/vars/0", (2**20, 2**25), "f4", chunks=(64, 64))
    with h5py.File(HERE / "external-latest.h5", "w", libver="latest") as file:
        file["weights"] = h5py.ExternalLink("/etc/passwd", "/x")
        file.create_dataset("kernel", (16,), "u1", external=[("/etc/passwd", 0, 16)])
    with h5py.File(HERE / "deep-external.h5", "w") as file:
        group = file
        for depth in range(20):
            group = group.create_group(f"g{depth}")
        group["w"] = h5py.ExternalLink("/etc/passwd", "/x")
    with h5py.File(HERE / "group-loop.h5", "w") as file:
        group = file.create_group("a")
        group["self"] = group
        group["root"] = file["/"]
        file.create_dataset("kernel", data=np.zeros(2, "f4"))
    with h5py.File(HERE / "pickled-attribute.h5", "w") as file:
        pickled = b"\x80\x04cos\nsystem\n(X\x10\x00\x00\x00echo weighbridgetR."
        file.create_dataset("t", data=np.zeros(2, "f4")).attrs["FIELD"] = np.void(pickled)
    with h5py.File(HERE / "vlen-chunked.h5", "w") as file:
        rows = file.create_dataset("x", (1,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1,))
        rows[0] = np.frombuffer(pickled, np.uint8)
    with h5py.File(HERE / "opaque-chunked.h5", "w") as file:
        file.create_dataset("x", data=np.array([np.void(pickled)]), chunks=(1,))
    with h5py.File(HERE / "opaque-packed.h5", "w") as file:
        file.create_dataset("x", data=np.array([np.void(pickled)]), chunks=(1,), compression="gzip")
    with h5py.File(HERE / "benign-plain.h5", "w") as file:
        file.create_dataset("a/b", data=np.arange(6, dtype="f4").reshape(2, 3), compression="gzip")
        file["soft"] = h5py.SoftLink("/a/b")
        file.attrs["note"] = "numbers"


benign()
lambdas()
configs()
structure()
