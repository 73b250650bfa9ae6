//! `weighbridge version`: versions of models in a registry folder.

mod show;
mod text;

use std::path::PathBuf;

use weighbridge::versions::{
    AddOptions, Added, Bump, CardOptions, Choice, ModelDiff, ModelDiffOptions, Reference, Selector, Version,
    VersionedModel, parse_version,
};
use weighbridge::{Error, Result};

use crate::exit::Exit;
use crate::output;
use crate::progress::Progress;

#[derive(clap::Args)]
#[command(after_help = "\
A registry is a folder with a folder for each model: REGISTRY/NAME/v1.2.0/… holds a version, CHANGELOG.md beside the \
versions an entry for each. A version is named REGISTRY/NAME@WHICH, where WHICH is a version (1.2.0), the beginning of \
one (1.2), a requirement (^1), `latest`, or an alias; without it the latest is meant.

Examples:
  weighbridge version new models/minilm trained/
  weighbridge version new models/minilm trained/ --bump minor --alias production \\
    --notes 'More data'
  weighbridge version list models/minilm
  weighbridge version diff models/minilm@production models/minilm@latest
  weighbridge version show models/minilm@^1 --json
  weighbridge version alias models/minilm@1.2 production

Exit codes: 0 success, for `version diff`: equal; 1 `version diff` found a difference; 2 error.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Add a model's folder as a new version, and draft its changelog entry from what changed
    New(NewArgs),
    /// List the versions of a model, or the models of a registry
    List(ListArgs),
    /// Compare two versions: weights, config, tokenizer, files
    Diff(DiffArgs),
    /// Show a version: its record, its changelog entry, what its aliases are
    Show(ShowArgs),
    /// Make an alias name a version, or remove it
    Alias(AliasArgs),
}

#[derive(clap::Args)]
// Here `--version` is the version of the model, and not of the program.
#[command(disable_version_flag = true)]
#[command(after_help = "\
The new version becomes what --version or --bump says; else the version that the folder carries \
(weighbridge.version.json), if it is not there yet; else the one that the changes suggest: major for other shapes, \
architecture or vocabulary, minor for other weights or settings, patch for the rest.

Examples:
  weighbridge version new models/minilm trained/
  weighbridge version new models/minilm trained/ --version 2.0.0-rc.1
  weighbridge version new models/minilm trained/ --bump minor --alias production \\
    --notes 'More data' --card")]
