//! TensorFlow's operators: which do no more than compute, and which reach out of the program.
//!
//! The list of the harmless ones was made from TensorFlow's own registry, family by family; what is on no list is
//! unknown. Operators that save and restore a model's own variables stand in every SavedModel, and count only where the
//! file that they touch is a constant of the graph.

use super::super::report::Verdict;

/// Operators that compute, keep variables, tables and queues in memory, and direct the flow of a graph.
const HARMLESS: &str = include_str!("harmless.txt");

/// Operators that read or write the file that their first input names.
pub(super) const SAVERS: &[&str] =
    &["MergeV2Checkpoints", "Restore", "RestoreSlice", "RestoreV2", "Save", "SaveSlices", "SaveV2"];

/// Beginnings of the names of operators that reach out, and what they do.
const REACHING: &[(&str, &str)] = &[
    ("PyFunc", "it calls a Python function of the process"),
    ("EagerPyFunc", "it calls a Python function of the process"),
    ("GeneratorDataset", "it calls functions that may be Python's"),
    ("ReadFile", "it reads any file"),
    ("WriteFile", "it writes any file"),
    ("MatchingFiles", "it lists files"),
    ("ExperimentalMatchingFiles", "it lists files"),
    ("WholeFileReader", "it reads files"),
    ("TextLine", "it reads files"),
    ("TFRecord", "it reads files"),
    ("FixedLengthRecord", "it reads files"),
    ("CSVDataset", "it reads files"),
    ("ExperimentalCSV", "it reads files"),
    ("LMDB", "it reads files"),
    ("ExperimentalLMDB", "it reads files"),
    ("SqlDataset", "it reads a database"),
    ("ExperimentalSql", "it reads a database"),
    ("CacheDataset", "it may write files"),
    ("SaveDataset", "it writes files"),
    ("LoadDataset", "it reads files"),
    ("Snapshot", "it writes and reads files"),
    ("ListSnapshotChunks", "it reads files"),
    ("DatasetToTFRecord", "it writes files"),
    ("ExperimentalDatasetToTFRecord", "it writes files"),
    ("LoadAndRemapMatrix", "it reads a checkpoint of any name"),
    ("GenerateVocabRemapping", "it reads files"),
    ("DistributedSave", "it writes files"),
    ("DumpTensor", "it writes files"),
    ("CalibrationStatisticsSaver", "it writes files"),
    ("DebugIdentity", "it sends values to files or addresses"),
    ("CreateSummary", "it writes files"),
    ("Write", "it writes files"),
    ("ImportEvent", "it writes files"),
    ("FileSystemSetConfiguration", "it changes how files are read"),
    ("DTensorRestore", "it reads a checkpoint of any name"),
    ("Rpc", "it opens connections"),
    ("RemoteCall", "it runs functions elsewhere"),
    ("DataService", "it opens connections"),
    ("RegisterDataset", "it opens connections"),
    ("XlaCustomCall", "it calls a function of the process by name"),
];

/// Public functions of TensorFlow that Keras 2 keeps as layers: their beginnings.
const SYMBOLS: &[&str] = &[
    "math.", "nn.", "linalg.", "signal.", "bitwise.", "random.", "image.", "strings.", "sparse.", "ragged.",
    "dtypes.",
];

/// The same, without a package.
const NAMES: &[&str] = &[
    "abs",
    "add",
    "argmax",
    "argmin",
    "argsort",
    "boolean_mask",
    "broadcast_to",
    "cast",
    "clip_by_norm",
    "clip_by_value",
    "concat",
    "convert_to_tensor",
    "cumsum",
    "divide",
    "einsum",
    "equal",
    "exp",
    "expand_dims",
    "fill",
    "gather",
    "gather_nd",
    "greater",
    "greater_equal",
    "identity",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "matmul",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "norm",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "pad",
    "pow",
    "range",
    "rank",
    "reduce_all",
    "reduce_any",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "repeat",
    "reshape",
    "reverse",
    "roll",
    "round",
    "scatter_nd",
    "shape",
    "sigmoid",
    "sign",
    "sin",
    "size",
    "slice",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "stop_gradient",
    "strided_slice",
    "subtract",
    "tanh",
    "tensordot",
    "tile",
    "transpose",
    "truediv",
    "unique",
    "unstack",
    "where",
    "zeros",
    "zeros_like",
];

/// What is to be said of an operator; nothing of a harmless one.
pub(crate) fn judge(operator: &str) -> Option<(Verdict, &'static str)> {
    if is_harmless(operator) {
        return None;
    }
    if SAVERS.contains(&operator) {
        return Some((Verdict::Dangerous, "it reads or writes the file that its input names"));
    }
    if operator.starts_with("InitializeTableFromTextFile") {
        return Some((Verdict::Unknown, "it fills a table from a file"));
    }
    let reaching = REACHING.iter().find(|(start, _)| operator.starts_with(start));
    Some(match reaching {
        Some((_, why)) => (Verdict::Dangerous, why),
        None => {
            (Verdict::Unknown, "it is not known as one that only computes; a custom operator is machine code")
        }
    })
}

fn is_harmless(operator: &str) -> bool {
    use std::collections::HashSet;
    use std::sync::LazyLock;
    static SET: LazyLock<HashSet<&str>> = LazyLock::new(|| HARMLESS.split_ascii_whitespace().collect());
    SET.contains(operator)
}

/// Whether a public function of TensorFlow is known to do no more than to compute.
pub(crate) fn is_known_symbol(symbol: &str) -> bool {
    let symbol = symbol
        .trim_start_matches("tf.")
        .trim_start_matches("compat.v1.")
        .trim_start_matches("__operators__.");
    let inner = SYMBOLS.iter().find_map(|p| symbol.strip_prefix(p));
    match inner {
        Some(rest) => !rest.contains("file") && !rest.contains("py_func"),
        None => NAMES.contains(&symbol) || ["getitem", "add", "mul"].contains(&symbol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_judged_by_what_is_known() {
        for name in [
            "MatMul",
            "Const",
            "VarHandleOp",
            "StatefulPartitionedCall",
            "If",
            "While",
            "HashTableV2",
            "StringJoin",
        ] {
            assert_eq!(judge(name), None, "{name}");
        }
        let reaching = [
            "ReadFile",
            "WriteFile",
            "PyFunc",
            "PyFuncStateless",
            "EagerPyFunc",
            "MatchingFiles",
            "SaveV2",
            "TFRecordDatasetV2",
            "WriteScalarSummary",
            "RpcCall",
            "DebugIdentityV3",
            "XlaCustomCallV2",
            "DataServiceDatasetV4",
        ];
        for name in reaching {
            assert!(matches!(judge(name), Some((Verdict::Dangerous, _))), "{name}");
        }
        for name in ["MyOp", "Addons>Custom", "", "matmul", "BatchDataset"] {
            assert!(matches!(judge(name), Some((Verdict::Unknown, _))), "{name}");
        }
        assert!(HARMLESS.split_ascii_whitespace().is_sorted());
        assert!(
            HARMLESS
                .split_ascii_whitespace()
                .all(|o| !REACHING.iter().any(|(r, _)| o.starts_with(r)) || o == "Snapshot")
        );
        assert!(
            is_known_symbol("math.add")
                && is_known_symbol("reshape")
                && is_known_symbol("__operators__.getitem")
        );
        assert!(
            !is_known_symbol("io.read_file")
                && !is_known_symbol("py_function")
                && !is_known_symbol("raw_ops.ReadFile")
        );
    }
}
