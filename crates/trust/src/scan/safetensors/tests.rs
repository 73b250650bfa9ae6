//! Files made by hand: every rule that the format's reader holds them to, and what it does not judge.

use weighbridge_formats::Source;

use crate::scan::{FileReport, ScanOptions, Severity, Verdict, scan_source};

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

fn look(bytes: Vec<u8>) -> FileReport {
    scan_source("model.safetensors", Source::from_bytes(bytes), &ScanOptions::default())
}

const TENSOR: &str = r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;

#[test]
fn sound_files_are_clean() {
    for header in [format!("{{{TENSOR}}}"), format!("{{\"__metadata__\":{{\"format\":\"pt\"}},{TENSOR}}}   ")]
    {
        let report = look(file(&header, &[0; 4]));
        assert_eq!((report.verdict, report.findings.len()), (Verdict::Clean, 0), "{:#?}", report.findings);
        assert_eq!(report.kinds, ["safetensors"]);
    }
}

#[test]
fn files_that_contradict_themselves_are_dangerous() {
    let one = |spec: &str| format!("{{\"a\":{spec}}}");
    let mut cases = vec![
        file(&one(r#"{"dtype":"U8","shape":[5],"data_offsets":[0,4]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"U8","shape":[4],"data_offsets":[0,8]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"U8","shape":[4],"data_offsets":[4,0]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"Q8","shape":[4],"data_offsets":[0,4]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"u8","shape":[4],"data_offsets":[0,4]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}"#), &[0; 4]),
        file(&one(r#"{"dtype":"U8","shape":[18446744073709551615,2],"data_offsets":[0,4]}"#), &[0; 4]),
        file(&format!("{{{TENSOR},{TENSOR}}}"), &[0; 4]),
        file(
            &format!("{{{TENSOR},\"b\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}}}"),
            &[0; 6],
        ),
        file(
            &format!("{{{TENSOR},\"b\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}}}"),
            &[0; 9],
        ),
        file(&format!("{{{TENSOR}}}"), &[0; 5]),
        file(&format!("{{{TENSOR}}}"), &[0; 3]),
        file(&format!("{{\"__metadata__\":{{\"x\":1}},{TENSOR}}}"), &[0; 4]),
        file(&format!("{{{TENSOR}}}\0\0"), &[0; 4]),
        file(&format!("{{{TENSOR}}} x"), &[0; 4]),
        file(&format!("[{{{TENSOR}}}]"), &[0; 4]),
        file(&format!("\u{feff}{{{TENSOR}}}"), &[0; 4]),
        file(&one(&"[".repeat(1000)), &[]),
        [&(1u64 << 40).to_le_bytes()[..], b"{}"].concat(),
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
    ];
    let mut latin = file(&format!("{{{TENSOR}}}"), &[0; 4]);
    latin[10] = 0xE9;
    cases.push(latin);
    for bytes in cases {
        let report = look(bytes.clone());
        assert_eq!(
            report.verdict,
            Verdict::Dangerous,
            "{}: {:#?}",
            String::from_utf8_lossy(&bytes),
            report.findings
        );
        assert!(report.findings.iter().any(|f| f.rule == "safetensors-lies"));
    }
}

#[test]
fn what_hides_in_a_sound_file_is_found() {
    let with = |key: &str, value: &str| {
        file(&format!("{{\"__metadata__\":{{\"{key}\":\"{value}\"}},{TENSOR}}}"), &[0; 4])
    };
    let page = look(with("about", "<script>x()</script>"));
    assert_eq!((page.verdict, page.findings[0].severity), (Verdict::Clean, Severity::Low));
    let large = look(with("big", &"x".repeat(2 << 20)));
    assert_eq!((large.verdict, large.findings[0].severity), (Verdict::Clean, Severity::Info));
    let template = look(with("chat_template", "{{ x.__class__ }}"));
    assert_eq!(template.verdict, Verdict::Dangerous);
    // An empty zip as the last tensor's bytes: its directory ends the file.
    let zip = [&b"PK\x05\x06"[..], &[0; 18]].concat();
    let polyglot = look(file(r#"{"a":{"dtype":"U8","shape":[22],"data_offsets":[0,22]}}"#, &zip));
    assert_eq!(polyglot.verdict, Verdict::Dangerous, "{:#?}", polyglot.findings);
    assert!(polyglot.findings.iter().any(|f| f.what.contains("zip")));
}
