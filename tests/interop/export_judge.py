"""Judges exported ONNX models: makes random models with transformers, and compares their outputs with those that
ONNX Runtime computes of the exports.

`make`: a line of JSON for each model, {"class", "config", "folder"}: a model of that class of transformers with that
config and random weights is saved in the folder. `judge`: {"folder", "class", "onnx", "task", "dtype", ...}: answers
{"onnx", "faults": [...], "worst": number}. A graph in bf16 is run by onnx's reference evaluator, since ONNX Runtime's
CPU provider has no bf16.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnxruntime as ort
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
ort.set_default_logger_severity(3)

NUMPY = {
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}

# How far outputs may be from transformers' in f32: in absolute terms for f32, else by the largest number.
LIMITS = {"f32": 1e-4, "f16": 2e-2, "bf16": 5e-2}


def make(task):
    """A model whose numbers are large enough that a wrong layer shows, and small enough for f16."""
    kind = getattr(transformers, task["class"])
    torch.manual_seed(task.get("seed", 0))
    model = kind(kind.config_class(**task["config"])).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            norm = tensor.dim() == 1 and name.endswith("weight")
            tensor.normal_(1.0 if norm else 0.0, 0.1 if norm or tensor.dim() == 1 else 0.15)
    if dtype := task.get("save"):
        model = model.to(getattr(torch, dtype))
    model.save_pretrained(task["folder"])
    return {"folder": task["folder"], "faults": []}


def batch(rng, vocab, rows, length, pad, side):
    """Token ids and a mask whose rows are padded to different lengths at one side."""
    ids = rng.integers(3, vocab, (rows, length))
    mask = np.ones((rows, length), dtype=np.int64)
    for row in range(rows):
        short = 0 if row == 0 else int(rng.integers(0, length))
        places = slice(0, short) if side == "left" else slice(length - short, length)
        ids[row, places], mask[row, places] = pad, 0
    return ids.astype(np.int64), mask


class Judge:
    def __init__(self, task):
        self.task = task
        self.faults = []
        self.worst = 0.0
        self.model = onnx.load(task["onnx"])
        onnx.checker.check_model(task["onnx"], full_check=True)
        onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True, data_prop=True)
        self.inputs = {i.name: i.type.tensor_type for i in self.model.graph.input}
        self.outputs = [o.name for o in self.model.graph.output]
        self.dtype = task.get("compute", task.get("dtype", "f32"))
        wanted = "f32" if task.get("f32_io") else self.dtype
        for value in [*self.model.graph.input, *self.model.graph.output]:
            kind = value.type.tensor_type.elem_type
            fits = kind in (onnx.TensorProto.INT64, {"f32": 1, "f16": 10, "bf16": 16}[wanted])
            self.expect(fits, f"{value.name} is of type {kind}")
        if self.dtype == "bf16":
            self.session = onnx.reference.ReferenceEvaluator(self.model)
            return
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(task["onnx"], options, providers=["CPUExecutionProvider"])

    def expect(self, condition, what):
        if not condition:
            self.faults.append(what)

    def run(self, values):
        feed = {}
        for name, info in self.inputs.items():
            if name not in values:
                raise ValueError(f"the graph wants {name}, which is not among {sorted(values)}")
            feed[name] = np.asarray(values[name]).astype(NUMPY[info.elem_type])
        return dict(zip(self.outputs, self.session.run(None, feed)))

    def near(self, what, got, expected, places=None, largest=0.0):
        """Within the dtype's limit, at these places."""
        got, expected = got.astype(np.float64), expected.astype(np.float64)
        self.expect(got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}")
        if got.shape != expected.shape:
            return
        if not np.isfinite(got).all():
            self.faults.append(f"{what}: not finite")
            return
        if places is not None:
            got, expected = got[places], expected[places]
        scale = 1.0 if self.dtype == "f32" and self.task.get("dtype", "f32") == "f32" else max(
            1e-6, largest, float(np.abs(expected).max())
        )
        limit = LIMITS[self.task.get("dtype", "f32")]
        worst = float(np.abs(got - expected).max()) / scale
        self.worst = max(self.worst, worst)
        self.expect(worst <= limit, f"{what}: differs by {worst:.3g}")


def names(task):
    """Outputs that the task must have, and the field of transformers' output that each is."""
    return {
        "feature-extraction": {"last_hidden_state": "last_hidden_state"},
        "fill-mask": {"logits": "logits"},
        "text-classification": {"logits": "logits"},
        "token-classification": {"logits": "logits"},
        "question-answering": {"start_logits": "start_logits", "end_logits": "end_logits"},
        "text-generation": {"logits": "logits"},
    }[task]


MODELS = {}


def judge(task):
    j = Judge(task)
    key = (task["class"], task["folder"])
    if key not in MODELS:
        MODELS.clear()
        kind = getattr(transformers, task["class"])
        MODELS[key] = kind.from_pretrained(task["folder"], dtype=torch.float32).eval()
    model = MODELS[key]
    rng = np.random.default_rng(7)
    shapes = task.get("shapes", [[1, 1], [2, 9], [3, 17]])
    for rows, length in shapes:
        if task["task"] == "text-generation-with-past":
            generation(j, model, rng, rows, length)
        else:
            plain(j, model, rng, rows, length)
    j.expect(bool(shapes), "nothing was compared")
    return {"onnx": task["onnx"], "faults": j.faults, "worst": j.worst}


