"""Makes small random models of several architectures, and holds what Weighbridge saved against them.

python models.py make DIR     one folder a model, as transformers saves it, and beside it `NAME.bin` folders with the
                              same as torch.save writes a state dict; prints the names as a JSON list
python models.py judge        reads lines of JSON {"original": DIR, "saved": DIR, "dtype": "float32"} from standard
                              input; loads both by the class that the config names and compares

A saved folder must load without a missing, unexpected or mismatched tensor, tie what the original ties, state the
dtype in its config, and give the outputs of the original: equal for float32; for a narrower dtype equal to those of
the original with its weights rounded by torch. Where the folder has a tokenizer, AutoTokenizer must load it and give
the same ids. One line of JSON is printed for each: {"saved", "tensors", "worst", "faults"}.
"""

import json
import os
import shutil
import sys

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXTS = ["Hello, world!", "größer café 你好 🙂", "weigh  bridge\tv2.0", ""]


def configs():
    t = transformers
    small = {
        "vocab_size": 120,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
    }
    bert = t.BertConfig(**small)
    roberta = t.RobertaConfig(**small, pad_token_id=1)
    distil = t.DistilBertConfig(vocab_size=120, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40)
    gpt2 = t.GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=4, n_positions=40, bos_token_id=1, eos_token_id=2)
    llama = {**small, "num_key_value_heads": 2}
    t5 = {"vocab_size": 120, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    yield t.BertModel, bert
    yield t.BertForMaskedLM, bert
    yield t.BertForPreTraining, bert
    yield t.BertForSequenceClassification, t.BertConfig(**small, num_labels=5)
    yield t.DistilBertModel, distil
    yield t.DistilBertForMaskedLM, distil
    yield t.DistilBertForQuestionAnswering, distil
    yield t.RobertaModel, roberta
    yield t.RobertaForMaskedLM, roberta
    yield t.RobertaForTokenClassification, roberta
    yield t.GPT2LMHeadModel, gpt2
    yield t.GPT2ForSequenceClassification, gpt2
    yield t.LlamaForCausalLM, t.LlamaConfig(**llama)
    yield t.LlamaForCausalLM, t.LlamaConfig(**llama, tie_word_embeddings=True)
    yield t.MistralForCausalLM, t.MistralConfig(**llama)
    yield t.Qwen2ForCausalLM, t.Qwen2Config(**llama, tie_word_embeddings=True)
    yield t.T5ForConditionalGeneration, t.T5Config(**t5)
    yield t.T5ForConditionalGeneration, t.T5Config(**t5, feed_forward_proj="gated-gelu")
    yield t.T5EncoderModel, t.T5Config(**t5)


def make(folder):
    names = []
    for number, (kind, config) in enumerate(configs()):
        torch.manual_seed(number)
        model = kind(config).eval()
        name = f"{number:02}-{kind.__name__}"
        path = os.path.join(folder, name)
        model.save_pretrained(path)
        binary = path + ".bin"
        shutil.copytree(path, binary)
        os.remove(os.path.join(binary, "model.safetensors"))
        torch.save(model.state_dict(), os.path.join(binary, "pytorch_model.bin"))
        names.append(name)
    print(json.dumps(names))


def load(path, dtype):
    config = AutoConfig.from_pretrained(path)
    kind = getattr(transformers, config.architectures[0])
    model, info = kind.from_pretrained(path, dtype=dtype, output_loading_info=True)
    return model.eval(), config, {key: sorted(map(str, value)) for key, value in info.items() if value}


def outputs(model):
    torch.manual_seed(7)
    ids = torch.randint(3, 110, (3, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][1, 6:] = 0
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :5]
    if model.config.pad_token_id is None:
        inputs = {key: value[:1] for key, value in inputs.items()}
    with torch.no_grad():
        found = model(**inputs)
    flat = [value for value in found.to_tuple() if isinstance(value, torch.Tensor)]
    assert flat
    return flat


def groups(tensors):
    """The names that share their memory, each group sorted."""
    by_place = {}
    for name, tensor in tensors.items():
        by_place.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    return sorted(sorted(group) for group in by_place.values() if len(group) > 1)


def judge(task):
    faults = []
    original, before, info = load(task["original"], torch.float32)
    assert not info, info
    dtype = getattr(torch, task["dtype"])
    stored, config, info = load(task["saved"], "auto")
    if info:
        faults.append(f"loading tells of {info}")
    stated = config.dtype
    unsaid = before.dtype is None and dtype == torch.float32
    if stated not in (dtype, task["dtype"]) and not (unsaid and stated is None):
        faults.append(f"the config states {stated}")
    # Some classes load chosen layers in float32 whatever is stored.
    loaded = {t.dtype for t in stored.parameters()}
    if dtype not in loaded or not loaded <= {dtype, torch.float32}:
        faults.append(f"the weights load as {sorted(map(str, loaded))}")
    tied = groups(original.state_dict())
    found = {"the model": groups(stored.state_dict())}
    binary = os.path.join(task["saved"], "pytorch_model.bin")
    if os.path.exists(binary):
        found["the file"] = groups(torch.load(binary, weights_only=True))
    faults += [f"in {place} tied are {names}, not {tied}" for place, names in found.items() if names != tied]
    # Parameters alone: a model's own buffers, such as the frequencies of its positions, are computed in float32.
    exact = original
    for parameter in exact.parameters():
        parameter.data = parameter.data.to(dtype).float()
    worst = 0.0
    for ours, theirs in zip(outputs(stored.float()), outputs(exact), strict=True):
        worst = max(worst, (ours - theirs).abs().max().item())
    if worst != 0.0:
        faults.append(f"outputs differ by {worst}")
    if os.path.exists(os.path.join(task["original"], "tokenizer.json")):
        ours, theirs = (AutoTokenizer.from_pretrained(task[key]) for key in ("saved", "original"))
        if ours(TEXTS)["input_ids"] != theirs(TEXTS)["input_ids"]:
            faults.append("the tokenizer gives other ids")
    return {"saved": task["saved"], "tensors": len(stored.state_dict()), "worst": worst, "faults": faults}


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2])
        return
    for line in sys.stdin:
        task = json.loads(line)
        try:
            found = judge(task)
        except Exception as error:  # What does not load is a fault of what was saved.
            found = {"saved": task["saved"], "tensors": 0, "faults": [f"{type(error).__name__}: {error}"]}
        print(json.dumps(found), flush=True)


main()
