"""Writes the golden files of BERTopic's models, each with a dump of the tensors that must be read from it.

python make.py FOLDER

Each model is fitted, and saved by BERTopic in the three ways; `expected.json` says what BERTopic makes of it once it has
loaded the directory: what it shows of the topics, and where it puts the documents. Files without tensors have an empty
dump, and are compared by their bytes.
"""

import json
import os
import sys

import joblib
import numpy as np
import torch
from bertopic import BERTopic
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.abspath(sys.argv[1])
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)
import dump  # noqa: E402
import models  # noqa: E402


def tensors(path):
    if path.endswith(".safetensors"):
        return {name: torch.from_numpy(array) for name, array in load_file(path).items()}
    if path.endswith(".bin"):
        return torch.load(path)
    if ".pickle" in path:
        model = joblib.load(path)
        return {"topic_embeddings_": torch.from_numpy(np.array(model.topic_embeddings_))}
    return {}


def expected(model, texts, embeddings):
    info = model.get_topic_info()
    topics, probabilities = model.transform(texts, embeddings)
    return {
        "topics": [int(t) for t in info["Topic"]],
        "counts": [int(n) for n in info["Count"]],
        "names": list(info["Name"]),
        "custom_labels": model.custom_labels_,
        "words": {str(topic): [word for word, _ in words] for topic, words in model.topic_representations_.items()},
        "assigned": [int(t) for t in topics],
        # Sums depend on the linear algebra library in the last places.
        "probabilities": np.asarray(probabilities, dtype=float).reshape(len(texts), -1).round(5).tolist(),
    }


def write(name, model, texts, embeddings):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    at = lambda file: os.path.join(folder, file)
    for serialization in "safetensors", "pytorch":
        model.save(
            at(serialization),
            serialization=serialization,
            save_ctfidf=name != "given",
            save_embedding_model=models.POINTER if name == "kmeans" else False,
        )
    model.save(at("model.pickle"), serialization="pickle")
    joblib.dump(model, at("model.pickle.gz"), compress=("gzip", 3))
    save_file({"documents": embeddings}, at("documents.safetensors"))
    loaded = BERTopic.load(at("safetensors"))
    with open(at("expected.json"), "w", encoding="utf-8") as file:
        json.dump(expected(loaded, texts, embeddings), file, indent=1)


for name, fit in models.ALL.items():
    write(name, *fit())
files = [os.path.join(folder, file) for folder, _, files in os.walk(OUT) for file in files]
for path in files:
    # A dump of no tensors, for what is compared by its bytes.
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        json.dump(dump.dump(tensors(path)) if tensors(path) else {}, file, indent=1)
        file.write("\n")
