"""What model registries, other languages and other tools keep beside weights: settings that name code, serialized objects
of R and Java, entities of XML, archives of skops."""

import gzip
import json

from archives import Entry, zipped
from opcodes import HOSTILE


def build(corpus):
    def add(title, data, about, expect="not-clean", callable=None):
        corpus.hostile("other-tools", title, data, about, expect, callable)

    rds = b"X\n\0\0\0\3\0\4\3\0\0\3\5\0" + b"\0\0\0\5UTF-8" + b"\0\0\0\xee\0\0\0\1"
    add("model.rds", gzip.compress(rds, mtime=0), "an object of R, whose promises run when they are read (CVE-2024-27322)")
    add("plain.rds", rds, "the same, not compressed")
    add("model.rda", gzip.compress(b"RDX3\n" + rds, mtime=0), "R's workspace")
    add("model.ser", b"\xac\xed\0\5sr\0\21java.util.HashMap" + b"\0" * 60, "an object of Java, which builds any class")
    add("h2o.zip", zipped(Entry("model.bin", b"\xac\xed\0\5sr\0\21java.util.HashMap" + b"\0" * 60)), "an object of Java in a zip")
    entity = b'<?xml version="1.0"?>\n<!DOCTYPE PMML [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<PMML version="4.4"><Header description="&x;"/></PMML>\n'
    add("model.pmml", entity, "PMML with an external entity")
    add("openvino.xml", entity.replace(b"PMML", b"net"), "OpenVINO's graph with an external entity")
    laughs = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]><net>&c;</net>'
    add("laughs.xml", laughs, "XML whose entities double")

    def skops(node):
        return zipped(Entry("schema.json", json.dumps({"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {"a": node}, "protocol": 2, "_skops_version": "0.11"}).encode()))

    call = {"__class__": "methodcaller", "__module__": "operator", "__loader__": "OperatorFuncNode", "attrs": {"content": [], "__loader__": "TupleNode"}}
    add("operator.skops", skops(call), "skops: a function of operator (CVE-2025-54412)")
    add("method.skops", skops({"__class__": "system", "__module__": "os", "__loader__": "MethodNode", "content": {}}), "skops: a method of any module (CVE-2025-54413)", callable="os.system")
    add("function.skops", skops({"__class__": "function", "__module__": "builtins", "__loader__": "FunctionNode", "content": {"module_path": "os", "function": "system"}}), "skops: a function by its path")
    add("object.skops", skops({"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode", "content": {}}), "skops: an object of any class", callable="subprocess.Popen")
    mlflow = b"flavors:\n  python_function:\n    loader_module: evil_module\n    code: code\n    data: data\n"
    add("mlflow", {"MLmodel": mlflow, "code/evil_module.py": b"import os\nos.system('echo weighbridge')\n"}, "MLflow: the module that loads the model")
    add("mlflow-cloudpickle", {"MLmodel": mlflow.replace(b"evil_module", b"mlflow.pyfunc.model"), "python_model.pkl": HOSTILE}, "MLflow: a model that is a pickle", "dangerous", "os.system")
    add("bentoml", {"bento.yaml": b"service: service:svc\nname: x\nversion: 1\n", "src/service.py": b"import os\nos.system('echo weighbridge')\n"}, "BentoML: a service that comes along")
    add("triton", {"config.pbtxt": b'backend: "python"\nname: "x"\n', "1/model.py": b"import os\nos.system('echo weighbridge')\n"}, "Triton: a model of Python code")
    escaped = b"a: !!pyth%6fn/object/apply:os.system [echo weighbridge]\n"
    add("escaped-tag.yaml", escaped, "a tag with an escape in it")
    add("tag-directive.yaml", b"%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!object/apply:os.system [echo weighbridge]\n", "a tag's handle of its own")
    add("quoted-target.yaml", b'model: {"_target_": os.system, "_args_": [echo weighbridge]}\n', "Hydra's target in quotes, in braces")
    add("target-in-quotes.yaml", b"model:\n  '_target_' : os.system\n", "Hydra's target in quotes")
    llamafile = b"MZqFpD='\n\n" + b"\0" * 54 + b"' <<'@weighbridge'\n" + zipped(Entry("model.gguf", b"GGUF\3\0\0\0" + b"\0" * 16))
    add("model.llamafile", llamafile, "a llamafile: a program and a zip at once")
    add("sitecustomize.pth", b"import os; os.system('echo weighbridge')\n", "a file of paths that Python runs at its start")
    add("model.nemo", zipped(Entry("model_config.yaml", b"target: evil.module.Model\n_target_: os.system\n")), "NeMo's configuration in a zip")
    add("BOM.json", b"\xef\xbb\xbf" + json.dumps({"auto_map": {"AutoModel": "evil.Model"}}).encode(), "a config behind a byte order mark")
    add("UPPER.JSON", json.dumps({"auto_map": {"AutoModel": "evil.Model"}}).encode(), "a config in upper case")
    add("comment.zip", zipped(Entry("a.txt", b"a"), comment=zipped(Entry("model.pkl", HOSTILE))), "a zip in the comment of a zip")
    add("wheel-0-py3-none-any.whl", zipped(Entry("evil.py", b"import os\n"), Entry("wheel-0.dist-info/RECORD", b"")), "a package of Python among the files of a model")
