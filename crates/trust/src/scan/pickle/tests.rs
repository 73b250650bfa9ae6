//! Streams that the judge must call what they are.

use super::super::{Bounds, FileReport, ScanOptions, Verdict, scan_source};
use weighbridge_formats::Source;

fn look(bytes: &[u8]) -> FileReport {
    scan_source("x.pkl", Source::from_bytes(bytes), &ScanOptions::default())
}

fn found(bytes: &[u8]) -> (Verdict, Vec<(&'static str, String)>) {
    let report = look(bytes);
    let of = |f: super::Finding| (f.rule, f.callable.unwrap_or_default());
    (report.verdict, report.findings.into_iter().map(of).collect())
}

#[test]
fn every_way_to_call_is_dangerous() {
    let streams: &[&[u8]] = &[
        b"cos\nsystem\n(S'echo'\ntR.",
        b"\x80\x02cos\nsystem\nX\x04\0\0\0echo\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04echo\x85R.",
        b"(S'echo'\nios\nsystem\n.",
        b"(cos\nsystem\nS'echo'\no.",
        b"(cos\nsystem\nS'echo'\no0N.",
        // By the memo, PUT and MEMOIZE mixed.
        b"\x80\x04\x8c\x02osq\x05\x8c\x06system\x940h\x05h\x01\x93(S'echo'\ntR.",
        // A dotted attribute of what is harmless itself.
        b"\x80\x04\x8c\x07pathlib\x8c\x09os.system\x93\x8c\x04echo\x85R.",
        b"\x80\x04\x8c\x0bcollections\x8c\x16abc.sys.modules.values\x93)R.",
        // Through getattr.
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'echo'\ntR.",
        // A reconstructor whose base does the work.
        b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncsubprocess\nPopen\n(S'echo'\nltR.",
        b"ccopyreg\n_reconstructor\n(csklearn.svm._classes\nSVC\nctorch.nn\nModule\nS'echo'\ntR.",
        b"cnumpy.core\n_ufunc_reconstruct\n(S'os'\nS'system'\ntR.",
        b"cnumpy.random._pickle\n__generator_ctor\n(S'echo'\ncos\nsystem\ntR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n(S'echo'\ntNtR.",
        b"ctorch.fx.graph_module\nreduce_graph_module\n((dNtR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'x'\n(dtR.",
        b"ctorch.utils.collect_env\nrun\n(S'x'\ntR.",
        b"cpandas\nread_csv\n(S'x'\ntR.",
        b"cOS\nsystem\n(S'x'\ntR.",
        b"cos\0\nsystem\n(S'x'\ntR.",
        b"cbuiltins\ntype\n(S'X'\n(t(dtR.",
        // A name that a call computes.
        b"\x80\x04\x8c\x08builtins\x8c\x03str\x93\x8c\x02os\x85R\x8c\x06system\x93\x8c\x04echo\x85R.",
        // BUILD on a class, and items for what was imported.
        b"ctorch.nn\nModule\n(N(S'x'\nI1\ndtb.",
        b"cos\nenviron\nS'PATH'\nS'/tmp'\ns.",
        // The harm, and then garbage.
        b"cos\nsystem\n(S'echo'\ntR\xff\xff\xff",
        b"cos\nsystem\n(S'echo'\ntR",
    ];
    for stream in streams {
        let (verdict, list) = found(stream);
        assert_eq!(verdict, Verdict::Dangerous, "{} gives {list:?}", stream.escape_ascii());
    }
}

#[test]
fn arguments_and_opcodes_are_shown() {
    let report = look(b"\x80\x02cposix\nsystem\nX\x09\0\0\0echo 'hi'\x85R.");
    let call = &report.findings[0];
    assert_eq!((call.rule, call.opcode), ("pickle-call", Some("REDUCE")));
    assert_eq!(call.callable.as_deref(), Some("posix.system"));
    assert_eq!(call.arguments.as_deref(), Some(r"('echo \'hi\'',)"));
    assert_eq!(call.place.offset, Some(31));
    let report = look(b"\x80\x04\x8c\nsubprocess\x8c\x05Popen\x93](X\x02\0\0\0shX\x02\0\0\0-ce\x85R.");
    assert_eq!(report.findings[0].arguments.as_deref(), Some("(['sh', '-c'],)"));
}

#[test]
fn plain_values_are_clean() {
    let streams: &[&[u8]] = &[
        b"N.",
        b"(dp0\nS'a'\nI1\ns.",
        b"ccollections\nOrderedDict\n(tR.",
        b"\x80\x02ccollections\nOrderedDict\n)R(U\x01aK\x01u.",
        b"\x80\x02cdatetime\ndate\nU\x04\x07\xe5\x01\x01\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x06\0\0\0latin1\x86R.",
        b"ccopy_reg\n_reconstructor\n(csklearn.svm.classes\nSVC\nc__builtin__\nobject\nNtR(dS'C'\nF1.0\nsb.",
        b"\x80\x02csklearn.svm._classes\nSVC\n)\x81}b.",
        b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}b.",
        b"\x80\x02cbuiltins\ntype\nN\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0\x30X\x03\0\0\0cpuK\x04tQK\0K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR.",
    ];
    for stream in streams {
        let (verdict, list) = found(stream);
        assert_eq!(verdict, Verdict::Clean, "{} gives {list:?}", stream.escape_ascii());
    }
}

#[test]
fn what_nobody_vouches_for_is_unknown() {
    let streams: &[(&[u8], &str)] = &[
        (b"\x80\x02cmy.nets\nNet\n)\x81}b.", "pickle-unknown-class"),
        (b"\x80\x02cmy.nets\nNet\nK\x01\x85R.", "pickle-unknown-class"),
        (b"\x80\x02cmy.nets\nforward\n.", "pickle-global"),
        (b"\x80\x02cfunctools\npartial\ncmy.nets\nforward\n\x85R.", "pickle-call"),
        (b"\x80\x02\x82\x05.", "pickle-global"),
        (b"Phello\n.", "pickle-persistent-id"),
        (b"\x80\x02}q\x01(K\x01", "pickle-broken"),
        (b"\x80\x02h\x07.", "pickle-broken"),
        (b"\x80\x04X\xff\xff\xff\x7fabc", "pickle-broken"),
        (b"]S'a'\nI1\ns.", "pickle-broken"),
    ];
    for (stream, rule) in streams {
        let (verdict, list) = found(stream);
        let wanted = if *rule == "pickle-call" { Verdict::Dangerous } else { Verdict::Unknown };
        assert_eq!(verdict, wanted, "{} gives {list:?}", stream.escape_ascii());
        assert!(list.iter().any(|(r, _)| r == rule), "{} gives {list:?}", stream.escape_ascii());
    }
}

#[test]
fn pickles_in_a_row_in_bytes_and_behind_garbage_are_found() {
    let call = b"\x80\x02cos\nsystem\nX\x04\0\0\0echo\x85R.";
    let text = b"cos\nsystem\n(S'echo'\ntR.";
    let row = [&b"\x80\x02N."[..], call].concat();
    let mut inside = b"\x80\x03C".to_vec();
    inside.push(call.len() as u8);
    inside.extend_from_slice(call);
    let deep = [&b"\x80\x03C"[..], &[inside.len() as u8 + 1], &inside, b".", b"."].concat();
    inside.push(b'.');
    let noise: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let behind = [&noise, &call[..], &noise].concat();
    let behind_text = [&noise, &text[..], &noise].concat();
    let after = [&b"\x80\x02N."[..], &noise, text].concat();
    for stream in [row, inside, deep, behind, behind_text, after] {
        let report = scan_source("x.bin", Source::from_bytes(stream.clone()), &ScanOptions::default());
        assert_eq!(report.verdict, Verdict::Dangerous, "{}", stream.escape_ascii());
    }
    let report = scan_source("x.bin", Source::from_bytes(noise), &ScanOptions::default());
    assert_eq!(report.verdict, Verdict::Clean, "{:?}", report.findings);
}

#[test]
fn bombs_cost_little() {
    let started = std::time::Instant::now();
    let mut marks = vec![b'('; 10_000_000];
    marks.extend_from_slice(b"cos\nsystem\n(S'echo'\ntR.");
    assert_eq!(look(&marks).verdict, Verdict::Dangerous);
    let mut lists = vec![b']'; 5_000_000];
    lists.extend(vec![b'a'; 4_999_999]);
    lists.push(b'.');
    look(&lists);
    let mut tuples = b"N".to_vec();
    tuples.extend(vec![0x85; 10_000_000]);
    tuples.push(b'.');
    assert_eq!(look(&tuples).verdict, Verdict::Clean);
    let dups = [vec![b'N'], vec![b'2'; 10_000_000], vec![b'.']].concat();
    look(&dups);
    let starts = b"\x80\x04".repeat(1_000_000);
    look(&starts);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    let options = ScanOptions { bounds: Bounds { depth: 2, ..Bounds::default() }, ..ScanOptions::default() };
    let mut nested = b"\x80\x02cos\nsystem\nX\x04\0\0\0echo\x85R.".to_vec();
    for _ in 0..5 {
        nested = [&b"\x80\x03B"[..], &(nested.len() as u32).to_le_bytes(), &nested, b"."].concat();
    }
    let report = scan_source("x.pkl", Source::from_bytes(nested), &options);
    assert_eq!(report.verdict, Verdict::Unknown);
}
