//! What is generated from the definitions of the command: help, completions, manual pages, the table of formats.

use crate::{Folder, run};

/// The subcommands, as the help lists them.
fn subcommands() -> Vec<String> {
    let help = run(&["--help"]).expect(0).stdout;
    let list = help.split("Commands:\n").nth(1).expect("a list of commands");
    let lines = list.lines().take_while(|l| l.starts_with("  "));
    let names: Vec<_> = lines.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() > 3, "{names:?}");
    names.into_iter().filter(|n| n != "help").collect()
}

#[test]
fn every_subcommand_has_help_with_examples() {
    for name in subcommands() {
        let help = run(&[&name, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:") && help.contains(&format!("weighbridge {name}")), "{help}");
    }
    let help = run(&["--help"]).expect(0).stdout;
    assert!(help.contains("Exit codes:") && help.contains("Examples:"));
    let version = run(&["--version"]).expect(0).stdout;
    assert_eq!(version.trim(), format!("weighbridge {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completions", shell]).expect(0).stdout;
        for name in subcommands() {
            assert!(script.contains(&name), "{shell} does not complete {name}");
        }
    }
}

#[test]
fn manual_pages_cover_every_subcommand() {
    let page = run(&["man"]).expect(0).stdout;
    let folder = Folder::new();
    let dir = folder.path("man1");
    run(&["man", "--dir", &dir]).expect(0);
    assert!(std::fs::read_to_string(folder.0.join("man1/weighbridge.1")).unwrap().contains(".TH"));
    for name in subcommands() {
        assert!(page.contains(&name), "the page does not name {name}");
        let path = folder.0.join(format!("man1/weighbridge-{name}.1"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(text.contains(&format!("weighbridge {name}")) || text.contains(&name), "{text}");
    }
}

#[test]
fn formats_are_those_of_the_registry() {
    let rows = run(&["formats", "--json"]).expect(0).json();
    let rows = rows.as_array().unwrap();
    let text = run(&["formats"]).expect(0).stdout;
    assert_eq!(text.lines().count(), rows.len() + 1);
    let safetensors = rows.iter().find(|r| r["id"] == "safetensors").expect("safetensors is listed");
    for key in ["name", "extensions", "feature", "compiled", "reads", "writes", "about"] {
        assert!(!safetensors[key].is_null(), "{key}");
    }
    assert_eq!((&safetensors["reads"], &safetensors["writes"]), (&true.into(), &true.into()));
    assert!(rows.iter().all(|r| text.contains(r["id"].as_str().unwrap())));
}
