//! What is known to be harmless, by name and by how it may be used. There is no list of what is not.
//!
//! A row vouches for one use. A class that may be built by NEWOBJ, where only its `__new__` runs and the state is put in
//! place, may not be called by REDUCE, where its `__init__` runs, unless another row says so. Each row is a name that an
//! honest writer puts into a pickle, and each was looked up in the sources of the library: what does it do with the
//! arguments and the state that a stranger chose?

/// How a name may be used. Each may be named, too: handed on without being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Called with anything, or built.
    Value,
    /// Built by NEWOBJ and given its state.
    Class,
    /// Named only.
    Named,
    /// Called with arguments of a shape, which is held against what the pickle has; built, too.
    Call(Shape),
}

/// The shape that a call's arguments must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `(class, base, state)`: a class, one of Python's own plain types, and anything.
    Reconstructor,
    /// `(class, ...)`: an object of the class, as NEWOBJ makes it.
    Instance,
    /// `(class, "name")`: an attribute of a class that is known, its name plain.
    Attribute,
    /// One constant: the type of None.
    TypeOf,
    /// Text and Latin-1: bytes of protocol 2.
    Latin1,
    /// A module of NumPy or SciPy and a name in it.
    Ufunc,
    /// Texts, numbers, and classes of numpy.random.
    Random,
    /// `(function, class, arguments, state)`: a call of the function, which is judged as one.
    Rebuild,
    /// Bytes that are a torch file.
    TorchFile,
    /// One text or number: a member of an enum, whose name is spelled as classes are.
    Member,
    /// Texts and numbers only.
    Plain,
    /// The same; what comes out is the program's own and not the pickle's, so that no state may be put into it.
    Shared,
}

use Grant::{Call, Class, Named, Value};

