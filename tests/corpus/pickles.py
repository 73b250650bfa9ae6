"""Hostile pickles: what is called, by which opcode, how its name is hidden, and where the stream breaks."""

import struct

from callables import TABLES
from opcodes import *


def tables(corpus):
    """Every callable by REDUCE, and by one more opcode each; a few of them by all."""
    forms = {
        "global": lambda m, n, a: proto(4) + name(m, n) + value(a) + REDUCE + STOP,
        "stack-global": lambda m, n, a: proto(4) + stack_name(m, n) + value(a) + REDUCE + STOP,
        "inst": lambda m, n, a: proto(4) + MARK + b"".join(map(value, a)) + b"i" + name(m, n)[1:] + STOP,
        "obj": lambda m, n, a: proto(4) + MARK + name(m, n) + b"".join(map(value, a)) + OBJ + STOP,
        "newobj": lambda m, n, a: proto(4) + name(m, n) + value(a) + NEWOBJ + STOP,
        "newobj-ex": lambda m, n, a: proto(4) + stack_name(m, n) + value(a) + EMPTY_DICT + NEWOBJ_EX + STOP,
        "reduce-pop": lambda m, n, a: proto(4) + name(m, n) + value(a) + REDUCE + POP + value(WEIGHTS) + STOP,
    }
    # Where a call is one of a call, the innermost is what the finding names.
    inner = {"copyreg.__newobj__": "subprocess.Popen", "torch._utils._rebuild_wrapper_subclass": "os.system", "torch.storage._load_from_bytes": "os.system", "builtins.getattr": "os.path"}
    # A class outside of Python's own library that is called: not vouched for, though not known to be code either.
    classes = {"torch.package.package_importer.PackageImporter", "numpy.lib.npyio.NpzFile"}
    core = {"os.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.getattr", "pickle.loads"}
    turn = 0
    for table, rows in TABLES.items():
        for module, attribute, arguments in rows:
            full = f"{module}.{attribute}"
            used = ["stack-global"]
            if full in core:
                used = list(forms)
            elif "." in attribute:
                # The C unpickler reads dotted names from protocol 4 on, by either opcode.
                used = ["global", "stack-global"]
            else:
                others = ["global", "inst", "obj", "newobj", "newobj-ex", "reduce-pop"]
                used.append(others[turn % len(others)])
                turn += 1
            for form in used:
                # NEWOBJ makes an object of a class and calls no function: what is named is still no weights.
                built = form.startswith("newobj")
                expect = "not-clean" if built or full in classes else "dangerous"
                named = inner.get(full, full) if built or full != "builtins.getattr" else full
                corpus.hostile(
                    f"call-{table}", f"{full}-{form}.pkl", forms[form](module, attribute, arguments),
                    f"{full} by {form}", expect, callable=named,
                )


