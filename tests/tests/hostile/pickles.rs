//! Pickles that would run something, hide what they would run, or cost more than they weigh.

use weighbridge::{ErrorKind, ReadOptions, Registry, Source, Value};

use super::{holds_inert_object, open, refused, state_dict, torch, zip};

/// What would be run: each of these is data here, in whatever way it is called.
const CALLABLES: &[(&str, &str)] = &[
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("subprocess", "check_output"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("pty", "spawn"),
    ("runpy", "_run_code"),
    ("importlib", "import_module"),
    ("pkgutil", "resolve_name"),
    ("operator", "attrgetter"),
    ("operator", "methodcaller"),
    ("functools", "partial"),
    ("marshal", "loads"),
    ("types", "CodeType"),
    ("cloudpickle.cloudpickle", "_builtin_type"),
    ("code", "InteractiveInterpreter.runcode"),
    ("bdb", "Bdb.run"),
    ("cProfile", "run"),
    ("profile", "run"),
    ("trace", "Trace.run"),
    ("timeit", "timeit"),
    ("doctest", "debug_script"),
    ("pydoc", "pipepager"),
    ("idlelib.run", "Executive.runcode"),
    ("lib2to3.pgen2.grammar", "Grammar.loads"),
    ("ensurepip", "_run_pip"),
    ("venv", "EnvBuilder.create"),
    ("ctypes", "CDLL"),
    ("multiprocessing.util", "spawnv_passfds"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py.crackfortran", "getlincoef"),
    ("torch.utils.collect_env", "run"),
    ("torch._inductor.codecache", "compile_file"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("torch", "load"),
    ("pickle", "loads"),
    ("_pickle", "loads"),
    ("pip", "main"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    ("uuid", "_get_command_stdout"),
    ("imaplib", "IMAP4_stream"),
    ("_osx_support", "_read_output"),
    ("_aix_support", "_read_cmd_output"),
    ("logging", "FileHandler"),
    ("_io", "FileIO"),
    ("distutils.file_util", "write_file"),
    ("ssl", "get_server_certificate"),
    ("pandas", "read_csv"),
    ("pathlib", "os.system"),
    ("OS", "system"),
];

/// The ways to call something: each pushes one item.
fn calls(module: &str, name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (m, n) = (module, name);
    vec![
        ("REDUCE", format!("c{m}\n{n}\n(VWEIGHBRIDGE\ntR").into_bytes()),
        ("INST", format!("(VWEIGHBRIDGE\ni{m}\n{n}\n").into_bytes()),
        ("OBJ", format!("(c{m}\n{n}\nVWEIGHBRIDGE\no").into_bytes()),
        ("NEWOBJ", [format!("c{m}\n{n}\n(VWEIGHBRIDGE\nt").as_bytes(), b"\x81"].concat()),
        ("NEWOBJ_EX", [format!("c{m}\n{n}\n(VWEIGHBRIDGE\nt}}").as_bytes(), b"\x92"].concat()),
        ("BUILD", format!("c{m}\n{n}\n(VWEIGHBRIDGE\ntR}}Vx\nI1\nsb").into_bytes()),
        ("STACK_GLOBAL", [format!("V{m}\nV{n}\n").as_bytes(), b"\x93(VWEIGHBRIDGE\ntR"].concat()),
    ]
}

/// Two bytes of protocol and a list of what `body` pushes.
fn list(body: &[u8]) -> Vec<u8> {
    [b"\x80\x04]", body, b"a."].concat()
}

#[test]
fn every_callable_by_every_opcode_stays_data() {
    let mut read = 0;
    for (module, name) in CALLABLES {
        for (how, call) in calls(module, name) {
            let decoded =
                weighbridge_testkit::decode(&list(&call)).unwrap_or_else(|e| panic!("{module}: {e:?}"));
            assert!(holds_inert_object(&decoded.values), "{how} of {module}.{name} is no object");
            let named = decoded.values.iter().any(|(_, v)| match v {
                Value::Global(g) => g.is(module, name),
                _ => false,
            });
            assert!(named, "{how}: {module}.{name} is not called by its name");
            read += 1;
        }
    }
    assert_eq!(read, CALLABLES.len() * 7);
}

#[test]
fn a_torch_file_that_would_run_something_is_read_as_data_and_not_written() {
    for (module, name) in CALLABLES {
        let pickle = state_dict(&format!("c{module}\n{name}\n(VWEIGHBRIDGE\ntR"));
        let archive = open(&torch(&pickle)).unwrap_or_else(|e| panic!("{module}.{name}: {e:?}"));
        assert!(archive.tensors().is_empty());
        assert!(holds_inert_object(archive.values().unwrap()), "{module}.{name}");
        // What was harmless to read is not passed on to somebody who would run it.
        let registry = Registry::builtin();
        let options = weighbridge_testkit::write::options(registry.format("torch").unwrap().info, "x");
        let refused = registry.serializer("torch").unwrap().plan(&*archive, &options);
        let error = refused.err().unwrap_or_else(|| panic!("{module}.{name} was written"));
        assert_eq!(error.kind(), ErrorKind::UnsafeContent, "{module}.{name}: {error:?}");
    }
}

#[test]
fn names_fed_by_the_memo_and_by_strings_are_known() {
    // STACK_GLOBAL fed by BINSTRING, by memo GETs, and after PUT and MEMOIZE were mixed.
    let fed: &[&[u8]] = &[
        b"U\x02osU\x06system\x93(VWEIGHBRIDGE\ntR",
        b"Vos\np5\n0Vsystem\np6\n0g5\ng6\n\x93(VWEIGHBRIDGE\ntR",
        b"Vsystem\nq\x000Vos\n\x940h\x01h\x00\x93(VWEIGHBRIDGE\ntR",
        b"Vos\n\x94Vsystem\n\x94\x93(VWEIGHBRIDGE\ntR",
    ];
    for body in fed {
        let decoded = weighbridge_testkit::decode(&list(body)).unwrap();
        let found = decoded.values.iter().any(|(_, v)| matches!(v, Value::Global(g) if g.is("os", "system")));
        assert!(found, "{body:?}");
    }
}

#[test]
fn names_that_are_no_strings_are_refused() {
    for body in [&b"I1\nVsystem\n\x93"[..], b"]Vsystem\n\x93", b"Vos\nN\x93", b"g9\nVsystem\n\x93", b"\x93"] {
        let error = weighbridge_testkit::decode(&list(body)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{body:?}: {error:?}");
    }
}

#[test]
fn a_module_with_nul_in_its_name_is_refused() {
    for (how, call) in calls("o\0s", "system") {
        let error = weighbridge_testkit::decode(&list(&call)).err().unwrap_or_else(|| panic!("{how}"));
        assert_eq!(error.kind(), ErrorKind::Malformed, "{how}: {error:?}");
    }
}

#[test]
fn extension_codes_stay_codes() {
    for body in [&b"\x82\x01"[..], b"\x83\x01\x02", b"\x84\x01\x02\x03\x04"] {
        let decoded = weighbridge_testkit::decode(&list(body)).unwrap();
        assert!(decoded.values.iter().any(|(_, v)| matches!(v, Value::Object(_))), "{body:?}");
    }
}

#[test]
fn an_object_that_is_popped_again_runs_no_more_than_one_that_stays() {
    let decoded = weighbridge_testkit::decode(b"\x80\x04(cos\nsystem\nVWEIGHBRIDGE\no0].").unwrap();
    assert!(
        decoded.values.iter().any(|(_, v)| matches!(v, Value::Object(_))),
        "it is known that it was there"
    );
}

#[test]
fn an_opcode_that_crosses_its_frame_is_refused() {
    let crossing = [b"\x80\x04\x95\x02\0\0\0\0\0\0\0".as_slice(), b"X\x03\0\0\0abc."].concat();
    assert_eq!(weighbridge_testkit::decode(&crossing).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn a_missing_memo_key_is_refused() {
    for body in [&b"h\x07"[..], b"j\x07\0\0\0", b"g7\n"] {
        assert_eq!(weighbridge_testkit::decode(&list(body)).unwrap_err().kind(), ErrorKind::Malformed);
    }
}

#[test]
fn what_stands_behind_the_first_pickle_is_not_read() {
    let two = [b"\x80\x02}.".as_slice(), b"\x80\x02cos\nsystem\n(VWEIGHBRIDGE\ntR."].concat();
    let decoded = weighbridge_testkit::decode(&two).unwrap();
    assert_eq!(decoded.consumed, 4);
    assert!(!holds_inert_object(&decoded.values));
    // In a torch file the same: the member holds one pickle and something that is ignored.
    let archive = open(&torch(&two)).unwrap();
    assert!(!holds_inert_object(archive.values().unwrap()));
}

#[test]
fn a_pickle_inside_the_bytes_of_a_pickle_stays_bytes() {
    let inner = b"cos\nsystem\n(VWEIGHBRIDGE\ntR.";
    let body = [&[b'C', inner.len() as u8], &inner[..]].concat();
    let decoded = weighbridge_testkit::decode(&list(&body)).unwrap();
    assert!(!holds_inert_object(&decoded.values));
    assert!(decoded.values.iter().any(|(_, v)| matches!(v, Value::Bytes(b) if **b == inner[..])));
}

#[test]
fn a_payload_and_then_garbage_is_an_error_and_nothing_else() {
    let broken = [b"\x80\x02cos\nsystem\n(VWEIGHBRIDGE\ntR".as_slice(), &[0xff; 16]].concat();
    assert_eq!(weighbridge_testkit::decode(&broken).unwrap_err().kind(), ErrorKind::Malformed);
    refused(&torch(&broken), ErrorKind::Malformed, "");
}

#[test]
fn the_magic_number_made_by_eval_is_no_magic_number() {
    // The first pickle of a legacy stream, which would evaluate to the number; and one with the number in it.
    let evaluated = b"\x80\x02cbuiltins\neval\n(V0x1950a86a20f9469cfc6c\ntR.\x80\x02M\xe9\x03.";
    match open(evaluated) {
        // As a plain pickle it is data.
        Ok(archive) => {
            assert_ne!(archive.format(), "torch");
            assert!(holds_inert_object(archive.values().unwrap()));
        }
        Err(e) => assert!(matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::UnknownFormat), "{e:?}"),
    }
    let reader = |bytes: &[u8]| {
        let registry = Registry::builtin();
        let opened =
            registry.deserializer("torch").unwrap().open(Source::from_bytes(bytes), &ReadOptions::default());
        opened.expect_err("no legacy stream").kind()
    };
    assert_eq!(reader(evaluated), ErrorKind::Malformed);
    let after = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x190cbuiltins\neval\n(V1\ntR.";
    assert_eq!(reader(after), ErrorKind::Malformed);
}

#[test]
fn hostile_persistent_ids_are_refused() {
    for id in [
        "Vos.system\nQ",
        "NQ",
        "(Vstorage\ntQ",
        "(Vmodel\ncos\nsystem\nVx\nVcpu\nI4\ntQ",
        "(Vstorage\ncos\nsystem\nV0\nVcpu\nI4\ntQ",
        "(Vstorage\nVFloatStorage\nV0\nVcpu\nI4\ntQ",
        "(Vstorage\nctorch\nFloatStorage\nV../../etc/x\nVcpu\nI4\ntQ",
        "(Vstorage\nctorch\nFloatStorage\n]Vcpu\nI4\ntQ",
        "(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI-4\ntQ",
        "(Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nVmany\ntQ",
        "Pos.system\n",
    ] {
        let error = open(&torch(&state_dict(&super::tensor(id, "I0\n", "(I4\nt", "(I1\nt"))))
            .err()
            .unwrap_or_else(|| panic!("{id}: opened"));
        let kinds = [ErrorKind::UnsafeContent, ErrorKind::Unsupported, ErrorKind::Malformed];
        assert!(kinds.contains(&error.kind()), "{id}: {error:?}");
    }
}

#[test]
fn a_pickle_a_million_levels_deep_needs_no_stack() {
    let deep = |open: &str, close: &[u8]| {
        let n = 1_000_000;
        [b"\x80\x02".as_slice(), &open.as_bytes().repeat(n), b"N", &close.repeat(n), b"."].concat()
    };
    for pickle in [deep("(", b"t"), deep("]", b"a"), deep("}N", b"s"), deep("cm\nC\n(", b"tR")] {
        // Whether it opens or is over a limit, the stack of a thread of 256 KiB suffices.
        let outcome = std::thread::Builder::new()
            .stack_size(256 << 10)
            .spawn(move || {
                let archive = open(&torch(&pickle));
                archive.map(|a| a.tensors().len()).map_err(|e| e.kind())
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(matches!(outcome, Ok(0) | Err(ErrorKind::LimitExceeded)), "{outcome:?}");
    }
}

#[test]
fn memo_bombs_stay_as_small_as_they_are_written() {
    // Each level holds the level below ten times: 10^60 leaves, if it were spread out.
    let mut bomb = b"\x80\x02]q\x00".to_vec();
    for _ in 0..60 {
        bomb.extend_from_slice(b"](");
        bomb.extend_from_slice(&b"h\x00".repeat(10));
        bomb.extend_from_slice(b"eq\x00");
    }
    bomb.push(b'.');
    let archive = open(&torch(&bomb)).unwrap();
    assert!(archive.values().unwrap().len() < 200);
    assert!(archive.tensors().is_empty());
    // The same around a tensor: every path to it would be a name.
    let leaf = super::tensor(super::STORAGE, "I0\n", "(I4\nt", "(I1\nt");
    let mut bomb = [b"\x80\x02](".as_slice(), leaf.as_bytes(), b"eq\x00"].concat();
    for _ in 0..60 {
        bomb.extend_from_slice(b"](");
        bomb.extend_from_slice(&b"h\x00".repeat(10));
        bomb.extend_from_slice(b"eq\x00");
    }
    bomb.push(b'.');
    match open(&torch(&bomb)) {
        Ok(archive) => panic!("{} names for one tensor", archive.tensors().len()),
        Err(e) => assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e:?}"),
    }
}

#[test]
fn many_tensors_at_one_path_are_numbered_in_linear_time() {
    // The state of an object is a tuple, whose parts all have the object's own name.
    let leaf = super::tensor(super::STORAGE, "I0\n", "(I4\nt", "(I1\nt");
    let parts = leaf.repeat(20_000);
    let pickle = [b"\x80\x02}Vw\ncm\nC\n)R(".as_slice(), parts.as_bytes(), b"tbs."].concat();
    let start = std::time::Instant::now();
    let archive = open(&torch(&pickle)).unwrap();
    assert_eq!(archive.tensors().len(), 20_000);
    assert_eq!(archive.tensors()[19_999].name(), "w#20000");
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn cycles_end() {
    let archive = open(&torch(b"\x80\x02}q\x00Vself\nh\x00s.")).unwrap();
    assert!(archive.tensors().is_empty());
    let archive = open(&torch(b"\x80\x02]q\x00h\x00ah\x00a.")).unwrap();
    assert!(archive.tensors().is_empty());
}

#[test]
fn lengths_before_too_few_bytes_are_refused() {
    for body in [
        &b"X\xff\xff\xff\x7f0123456789"[..],
        b"B\xff\xff\xff\xff0123456789",
        b"\x8b\xff\xff\xff\x7f0123456789",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff0123456789",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f0123456789",
    ] {
        refused(&torch(&list(body)), ErrorKind::Malformed, "");
    }
}

#[test]
fn setitem_on_what_is_no_dict_is_refused() {
    for body in [&b"]VK\nVV\ns"[..], b"I1\nVK\nVV\ns", b"](VK\nVV\nu"] {
        refused(&torch(&list(body)), ErrorKind::Malformed, "");
    }
}

#[test]
fn code_of_torchscript_is_never_read() {
    // The weights open though the program is no Python, and though its members' checksums do not agree.
    let leaf = super::tensor(super::STORAGE, "I0\n", "(I4\nt", "(I1\nt");
    let mut members = zip::torch(&state_dict(&leaf), &[("0", &[7; 16])]);
    members.push(zip::Member::new("archive/constants.pkl", "\u{2}not a pickle"));
    let mut code = zip::Member::new("archive/code/__torch__.py", "import os; os.system('x')");
    code.crc32 = Some(1);
    members.push(code);
    let archive = open(&zip::build(&members)).unwrap();
    assert_eq!(archive.tensors().len(), 1);
    assert_eq!(archive.data(0).unwrap().read_all().unwrap(), [7; 16]);
    assert!(archive.notes().iter().any(|n| n.text.contains("TorchScript")), "{:?}", archive.notes());
}