/// What is known, by module and name. `*` as a name stands for every one without a dot; a module that ends in `.*` for
/// everything below, and itself; `*` in its last part for the parts that begin and end so.
static KNOWN: &[(&str, &[&str], Grant)] = &[
    // Python's plain values.
    (
        "builtins",
        &[
            "object",
            "list",
            "dict",
            "set",
            "frozenset",
            "tuple",
            "bytes",
            "bytearray",
            "str",
            "int",
            "float",
            "bool",
            "complex",
            "slice",
            "range",
            "unicode",
            "long",
            "xrange",
            "basestring",
            "NoneType",
            "Ellipsis",
            "NotImplemented",
            "None",
            "True",
            "False",
        ],
        Value,
    ),
    ("builtins", &["type"], Call(Shape::TypeOf)),
    ("builtins", &["getattr"], Call(Shape::Attribute)),
    (
        "builtins",
        &[
            "len", "abs", "min", "max", "sum", "sorted", "round", "repr", "hash", "id", "ord", "chr", "all",
            "any",
        ],
        Named,
    ),
    (
        "builtins",
        &[
            "Exception",
            "BaseException",
            "ValueError",
            "TypeError",
            "KeyError",
            "IndexError",
            "RuntimeError",
            "AttributeError",
            "NotImplementedError",
            "StopIteration",
            "ArithmeticError",
            "ZeroDivisionError",
            "OverflowError",
            "AssertionError",
            "LookupError",
            "UserWarning",
            "Warning",
            "DeprecationWarning",
            "FutureWarning",
            "RuntimeWarning",
            "MemoryError",
            "UnicodeError",
        ],
        Value,
    ),
    ("copyreg", &["_reconstructor"], Call(Shape::Reconstructor)),
    ("copyreg", &["__newobj__", "__newobj_ex__"], Call(Shape::Instance)),
    ("_codecs", &["encode"], Call(Shape::Latin1)),
    (
        "collections",
        &["OrderedDict", "defaultdict", "Counter", "deque", "ChainMap", "UserDict", "UserList"],
        Value,
    ),
    ("datetime", &["date", "time", "datetime", "timedelta", "timezone"], Value),
    ("decimal", &["Decimal"], Value),
    ("fractions", &["Fraction"], Value),
    ("uuid", &["UUID", "SafeUUID"], Value),
    ("pathlib", &["Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"], Value),
    ("ipaddress", &["IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"], Value),
    ("zoneinfo", &["ZoneInfo._unpickle"], Call(Shape::Plain)),
    ("array", &["array", "_array_reconstructor"], Value),
    ("random", &["Random"], Class),
    ("re", &["_compile", "compile"], Call(Shape::Plain)),
    ("re", &["RegexFlag"], Call(Shape::Member)),
    ("sre_compile", &["_compile"], Call(Shape::Plain)),
    ("logging", &["getLogger"], Call(Shape::Shared)),
    ("operator", &["itemgetter"], Call(Shape::Plain)),
    ("time", &["struct_time"], Value),
    ("types", &["SimpleNamespace"], Value),
    ("argparse", &["Namespace"], Value),
    ("io", &["BytesIO", "StringIO"], Value),
    ("_io", &["BytesIO", "StringIO"], Value),
    ("itertools", &["count"], Call(Shape::Plain)),
    ("math", &["*"], Named),
    ("numbers", &["Number", "Integral", "Real", "Complex", "Rational"], Named),
    ("typing", &["Any", "Union", "Optional", "List", "Dict", "Tuple", "Set", "Literal", "Callable"], Named),
    ("inspect", &["Signature", "Parameter"], Class),
    ("inspect", &["_ParameterKind"], Call(Shape::Member)),
    ("dataclasses", &["_MISSING_TYPE", "_HAS_DEFAULT_FACTORY_CLASS"], Class),
    ("enum", &["Enum", "IntEnum", "EnumMeta", "auto"], Named),
    ("abc", &["ABCMeta"], Named),
    // NumPy. Its paths before 2.0 and after are one here.
    ("numpy.core.multiarray", &["_reconstruct"], Call(Shape::Instance)),
    ("numpy.core.multiarray", &["scalar"], Value),
    ("numpy.core.numeric", &["_frombuffer"], Value),
    ("numpy.core", &["_ufunc_reconstruct"], Call(Shape::Ufunc)),
    ("numpy.core._internal", &["_convert_to_stringdtype_kwargs"], Value),
    ("numpy.dtypes", &["*"], Value),
    ("numpy.ma.core", &["_mareconstruct"], Call(Shape::Instance)),
    ("numpy.ma.core", &["MaskedArray", "MaskedConstant"], Class),
    ("numpy.matrixlib.defmatrix", &["matrix"], Class),
    ("numpy.random.mtrand", &["RandomState"], Class),
    ("numpy.random._pickle", &["*"], Call(Shape::Random)),
    ("numpy.random.*", &["*"], Class),
    ("numpy.polynomial.*", &["*"], Class),
    (
        "numpy",
        &[
            "ndarray",
            "dtype",
            "matrix",
            "recarray",
            "record",
            "void",
            "bool_",
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
            "float128",
            "longdouble",
            "complex64",
            "complex128",
            "str_",
            "bytes_",
            "object_",
            "datetime64",
            "timedelta64",
            "intc",
            "intp",
            "int_",
            "uint",
            "uintc",
            "uintp",
            "longlong",
            "ulonglong",
            "half",
            "single",
            "double",
            "float_",
            "generic",
            "number",
            "integer",
            "floating",
            "inexact",
        ],
        Value,
    ),
    ("numpy.rec", &["recarray", "record"], Class),
    ("numpy.core.records", &["recarray", "record"], Class),
    ("numpy.core.memmap", &["memmap"], Named),
    ("numpy", &["memmap"], Named),
    ("numpy.ma", &["MaskedArray"], Class),
    (
        "numpy",
        &[
            "mean",
            "median",
            "sum",
            "min",
            "max",
            "amin",
            "amax",
            "std",
            "var",
            "prod",
            "log",
            "log1p",
            "exp",
            "expm1",
            "sqrt",
            "square",
            "abs",
            "absolute",
            "nan",
            "inf",
            "sin",
            "cos",
            "tan",
            "tanh",
            "argmax",
            "argmin",
            "nanmean",
            "average",
            "power",
            "identity",
            "ravel",
            "sort",
            "argsort",
            "log2",
            "log10",
            "clip",
            "isnan",
            "linalg.norm",
        ],
        Named,
    ),
    // SciPy. Distributions (scipy.stats) compile text out of their state: they are not here.
    ("scipy.sparse.*", &["*"], Class),
    ("scipy._lib.array_api_compat.numpy._aliases", &["asarray"], Named),
    ("scipy.interpolate.*", &["*"], Class),
    ("scipy.spatial.distance", &["*"], Named),
    ("scipy.spatial.*", &["*"], Class),
    ("scipy.special.*", &["*"], Named),
    ("scipy.optimize._optimize", &["OptimizeResult"], Value),
    ("scipy.optimize.optimize", &["OptimizeResult"], Value),
    // PyTorch.
    (
        "torch._utils",
        &[
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
            "_rebuild_sparse_csr_tensor",
            "_rebuild_nested_tensor",
            "_rebuild_meta_tensor_no_storage",
            "_rebuild_device_tensor_from_numpy",
            "_rebuild_device_tensor_from_cpu_tensor",
            "_rebuild_xla_tensor",
        ],
        Value,
    ),
    ("torch._utils", &["_rebuild_wrapper_subclass"], Call(Shape::Instance)),
    ("torch._tensor", &["_rebuild_from_type_v2", "_rebuild_from_type"], Call(Shape::Rebuild)),
    ("torch.tensor", &["_rebuild_from_type", "_rebuild_from_type_v2"], Call(Shape::Rebuild)),
    ("torch.storage", &["_load_from_bytes"], Call(Shape::TorchFile)),
    ("torch.storage", &["UntypedStorage", "TypedStorage", "_TypedStorage", "_UntypedStorage"], Named),
    (
        "torch",
        &[
            "FloatStorage",
            "DoubleStorage",
            "HalfStorage",
            "BFloat16Storage",
            "LongStorage",
            "IntStorage",
            "ShortStorage",
            "CharStorage",
            "ByteStorage",
            "BoolStorage",
            "ComplexFloatStorage",
            "ComplexDoubleStorage",
            "QInt8Storage",
            "QUInt8Storage",
            "QInt32Storage",
            "QUInt4x2Storage",
            "QUInt2x4Storage",
            "UntypedStorage",
            "TypedStorage",
            "float",
            "float32",
            "float64",
            "double",
            "float16",
            "half",
            "bfloat16",
            "int8",
            "int16",
            "short",
            "int32",
            "int",
            "int64",
            "long",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "bool",
            "complex32",
            "complex64",
            "complex128",
            "cfloat",
            "cdouble",
            "qint8",
            "quint8",
            "qint32",
            "quint4x2",
            "quint2x4",
            "float8_e4m3fn",
            "float8_e5m2",
            "float8_e4m3fnuz",
            "float8_e5m2fnuz",
            "float8_e8m0fnu",
            "float4_e2m1fn_x2",
            "strided",
            "sparse_coo",
            "sparse_csr",
            "per_tensor_affine",
            "per_channel_affine",
            "per_tensor_symmetric",
            "per_channel_symmetric",
            "per_channel_affine_float_qparams",
            "contiguous_format",
            "channels_last",
            "preserve_format",
            "Tensor",
            "relu",
            "tanh",
            "sigmoid",
            "softmax",
            "sum",
            "mean",
            "add",
            "mul",
            "cat",
            "matmul",
        ],
        Named,
    ),
    (
        "torch",
        &[
            "bits1x8", "bits2x4", "bits4x2", "bits8", "bits16", "int1", "int2", "int4", "uint1", "uint2",
            "uint4",
        ],
        Named,
    ),
    ("torch.cuda", &["*"], Named),
    ("torch", &["Size", "device", "Generator"], Value),
    ("torch", &["Tensor"], Class),
    ("torch._tensor", &["Tensor"], Class),
    ("torch.nn.parameter", &["Parameter", "Buffer", "UninitializedParameter", "UninitializedBuffer"], Class),
    ("torch._C._nn", &["*"], Named),
    ("torch._C", &["_VariableFunctions"], Named),
    ("torch.serialization", &["_get_layout"], Call(Shape::Plain)),
    ("torch.torch_version", &["TorchVersion"], Value),
    ("torch.nn.functional", &["*"], Named),
    ("torch.nn.init", &["*"], Named),
    ("torch.nn.*", &["*"], Class),
    ("torch.optim.*", &["*"], Class),
    ("torch.ao.nn.*", &["*"], Class),
    ("torch.ao.quantization.*", &["*"], Class),
    ("torch.distributions.*", &["*"], Class),
    // Data pipes open files and unpickle bytes: of this package the classes of data sets and samplers are here alone.
    ("torch.utils.data.dataset", &["*"], Class),
    ("torch.utils.data.sampler", &["*"], Class),
    ("torch.utils.data.distributed", &["DistributedSampler"], Class),
    ("torch.utils.data.dataloader", &["DataLoader"], Class),
    ("torch.utils.data", &["TensorDataset", "DataLoader", "RandomSampler", "SequentialSampler"], Class),
    ("torch.amp.grad_scaler", &["*"], Class),
    ("torch.cuda.amp.grad_scaler", &["*"], Class),
    ("torch.distributed.checkpoint.metadata", &["_MEM_FORMAT_ENCODING"], Call(Shape::Member)),
    ("torch.distributed.checkpoint.*", &["*"], Class),
    ("torch.distributed._shard.*", &["*"], Class),
    ("torch.distributed.tensor.*", &["*"], Class),
    ("torch.distributed.fsdp.*", &["*"], Class),
    ("torch.distributed.remote_device", &["_remote_device"], Class),
    ("torchvision.models.*", &["*"], Class),
    ("torchvision.ops.*", &["*"], Class),
    ("torchvision.transforms.*", &["*"], Class),
    ("torchaudio.models.*", &["*"], Class),
    ("torchaudio.transforms.*", &["*"], Class),
    ("torchtext.vocab.*", &["*"], Class),
    ("torchmetrics.*", &["*"], Class),
    // What trainers write beside weights.
    ("pytorch_lightning.utilities.parsing", &["AttributeDict"], Value),
    ("lightning.pytorch.utilities.parsing", &["AttributeDict"], Value),
    ("lightning_fabric.utilities.data", &["AttributeDict"], Value),
    ("lightning.fabric.utilities.data", &["AttributeDict"], Value),
    ("pytorch_lightning.callbacks.*", &["*"], Class),
    ("lightning.pytorch.callbacks.*", &["*"], Class),
    ("pytorch_lightning.trainer.states", &["*"], Call(Shape::Member)),
    ("omegaconf.*", &["*"], Class),
    ("transformers.trainer_utils", &["*"], Call(Shape::Member)),
    ("transformers.training_args", &["*"], Call(Shape::Member)),
    ("transformers.utils.generic", &["*"], Call(Shape::Member)),
    // Models, their configurations and what a trainer saves. Integrations delete folders when they are collected, lazy
    // modules import what their state names, and some tokenizers start programs.
    ("transformers.models.*.modeling_*", &["*"], Class),
    ("transformers.models.*.configuration_*", &["*"], Class),
    ("transformers.models.*.tokenization_*_fast", &["*"], Class),
    ("transformers.models.*.image_processing_*", &["*"], Class),
    ("transformers.models.*.feature_extraction_*", &["*"], Class),
    ("transformers.modeling_*", &["*"], Class),
    ("transformers.configuration_*", &["*"], Class),
    (
        "transformers.models.*.tokenization_*",
        &[
            "AlbertTokenizer",
            "BartTokenizer",
            "BertTokenizer",
            "CLIPTokenizer",
            "DebertaTokenizer",
            "DebertaV2Tokenizer",
            "DistilBertTokenizer",
            "ElectraTokenizer",
            "GPT2Tokenizer",
            "GPTNeoXTokenizer",
            "LlamaTokenizer",
            "MPNetTokenizer",
            "Qwen2Tokenizer",
            "RobertaTokenizer",
            "T5Tokenizer",
            "XLMRobertaTokenizer",
        ],
        Class,
    ),
    ("transformers.activations", &["*"], Class),
    ("transformers.pytorch_utils", &["*"], Class),
    ("transformers.cache_utils", &["*"], Class),
    ("transformers.generation.configuration_utils", &["*"], Class),
    ("transformers.tokenization_utils_base", &["*"], Class),
    ("transformers.tokenization_utils_fast", &["*"], Class),
    ("transformers.tokenization_utils_tokenizers", &["*"], Class),
    ("transformers.tokenization_utils", &["*"], Class),
    ("transformers.feature_extraction_utils", &["*"], Class),
    ("transformers.image_processing_utils", &["*"], Class),
    ("transformers.training_args", &["*"], Class),
    ("transformers.training_args_seq2seq", &["*"], Class),
    ("transformers.trainer_utils", &["*"], Class),
    ("transformers.trainer_callback", &["*"], Class),
    ("transformers.trainer_pt_utils", &["*"], Class),
    ("transformers.data.data_collator", &["*"], Class),
    ("transformers.utils.quantization_config", &["*"], Class),
    ("accelerate.utils.dataclasses", &["*"], Call(Shape::Member)),
    ("accelerate.utils.dataclasses", &["*"], Class),
    ("accelerate.state", &["*"], Class),
    ("accelerate.hooks", &["*"], Class),
    ("accelerate.optimizer", &["*"], Class),
    ("accelerate.scheduler", &["*"], Class),
    ("peft.utils.peft_types", &["*"], Call(Shape::Member)),
    ("peft.*", &["*"], Class),
    ("trl.trainer.*", &["*"], Class),
    ("tokenizers", &["Tokenizer", "AddedToken", "Encoding"], Value),
    ("tokenizers.*", &["*"], Class),
    ("safetensors.*", &["*"], Class),
    ("sentence_transformers.*", &["*"], Class),
    ("setfit.*", &["*"], Class),
    ("diffusers.models.*", &["*"], Class),
    ("diffusers.schedulers.*", &["*"], Class),
    ("diffusers.configuration_utils", &["*"], Class),
    ("timm.models.*", &["*"], Class),
    ("timm.layers.*", &["*"], Class),
    ("fairseq.data.dictionary", &["*"], Class),
    ("fairseq.models.*", &["*"], Class),
    ("fairseq.modules.*", &["*"], Class),
    ("fairseq.dataclass.*", &["*"], Class),
    ("ultralytics.nn.*", &["*"], Class),
    ("deepspeed.runtime.fp16.loss_scaler", &["*"], Class),
    ("deepspeed.runtime.zero.config", &["*"], Class),
    ("deepspeed.utils.tensor_fragment", &["*"], Class),
    // scikit-learn and what builds on it. What it carries of others (externals) is not covered.
    ("sklearn.tree._tree", &["Tree"], Value),
    ("sklearn.tree.tree", &["Tree"], Value),
    ("sklearn.neighbors.*", &["newObj", "BinaryTree"], Call(Shape::Instance)),
    ("sklearn.metrics._dist_metrics", &["newObj"], Call(Shape::Instance)),
    ("sklearn._loss._loss", &["*"], Value),
    ("sklearn.linear_model._sgd_fast", &["*"], Value),
    ("sklearn.linear_model.sgd_fast", &["*"], Value),
    (
        "sklearn.feature_selection._univariate_selection",
        &["f_classif", "f_regression", "f_oneway", "chi2", "r_regression"],
        Named,
    ),
    ("sklearn.metrics.*", &["*"], Class),
    ("sklearn.ensemble._hist_gradient_boosting.*", &["*"], Class),
    ("sklearn.utils._bunch", &["Bunch"], Value),
    ("sklearn.utils", &["Bunch"], Value),
    ("sklearn.utils.metadata_routing", &["*"], Class),
    ("sklearn.*", &["*"], Class),
    ("imblearn.*", &["*"], Class),
    ("category_encoders.*", &["*"], Class),
    ("joblib.numpy_pickle", &["NumpyArrayWrapper", "NDArrayWrapper", "ZNDArrayWrapper"], Class),
    ("joblib.numpy_pickle_compat", &["NDArrayWrapper", "ZNDArrayWrapper"], Class),
    ("xgboost.core", &["Booster", "DataIter"], Class),
    ("xgboost.sklearn", &["*"], Class),
    ("lightgbm.basic", &["Booster"], Class),
    ("lightgbm.sklearn", &["*"], Class),
    ("catboost.core", &["*"], Class),
    ("hdbscan.*", &["*"], Class),
    ("umap.umap_", &["UMAP"], Class),
    ("umap.parametric_umap", &["ParametricUMAP"], Class),
    ("pynndescent.pynndescent_", &["NNDescent", "PyNNDescentTransformer"], Class),
    ("bertopic.*", &["*"], Class),
    ("gensim.models.*", &["*"], Class),
    ("gensim.corpora.*", &["*"], Class),
    ("nltk.stem.*", &["*"], Class),
    ("nltk.tokenize.*", &["*"], Class),
    ("nltk.probability", &["*"], Class),
    // pandas.
    ("pandas.core.internals.managers", &["BlockManager", "SingleBlockManager"], Value),
    ("pandas.core.internals.blocks", &["new_block"], Value),
    ("pandas._libs.internals", &["_unpickle_block", "BlockManager", "SingleBlockManager"], Value),
    ("pandas.core.indexes.base", &["_new_Index"], Call(Shape::Instance)),
    ("pandas.core.indexes.datetimes", &["_new_DatetimeIndex"], Call(Shape::Instance)),
    ("pandas.core.indexes.period", &["_new_PeriodIndex"], Call(Shape::Instance)),
    ("pandas._libs.tslibs.timestamps", &["_unpickle_timestamp"], Value),
    ("pandas._libs.tslibs.timedeltas", &["_timedelta_unpickle"], Value),
    ("pandas._libs.tslibs.nattype", &["_nat_unpickle"], Value),
    ("pandas._libs.tslibs.period", &["_unpickle_period"], Value),
    ("pandas.core.frame", &["DataFrame"], Class),
    ("pandas.core.series", &["Series"], Class),
    (
        "pandas",
        &[
            "CategoricalDtype",
            "StringDtype",
            "DatetimeTZDtype",
            "PeriodDtype",
            "IntervalDtype",
            "SparseDtype",
            "BooleanDtype",
            "Int8Dtype",
            "Int16Dtype",
            "Int32Dtype",
            "Int64Dtype",
            "UInt8Dtype",
            "UInt16Dtype",
            "UInt32Dtype",
            "UInt64Dtype",
            "Float32Dtype",
            "Float64Dtype",
        ],
        Value,
    ),
    ("pandas.arrays", &["*"], Class),
    ("pandas.core.arrays.string_", &["StringDtype"], Value),
    ("pandas.core.indexes.*", &["*"], Class),
    ("pandas.core.arrays.*", &["*"], Class),
    ("pandas.core.dtypes.dtypes", &["*"], Class),
    ("pandas.core.internals.*", &["*"], Class),
    ("pandas.core.flags", &["*"], Class),
    ("pandas._libs.arrays", &["NDArrayBacked"], Class),
    ("pandas._libs.tslibs.offsets", &["*"], Value),
    ("pandas", &["DataFrame", "Series", "Index", "RangeIndex", "MultiIndex", "Categorical"], Class),
    ("pandas._libs.missing", &["NAType", "_unpickle_na"], Value),
];