def implicit(corpus):
    """Code that runs without a REDUCE of its own name."""
    odict = Raw(name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE)

    def add(title, body, about, expect="dangerous", callable="os.system", number=4):
        corpus.hostile("implicit", f"{title}.pkl", proto(number) + body + STOP, about, expect, callable)

    def attribute(key, code=SYSTEM):
        return odict + value({key: code}) + BUILD

    add("build-setstate", attribute("__setstate__") + value(ECHO) + BUILD, "BUILD calls a __setstate__ that BUILD put there")
    add("appends-append", attribute("append") + MARK + value(ECHO) + APPENDS, "APPENDS calls an append that BUILD put there")
    add("append-append", attribute("append") + value(ECHO) + APPEND, "APPEND calls an append that BUILD put there")
    add("appends-extend", attribute("extend") + MARK + value(ECHO) + APPENDS, "APPENDS calls an extend that BUILD put there")
    add("additems-add", attribute("add") + MARK + value(ECHO) + b"\x90", "ADDITEMS calls an add that BUILD put there")
    add(
        "slotstate-setstate",
        odict + NONE + value({"__setstate__": SYSTEM}) + TUPLE2 + BUILD + value(ECHO) + BUILD,
        "the slot half of a state sets __setstate__",
    )
    add(
        "build-on-class",
        name("collections", "OrderedDict") + NONE + value({"update": SYSTEM}) + TUPLE2 + BUILD,
        "BUILD on a class changes it for the whole process",
    )
    add(
        "build-on-module-function",
        name("torch.nn.functional", "relu") + NONE + value({"__code__": None}) + TUPLE2 + BUILD,
        "BUILD on a function replaces its code", expect="not-clean", callable=None,
    )
    add("global-only", name("os", "system"), "a callable as the whole of a pickle")
    add("global-in-dict", value({"w": [1.0], "hook": SYSTEM}), "a callable among weights")
    add("global-popped", name("os", "system") + POP + value(WEIGHTS), "an import for its side effect, then popped")
    add(
        "import-only", name("antigravity", "fly") + POP + value(WEIGHTS), "importing a module runs it",
        expect="not-clean", callable="antigravity.fly",
    )
    add("default-factory", value(call(name("collections", "defaultdict"), SYSTEM)), "a defaultdict that calls os.system")
    add(
        "ordereddict-of-map", value(call(name("collections", "OrderedDict"), call(name("builtins", "map"), SYSTEM, [ECHO]))),
        "a harmless class consumes a map of os.system",
    )
    add(
        "list-of-map", value(call(name("builtins", "list"), call(name("builtins", "map"), SYSTEM, [ECHO]))),
        "list() consumes a map of os.system",
    )
    add(
        "persistent-id", value(PAYLOAD) + BINPERSID, "a persistent id that is the result of a call",
    )
    add(
        "persistent-storage",
        value(("storage", SYSTEM, "0", "cpu", 1)) + BINPERSID,
        "torch's persistent id with a callable for a storage type",
    )
    add(
        "persistent-tuple",
        value(("module", "evil", "/nonexistent/evil.py", "import os")) + BINPERSID,
        "the old persistent id of a module with its source", expect="not-clean", callable=None,
    )
    add("text-persid", b"P" + ECHO.encode() + b"\n", "PERSID of protocol 0", expect="not-clean", callable=None, number=0)
    transformer = name("sklearn.preprocessing._function_transformer", "FunctionTransformer")
    add(
        "sklearn-function-transformer", transformer + EMPTY_TUPLE + NEWOBJ + value({"func": SYSTEM, "validate": False}) + BUILD,
        "an estimator that calls os.system when it is used",
    )
    scalar = name("numpy._core.multiarray", "scalar")
    dtype = Raw(value(call(name("numpy", "dtype"), "O8", False, True)))
    add("numpy-scalar-object", value(call(scalar, dtype, PAYLOAD)), "a NumPy scalar of dtype object that is a call")
    reconstruct = name("numpy._core.multiarray", "_reconstruct")
    add(
        "numpy-reconstruct-class", value(call(reconstruct, name("subprocess", "Popen"), (0,), b"b")),
        "_reconstruct with another class than ndarray", callable="subprocess.Popen",
    )
    add(
        "numpy-object-array",
        value(call(reconstruct, name("numpy", "ndarray"), (0,), b"b"))
        + value((1, (1,), dtype, False, [PAYLOAD])) + BUILD,
        "an object array with a call for an element",
    )
    add(
        "torch-hooks",
        name("torch.nn.modules.linear", "Linear") + EMPTY_TUPLE + NEWOBJ
        + value({"training": False, "_forward_hooks": {0: SYSTEM}}) + BUILD,
        "a module whose forward hook is os.system",
    )
    add(
        "torch-rebuild-parameter",
        value(call(name("torch._utils", "_rebuild_parameter"), PAYLOAD, False, odict)), "torch's own rebuild around a call",
    )
    add("frozenset", MARK + value(PAYLOAD) + b"\x91", "a call inside FROZENSET")
    add("key", EMPTY_DICT + value(PAYLOAD) + value(1) + SETITEM, "a call as the key of a dict")
    add("duplicate", name("os", "system") + DUP + value((ECHO,)) + REDUCE + TUPLE2, "DUP of a callable, one of them called")
    add("pop-mark", MARK + value(PAYLOAD) + b"1" + value(WEIGHTS), "POP_MARK throws the result of a call away")
    add("obj-pop", MARK + name("os", "system") + value(ECHO) + OBJ + POP + value(WEIGHTS), "OBJ, then POP")
    add("inst-pop", MARK + value(ECHO) + b"ios\nsystem\n" + POP + value(WEIGHTS), "INST, then POP")
    add("chain", value(call(call(name("builtins", "getattr"), name("os", "path"), "join"), "a")), "the result of a call is called", callable="builtins.getattr")
    add(
        "class-made-here",
        value(call(name("builtins", "type"), "X", (name("builtins", "object"),), {"__setstate__": SYSTEM})) + EMPTY_TUPLE + NEWOBJ + value(ECHO) + BUILD,
        "type() makes a class whose __setstate__ is os.system",
    )
    add("ext-registered", value(call(name("copyreg", "add_extension"), "os", "system", 240)) + POP + b"\x82\xf0" + value((ECHO,)) + REDUCE,
        "a code is registered in the stream, then EXT1 calls it", callable="copyreg.add_extension")
    for title, code in [("ext1", b"\x82\xf0"), ("ext2", b"\x83" + struct.pack("<H", 999)), ("ext4", b"\x84" + struct.pack("<i", 70000))]:
        add(title, code + value((ECHO,)) + REDUCE, f"{title.upper()} of a code that nobody knows, called", expect="not-clean", callable=None)
    add("ext1-only", b"\x82\xf0", "EXT1 as the whole of a pickle", expect="not-clean", callable=None)


