//! What is written reads back: by our machine, and by Python.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::super::{
    EncodeOptions, Encoder, NoTensors, Payload, decode, encode, encode_with_payloads, is_harmless,
};
use super::samples::SAMPLES;
use super::{read, show};
use crate::value::{Construct, Dict, DictKind, Global, Object};
use crate::{ErrorKind, Limits, Result, Value, ValueId, Values};

fn options(protocol: u8) -> EncodeOptions<'static> {
    EncodeOptions { protocol, ..EncodeOptions::default() }
}

fn write(values: &Values, options: &EncodeOptions<'_>) -> Result<Vec<u8>> {
    encode(values, values.root().unwrap(), options, &mut NoTensors)
}

/// A pickle, decoded and encoded again.
fn rewritten(pickle: &[u8], options: &EncodeOptions<'_>) -> Result<Vec<u8>> {
    let roomy = Limits { depth: 1 << 20, ..Limits::within(1 << 30) };
    write(&decode(pickle, &roomy)?.values, options)
}

fn arena(build: impl FnOnce(&mut Values) -> Result<ValueId>) -> Values {
    let mut values = Values::new();
    let root = build(&mut values).unwrap();
    values.set_root(root);
    values
}

#[test]
fn every_sample_in_every_protocol() {
    for (expression, value, pickles) in SAMPLES {
        for pickle in pickles {
            for protocol in 2..=5 {
                let written = rewritten(pickle, &options(protocol)).unwrap();
                assert_eq!(read(&written), *value, "{expression}, protocol {protocol}");
                // What we wrote is written the same again.
                assert_eq!(rewritten(&written, &options(protocol)).unwrap(), written, "{expression}");
            }
        }
    }
}

fn python() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let python = std::env::var_os("WEIGHBRIDGE_PYTHON")
        .map_or_else(|| root.join("target/venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is not there: run `cargo xtask setup`", python.display());
    python
}

