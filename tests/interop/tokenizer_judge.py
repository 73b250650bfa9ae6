"""Trains small tokenizers with the `tokenizers` package, and has transformers load what was saved of them.

    tokenizer_judge.py make FOLDER       a folder a tokenizer, in the layouts of transformers, each with `ids.json`;
                                         further folders of the caller's, named on standard input, get one too
    tokenizer_judge.py compare           a line of JSON for every task on standard input:
                                         {"original": FOLDER, "saved": FOLDER}
    tokenizer_judge.py transfoxl FOLDER  Transformer-XL's vocabulary, in its three forms
    tokenizer_judge.py read FOLDER       what Python reads of such a vocabulary in FOLDER

`FOLDER/corpus.json` is the list of texts for all of them. `ids.json` holds, for every text, the ids with special
tokens, the ids without, and for the text and its successor as a pair the ids and the token type ids.
"""

import collections
import json
import os
import pathlib
import pickle
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

WORDS = "low lower lowest new newer newest wide wider widest the of and to in straße été мир 世界".split()


def corpus(folder):
    return json.loads((folder / "corpus.json").read_text(encoding="utf-8"))


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def ids(folder, texts):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    out = []
    for at, text in enumerate(texts):
        # transformers takes an empty second text for none.
        pair = tokenizer(text, texts[(at + 1) % len(texts)] or ".", return_token_type_ids=True)
        out.append(
            {
                "special": tokenizer(text)["input_ids"],
                "plain": tokenizer(text, add_special_tokens=False)["input_ids"],
                "pair": pair["input_ids"],
                "types": pair["token_type_ids"],
            }
        )
    return tokenizer, out


def train(model, trainer, texts, normalizer=None, splitter=None):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make(folder):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import AutoTokenizer

    texts = corpus(folder)
    data = [t for t in texts if t.strip()] * 3 + WORDS * 5
    quiet = {"show_progress": False}
    made = []

    def folder_of(name, model_type=None, config=None, **files):
        path = folder / name
        path.mkdir()
        if model_type:
            write(path / "config.json", {"model_type": model_type})
        if config is not None:
            write(path / "tokenizer_config.json", config)
        for file, value in files.items():
            write(path / f"{file}.json", value)
        made.append(path)
        return path

    # BERT: from vocab.txt, with and without options.
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    bert = train(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, **quiet),
        data,
        normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        pre_tokenizers.BertPreTokenizer(),
    )
    bert.model.save(str(folder_of("bert", "bert")))
    cased = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "tokenize_chinese_chars": False}
    bert.model.save(str(folder_of("bert-cased", None, cased)))
    accents = {"tokenizer_class": "DistilBertTokenizer", "strip_accents": False, "model_max_length": 64}
    bert.model.save(
        str(
            folder_of(
                "bert-added",
                "distilbert",
                accents,
                special_tokens_map={
                    "unk_token": "[UNK]",
                    "mask_token": {"content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False},
                    "additional_special_tokens": ["[E1]", "[E2]"],
                },
                added_tokens={"[E1]": len(bert.get_vocab()), "lowest of": len(bert.get_vocab()) + 1},
            )
        )
    )

    # OpenAI GPT.
    gpt = train(
        models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
        trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>"], end_of_word_suffix="</w>", **quiet),
        data,
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    gpt.model.save(str(folder_of("gpt", "openai-gpt")))

    # GPT-2, RoBERTa: the same kind of vocabulary, other special tokens.
    def byte_level(special):
        return train(
            models.BPE(),
            trainers.BpeTrainer(
                vocab_size=500,
                special_tokens=special,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                **quiet,
            ),
            data,
            None,
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        )

    gpt2 = byte_level(["<|endoftext|>"])
    gpt2.model.save(str(folder_of("gpt2", "gpt2")))
    options = {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "add_bos_token": True}
    gpt2.model.save(str(folder_of("gpt2-bos", None, options)))
    roberta = byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    roberta.model.save(str(folder_of("roberta", "roberta")))
    decoder = {
        "4": {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "special": True},
        "500": {"content": "<new>", "lstrip": False, "rstrip": True, "normalized": True, "special": False},
    }
    options = {"tokenizer_class": "RobertaTokenizer", "mask_token": "<mask>", "added_tokens_decoder": decoder}
    roberta.model.save(str(folder_of("roberta-added", None, options)))

    # tokenizer.json, as transformers saves it.
    for name in ["bert", "bert-added", "gpt", "gpt2", "roberta", "roberta-added"]:
        path = folder_of(f"{name}-json")
        AutoTokenizer.from_pretrained(folder / name).save_pretrained(path)
        config = folder / name / "config.json"
        if config.exists():
            (path / "config.json").write_bytes(config.read_bytes())

    # tokenizer.json of no class with a layout of its own.
    # Its scores are given: trained ones have ties, which two releases may break differently.
    pieces = [(c, -20.0) for c in sorted({c for t in texts for c in t if c.isalpha()} | {"\u2581"})]
    pieces += [("\u2581" + w, -5.0 - 0.37 * i) for i, w in enumerate(WORDS)]
    unigram = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces], unk_id=2))
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.add_special_tokens(["<pad>", "</s>", "<unk>"])
    unigram.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    options = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    unigram.save(str(folder_of("unigram-json", None, options) / "tokenizer.json"))

    named = [pathlib.Path(line) for line in sys.stdin.read().split("\n") if line]
    for path in made + named:
        tokenizer, found = ids(path, texts)
        out = path if path in made else folder / path.name
        out.mkdir(exist_ok=True)
        write(out / "ids.json", {"class": type(tokenizer).__name__, "texts": found})
        print(json.dumps(path.name))


