//! `weighbridge card`: a model card from what a model's files say.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use weighbridge::Result;
use weighbridge::versions::{Card, CardOptions, README, card, write_card};

use crate::exit::Exit;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
What is in README.md stays: keys are added to the front matter where they are missing, and the generated part stands \
between two marks. A part that was edited by hand, and a key that was removed by hand, stay so.

Examples:
  weighbridge card model/
  weighbridge card model/ --write --license apache-2.0 --language en
  weighbridge card model/ --write --dataset imdb --json")]
pub(crate) struct Args {
    /// The model's folder
    dir: PathBuf,
    /// Write README.md; without it the card is printed
    #[arg(long)]
    write: bool,
    /// The licence, as the hub calls it
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// A language of the model; may be given several times
    #[arg(long, value_name = "CODE")]
    language: Vec<String>,
    /// A model that this one was made from, as the hub calls it; may be given several times
    #[arg(long, value_name = "ID")]
    base_model: Vec<String>,
    /// Data that the model was trained on, as the hub calls it; may be given several times
    #[arg(long, value_name = "ID")]
    dataset: Vec<String>,
    /// A tag; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// The task, as the hub calls it
    #[arg(long, value_name = "TASK")]
    pipeline_tag: Option<String>,
    /// The library that loads the model, as the hub calls it
    #[arg(long, value_name = "NAME")]
    library_name: Option<String>,
    /// The heading of a new card
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Follow links that lead out of the model's folder
    #[arg(long)]
    follow_links: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let mut options = CardOptions::default();
    options.name.clone_from(&args.name);
    options.license.clone_from(&args.license);
    options.languages.clone_from(&args.language);
    options.base_models.clone_from(&args.base_model);
    options.datasets.clone_from(&args.dataset);
    options.tags.clone_from(&args.tag);
    options.pipeline_tag.clone_from(&args.pipeline_tag);
    options.library_name.clone_from(&args.library_name);
    options.follow_links = args.follow_links;
    let made = if args.write { write_card(&args.dir, &options)? } else { card(&args.dir, &options)? };
    if args.json {
        let value = serde_json::json!({
            "path": args.dir.join(README).to_string_lossy(),
            "written": args.write && made.changed(),
            "changed": made.changed(),
            "added_keys": made.added_keys,
            "text": String::from_utf8_lossy(&made.text),
            "notes": output::notes_json(&made.notes),
        });
        output::emit(format!("{value}\n").as_bytes())?;
    } else if args.write {
        output::emit(told(&made, args).as_bytes())?;
    } else {
        output::emit(&made.text)?;
        let mut notes = String::new();
        output::push_notes(&mut notes, &made.notes);
        // The card is what standard output is for.
        let _ = std::io::stderr().lock().write_all(notes.as_bytes());
    }
    Ok(Exit::Success)
}

fn told(made: &Card, args: &Args) -> String {
    let mut out = String::new();
    let path = args.dir.join(README);
    let what = match (&made.old, made.changed()) {
        (_, false) => "nothing to change in",
        (Some(_), true) => "changed",
        (None, true) => "wrote",
    };
    let _ = writeln!(out, "{what} {}", path.display());
    if !made.added_keys.is_empty() {
        let _ = writeln!(out, "added to the front matter: {}", made.added_keys.join(", "));
    }
    output::push_notes(&mut out, &made.notes);
    out
}