/// Names of a TorchScript program's own pickles, which its own loader resolves and no Python does.
static SCRIPT: &[(&str, &[&str], Grant)] = &[
    (
        "torch.jit._pickle",
        &[
            "build_intlist",
            "build_tensorlist",
            "build_doublelist",
            "build_boollist",
            "build_tensor_from_id",
            "restore_type_tag",
        ],
        Value,
    ),
    ("__torch__.*", &["*"], Class),
];

/// NumPy's universal functions, which compute on arrays and do nothing else.
static UFUNCS: &[&str] = &[
    "_arg",
    "_ones_like",
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_count",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "cbrt",
    "ceil",
    "conj",
    "conjugate",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "degrees",
    "divide",
    "divmod",
    "equal",
    "exp",
    "exp2",
    "expm1",
    "fabs",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frexp",
    "gcd",
    "greater",
    "greater_equal",
    "heaviside",
    "hypot",
    "invert",
    "isfinite",
    "isinf",
    "isnan",
    "isnat",
    "lcm",
    "ldexp",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log10",
    "log1p",
    "log2",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "matmul",
    "matvec",
    "maximum",
    "minimum",
    "mod",
    "modf",
    "multiply",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow",
    "power",
    "rad2deg",
    "radians",
    "reciprocal",
    "remainder",
    "right_shift",
    "rint",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "spacing",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "vecdot",
    "vecmat",
];

