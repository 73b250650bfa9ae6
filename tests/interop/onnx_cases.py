"""Writes the conformance cases of the onnx package that is installed, as folders with a model and its data.

usage: onnx_cases.py FOLDER

The fixtures are those of onnx 1.16. Here are the cases of operators that are newer or have changed since.
"""

import os
import sys
import warnings

import numpy
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

OPERATORS = {
    "Attention", "AveragePool", "Cast", "Clip", "CumSum", "DequantizeLinear", "Gelu", "GroupNormalization",
    "LayerNormalization", "LpNormalization", "LpPool", "MaxPool", "Pad", "QuantizeLinear", "RMSNormalization",
    "RotaryEmbedding", "Split", "Swish", "TopK",
}  # fmt: skip


def write(folder, kind, values, infos):
    for number, (value, info) in enumerate(zip(values, infos)):
        if value is None or isinstance(value, list):
            continue
        if not isinstance(value, TensorProto):
            value = numpy_helper.from_array(numpy.asarray(value), info.name)
        with open(f"{folder}/{kind}_{number}.pb", "wb") as file:
            file.write(value.SerializeToString())


def main(target):
    warnings.filterwarnings("ignore")
    count = 0
    for case in collect_testcases(None):
        if {node.op_type for node in case.model.graph.node} & OPERATORS == set():
            continue
        folder = os.path.join(target, case.name)
        data = os.path.join(folder, "test_data_set_0")
        os.makedirs(data)
        onnx.save(case.model, os.path.join(folder, "model.onnx"))
        inputs, outputs = case.data_sets[0]
        write(data, "input", inputs, case.model.graph.input)
        write(data, "output", outputs, case.model.graph.output)
        count += 1
    print(f"{count} cases of onnx {onnx.__version__}")


main(sys.argv[1])
