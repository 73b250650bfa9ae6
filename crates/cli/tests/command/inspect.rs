//! `inspect`: what is shown, and that only the header is read.

use crate::{Folder, f32s, golden, run, safetensors};

fn model(folder: &Folder) -> String {
    let numbers = f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let tensors: &[crate::Entry<'_>] = &[
        ("layer.weight", "F32", &[2, 3], &numbers),
        ("layer.bias", "BF16", &[2], &[0, 0, 0x80, 0x3f]),
        ("quote\"\n\u{1b}ü", "I64", &[], &[7, 0, 0, 0, 0, 0, 0, 0]),
    ];
    folder.write("model.safetensors", safetensors(tensors, &[("format", "pt"), ("note", "a\nb")]))
}

#[test]
fn json_has_exactly_the_documented_keys() {
    let folder = Folder::new();
    let path = model(&folder);
    let json = run(&["inspect", &path, "--json"]).expect(0).json();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let documented = [
        "format",
        "variety",
        "files",
        "tensors",
        "parameters",
        "bytes",
        "dtypes",
        "metadata",
        "values",
        "shared",
        "notes",
    ];
    assert_eq!(keys, documented);
    assert_eq!(json["format"], "safetensors");
    assert_eq!(json["files"], serde_json::json!([path]));
    assert_eq!(json["parameters"], 9);
    assert_eq!(json["bytes"], 36);
    assert_eq!(json["metadata"], serde_json::json!({ "format": "pt", "note": "a\nb" }));
    assert_eq!(json["dtypes"]["F32"], serde_json::json!({ "tensors": 1, "parameters": 6, "bytes": 24 }));
    assert_eq!((&json["values"], &json["shared"]), (&serde_json::Value::Null, &serde_json::json!([])));
    assert_eq!(
        json["tensors"],
        serde_json::json!([
            { "name": "layer.weight", "dtype": "F32", "shape": [2, 3], "bytes": 24 },
            { "name": "layer.bias", "dtype": "BF16", "shape": [2], "bytes": 4 },
            { "name": "quote\"\n\u{1b}ü", "dtype": "I64", "shape": [], "bytes": 8 },
        ])
    );
}

#[test]
fn text_shows_every_tensor_and_no_control_character() {
    let folder = Folder::new();
    let shown = run(&["inspect", &model(&folder)]).expect(0).stdout;
    for wanted in ["safetensors", "layer.weight", "[2, 3]", "BF16", "format: pt", "a\\nb", "\\u{1b}"] {
        assert!(shown.contains(wanted), "{wanted:?} is not in {shown}");
    }
    assert!(!shown.contains('\u{1b}'));
    let tree = run(&["inspect", &model(&folder), "--tree"]).expect(0).stdout;
    assert!(tree.contains("layer  2 tensors, 28 B") && tree.contains("    weight  F32 [2, 3]"), "{tree}");
}

#[test]
fn only_the_header_is_read() {
    // A hole of 1 TiB: reading it would take minutes.
    let folder = Folder::new();
    let path = folder.path("huge.safetensors");
    let len: u64 = 1 << 40;
    let mut header =
        format!("{{\"t\":{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[0,{len}]}}}}").into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    let total = bytes.len() as u64 + len;
    std::fs::write(&path, bytes).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(total).unwrap();
    let start = std::time::Instant::now();
    assert_eq!(run(&["inspect", &path, "--json"]).expect(0).json()["bytes"], len);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn golden_files_are_listed_as_their_dumps_say() {
    let mut seen = 0;
    for entry in std::fs::read_dir(golden("safetensors")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let dump = std::fs::read(format!("{}.json", path.display())).expect("a dump beside each file");
        let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
        let dump = dump.as_object().unwrap();
        let json = run(&["inspect", path.to_str().unwrap(), "--json"]).expect(0).json();
        let listed = json["tensors"].as_array().unwrap();
        assert_eq!(listed.len(), dump.len(), "{}", path.display());
        for tensor in listed {
            let expected = &dump[tensor["name"].as_str().unwrap()];
            assert_eq!((&tensor["dtype"], &tensor["shape"]), (&expected["dtype"], &expected["shape"]));
        }
        seen += 1;
    }
    assert!(seen > 0, "no golden file");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::io::Read as _;
    let folder = Folder::new();
    let names: Vec<String> = (0..5000).map(|i| format!("layers.{i}.weight")).collect();
    let tensors: Vec<crate::Entry<'_>> =
        names.iter().map(|n| (n.as_str(), "U8", &[1][..], &[0][..])).collect();
    let path = folder.write("many.safetensors", safetensors(&tensors, &[]));
    let mut child = crate::command(&["inspect", &path, "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn shared_storage_and_values_of_a_checkpoint_are_shown() {
    let torch = golden("torch");
    let path = |name: &str| torch.join(name).to_str().unwrap().to_owned();
    let views = run(&["inspect", &path("views.pt"), "--json"]).expect(0).json();
    let dump = std::fs::read(torch.join("views.pt.json")).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&dump).unwrap();
    let groups = views["shared"].as_array().unwrap();
    assert!(!groups.is_empty());
    for group in groups {
        let storage = |name: &serde_json::Value| &dump[name.as_str().unwrap()]["storage"];
        assert!(group.as_array().unwrap().iter().all(|n| storage(n) == storage(&group[0])), "{group}");
    }
    assert!(groups.iter().any(|g| g.to_string().contains("\"tied\"") && g.to_string().contains("\"base\"")));

    let values = &run(&["inspect", &path("checkpoint.pt"), "--json"]).expect(0).json()["values"];
    assert_eq!((&values["epoch"], &values["loss"]), (&3.into(), &0.125.into()));
    assert_eq!(values["model"]["0.weight"], serde_json::json!({ "$tensor": "model.0.weight" }));
    assert_eq!(values["optimizer"]["state"]["$dict"][0][0], 0);
    assert_eq!(values["optimizer"]["param_groups"][0]["betas"], serde_json::json!([0.9, 0.999]));
}

#[test]
fn a_torchscript_program_is_listed_and_not_run() {
    let program = |name: &str| golden("torchscript").join(name).to_string_lossy().into_owned();
    let state = golden("torch").join("state_dict.pt").to_string_lossy().into_owned();
    let path = program("scripted.pt");
    let text = run(&["inspect", &path]).expect(0).stdout;
    for part in [
        "blocks.0.linear  __torch__.torch.nn.modules.linear.Linear",
        "__torch__.programs.Model.describe(x: Tensor, names: Dict[str, int], strict: bool=True) -> Tuple[Tensor, str]",
        "labels.json",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = run(&["inspect", &program("traced.pt"), "--json"]).expect(0).json();
    let listed = &json["program"];
    assert_eq!(listed["modules"][0]["path"], "");
    assert_eq!(
        listed["constants"],
        serde_json::json!([{ "name": "c0", "dtype": "F32", "shape": [3], "bytes": 12 }])
    );
    let methods = |class: &serde_json::Value| class["methods"].as_array().map_or(0, Vec::len);
    assert!(listed["classes"].as_array().unwrap().iter().map(methods).sum::<usize>() > 6);
    assert!(listed["classes"][0]["methods"][0]["source"].is_null());
    let all = run(&["inspect", &program("traced.pt"), "--json", "--all"]).expect(0).json();
    assert!(all["program"]["classes"][0]["methods"][0]["source"].as_str().unwrap().contains("def "));
    assert!(run(&["inspect", &state, "--json"]).expect(0).json()["program"].is_null());
}
