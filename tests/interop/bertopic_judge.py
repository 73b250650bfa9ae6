"""BERTopic's side of the tests of its models.

`bertopic_judge.py fit FOLDER`: fits small models and saves each in the three ways, below a folder of its name, with the
documents' texts and embeddings.

`bertopic_judge.py check`: reads tasks, a JSON object a line: `written`, a model that Weighbridge wrote; `reference`, the
directory that BERTopic wrote of the same model; `home`, the folder of the model. Loads both with BERTopic and prints for
each task a line with its faults.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings

import joblib
import numpy as np
from bertopic import BERTopic
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden", "bertopic"))
import models  # noqa: E402

# The smallest JPEG that decoders take: one grey pixel.
JPEG = bytes.fromhex(
    "ffd8ffdb004300" + "01" * 64 + "ffc0000b080001000101011100ffc40014000100000000000000000000000000000003"
    "ffc40014100100000000000000000000000000000000ffda0008010100003f0037ffd9"
)


def fit(out):
    """Models that are larger than the golden ones, of other numbers."""
    sizes = {"kmeans": (5, 200, 16, 11), "outliers": (4, 160, 12, 12), "given": (3, 60, 384, 13)}
    for name, (themes, count, dim, seed) in sizes.items():
        home = os.path.join(out, name)
        os.makedirs(home)
        at = lambda file: os.path.join(home, file)
        model, texts, embeddings = models.ALL[name](themes, count, dim, seed=seed)
        pointer = models.POINTER if name == "outliers" else False
        for way in "safetensors", "pytorch":
            model.save(at(way), serialization=way, save_ctfidf=True, save_embedding_model=pointer)
        model.save(at("bare"), serialization="safetensors", save_ctfidf=False)
        model.save(at("model.pickle"), serialization="pickle")
        with open(at("model.plain.pickle"), "wb") as file:
            pickle.dump(model, file)
        joblib.dump(model, at("model.pickle.gz"), compress=("gzip", 3))
        joblib.dump(model, at("model.pickle.lz4"), compress="lz4")
        # A second model to assign with: half of the documents are noise, and one is zero.
        embeddings = np.concatenate([embeddings, np.random.default_rng(5).normal(size=embeddings.shape)])
        embeddings[-1] = 0
        save_file({"documents": embeddings.astype(np.float32)}, at("documents.safetensors"))
        with open(at("texts.json"), "w", encoding="utf-8") as file:
            json.dump(texts, file)
        # An aspect of images, which BERTopic writes as files where it has pictures to write.
        shutil.copytree(at("safetensors"), at("images"))
        with open(at("images/topics.json"), encoding="utf-8") as file:
            topics = json.load(file)
        topics["topic_aspects"]["Visual_Aspect"] = True
        with open(at("images/topics.json"), "w", encoding="utf-8") as file:
            json.dump(topics, file, indent=2)
        os.mkdir(at("images/images"))
        for topic in topics["topic_representations"]:
            with open(at(f"images/images/{topic}.jpg"), "wb") as file:
                file.write(JPEG + topic.encode())


def plain(words):
    """Representations with lists for tuples, as JSON makes them."""
    return {topic: [list(pair) for pair in pairs] for topic, pairs in words.items()}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def sparse(a, b):
    return a.shape == b.shape and all(same(getattr(a, k), getattr(b, k)) for k in ("data", "indices", "indptr"))


def saved(model, ctfidf):
    """What BERTopic writes of a model: the bytes of each file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder, serialization="safetensors", save_ctfidf=ctfidf, save_embedding_model=True)
        return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}