def plain(j, model, rng, rows, length):
    config, task = model.config, j.task["task"]
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    side = j.task.get("side", "right")
    ids, mask = batch(rng, config.vocab_size, rows, length, pad, side)
    values = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in j.inputs:
        values["token_type_ids"] = rng.integers(0, config.type_vocab_size, ids.shape)
    given = {k: torch.from_numpy(v) for k, v in values.items()}
    if "position_ids" in j.inputs:
        values["position_ids"] = np.clip(np.cumsum(mask, 1) - 1, 0, None)
        given["position_ids"] = torch.from_numpy(values["position_ids"])
    with torch.no_grad():
        expected = model(**given)
    # A row of nothing but padding must not become NaN, nor touch the others.
    if rows > 1:
        bare = mask.copy()
        bare[-1] = 0
        out = j.run({**values, "attention_mask": bare})
        j.expect(all(np.isfinite(x.astype(np.float64)).all() for x in out.values()), "a padded row is not finite")
    got = j.run(values)
    if task == "sentence-embeddings":
        return sentence(j, got, expected, mask)
    wanted = names(task)
    if task == "feature-extraction" and getattr(expected, "pooler_output", None) is not None:
        wanted = {**wanted, "pooler_output": "pooler_output"}
    j.expect(set(got) == set(wanted), f"outputs {sorted(got)}, expected {sorted(wanted)}")
    largest = max(float(getattr(expected, field).abs().max()) for field in wanted.values())
    for name, field in wanted.items():
        reference = getattr(expected, field).numpy()
        places = mask.astype(bool) if got[name].ndim >= 2 and got[name].shape[:2] == mask.shape else None
        if task == "text-classification" or name == "pooler_output":
            places = None
        j.near(f"{name} of {rows} x {length}", got[name], reference, places, largest)


def sentence(j, got, expected, mask):
    x = expected.last_hidden_state.numpy().astype(np.float64)
    weights = mask[:, :, None].astype(np.float64)
    count = weights.sum(1)
    places = np.arange(1, x.shape[1] + 1)[None, :, None] * weights
    modes = {
        "cls": x[:, 0],
        "max": np.where(weights > 0, x, -1e9).max(1),
        "mean": (x * weights).sum(1) / count,
        "mean_sqrt_len_tokens": (x * weights).sum(1) / np.sqrt(count),
        "weightedmean": (x * places).sum(1) / places.sum(1),
        "lasttoken": x[np.arange(len(x)), x.shape[1] - 1 - mask[:, ::-1].argmax(1)],
    }
    out = np.concatenate([modes[m] for m in j.task.get("pooling", ["mean"])], 1)
    if j.task.get("normalize"):
        out = out / np.linalg.norm(out, axis=1, keepdims=True)
    j.near("token_embeddings", got["token_embeddings"], x, mask.astype(bool))
    j.near("sentence_embedding", got["sentence_embedding"], out)


def generation(j, model, rng, rows, length):
    """A prompt, then tokens one and several at a time from the cache: equal to one run of the whole."""
    config = model.config
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    ids, mask = batch(rng, config.vocab_size, rows, length, pad, "left")
    steps = [1, 3, 1]
    more = rng.integers(3, config.vocab_size, (rows, sum(steps)))
    all_ids = np.concatenate([ids, more], 1)
    all_mask = np.concatenate([mask, np.ones_like(more)], 1)
    positions = np.clip(np.cumsum(all_mask, 1) - 1, 0, None)
    with torch.no_grad():
        whole = model(
            input_ids=torch.from_numpy(all_ids),
            attention_mask=torch.from_numpy(all_mask),
            position_ids=torch.from_numpy(positions),
            use_cache=False,
        ).logits.numpy()
    past = {}
    for name, info in j.inputs.items():
        if name.startswith("past_key_values."):
            _, heads, _, size = [d.dim_value for d in info.shape.dim]
            past[name] = np.zeros([rows, heads, 0, size], dtype=NUMPY[info.elem_type])
    j.expect(bool(past), "there is no cache among the inputs")
    at = 0
    for step in [length, *steps]:
        to = at + step
        got = j.run(
            {
                "input_ids": all_ids[:, at:to],
                "attention_mask": all_mask[:, :to],
                "position_ids": positions[:, at:to],
                **past,
            }
        )
        places = all_mask[:, at:to].astype(bool)
        j.near(f"logits {at}..{to} of {rows}", got["logits"], whole[:, at:to], places)
        for name in past:
            past[name] = got[name.replace("past_key_values", "present")]
            j.expect(past[name].shape[2] == to, f"{name}: {past[name].shape} behind {to} tokens")
        at = to


def main():
    mode = sys.argv[1]
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = make(task) if mode == "make" else judge(task)
        except Exception as error:
            at = error.__traceback__
            while at.tb_next:
                at = at.tb_next
            answer = {"task": task, "faults": [f"{type(error).__name__}: {error} (line {at.tb_lineno})"[:2000]]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