struct NewArgs {
    /// The model in its registry, made if it is not there: REGISTRY/NAME
    #[arg(value_name = "REGISTRY/NAME")]
    model: PathBuf,
    /// The model's folder; it stays as it is
    source: PathBuf,
    /// Which part of the latest version goes up
    #[arg(long, value_enum, conflicts_with = "exact")]
    bump: Option<Part>,
    /// The new version
    #[arg(id = "exact", long = "version", value_name = "VERSION")]
    version: Option<String>,
    /// An alias that is to name the new version; may be given several times
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// What to say of it, at the head of its changelog entry
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// Link the files instead of copying them; only for files that nobody will change in place
    #[arg(long)]
    hard_links: bool,
    /// Write a model card into the version
    #[arg(long)]
    card: bool,
    /// Follow links that lead out of the model's folder
    #[arg(long)]
    follow_links: bool,
    /// Do not wait until everything is on the disk
    #[arg(long)]
    no_fsync: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

/// A part of a version.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Major,
    Minor,
    Patch,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge version list models
  weighbridge version list models/minilm --json")]
struct ListArgs {
    /// A model in a registry, or a registry
    #[arg(value_name = "REGISTRY[/NAME]")]
    path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge version diff models/minilm@1.0.0 models/minilm@latest
  weighbridge version diff models/minilm@production trained/ --json

Exit codes: 0 equal, 1 different, 2 error.")]
struct DiffArgs {
    /// The older: REGISTRY/NAME@WHICH, or a model's folder
    a: String,
    /// The newer: REGISTRY/NAME@WHICH, or a model's folder
    b: String,
    /// Shorten nothing
    #[arg(long)]
    all: bool,
    /// Follow links that lead out of a folder
    #[arg(long)]
    follow_links: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge version show models/minilm
  weighbridge version show models/minilm@production --json")]
struct ShowArgs {
    /// REGISTRY/NAME@WHICH, or a model's folder
    #[arg(value_name = "REGISTRY/NAME[@WHICH]")]
    which: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge version alias models/minilm@1.2 production
  weighbridge version alias models/minilm staging --remove")]
struct AliasArgs {
    /// The version: REGISTRY/NAME@WHICH
    #[arg(value_name = "REGISTRY/NAME[@WHICH]")]
    which: String,
    /// The alias
    alias: String,
    /// Remove the alias
    #[arg(long)]
    remove: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether the output is for a program.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::New(args) => args.json,
            Command::List(args) => args.json,
            Command::Diff(args) => args.json,
            Command::Show(args) => args.json,
            Command::Alias(args) => args.json,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    match &args.command {
        Command::New(args) => new(args),
        Command::List(args) => show::list(&args.path, args.json),
        Command::Diff(args) => diff(args),
        Command::Show(args) => show::show(&Reference::find(&args.which)?, args.json),
        Command::Alias(args) => alias(args),
    }
}

fn new(args: &NewArgs) -> Result<Exit> {
    let model = VersionedModel::at(&args.model)?;
    let progress = Progress::new(args.quiet || args.json);
    let mut options = AddOptions::default();
    options.version = match (args.bump, &args.version) {
        (Some(part), _) => Choice::Bump(match part {
            Part::Major => Bump::Major,
            Part::Minor => Bump::Minor,
            Part::Patch => Bump::Patch,
        }),
        (None, Some(text)) => Choice::Exact(parse_version(text)?),
        (None, None) => Choice::Suggested,
    };
    options.aliases.clone_from(&args.alias);
    options.notes.clone_from(&args.notes);
    options.hard_links = args.hard_links;
    options.card = args.card.then(CardOptions::default);
    options.follow_links = args.follow_links;
    options.fsync = !args.no_fsync;
    options.observer = Some(&progress);
    let added = model.add(&args.source, &options)?;
    drop(progress);
    if args.json {
        let line = format!("{}\n", added_json(&added, &args.alias));
        output::emit(line.as_bytes())?;
    } else {
        output::emit(text::added(&added, &args.alias).as_bytes())?;
    }
    Ok(Exit::Success)
}

fn added_json(added: &Added, aliases: &[String]) -> serde_json::Value {
    let bump = added.diff.as_ref().and_then(ModelDiff::bump);
    serde_json::json!({
        "version": added.version.to_string(),
        "previous": added.previous.as_ref().map(Version::to_string),
        "folder": added.folder.to_string_lossy(),
        "aliases": aliases,
        "suggested_bump": bump.map(Bump::as_str),
        "entry": added.entry,
        "record": added.record.to_json(),
        "diff": added.diff.as_ref().map(show::diff_json),
        "notes": output::notes_json(&added.notes),
    })
}

fn diff(args: &DiffArgs) -> Result<Exit> {
    let (a, b) = (Reference::find(&args.a)?, Reference::find(&args.b)?);
    let progress = Progress::new(args.quiet || args.json);
    let mut options = ModelDiffOptions::default();
    options.follow_links = args.follow_links;
    options.observer = Some(&progress);
    let found = ModelDiff::between(&a.folder(), &b.folder(), &options)?;
    drop(progress);
    if args.json {
        let mut value = show::diff_json(&found);
        value["a"] = a.to_string().into();
        value["b"] = b.to_string().into();
        output::emit(format!("{value}\n").as_bytes())?;
    } else {
        output::emit(text::diff(&found, args.all || !output::for_people()).as_bytes())?;
    }
    Ok(if found.is_equal() { Exit::Success } else { Exit::Different })
}

fn alias(args: &AliasArgs) -> Result<Exit> {
    let (model, version) = if args.remove {
        // The version plays no part, and may be gone.
        let model = args.which.split_once('@').map_or(&*args.which, |(model, _)| model);
        (VersionedModel::at(model)?, None)
    } else {
        match Reference::find(&args.which)? {
            Reference::Version { model, version } => (model, Some(version)),
            other => {
                let what = format!("{other} is no version in a registry");
                return Err(Error::invalid_options(what).with_hint("name it as REGISTRY/NAME@WHICH"));
            }
        }
    };
    let line = match &version {
        Some(version) => {
            model.set_alias(&args.alias, version)?;
            format!("{}: {} names {version}\n", model.name(), args.alias)
        }
        None if model.remove_alias(&args.alias)? => format!("{}: {} is removed\n", model.name(), args.alias),
        None => {
            let what = format!("{}: there is no alias {:?}", model.name(), args.alias);
            return Err(Error::not_found(what).with_path(model.folder()));
        }
    };
    if args.json {
        let version = version.as_ref().map(Version::to_string);
        let value = serde_json::json!({ "model": model.name(), "alias": args.alias, "version": version });
        output::emit(format!("{value}\n").as_bytes())?;
    } else {
        output::emit(line.as_bytes())?;
    }
    Ok(Exit::Success)
}

/// The latest version of a model, if it has one.
fn latest(model: &VersionedModel) -> Option<Version> {
    model.resolve(&Selector::Latest).ok()
}