/// Whether a name is that of a universal function of NumPy's.
pub(super) fn is_ufunc(name: &str) -> bool {
    UFUNCS.contains(&name)
}

/// What is known of a name, if anything is.
pub(super) fn known(module: &str, name: &str, script: bool) -> Option<Grant> {
    let module = today(module);
    // What Cython writes to rebuild an object of a class, from the class, a checksum and the state.
    if cython(&module, name) {
        return Some(Call(Shape::Instance));
    }
    let inside = if script { SCRIPT } else { &[] };
    // What a library carries of others, its tests and its tools are not what its row vouches for.
    let foreign = module.split('.').any(|p| matches!(p, "externals" | "_vendor" | "vendored" | "tests" | "testing"))
        || below(&module, "sklearn.callback")
        || module == "sklearn.callback"
        // A module that imports what its state names.
        || name.starts_with("_Lazy");
    let found = inside.iter().chain(KNOWN).find(|(m, names, _)| {
        let fits = match m.strip_suffix(".*") {
            Some(root) => !foreign && (module == root || below(&module, root)),
            None if m.contains('*') => !foreign && is_part(&module, m),
            None => module == *m,
        };
        fits && names.iter().any(|n| if *n == "*" { is_plain(name) } else { *n == name })
    });
    found.map(|(_, _, grant)| *grant)
}

