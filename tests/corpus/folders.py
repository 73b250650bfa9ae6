"""Folders as Hugging Face has them: code that comes along, templates that leave their sandbox."""

import json

from formats import TEMPLATES
from opcodes import HOSTILE

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "vocab_size": 10}


def dumps(value):
    return json.dumps(value, indent=2).encode()


def weights():
    import numpy
    import safetensors.numpy

    return safetensors.numpy.save({"w": numpy.zeros((2, 2), "f4")}, metadata={"format": "pt"})


def build(corpus):
    good = weights()

    def add(title, files, about, expect="dangerous"):
        content = {"config.json": dumps(CONFIG), "model.safetensors": good, **files}
        corpus.hostile("folders", title, content, about, expect)

    remote = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.XForCausalLM"}
    code = b"import os\nos.system('echo weighbridge')\n\nclass XForCausalLM:\n    pass\n"
    # Code runs only where the user asks for it (trust_remote_code), so "not clean" is what must hold.
    add("auto-map", {"config.json": dumps({**CONFIG, "auto_map": remote}), "modeling_x.py": code}, "auto_map: code that comes with the model", "not-clean")
    add("auto-map-elsewhere", {"config.json": dumps({**CONFIG, "auto_map": {"AutoModel": "other/repo--modeling.X"}})}, "auto_map: code of another repository", "not-clean")
    add("auto-map-tokenizer", {"tokenizer_config.json": dumps({"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}), "tokenization_x.py": code}, "a tokenizer's auto_map", "not-clean")
    add("auto-map-processor", {"preprocessor_config.json": dumps({"auto_map": {"AutoImageProcessor": "image_x.X"}})}, "a processor's auto_map", "not-clean")
    add("auto-map-processor-2", {"processor_config.json": dumps({"auto_map": {"AutoProcessor": "processing_x.X"}})}, "a processor's auto_map", "not-clean")
    add("auto-map-nested", {"config.json": dumps({**CONFIG, "text_config": {"auto_map": remote}})}, "auto_map in a part of a config", "not-clean")
    add("custom-pipeline", {"config.json": dumps({**CONFIG, "custom_pipelines": {"x": {"impl": "pipeline_x.X", "pt": ["AutoModel"]}}}), "pipeline_x.py": code}, "a pipeline that comes with the model", "not-clean")
    add("custom-generate", {"custom_generate/generate.py": code}, "generation that comes with the model", "not-clean")
    add("adapter", {"adapter_config.json": dumps({"peft_type": "LORA", "auto_mapping": {"base_model_class": "X", "parent_library": "evil.module"}, "base_model_name_or_path": "x"})}, "an adapter that names a module to import", "not-clean")
    add("sentence-transformers", {"modules.json": dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.modeling.Transformer"}])}, "modules.json: a class of any module", "not-clean")
    add("sentence-transformers-path", {"modules.json": dumps([{"idx": 0, "name": "0", "path": "../../x", "type": "sentence_transformers.models.Transformer"}])}, "modules.json: a path outside", "not-clean")
    add("diffusers", {"model_index.json": dumps({"_class_name": ["pipeline_x", "XPipeline"], "unet": ["evil_module", "XUNet"]}), "pipeline_x.py": code}, "diffusers: a pipeline of its own", "not-clean")
    add("pickle-beside", {"training_args.bin": HOSTILE}, "a pickle beside harmless weights")
    add("pickle-deep", {"checkpoint-10/optimizer.pt": HOSTILE}, "a pickle in a folder of a folder")
    add("pickle-onnx", {"onnx/model.onnx_data": HOSTILE}, "a pickle under the name of external data")
    add("pickle-tokenizer", {"vocab.txt": HOSTILE}, "a pickle under the name of a vocabulary")
    add("broken-config", {"config.json": b"{\"model_type\": "}, "a config that is no JSON", "not-clean")
    for title, template in TEMPLATES.items():
        add(f"template-{title}", {"tokenizer_config.json": dumps({"chat_template": template})}, f"a chat template that leaves its sandbox: {title}", "not-clean")
    evil = TEMPLATES["globals"]
    add("template-list", {"tokenizer_config.json": dumps({"chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": evil}]})}, "the second of two templates", "not-clean")
    add("template-file", {"chat_template.jinja": evil.encode()}, "a template in a file of its own", "not-clean")
    add("template-additional", {"additional_chat_templates/rag.jinja": evil.encode()}, "a template in the folder of more", "not-clean")
    add("template-json", {"chat_template.json": dumps({"chat_template": evil})}, "a template in chat_template.json", "not-clean")
    add("template-processor", {"processor_config.json": dumps({"chat_template": evil})}, "a template in a processor's config", "not-clean")
    add("template-loop", {"tokenizer_config.json": dumps({"chat_template": "{% for a in range(999999999) %}{% for b in range(999999999) %}x{% endfor %}{% endfor %}"})}, "a template that never ends", "not-clean")
    add("hydra", {"config.yaml": b"model:\n  _target_: os.system\n  _args_: [echo weighbridge]\n"}, "a config that Hydra would call", "not-clean")
    add("yaml", {"hparams.yaml": b"a: !!python/object/apply:os.system [echo weighbridge]\n"}, "a YAML file that constructs objects", "not-clean")
