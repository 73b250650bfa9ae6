//! `diff`: what is found, and the exit codes.

use crate::{Entry, Folder, f32s, run, safetensors};

fn write(folder: &Folder, name: &str, tensors: &[Entry<'_>]) -> String {
    folder.write(name, safetensors(tensors, &[]))
}

#[test]
fn equal_different_and_error_have_their_exit_codes() {
    let folder = Folder::new();
    let one = f32s(&[1.0, 2.0]);
    let near = f32s(&[1.0, 2.25]);
    let a = write(&folder, "a.safetensors", &[("w", "F32", &[2], &one)]);
    let b = write(&folder, "b.safetensors", &[("w", "F32", &[2], &near)]);
    let equal = run(&["diff", &a, &a]).expect(0);
    assert!(equal.stdout.starts_with("equal: 1 tensor compared"), "{}", equal.stdout);
    let different = run(&["diff", &a, &b]).expect(1);
    assert!(different.stdout.contains("1 of 2 elements differ"), "{}", different.stdout);
    assert!(different.stdout.contains("2.5"), "{}", different.stdout);
    run(&["diff", &a, &b, "--tolerance", "0.25"]).expect(0);
    run(&["diff", &a, &b, "--tolerance", "0.2"]).expect(1);
    run(&["diff", &a, &folder.path("absent")]).expect(2);
    run(&["diff", &a, &b, "--tolerance", "-1"]).expect(2);
    run(&["diff", &a]).expect(2);
}

#[test]
fn json_names_what_differs() {
    let folder = Folder::new();
    let (ones, nan) = (f32s(&[1.0; 4]), f32s(&[1.0, 1.0, f32::NAN, 0.5]));
    let a = write(
        &folder,
        "a.safetensors",
        &[
            ("gone", "U8", &[1], &[1]),
            ("shape", "U8", &[2], &[1, 2]),
            ("dtype", "U8", &[1], &[1]),
            ("w", "F32", &[4], &ones),
        ],
    );
    let b = write(
        &folder,
        "b.safetensors",
        &[
            ("new", "U8", &[1], &[1]),
            ("shape", "U8", &[2, 1], &[1, 2]),
            ("dtype", "I8", &[1], &[1]),
            ("w", "F32", &[4], &nan),
        ],
    );
    let json = run(&["diff", &a, &b, "--json"]).expect(1).json();
    assert_eq!((&json["equal"], &json["compared"]), (&false.into(), &3.into()));
    assert_eq!(
        (&json["only_in_a"], &json["only_in_b"]),
        (&serde_json::json!(["gone"]), &serde_json::json!(["new"]))
    );
    let find = |name: &str| json["different"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
    assert_eq!(find("shape")["shapes"], serde_json::json!([[2], [2, 1]]));
    assert!(find("shape")["values"].is_null());
    assert_eq!(find("dtype")["dtypes"], serde_json::json!(["U8", "I8"]));
    let values = &find("w")["values"];
    assert_eq!((&values["differing"], &values["nan_on_one_side"]), (&2.into(), &1.into()));
    assert_eq!((&values["max_absolute"], &values["first"]), (&0.5.into(), &2.into()));
}

#[test]
fn metadata_counts_only_when_asked() {
    let folder = Folder::new();
    let entry: Entry<'_> = ("w", "U8", &[1], &[1]);
    let a = folder.write("a.safetensors", safetensors(&[entry], &[("epoch", "1")]));
    let b = folder.write("b.safetensors", safetensors(&[entry], &[("epoch", "2")]));
    let told = run(&["diff", &a, &b]).expect(0);
    assert!(told.stdout.contains("metadata epoch: \"1\" -> \"2\""), "{}", told.stdout);
    run(&["diff", &a, &b, "--values"]).expect(1);
}
