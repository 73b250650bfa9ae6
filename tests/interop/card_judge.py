"""Has huggingface_hub read the model cards that Weighbridge wrote, and transformers the versions that it keeps.

python card_judge.py    one task a line of JSON on standard input, one line of JSON for each: {"faults": [...], ...}

{"edited": [OLD, NEW], "added": [KEY...]}   NEW is OLD with these keys added to its front matter: where the hub reads
                                            OLD, it reads the same of NEW, and the keys; the text of OLD is in NEW
{"card": PATH, "data": {...}}               ModelCard reads these metadata, results included
{"resave": PATH, "license": L, "tag": T, "text": X}
                                            a person edits the card with the hub's own library, and saves it
{"model": PATH}                             makes a small BERT at random and saves it, with its tokenizer
{"loads": PATH, "like": PATH}               transformers loads both folders, and they give the same outputs
"""

import json
import sys

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK


def read(path):
    """The text of a card as the hub's library reads it."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        return file.read()


def front(text):
    """The front matter, or None; and the text behind it."""
    match = REGEX_YAML_BLOCK.search(text)
    if not match:
        return None, text
    return yaml.safe_load(match.group(2)) or {}, text[match.end():]


def edited(task, faults):
    old_text, new_text = (read(path) for path in task["edited"])
    try:
        old, old_body = front(old_text)
        if old is not None and not isinstance(old, dict):
            raise ValueError("no mapping")
    except Exception:  # noqa: BLE001: whatever the hub cannot read is a person's own affair
        return {"read": False}
    new, new_body = front(new_text)
    if task["added"] or old is not None:
        if not isinstance(new, dict):
            return faults.append(f"the front matter is {new!r}")
        wanted = set(old or {}) | set(task["added"])
        if set(new) != wanted:
            faults.append(f"keys {sorted(map(str, new))}, wanted {sorted(map(str, wanted))}")
        if set(old or {}) & set(task["added"]):
            faults.append("a key was added that was there")
        for key, value in (old or {}).items():
            if new.get(key) != value:
                faults.append(f"{key}: {value!r} became {new.get(key)!r}")
        if [key for key in new if key in (old or {})] != list(old or {}):
            faults.append("the order of keys changed")
        ModelCard(new_text, ignore_metadata_errors=True)
    at = 0
    for char in new_body:
        if at < len(old_body) and char == old_body[at]:
            at += 1
    if at < len(old_body):
        faults.append(f"text is lost: {old_body[at:at + 40]!r}")
    return {"read": True}


def card(task, faults):
    card = ModelCard.load(task["card"])
    found = card.data.to_dict()
    for key, value in task["data"].items():
        if found.get(key) != value:
            faults.append(f"{key}: {found.get(key)!r}, wanted {value!r}")
    if set(found) != set(task["data"]):
        faults.append(f"keys {sorted(found)}")
    results = [[r.task_type, r.dataset_type, r.metric_type, r.metric_value] for r in card.data.eval_results or []]
    return {"results": results, "text": card.text}


def resave(task, faults):
    card = ModelCard.load(task["resave"])
    card.data.license = task["license"]
    card.data.tags = (card.data.tags or []) + [task["tag"]]
    card.text += task["text"]
    card.save(task["resave"])


def make_model(task, faults):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(task.get("seed", 0))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=32)
    BertForSequenceClassification(config).save_pretrained(task["model"])
    with open(f"{task['model']}/vocab.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(words) + "\n")
    BertTokenizer(f"{task['model']}/vocab.txt").save_pretrained(task["model"])


def loads(task, faults):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    outputs = []
    for path in (task["loads"], task["like"]):
        model, report = AutoModelForSequenceClassification.from_pretrained(path, output_loading_info=True)
        if report["missing_keys"] or report["unexpected_keys"]:
            faults.append(f"{path}: {report}")
        inputs = AutoTokenizer.from_pretrained(path)("a b h", return_tensors="pt")
        with torch.no_grad():
            outputs.append((inputs["input_ids"], model.eval()(**inputs).logits))
    if not all(torch.equal(a, b) for a, b in zip(*outputs)):
        faults.append("the outputs differ")


KINDS = {"edited": edited, "card": card, "resave": resave, "model": make_model, "loads": loads}


def main():
    for line in sys.stdin:
        task = json.loads(line)
        faults = []
        kind = next(kind for name, kind in KINDS.items() if name in task)
        try:
            answer = kind(task, faults) or {}
        except Exception as error:  # noqa: BLE001: whatever a judge says against a card is told
            answer = {}
            faults.append(f"{type(error).__name__}: {error}")
        print(json.dumps({"faults": faults, **answer}), flush=True)


if __name__ == "__main__":
    main()
