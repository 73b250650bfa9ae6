"""Small BERTopic models, really fitted: PCA and a clustering over embeddings that are given, and made-up documents."""

import logging
import warnings

import numpy as np
from bertopic import BERTopic
from bertopic.representation._base import BaseRepresentation
from bertopic.vectorizers import ClassTfidfTransformer
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer

warnings.simplefilter("ignore")
logging.getLogger("BERTopic").setLevel(logging.ERROR)

THEMES = [
    "katze hund tier pfote fell maus vogel futter".split(),
    "kompiler kiste leihe typ makro faden modul ziel".split(),
    "sonne regen wolke wind schnee nebel sturm föhn".split(),
    "brot käse nudel suppe salz öl tomate reis".split(),
    "geige flöte 🎵musik takt chor oper lied bass".split(),
]


class Backwards(BaseRepresentation):
    """A representation whose scores are integers, as those of language models are."""

    def extract_topics(self, topic_model, documents, c_tf_idf, topics):
        return {topic: [(word, 1) for word, _ in reversed(words[:4])] for topic, words in topics.items()}


def documents(themes, count, dim, noise=0, seed=0):
    """Texts of a theme's words, and embeddings around the theme's centre; the last `noise` are far from all."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(themes, dim)) * 4
    texts, embeddings = [], []
    for i in range(count):
        theme = THEMES[i % themes]
        # Frequencies that differ, so that no two words of a topic have the same score.
        weights = np.arange(len(theme), 0, -1, dtype=float)
        texts.append(" ".join(rng.choice(theme, 12, p=weights / weights.sum())))
        embeddings.append(centres[i % themes] + 0.2 * rng.normal(size=dim))
    for _ in range(noise):
        texts.append(" ".join(rng.choice(sum(THEMES[:themes], []), 12)))
        embeddings.append(rng.normal(size=dim) * 40)
    return texts, np.array(embeddings, dtype=np.float32)


def kmeans(themes=3, count=24, dim=4, seed=0):
    """No outliers, custom labels, bigrams, fewer topics than clusters."""
    texts, embeddings = documents(themes, count, dim, seed=seed)
    model = BERTopic(
        umap_model=PCA(2, random_state=0),
        hdbscan_model=KMeans(themes + 1, random_state=0, n_init=2),
        vectorizer_model=CountVectorizer(ngram_range=(1, 2), min_df=1, stop_words=["hund"]),
        top_n_words=6,
        n_gram_range=(1, 2),
        nr_topics=themes,
        verbose=False,
    )
    model.fit(texts, embeddings)
    model.set_topic_labels({0: 'das "erste" Thema, größer', 1: "второе"})
    return model, texts, embeddings


def outliers(themes=3, count=24, dim=4, seed=1):
    """A topic -1, aspects, weights of another kind, all probabilities."""
    texts, embeddings = documents(themes, count, dim, noise=4, seed=seed)
    model = BERTopic(
        umap_model=PCA(3, random_state=0),
        hdbscan_model=DBSCAN(eps=2.5, min_samples=3),
        vectorizer_model=CountVectorizer(token_pattern=r"\S+"),
        ctfidf_model=ClassTfidfTransformer(bm25_weighting=True, reduce_frequent_words=True),
        representation_model={"Backwards": Backwards()},
        calculate_probabilities=True,
        language="multilingual",
    )
    model.fit(texts, embeddings)
    assert -1 in model.topic_sizes_, model.topic_sizes_
    return model, texts, embeddings


def given(themes=2, count=12, dim=3, seed=2):
    """Topics that were given by hand, with nothing optional."""
    from bertopic.cluster import BaseCluster
    from bertopic.dimensionality import BaseDimensionalityReduction

    texts, embeddings = documents(themes, count, dim, seed=seed)
    model = BERTopic(umap_model=BaseDimensionalityReduction(), hdbscan_model=BaseCluster())
    model.fit(texts, embeddings, y=[i % themes for i in range(count)])
    return model, texts, embeddings


ALL = {"kmeans": kmeans, "outliers": outliers, "given": given}
POINTER = "sentence-transformers/all-MiniLM-L6-v2"