/// A function that Cython generates, of a library whose classes are known.
fn cython(module: &str, name: &str) -> bool {
    const LIBRARIES: &[&str] =
        &["numpy.random", "sklearn", "hdbscan", "pandas._libs", "scipy", "lightgbm", "gensim"];
    name.strip_prefix("__pyx_unpickle_").is_some_and(is_plain) && LIBRARIES.iter().any(|l| below(module, l))
}

/// Whether a module is one of a row such as `package.*.modeling_*`: its last part fits, and it stands below the package.
fn is_part(module: &str, row: &str) -> bool {
    let (Some((package, last)), Some((root, part))) = (module.rsplit_once('.'), row.rsplit_once('.')) else {
        return false;
    };
    let placed = match root.strip_suffix(".*") {
        Some(root) => package == root || below(package, root),
        None => package == root,
    };
    let Some((begins, ends)) = part.split_once('*') else { return false };
    placed && last.strip_prefix(begins).and_then(|l| l.strip_suffix(ends)).is_some_and(|l| !l.is_empty())
}

fn below(module: &str, root: &str) -> bool {
    module.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'))
}

/// A name without dots that is a Python identifier, and not that of a module of the standard library, which a package's
/// module may have imported.
pub(super) fn is_plain(name: &str) -> bool {
    is_identifier(name) && !super::stdlib::is_module(name)
}

