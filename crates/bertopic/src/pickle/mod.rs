//! BERTopic's pickles: the object as Python's pickler describes it, read as data and written from a light model.

mod read;
mod vectorizer;
mod write;

pub use read::is_pickle;
pub(crate) use read::{from_archive, read};
pub(crate) use write::Picture;

/// The version of scikit-learn whose `CountVectorizer` is written here.
pub(crate) const SKLEARN_VERSION: &str = "1.9.1";

/// A class by its module and name.
type Class = (&'static str, &'static str);

const BERTOPIC: Class = ("bertopic._bertopic", "BERTopic");
const TOPIC_MAPPER: Class = ("bertopic._bertopic", "TopicMapper");
const BASE_EMBEDDER: Class = ("bertopic.backend._base", "BaseEmbedder");
const BASE_CLUSTER: Class = ("bertopic.cluster._base", "BaseCluster");
const BASE_REDUCTION: Class = ("bertopic.dimensionality._base", "BaseDimensionalityReduction");
const CTFIDF: Class = ("bertopic.vectorizers._ctfidf", "ClassTfidfTransformer");
const COUNT_VECTORIZER: Class = ("sklearn.feature_extraction.text", "CountVectorizer");
const CSR_MATRIX: Class = ("scipy.sparse._csr", "csr_matrix");
const INT64: Class = ("numpy", "int64");

/// Every name that a pickle of a light model has.
const WRITTEN: [Class; 9] = [
    BERTOPIC,
    TOPIC_MAPPER,
    BASE_EMBEDDER,
    BASE_CLUSTER,
    BASE_REDUCTION,
    CTFIDF,
    COUNT_VECTORIZER,
    CSR_MATRIX,
    INT64,
];