def hidden(corpus):
    """Names that a list of strings does not show."""

    def add(title, body, about, expect="dangerous", callable="os.system"):
        corpus.hostile("hidden-names", f"{title}.pkl", body + STOP, about, expect, callable)

    argument = value((ECHO,)) + REDUCE
    four = proto(4)
    add("string", four + string("os") + string("system") + STACK_GLOBAL + argument, "STACK_GLOBAL fed by STRING")
    add("binstring", four + b"T\x02\0\0\0osU\x06system" + STACK_GLOBAL + argument, "STACK_GLOBAL fed by BINSTRING and SHORT_BINSTRING")
    add("unicode-text", four + b"Vos\nVsystem\n" + STACK_GLOBAL + argument, "STACK_GLOBAL fed by UNICODE")
    add("unicode-escape", four + b"V\\u006fs\nVs\\u0079stem\n" + STACK_GLOBAL + argument, "UNICODE with escapes in it")
    add("string-escape", four + b"S'\\x6f\\x73'\nS'\\x73ystem'\n" + STACK_GLOBAL + argument, "STRING with escapes in it")
    add("binunicode8", four + b"\x8d" + struct.pack("<Q", 2) + b"os" + b"\x8d" + struct.pack("<Q", 6) + b"system" + STACK_GLOBAL + argument, "BINUNICODE8")
    for title, store, load in [
        ("get", lambda i: b"p%d\n" % i, lambda i: b"g%d\n" % i),
        ("binget", put, get),
        ("long-binget", lambda i: b"r" + struct.pack("<I", i), lambda i: b"j" + struct.pack("<I", i)),
    ]:
        add(
            f"memo-{title}",
            four + short("os") + store(40) + POP + short("system") + store(41) + POP + value(WEIGHTS) + POP
            + load(40) + load(41) + STACK_GLOBAL + argument,
            "STACK_GLOBAL fed by the memo",
        )
    add(
        "memo-mixed",
        four + short("os") + put(0) + POP + short("system") + put(1) + POP
        + short("torch._utils") + MEMOIZE + POP + short("_rebuild_tensor_v2") + MEMOIZE + POP
        + get(0) + get(1) + STACK_GLOBAL + argument,
        "PUT and MEMOIZE mixed, so that a count of MEMOIZE is wrong",
    )
    add(
        "memo-overwritten",
        four + short("torch") + put(0) + POP + short("os") + put(0) + POP + short("system") + put(1) + POP
        + get(0) + get(1) + STACK_GLOBAL + argument,
        "a memo entry written twice",
    )
    add(
        "memo-overwritten-back",
        four + short("os") + put(0) + short("system") + STACK_GLOBAL + POP + short("collections") + put(0) + POP
        + short("system") + put(1) + POP + short("os") + put(7) + POP + get(7) + get(1) + STACK_GLOBAL + argument,
        "memo entries that name something harmless at the end",
    )
    add(
        "memo-sparse",
        four + short("os") + b"r" + struct.pack("<I", 2**20) + POP + short("system") + MEMOIZE + POP
        + b"j" + struct.pack("<I", 2**20) + b"h\x01" + STACK_GLOBAL + argument,
        "a memo index far from the others",
    )
    add(
        "memo-callable",
        four + name("os", "system") + put(9) + POP + value(WEIGHTS) + put(10) + get(9) + argument,
        "the callable itself out of the memo",
    )
    add(
        "memo-arguments",
        four + value((ECHO,)) + put(3) + POP + name("os", "system") + get(3) + REDUCE,
        "the arguments out of the memo",
    )
    add(
        "build-values",
        proto(5) + name("numpy", "prod") + NONE + value({"a": "os"}) + TUPLE2 + BUILD + NONE + value({"b": "system"}) + TUPLE2 + BUILD
        + POP + name("numpy", "prod.a") + name("numpy", "prod.b") + STACK_GLOBAL + argument,
        "names that BUILD put on a function, read by dotted names", callable=None,
    )
    add(
        "call-values",
        four + value(call(name("builtins", "str"), "os")) + short("system") + STACK_GLOBAL + argument,
        "a module's name that str() makes", expect="not-clean", callable=None,
    )
    add(
        "decoded-values",
        four + value(call(name("_codecs", "decode"), b"b3M=", "base64")) + short("system") + STACK_GLOBAL + argument,
        "a module's name that a codec makes", expect="not-clean", callable=None,
    )
    add(
        "popped-strings",
        four + short("os") + short("torch") + POP + short("system") + short("save") + POP + STACK_GLOBAL + argument,
        "other names pushed and popped in between",
    )
    add(
        "dup-strings",
        four + short("os") + DUP + POP + short("system") + DUP + POP + STACK_GLOBAL + argument, "DUP and POP in between",
    )
    add(
        "noise-between",
        four + short("os") + integer(1) + POP + short("system") + MARK + b"1" + STACK_GLOBAL + argument,
        "opcodes without effect between name and name",
    )
    add(
        "far-apart",
        four + short("os") + put(0) + short("system") + put(1) + b"0" * 2 + (b"K\x01" + POP) * 40000 + get(0) + get(1) + STACK_GLOBAL + argument,
        "160 KB between the names and their use",
    )
    add("tuple-order", four + MARK + short("x") + short("os") + short("system") + STACK_GLOBAL + value((ECHO,)) + REDUCE + TUPLE, "inside a mark")
    dotted = [
        ("pathlib", "os.system"), ("collections", "_sys.modules"), ("numpy", "testing._private.utils.runstring"),
        ("torch", "serialization.os.system"), ("collections", "OrderedDict.fromkeys"), ("torch", "os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("sklearn", "os.system"), ("builtins", "object.__subclasses__"),
    ]
    for module, attribute in dotted:
        full = f"{module}.{attribute}"
        expect = "dangerous" if attribute.endswith(("system", "runstring")) else "not-clean"
        for form, reference in [("global", name), ("stack", stack_name)]:
            add(f"dotted-{full}-{form}", four + reference(module, attribute) + argument, "a dotted attribute", expect, full)
    odd = {
        "upper-case": ("OS", "system"), "nul": ("os\0", "system"), "space": ("os ", "system"), "trailing-dot": ("os.", "system"),
        "full-width": ("ｏｓ", "system"), "relative": (".os", "system"), "empty-module": ("", "system"), "empty-name": ("os", ""),
        "newline": ("os\n", "system"), "long": ("o" * 250, "system"),
    }
    for title, (module, attribute) in odd.items():
        add(f"odd-{title}", four + stack_name(module, attribute) + argument, f"a name out of the ordinary: {title}", "not-clean", None)
    add("carriage-return", four + Raw(b"cos\r\nsystem\r\n") + argument, "GLOBAL with CR LF", "not-clean", None)
    add("near-allowed", four + name("torch._utils", "_rebuild_tensor_v2 ") + argument, "an allowed name and a blank", "not-clean", None)
    add("prefix-allowed", four + name("torch_utils", "_rebuild_tensor_v2") + argument, "a module that begins like an allowed one", "not-clean", None)
    add("allowed-module", four + name("torch", "hub.load") + argument, "a name out of an allowed package", "dangerous", "torch.hub.load")
    add("allowed-submodule", four + name("numpy.f2py.diagnose", "run_command") + argument, "a submodule of an allowed package", "dangerous", "numpy.f2py.diagnose.run_command")
    add("python2", proto(2) + name("__builtin__", "eval") + value(("1+1",)) + REDUCE, "the Python 2 name of builtins", callable="__builtin__.eval")
    add("python2-imap", proto(2) + name("itertools", "imap") + value((SYSTEM, [ECHO])) + REDUCE, "a Python 2 name that protocol 2 maps to builtins.map", callable=None)
    add("protocol0", b"cos\nsystem\n(S'echo weighbridge'\ntR", "protocol 0, all text")
    add("protocol1", b"cos\nsystem\n(U\x10echo weighbridgetR", "protocol 1")
    add("no-proto", name("os", "system") + argument, "no PROTO at all")
    add("late-proto", value(1) + POP + proto(2) + name("os", "system") + argument, "PROTO in the middle")
    add("framed", four + frame(len(PAYLOAD) + 1) + PAYLOAD, "a frame as a pickler makes it")
    add("crosses-frame", four + frame(5) + PAYLOAD, "an opcode that crosses a frame")
    add("empty-frames", four + frame(0) * 5 + PAYLOAD, "frames of no bytes")
    add("nested-frames", four + frame(100) + frame(50) + PAYLOAD, "a frame inside a frame")
    add("leading-noise", (NONE + POP) * 5000 + four + PAYLOAD, "10 KB without effect first")
    add("float-first", b"F1.5\n0" + PAYLOAD, "FLOAT of protocol 0 first")
    add("bytearray-first", proto(5) + b"\x96" + struct.pack("<Q", 2) + b"ab0" + PAYLOAD, "BYTEARRAY8 first")
    add("buffer-after", proto(5) + PAYLOAD + b"\x97\x98", "NEXT_BUFFER and READONLY_BUFFER after")
    add("cycle-first", proto(4) + EMPTY_LIST + MEMOIZE + get(0) + APPEND + PAYLOAD + TUPLE2, "a list inside itself first")
    add("long-first", four + b"L99999999999999999999L\n0I01\n0" + PAYLOAD, "LONG and INT of protocol 0 first")
    add("in-string", four + value({"note": "harmless"}) + POP + PAYLOAD, "a harmless value first, popped")


def streams(corpus):
    """Several pickles, pickles in bytes, and streams that break after the harm is done."""

    def add(title, data, about, expect="dangerous", callable="os.system", extension="pkl"):
        corpus.hostile("streams", f"{title}.{extension}", data, about, expect, callable)

    benign = pickled(WEIGHTS)
    add("benign-first", benign + HOSTILE, "a benign pickle first")
    add("third", benign * 2 + HOSTILE, "the third of three")
    add("hundredth", benign * 99 + HOSTILE, "the last of a hundred")
    add("nul-between", benign + b"\0" * 64 + HOSTILE, "zeros between two pickles", "not-clean", None)
    add("garbage-between", benign + bytes(range(255, 200, -1)) + HOSTILE, "garbage between two pickles", "not-clean", None)
    add("garbage-before", b"\xffGARBAGE\xfe" * 4 + HOSTILE, "garbage, then a pickle", "not-clean", None)
    add("garbage-after", HOSTILE + bytes(range(256)), "the payload, then garbage")
    add("text-before", b"This is a model.\n" + HOSTILE, "text, then a pickle", "not-clean", None)
    add("offset-512", b"\0" * 512 + HOSTILE, "a pickle behind 512 zeros", "not-clean", None)
    broken = {
        "truncated-string": text(ECHO)[:1] + struct.pack("<I", 10) + b"abc",
        "unknown-opcode": b"\xff\xff\xff",
        "no-stop": b"",
        "giant-length": b"X" + struct.pack("<I", 2**32 - 1) + b"abc",
        "giant-length8": b"\x8d" + struct.pack("<Q", 2**63 - 1) + b"abc",
        "long4-2gib": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc",
        "negative-length": b"T" + struct.pack("<i", -5) + b"abc",
        "missing-memo": get(99) + STOP,
        "missing-memo-stack-global": get(98) + get(99) + STACK_GLOBAL + STOP,
        "integer-name": integer(1) + integer(2) + STACK_GLOBAL + STOP,
        "bytes-name": raw(b"os") + raw(b"system") + STACK_GLOBAL + STOP,
        "none-name": NONE + NONE + STACK_GLOBAL + STOP,
        "stack-underflow": POP * 5 + REDUCE + STOP,
        "no-mark": TUPLE + STOP,
        "bad-utf8": b"X" + struct.pack("<I", 2) + b"\xff\xfe" + STOP,
        "bad-integer": b"Iabc\n" + STOP,
        "bad-float": b"Fabc\n" + STOP,
        "bad-string": b"Sabc\n" + STOP,
        "bad-proto": proto(255) + STOP,
        "bad-frame": frame(2**62) + STOP,
        "setitem-on-int": integer(1) + value("a") + value("b") + SETITEM + STOP,
        "append-on-none": NONE + integer(1) + APPEND + STOP,
        "build-on-none": NONE + value({"a": 1}) + BUILD + STOP,
        "reduce-of-int": integer(1) + EMPTY_TUPLE + REDUCE + STOP,
        "unhashable-key": EMPTY_DICT + EMPTY_LIST + integer(1) + SETITEM + STOP,
        "missing-module": name("weighbridge_missing", "x") + STOP,
        "trailing-global": b"cos",
        "empty-ext": b"\x82\x00" + STOP,
    }
    for title, end in broken.items():
        add(f"breaks-{title}", proto(4) + PAYLOAD + POP + end, f"the stream breaks after the call: {title}")
    only = {
        "setitem-on-no-dict": name("os", "environ") + value("A") + value("b") + SETITEM + STOP,
        "setitem-on-int": integer(1) + value("A") + value("b") + SETITEM + STOP,
        "length-lie": b"X" + struct.pack("<I", 2**30) + b"0123456789",
        "bytes-lie": b"B" + struct.pack("<I", 2**32 - 1) + b"0123456789",
        "bytes8-lie": b"\x8e" + struct.pack("<Q", 2**62) + b"0123456789",
        "long4-2gib": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"0123456789",
        "frame-lie": frame(2**62) + value(WEIGHTS) + STOP,
        "missing-memo": get(7) + STOP,
        "name-is-int": integer(1) + integer(2) + STACK_GLOBAL + STOP,
        "no-stop": value(WEIGHTS),
        "unknown-opcode": b"\xfe" + STOP,
        "underflow": POP + STOP,
    }
    for title, body in only.items():
        add(f"broken-{title}", proto(4) + body, f"a broken pickle without a call: {title}", "not-clean", None)
    add("bytes-inside", pickled({"w": [1.0], "extra": HOSTILE}), "a pickle inside bytes inside a pickle", "not-clean", None)
    add("bytes-inside-twice", pickled({"a": pickled({"b": HOSTILE})}), "a pickle in bytes in a pickle in bytes", "not-clean", None)
    add("bytes-loaded", pickled(call(name("pickle", "loads"), HOSTILE)), "a pickle in bytes that the stream loads", callable="pickle.loads")
    add("bytearray-inside", proto(5) + b"\x96" + struct.pack("<Q", len(HOSTILE)) + HOSTILE + STOP, "a pickle in a bytearray", "not-clean", None)
    latin = Raw(text(HOSTILE.decode("latin-1")))
    add("codecs-inside", pickled(call(name("_codecs", "encode"), latin, "latin1"), 2), "a pickle in bytes as protocol 2 has them", "not-clean", None)
    magic = integer(0x1950A86A20F9469CFC6C)
    legacy = [proto(2) + magic + STOP, proto(2) + integer(1001) + STOP, pickled({"little_endian": True, "protocol_version": 1001, "type_sizes": {"int": 4}}, 2)]
    add("legacy-torch", b"".join(legacy) + HOSTILE + pickled([], 2), "torch's legacy form: the fourth pickle", extension="pt")
    add("legacy-keys", b"".join(legacy) + pickled({}, 2) + HOSTILE, "torch's legacy form: the list of storages", extension="pt")
    evaluated = proto(2) + value(call(name("__builtin__", "eval"), "0x1950a86a20f9469cfc6c")) + STOP
    add("legacy-magic", evaluated + b"".join(legacy[1:]) + pickled({}, 2) + pickled([], 2), "the legacy magic number made by eval", callable="__builtin__.eval", extension="pt")
    add("legacy-sysinfo", b"".join(legacy[:2]) + HOSTILE + pickled({}, 2) + pickled([], 2), "the legacy system info is a call", extension="pt")
    extensions = ["bin", "pt", "pth", "ckpt", "json", "txt", "dat", "model", "joblib", "npy", "safetensors", "gguf", "onnx", "h5", "md", "yaml", "py", "png", "zip", "PKL"]
    for extension in extensions:
        add("under-another-name", HOSTILE, f"a pickle named .{extension}", extension=extension)
    add("text-pickle", b"cos\nsystem\n(S'echo weighbridge'\ntR.", "a pickle of protocol 0, under a text's name", extension="txt")
    add("text-pickle-json", b"cos\nsystem\n(S'echo weighbridge'\ntR.", "a pickle of protocol 0, under a JSON's name", extension="json")
    add("text-pickle-dict", b"(dp0\nVname\np1\ncos\nsystem\np2\n(Vecho weighbridge\np3\ntp4\nRp5\ns.", "a dict of protocol 0 with a call", extension="cfg")
    corpus.hostile("streams", "no-extension", HOSTILE, "a pickle without an extension", callable="os.system")
    corpus.hostile("streams", ".hidden", HOSTILE, "a pickle under a hidden name", callable="os.system")


def memory(corpus):
    """Streams that ask for more than a file of their size should cost."""
    laughs = proto(2) + value(["ha"] * 10) + put(0)
    for level in range(1, 30):
        laughs += EMPTY_LIST + MARK + get(level - 1) * 10 + APPENDS + put(level)
    corpus.bounded("memory", "billion-laughs.pkl", laughs + STOP, "a memo bomb: 10^30 strings if it is walked")
    deep = proto(2) + EMPTY_TUPLE + TUPLE1 * 100_000 + STOP
    corpus.bounded("memory", "deep-tuples.pkl", deep, "tuples 100,000 deep")
    corpus.bounded("memory", "deep-lists.pkl", proto(2) + EMPTY_LIST * 100_000 + APPEND * 99_999 + STOP, "lists 100,000 deep")
    corpus.bounded("memory", "cycle.pkl", proto(4) + EMPTY_LIST + MEMOIZE + get(0) + APPEND + STOP, "a list inside itself")
    corpus.bounded("memory", "dict-cycle.pkl", proto(4) + EMPTY_DICT + MEMOIZE + value("me") + get(0) + SETITEM + STOP, "a dict inside itself")
    corpus.bounded("memory", "tuple-cycle.pkl", proto(4) + EMPTY_LIST + MEMOIZE + MARK + get(0) + TUPLE + MEMOIZE + APPEND + STOP, "a tuple in a list in it")
    corpus.bounded("memory", "many-marks.pkl", proto(2) + MARK * 300_000 + STOP, "300,000 marks")
    corpus.bounded("memory", "many-pickles.pkl", pickled(1) * 20_000, "20,000 pickles in a row")
    corpus.bounded("memory", "many-memos.pkl", proto(4) + NONE + MEMOIZE * 300_000 + STOP, "300,000 memo entries")
    corpus.bounded("memory", "memo-index.pkl", proto(2) + NONE + b"r\xff\xff\xff\xff" + STOP, "a memo index of 2^32 - 1")
    corpus.bounded("memory", "dup-doubling.pkl", proto(2) + EMPTY_TUPLE + (DUP + TUPLE2) * 5_000 + STOP, "a tuple doubled 5,000 times")
    nested = HOSTILE
    for _ in range(200):
        nested = pickled(nested)
    corpus.hostile("memory", "pickles-200-deep.pkl", nested, "a call inside 200 pickles in bytes", "not-clean")
    corpus.hostile("memory", "many-calls.pkl", proto(4) + (PAYLOAD + POP) * 5_000 + value(WEIGHTS) + STOP, "5,000 calls", callable="os.system")
    bombs = {
        "bytearray": call(name("builtins", "bytearray"), 2**40),
        "bytes": call(name("builtins", "bytes"), 2**40),
        "range-list": call(name("builtins", "list"), call(name("builtins", "range"), 2**40)),
        "numpy-ndarray": call(name("numpy", "ndarray"), (2**40,)),
        "numpy-reconstruct": call(name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (2**40,), b"d"),
    }
    for title, body in bombs.items():
        corpus.hostile("memory", f"allocates-{title}.pkl", pickled(body), f"a harmless callable asked for 2^40 elements: {title}", "not-clean")


def build(corpus):
    tables(corpus)
    implicit(corpus)
    hidden(corpus)
    streams(corpus)
    memory(corpus)