/// An identifier of ASCII.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name that a module has today, where it had another.
fn today(module: &str) -> std::borrow::Cow<'_, str> {
    match module {
        "__builtin__" => "builtins".into(),
        "copy_reg" => "copyreg".into(),
        "pathlib._local" => "pathlib".into(),
        "numpy._core" => "numpy.core".into(),
        _ => match (module.strip_prefix("numpy._core."), module.strip_prefix("sklearn.externals.joblib.")) {
            (Some(rest), _) => format!("numpy.core.{rest}").into(),
            (_, Some(rest)) => format!("joblib.{rest}").into(),
            _ => module.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_exactly() {
        assert_eq!(known("collections", "OrderedDict", false), Some(Grant::Value));
        assert_eq!(known("__builtin__", "dict", false), Some(Grant::Value));
        assert_eq!(known("numpy._core.multiarray", "scalar", false), Some(Grant::Value));
        assert_eq!(known("numpy.core.multiarray", "scalar", false), Some(Grant::Value));
        assert_eq!(known("sklearn.svm._classes", "SVC", false), Some(Grant::Class));
        assert_eq!(
            known("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper", false),
            Some(Grant::Class)
        );
        assert_eq!(known("torch.nn.modules.linear", "Linear", false), Some(Grant::Class));
        assert_eq!(known("torch.nn.functional", "gelu", false), Some(Grant::Named));
        for (module, name) in [
            ("Collections", "OrderedDict"),
            ("collections\0", "OrderedDict"),
            ("collections", "ordereddict"),
            ("collections", "abc.OrderedDict"),
            ("sklearn.utils", "os.system"),
            ("sklearn.utils", "os"),
            ("sklearn", "base.os.system"),
            ("sklearn.externals.loky", "X"),
            ("sklearnx.base", "X"),
            ("builtins", "eval"),
            ("scipy.stats._continuous_distns", "norm_gen"),
            ("__torch__.m", "M"),
        ] {
            assert_eq!(known(module, name, false), None, "{module} {name}");
        }
        assert_eq!(known("__torch__.m", "M", true), Some(Grant::Class));
    }
}