#[test]
fn python_reads_what_was_written() {
    let mut input = String::new();
    let mut count = 0;
    let cycle = b"\x80\x02]q\x00(h\x00K\x01\x86q\x01h\x00e0h\x01.".as_slice();
    let samples = SAMPLES.iter().map(|(e, _, p)| (*e, p[5])).chain([("cycle()", cycle)]);
    for (expression, pickle) in samples {
        for protocol in 2..=5 {
            let written = rewritten(pickle, &options(protocol)).unwrap();
            input += &format!("{} {expression}\n", super::hex(&written));
            count += 1;
        }
    }
    let mut child = Command::new(python())
        .args(["-X", "utf8", concat!(env!("CARGO_MANIFEST_DIR"), "/src/pickle/tests/read_back.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    let lines: Vec<_> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(lines, vec!["ok"; count]);
}

#[test]
fn protocol_2_uses_only_opcodes_that_strict_readers_take() {
    use super::super::opcodes::*;
    let strict = [
        PROTO,
        STOP,
        GLOBAL,
        NEWOBJ,
        REDUCE,
        BUILD,
        APPEND,
        APPENDS,
        SETITEM,
        SETITEMS,
        MARK,
        TUPLE,
        TUPLE1,
        TUPLE2,
        TUPLE3,
        NONE,
        NEWTRUE,
        NEWFALSE,
        EMPTY_TUPLE,
        EMPTY_LIST,
        EMPTY_DICT,
        EMPTY_SET,
        BININT,
        BININT1,
        BININT2,
        BINFLOAT,
        BINUNICODE,
        SHORT_BINSTRING,
        BINPERSID,
        BINGET,
        LONG_BINGET,
        BINPUT,
        LONG_BINPUT,
        LONG1,
    ];
    let mut opcodes = 0;
    for (expression, _, pickles) in SAMPLES {
        // 2**2100 takes LONG4, in Python too.
        if expression.contains("2**2100") {
            continue;
        }
        let written = rewritten(pickles[5], &options(2)).unwrap();
        let mut at = 0;
        while let Some(op) = written.get(at) {
            assert!(strict.contains(op), "{expression}: 0x{op:02x}");
            opcodes += 1;
            at += match *op {
                PROTO | BININT1 | BINGET | BINPUT => 2,
                BININT2 => 3,
                BININT | LONG_BINGET | LONG_BINPUT => 5,
                BINFLOAT => 9,
                LONG1 | SHORT_BINSTRING => 2 + usize::from(written[at + 1]),
                BINUNICODE => 5 + u32::from_le_bytes(written[at + 1..at + 5].try_into().unwrap()) as usize,
                GLOBAL => {
                    let line = |from: usize| written[from..].iter().position(|b| *b == b'\n').unwrap() + 1;
                    let module = line(at + 1);
                    1 + module + line(at + 1 + module)
                }
                _ => 1,
            };
        }
        assert_eq!(at, written.len());
    }
    assert!(opcodes > 200, "{opcodes}");
}

#[test]
fn a_million_levels() {
    for (open, close) in
        [(&b"("[..], &b"t"[..]), (b"]", b"a"), (b"", b"\x85"), (b"cbuiltins\nset\n", b"\x85R")]
    {
        let pickle = [open.repeat(1_000_000), b"N".to_vec(), close.repeat(1_000_000), b".".to_vec()].concat();
        let decoded = decode(&pickle, &Limits { depth: 1 << 20, ..Limits::within(1 << 30) }).unwrap();
        for protocol in [2, 4] {
            let written = write(&decoded.values, &options(protocol)).unwrap();
            assert!(written.len() > 1_000_000);
            assert_eq!(rewritten(&written, &options(protocol)).unwrap(), written);
        }
    }
}

#[test]
fn cycles_close() {
    // Through a list, through a dict, through tuples and lists, through an object's state.
    for pickle in [
        // l = []; t = (l, 2); l.append(t); pickle.dumps(t, 2)
        &b"\x80\x02]q\x00h\x00K\x02\x86q\x01a0h\x01."[..],
        b"\x80\x02}q\x00(K\x01h\x00\x85q\x01\x85K\x02h\x01u0h\x01.",
        b"\x80\x02]q\x00h\x00a.",
        b"}q\x00K\x01h\x00s.",
        b"\x80\x02]q\x00(h\x00K\x01\x86q\x01h\x00e0h\x01.",
        b"\x80\x02cbuiltins\nobject\n)\x81q\x00}K\x01h\x00sb.",
    ] {
        let want = read(pickle);
        assert!(want.contains("<up"), "{want}");
        for protocol in 2..=5 {
            assert_eq!(read(&rewritten(pickle, &options(protocol)).unwrap()), want);
        }
    }
    // A tuple that holds only itself cannot be said.
    let tuple = arena(|v| {
        let id = v.push(Value::Tuple(vec![]))?;
        *v.get_mut(id) = Value::Tuple(vec![id]);
        Ok(id)
    });
    assert_eq!(write(&tuple, &options(4)).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn shared_parts_stay_shared_and_bombs_stay_small() {
    let mut bomb = b"]q\x00".to_vec();
    for _ in 0..1000 {
        bomb.extend(b"h\x00h\x00\x86q\x000h\x00");
    }
    bomb.push(b'.');
    let written = rewritten(&bomb, &options(2)).unwrap();
    assert!(written.len() < 15_000);
    assert_eq!(decode(&written, &Limits::default()).unwrap().values.len(), 1001);
    // A large integer, bytes and a name that many hold are written once.
    let long = [b"\x80\x04(\x8b\xe8\x03\0\0".to_vec(), vec![7; 1000], b"q\x00".to_vec()].concat();
    let held = [long, b"h\x00".repeat(5000), b"t.".to_vec()].concat();
    assert!(rewritten(&held, &options(4)).unwrap().len() < 12_000);
}

#[test]
fn strings_and_globals_are_written_once() {
    let values = arena(|v| {
        let twice = [v.push(Value::Str("weight".into()))?, v.push(Value::Str("weight".into()))?];
        v.push(Value::List(twice.to_vec()))
    });
    // pickle.dumps(["weight", "weight"], 2), less the memo entry of the list, which nothing refers to
    assert_eq!(write(&values, &options(2)).unwrap(), b"\x80\x02](X\x06\0\0\0weightq\x00h\x00e.");
    assert_eq!(
        write(&values, &options(4)).unwrap(),
        b"\x80\x04\x95\x0f\0\0\0\0\0\0\0](\x8c\x06weight\x94h\x00e."
    );
}

#[test]
fn numbers_take_the_short_forms() {
    for (n, want) in [
        (0i64, &b"K\x00"[..]),
        (255, b"K\xff"),
        (256, b"M\x00\x01"),
        (65536, b"J\x00\x00\x01\x00"),
        (-1, b"J\xff\xff\xff\xff"),
        (1 << 31, b"\x8a\x05\x00\x00\x00\x80\x00"),
        (-(1 << 31) - 1, b"\x8a\x05\xff\xff\xff\x7f\xff"),
        (i64::MAX, b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"),
        (i64::MIN, b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"),
    ] {
        let mut out = Encoder::new(2).unwrap();
        out.int(n);
        // pickle.dumps(n, 2)
        assert_eq!(out.finish().bytes, [b"\x80\x02", want, b"."].concat(), "{n}");
    }
}

#[test]
fn frames_are_whole_and_large_values_stand_between_them() {
    let mut values = Values::new();
    let mut items = Vec::new();
    for i in 0..20_000 {
        items.push(values.push(Value::Str(format!("key {i}").into())).unwrap());
    }
    items.insert(7, values.push(Value::Bytes(vec![1; 100_000].into())).unwrap());
    items.push(values.push(Value::Str("x".repeat(70_000).into())).unwrap());
    items.push(values.push(Value::ByteArray(vec![2; 70_000].into())).unwrap());
    let root = values.push(Value::List(items)).unwrap();
    values.set_root(root);
    for protocol in [4, 5] {
        let written = write(&values, &options(protocol)).unwrap();
        assert_eq!(read(&written), show(&values));
        let frames = written.windows(9).filter(|w| w[0] == 0x95 && w[4..] == [0; 5]).count();
        assert!(frames > 4, "{frames}");
    }
}

#[test]
fn globals_need_leave() {
    let object = |module: &str, name: &str| {
        arena(|v| {
            let class = v.push(Value::Global(Box::new(Global::new(module, name))))?;
            let args = v.push(Value::Tuple(vec![]))?;
            let entries = vec![(args, class)];
            v.push(Value::Object(Box::new(Object {
                construct: Construct::Call,
                class,
                args,
                kwargs: None,
                state: Some(args),
                items: vec![args],
                entries,
            })))
        })
    };
    let evil = object("os", "system");
    let error = write(&evil, &options(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsafeContent);
    assert!(error.message().contains("os.system"));
    for (module, name) in [("builtins", "eval"), ("builtins", "getattr"), ("copyreg", "_reconstructor")] {
        assert!(!is_harmless(&Global::new(module, name)));
    }
    for protocol in 2..=5 {
        let fine = object("collections", "deque");
        assert_eq!(read(&write(&fine, &options(protocol)).unwrap()), show(&fine));
        let anything = EncodeOptions { allow_global: &|_| true, ..options(protocol) };
        assert_eq!(read(&write(&evil, &anything).unwrap()), show(&evil));
    }
    // What is called must be a name, whatever names are allowed.
    let anything = EncodeOptions { allow_global: &|_| true, ..options(2) };
    let called = rewritten(b"cm\nf\n)R)R.", &anything).unwrap_err();
    assert_eq!(called.kind(), ErrorKind::UnsafeContent);
}

#[test]
fn objects_keep_their_construction() {
    for (pickle, least) in
        [(&b"\x80\x02cm\nC\nK\x01\x85\x81}b."[..], 2), (b"\x80\x04cm\nC\n)}K\x01K\x02s\x92.", 4)]
    {
        for protocol in 2..=5 {
            let anything = EncodeOptions { allow_global: &|_| true, ..options(protocol) };
            let written = rewritten(pickle, &anything);
            if protocol < least {
                assert_eq!(written.unwrap_err().kind(), ErrorKind::Unsupported);
            } else {
                assert_eq!(read(&written.unwrap()), read(pickle));
            }
        }
    }
    assert_eq!(rewritten(b"\x80\x02\x82\x01.", &options(2)).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn persistent_ids_need_leave() {
    let pickle = b"\x80\x02X\x01\0\0\0aQ.";
    assert_eq!(rewritten(pickle, &options(2)).unwrap_err().kind(), ErrorKind::UnsafeContent);
    let leave = EncodeOptions { allow_persistent: true, ..options(2) };
    assert_eq!(read(&rewritten(pickle, &leave).unwrap()), "persistent \"a\"");
}

#[test]
fn tensors_are_the_callers() {
    let values = arena(|v| {
        let tensor = v.push(Value::Tensor(3))?;
        v.push(Value::Tuple(vec![tensor, tensor]))
    });
    assert_eq!(write(&values, &options(2)).unwrap_err().kind(), ErrorKind::Unsupported);
    let mut calls = 0;
    let mut storage = |index: u32, out: &mut Encoder| {
        calls += 1;
        out.mark();
        out.string("storage")?;
        out.int(index.into());
        out.tuple();
        out.binpersid();
        Ok(())
    };
    let written = encode(&values, values.root().unwrap(), &options(2), &mut storage).unwrap();
    assert_eq!(read(&written), "(persistent (\"storage\", 3,), persistent (\"storage\", 3,),)");
    assert_eq!(calls, 1);
}

#[test]
fn payloads_are_left_out() {
    let values = arena(|v| {
        let tensors = [v.push(Value::Tensor(0))?, v.push(Value::Tensor(1))?];
        v.push(Value::List(tensors.to_vec()))
    });
    for protocol in 3..=5 {
        let mut payload = |index: u32, out: &mut Encoder| out.payload([3, 100_000][index as usize], index);
        let root = values.root().unwrap();
        let encoded = encode_with_payloads(&values, root, &options(protocol), &mut payload).unwrap();
        let [a, b] = encoded.payloads[..] else { panic!("{:?}", encoded.payloads) };
        assert_eq!((a.length, a.tag, b.length, b.tag), (3, 0, 100_000, 1));
        let mut whole = encoded.bytes;
        for Payload { at, length, tag } in [b, a] {
            whole.splice(at..at, vec![tag as u8; length as usize]);
        }
        assert_eq!(read(&whole), format!("[b:000000, b:{}]", "01".repeat(100_000)));
        assert_eq!(
            encode(&values, root, &options(protocol), &mut payload).unwrap_err().kind(),
            ErrorKind::InvalidOptions
        );
    }
    let error = Encoder::new(2).unwrap().payload(3, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOptions);
}

#[test]
fn what_no_pickle_can_say_is_an_error() {
    for protocol in [0, 1, 6] {
        assert_eq!(Encoder::new(protocol).unwrap_err().kind(), ErrorKind::InvalidOptions);
    }
    let attributes = |kind| {
        arena(|v| {
            let attributes = v.push(Value::Dict(Box::default()))?;
            v.push(Value::Dict(Box::new(Dict { kind, entries: vec![], attributes: Some(attributes) })))
        })
    };
    assert_eq!(write(&attributes(DictKind::Dict), &options(2)).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(read(&write(&attributes(DictKind::Counter), &options(2)).unwrap()), "counter{}@{}");
    let mut out = Encoder::new(2).unwrap();
    assert_eq!(out.global("a\nb", "c").unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(out.global("", "c").unwrap_err().kind(), ErrorKind::Unsupported);
}
