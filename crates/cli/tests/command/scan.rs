//! `weighbridge scan`: verdicts as exit codes, findings in every form of output, policies.

use serde_json::Value;

use super::{Folder, golden, run, safetensors};

/// A pickle that would have a shell say something. Nothing here loads it.
const CALLS: &[u8] = b"\x80\x02cos\nsystem\nX\x07\x00\x00\x00echo hi\x85R.";
/// An object of a class that nobody knows.
const UNKNOWN: &[u8] = b"\x80\x02courcompany.nets\nNet\n)\x81}X\x01\x00\x00\x00wK\x01sb.";

#[test]
fn a_verdict_is_an_exit_code_and_errors_have_their_own() {
    let folder = Folder::new();
    let clean = folder.write("model.safetensors", safetensors(&[("w", "U8", &[2], &[1, 2])], &[]));
    let calls = folder.write("model.bin", CALLS);
    let unknown = folder.write("net.bin", UNKNOWN);
    let all = folder.path("");
    run(&["scan", &clean]).expect(0);
    run(&["scan", &calls]).expect(1);
    run(&["scan", &unknown]).expect(2);
    run(&["scan", &all]).expect(1);
    run(&["scan", &clean, &unknown]).expect(2);
    run(&["scan", &folder.path("missing")]).expect(3);
    run(&["scan", "--such"]).expect(3);
    run(&["scan"]).expect(3);
    let golden = golden("safetensors");
    run(&["scan", golden.to_str().unwrap()]).expect(0);
}

#[test]
fn people_read_what_is_called_where_and_what_to_do() {
    let folder = Folder::new();
    let calls = folder.write("model.bin", CALLS);
    let text = run(&["scan", &calls]).expect(1).stdout;
    for words in ["dangerous", "os.system", "echo hi", "pickle-call", "REDUCE", "1 dangerous"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(!text.contains('\x1b'), "colours without a terminal: {text:?}");
    let painted = run(&["scan", &calls, "--color", "always"]).expect(1).stdout;
    assert!(painted.contains("\x1b[1;31m"), "{painted:?}");
}

#[test]
fn what_a_file_says_cannot_drive_the_terminal() {
    let folder = Folder::new();
    let name = "cos\x1b[2J\nsys\x07tem\n";
    let file = folder
        .write("model.bin", [b"\x80\x02", name.as_bytes(), b"X\x05\x00\x00\x00\x1b]0;x\x85R."].concat());
    let text = run(&["scan", &file, "--all"]);
    assert_ne!(text.code, 0, "{}", text.stdout);
    assert!(!text.stdout.contains(['\x1b', '\x07']), "{:?}", text.stdout);
}

#[test]
fn json_has_what_its_schema_says() {
    let folder = Folder::new();
    let calls = folder.write("model.bin", CALLS);
    let found = run(&["scan", &calls, "--json"]).expect(1).json();
    fits(&found, &schema(), &schema(), "report");
    assert_eq!(found["verdict"], "dangerous");
    let finding = &found["findings"][0];
    assert_eq!((&finding["callable"], &finding["opcode"]), (&"os.system".into(), &"REDUCE".into()));
    assert_eq!(finding["offset"], 26, "the offset of REDUCE: {finding}");
    assert!(finding["arguments"].as_str().unwrap().contains("echo hi"));
    assert_eq!(found["files"][0]["findings"], found["findings"].as_array().unwrap().len());
    let error = run(&["scan", &folder.path("missing"), "--json"]).expect(3);
    assert!(error.stdout.is_empty() && error.stderr.contains("\"not_found\""), "{}", error.stderr);
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../../docs/scan.schema.json")).unwrap()
}

/// Holds a value against the parts of JSON Schema that the report's schema uses.
fn fits(value: &Value, schema: &Value, root: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let part = name.trim_start_matches('#');
        return fits(value, root.pointer(part).unwrap_or_else(|| panic!("no {name}")), root, at);
    }
    if let Some(only) = schema.get("const") {
        assert_eq!(value, only, "{at}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value}");
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{at}: the type {other}"),
    };
    match &schema["type"] {
        Value::String(kind) => assert!(is(kind), "{at}: {value} is no {kind}"),
        Value::Array(kinds) => assert!(kinds.iter().any(|k| is(k.as_str().unwrap())), "{at}: {value}"),
        _ => {}
    }
    if let (Some(object), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        assert_eq!(schema["additionalProperties"], false, "{at}: the schema leaves keys open");
        for key in schema["required"].as_array().unwrap() {
            assert!(object.contains_key(key.as_str().unwrap()), "{at}: {key} is missing");
        }
        for (key, value) in object {
            let part = known.get(key).unwrap_or_else(|| panic!("{at}: {key} is not in the schema"));
            fits(value, part, root, &format!("{at}.{key}"));
        }
    }
    if let (Some(items), Some(part)) = (value.as_array(), schema.get("items")) {
        for (number, item) in items.iter().enumerate() {
            fits(item, part, root, &format!("{at}[{number}]"));
        }
    }
}