def compare():
    for line in sys.stdin:
        task = json.loads(line)
        original, saved = pathlib.Path(task["original"]), pathlib.Path(task["saved"])
        faults = []
        try:
            texts = corpus(original.parent)
            want = json.loads((original / "ids.json").read_text(encoding="utf-8"))["texts"]
            tokenizer, found = ids(saved, texts)
            for text, w, f in zip(texts, want, found, strict=True):
                faults += [f"{text!r}: {k}: {w[k]} is {f[k]}" for k in w if w[k] != f[k]]
            cls = task.get("class")
            if cls and type(tokenizer).__name__ != cls:
                faults.append(f"the class is {type(tokenizer).__name__}, not {cls}")
        except Exception as error:  # What transformers refuses is a fault of the file, told with its name.
            faults.append(f"{type(error).__name__}: {error}")
        print(json.dumps({"saved": str(saved), "faults": faults[:5]}))


def build_from_file(path):
    """The vocabulary of a vocab.txt by the rules of Transformer-XL's class."""
    words = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            word = line.strip().split()[0]
            if word not in words:
                words.append(word)
    return words


def transfoxl(folder):
    import torch

    counter = collections.Counter(w for t in corpus(folder) for w in t.split())
    words = ["<eos>", "<unk>"] + [w for w, _ in counter.most_common(200) if w not in ("<eos>", "<unk>")]
    attributes = {
        "counter": counter,
        "special": ["<eos>", "<unk>"],
        "min_freq": 0,
        "max_size": None,
        "lower_case": False,
        "delimiter": None,
        "vocab_file": None,
        "never_split": ["<unk>", "<eos>"],
        "idx2sym": words,
        "sym2idx": collections.OrderedDict((w, i) for i, w in enumerate(words)),
        "unk_idx": 1,
    }
    forms = {
        "lines": lambda p: (p / "vocab.txt").write_text("".join(f"{w} {counter[w]}\n" for w in words), encoding="utf-8"),
        "pickle": lambda p: (p / "vocab.pkl").write_bytes(pickle.dumps(attributes)),
        "torch": lambda p: torch.save(attributes, p / "vocab.bin"),
        "legacy": lambda p: torch.save(attributes, p / "vocab.bin", _use_new_zipfile_serialization=False),
    }
    for name, form in forms.items():
        path = folder / name
        path.mkdir()
        form(path)
        write(path / "tokenizer_config.json", {"tokenizer_class": "TransfoXLTokenizer", "lower_case": True})
    sym2idx = attributes["sym2idx"]
    encoded = [[sym2idx.get(w, 1) for w in t.strip().lower().split()] for t in corpus(folder)]
    print(json.dumps({"words": words, "ids": encoded}))


def read(folder):
    attributes = pickle.loads((folder / "vocab.pkl").read_bytes())
    assert type(attributes["sym2idx"]) is collections.OrderedDict
    assert list(attributes["sym2idx"].values()) == list(range(len(attributes["idx2sym"])))
    assert list(attributes["sym2idx"]) == attributes["idx2sym"]
    assert attributes["idx2sym"][attributes["unk_idx"]] in ("<unk>", "<UNK>")
    print(json.dumps({"pickle": attributes["idx2sym"], "lines": build_from_file(folder / "vocab.txt")}))


if __name__ == "__main__":
    task, *rest = sys.argv[1:]
    {"make": make, "compare": compare, "transfoxl": transfoxl, "read": read}[task](*map(pathlib.Path, rest))