def differences(task):
    with warnings.catch_warnings():
        # A pickle of another version of scikit-learn would warn.
        warnings.simplefilter("error")
        model = BERTopic.load(task["written"])
    original = BERTopic.load(task["reference"])
    info, other = model.get_topic_info(), original.get_topic_info()
    if not info.equals(other):
        yield f"get_topic_info differs:\n{info}\n{other}"
    for name in "topics_", "topic_sizes_", "custom_labels_", "topic_labels_", "_outliers":
        if getattr(model, name) != getattr(original, name):
            yield f"{name} differs: {getattr(model, name)} for {getattr(original, name)}"
    if plain(model.topic_representations_) != plain(original.topic_representations_):
        yield "topic_representations_ differs"
    aspects = [{name: plain(words) for name, words in m.topic_aspects_.items()} for m in (model, original)]
    if aspects[0] != aspects[1]:
        yield f"topic_aspects_ differs: {aspects}"
    if model.topic_mapper_.mappings_ != original.topic_mapper_.mappings_:
        yield "topic_mapper_ differs"
    if not same(model.topic_embeddings_, original.topic_embeddings_):
        yield "topic_embeddings_ differs"
    params = [{k: v for k, v in m.get_params().items() if "model" not in k} for m in (model, original)]
    if os.path.isfile(task["written"]):
        # Loading a directory forgets the language.
        [p.pop("language") for p in params]
    if params[0] != params[1]:
        yield f"the parameters differ: {params}"
    embeddings = load_file(os.path.join(task["home"], "documents.safetensors"))["documents"]
    for kind in np.float32, np.float64:
        (topics, sure), (wanted, wanted_sure) = (
            m.transform([""] * len(embeddings), embeddings.astype(kind)) for m in (model, original)
        )
        if not (same(topics, wanted) and same(sure, wanted_sure)):
            yield f"transform of {kind.__name__} differs"
    ctfidf = original.c_tf_idf_ is not None
    if (model.c_tf_idf_ is not None) != ctfidf:
        yield "one has c-TF-IDF and one has not"
    elif ctfidf:
        if not sparse(model.c_tf_idf_, original.c_tf_idf_):
            yield "c_tf_idf_ differs"
        if not sparse(model.ctfidf_model._idf_diag, original.ctfidf_model._idf_diag):
            yield "_idf_diag differs"
        if model.ctfidf_model.get_params() != original.ctfidf_model.get_params():
            yield "the c-TF-IDF model differs"
        if model.vectorizer_model.get_params() != original.vectorizer_model.get_params():
            yield "the vectorizer differs"
        if list(model.vectorizer_model.vocabulary_.items()) != list(original.vectorizer_model.vocabulary_.items()):
            yield "the vocabulary differs"
        with open(os.path.join(task["home"], "texts.json"), encoding="utf-8") as file:
            texts = json.load(file)
        (found, _), (wanted, _) = (m.approximate_distribution(texts[:20]) for m in (model, original))
        if not same(found, wanted) or not found.any():
            yield "approximate_distribution differs"
    files, wanted = saved(model, ctfidf), saved(original, ctfidf)
    pointer = json.loads(files.pop("config.json")).get("embedding_model")
    wanted.pop("config.json")
    if files != wanted:
        yield f"saved again, these files differ: {[n for n in wanted if files.get(n) != wanted[n]]}"
    if os.path.isfile(task["written"]) and pointer != task["pointer"]:
        yield f"the embedder's name is {pointer!r} for {task['pointer']!r}"


def transformed(task):
    """What BERTopic assigns the documents to."""
    model = BERTopic.load(task["transform"])
    embeddings = load_file(os.path.join(task["home"], "documents.safetensors"))["documents"]
    out = {}
    for name, kind in ("f32", np.float32), ("f64", np.float64):
        topics, sure = model.transform([""] * len(embeddings), embeddings.astype(kind))
        out[name] = {"topics": topics.tolist(), "probabilities": np.asarray(sure, float).reshape(-1).tolist()}
    return out


if sys.argv[1] == "fit":
    fit(sys.argv[2])
elif sys.argv[1] == "check":
    for line in sys.stdin:
        task = json.loads(line)
        if "transform" in task:
            print(json.dumps(transformed(task)))
            continue
        try:
            faults = list(differences(task))
        except Exception as error:  # A model that does not load is a fault, and the other tasks go on.
            faults = [f"{type(error).__name__}: {error}"]
        print(json.dumps({"written": task["written"], "faults": faults}))
else:
    sys.exit(f"unknown task {sys.argv[1]}")