#[test]
fn sarif_has_a_line_a_level_and_a_rule_for_each_result() {
    let folder = Folder::new();
    let calls = folder.write("my model.bin", CALLS);
    let log = folder.path("scan.sarif");
    run(&["scan", &calls, "--sarif", &log]).expect(1);
    let text = std::fs::read_to_string(&log).unwrap();
    let sarif: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run_ = &sarif["runs"][0];
    let results = run_["results"].as_array().unwrap();
    assert!(!results.is_empty());
    for result in results {
        let rule = &run_["tool"]["driver"]["rules"][result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        let physical = &result["locations"][0]["physicalLocation"];
        assert_eq!(physical["region"]["startLine"], 1);
        assert!(physical["artifactLocation"]["uri"].as_str().unwrap().ends_with("my%20model.bin"));
    }
    assert_eq!(results[0]["level"], "error");
    assert_eq!(results[0]["locations"][0]["physicalLocation"]["region"]["byteOffset"], 26);
    // A log is not replaced without leave, and the refusal is no verdict.
    run(&["scan", &calls, "--sarif", &log]).expect(3);
    run(&["scan", &calls, "--sarif", &log, "--overwrite"]).expect(1);
    let shown = run(&["scan", &calls, "--sarif", "-"]).expect(1).json();
    assert_eq!(shown, sarif);
    run(&["scan", &calls, "--sarif", "-", "--json"]).expect(3);
}

#[test]
fn a_policy_allows_refuses_and_sets_the_severity() {
    let folder = Folder::new();
    let unknown = folder.write("net.bin", UNKNOWN);
    let calls = folder.write("calls.bin", CALLS);
    let policy = |text: &str| folder.write("scan.toml", format!("version = 1\n{text}"));
    let allowed = policy("[[allow]]\nname = 'ourcompany.*'\nreason = 'ours'");
    let run_ = run(&["scan", &unknown, "--policy", &allowed, "--json"]).expect(0);
    assert_eq!(run_.json()["findings"][0]["why"], "allowed by the policy: ours");
    run(&["scan", &calls, "--policy", &allowed]).expect(1);
    run(&["scan", &unknown, "--fail-at", "high"]).expect(0);
    run(&["scan", &unknown, "--fail-at", "medium"]).expect(2);
    run(&["scan", &calls, "--fail-at", "critical"]).expect(1);
    let refused = policy("[[deny]]\nname = 'ourcompany.*'\nreason = 'no'");
    run(&["scan", &unknown, "--policy", &refused]).expect(1);
    let denied = policy("[[deny]]\nname = 'collections.*'\nreason = 'no'");
    let ordered = folder.write("dict.pkl", b"\x80\x02ccollections\nOrderedDict\n)R.");
    run(&["scan", &ordered]).expect(0);
    run(&["scan", &ordered, "--policy", &denied]).expect(1);
    let wrong = policy("allow = 3");
    let error = run(&["scan", &unknown, "--policy", &wrong]).expect(3);
    assert!(error.stderr.contains("scan.toml") && error.stderr.contains("line 2"), "{}", error.stderr);
}

#[test]
fn the_tensors_of_a_dangerous_file_are_rescued_without_it() {
    let folder = Folder::new();
    // The call is made, its result thrown away, and a dict with an honest array follows in the same stream.
    let bytes = [
        &b"\x80\x04cos\nsystem\nX\x07\x00\x00\x00echo hi\x85R0}X\x01\x00\x00\x00w"[..],
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01K\x02\x85",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"\x89C\x08\x00\x00\x80?\x00\x00\x00@tbs.",
    ]
    .concat();
    let file = folder.write("array.pkl", bytes);
    let out = folder.path("out.safetensors");
    let found = run(&["scan", &file, "--rescue", &out, "--json"]).expect(1).json();
    assert!(found["rescued"]["tensors"].as_u64().unwrap() > 0, "{found}");
    run(&["inspect", &out]).expect(0);
    run(&["scan", &out]).expect(0);
    run(&["scan", &file, "--rescue", &out]).expect(3);
    // A folder gives the tensors of all its files, which are told apart where they differ.
    let all = folder.path("all.safetensors");
    let found = run(&["scan", &folder.path(""), "--rescue", &all, "--json"]).expect(1).json();
    assert_eq!(found["rescued"]["tensors"], 1, "{found}");
    fits(&found, &schema(), &schema(), "report");
}
