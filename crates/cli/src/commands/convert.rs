//! `weighbridge convert`: a model written in another format, dtype or cut.

pub(crate) mod manifest;

use std::fmt::Write as _;
use std::path::PathBuf;

use weighbridge::{
    CastStats, ConvertOptions, ConvertReport, DType, KeptWide, Note, NoteKind, OnOverflow, Precision, Result,
    TensorCast, ValuesPolicy,
};

use super::keys::{self, Keys};
use super::{model, topics};
use crate::exit::Exit;
use crate::output::{self, count, grouped, one_line, parse_size, size};
use crate::progress::Progress;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge convert pytorch_model.bin model.safetensors
  weighbridge convert model.safetensors model.bin --force
  weighbridge convert model.safetensors half.safetensors --dtype f16 --overflow saturate
  weighbridge convert checkpoint.pt weights.safetensors --select model_state_dict \\
    --strip-prefix module.
  weighbridge convert pytorch_model.bin out/ --to safetensors --max-shard-size 5GB
  weighbridge convert my_topics.pickle my_topics/ --serialization safetensors
  weighbridge convert model/ half/ --dtype f16 --dtype-for '*norm*=keep' --overflow keep-wide
  weighbridge convert model/ old/ --to torch
  weighbridge convert tuned.safetensors new.onnx --into model.onnx --cast
  weighbridge convert pytorch_model.bin model.safetensors --manifest
  weighbridge convert model.age model.safetensors -i key.txt

A folder with a config.json is a whole model: written to another folder, its config states the new dtype, and its \
tokenizer and other files go along; weights in other formats do not. All of it appears, or nothing.

The steps are applied in this order: select, drop, strip prefix, rename, cast.
Tensors are cast between float types only; integers and booleans stay as they are.
An existing target, and a loss without leave, are errors before anything is written.")]
pub(crate) struct Args {
    /// The file, the index of a sharded set, or a folder that holds a model
    pub(crate) src: PathBuf,
    /// The file to write; or a folder, for the format's usual name in it
    pub(crate) dst: PathBuf,
    /// The format to write; else DST's extension says it
    #[arg(long, value_name = "FORMAT")]
    pub(crate) to: Option<String>,
    /// Cast floating-point tensors: f32, f16, bf16, f64, f8_e4m3, …
    #[arg(long, value_name = "DTYPE", value_parser = parse_dtype)]
    dtype: Option<DType>,
    /// The dtype of tensors whose names match, `*` standing for any text; `keep` for the one they have. The first
    /// that fits counts, before --dtype
    #[arg(long, value_name = "GLOB=DTYPE", value_parser = parse_rule)]
    dtype_for: Vec<(String, Option<DType>)>,
    /// What becomes of numbers too large for the dtype
    #[arg(long, value_enum, default_value_t = Overflow::Error)]
    overflow: Overflow,
    /// Only this part: a path such as `model.state_dict`, which is taken off the names, or a pattern with `*`
    #[arg(long, value_name = "PATH")]
    pub(crate) select: Option<String>,
    /// Leave out tensors whose names match, `*` standing for any text
    #[arg(long, value_name = "GLOB")]
    drop: Vec<String>,
    /// Rename by regular expression; `$1` in TO is its first group. The first `=` separates the two
    #[arg(long, value_name = "RE=TO", value_parser = parse_pair)]
    rename: Vec<(String, String)>,
    /// Remove this from the beginning of names, such as `module.`
    #[arg(long, value_name = "PREFIX")]
    pub(crate) strip_prefix: Vec<String>,
    /// Write this ONNX model with the tensors of SRC in place of its initializers of the same names
    #[arg(long, value_name = "MODEL")]
    pub(crate) into: Option<PathBuf>,
    /// With --into: cast floats to the dtypes that the model's initializers have
    #[arg(long, requires = "into")]
    cast: bool,
    /// Where the tensors of an ONNX model are: beside it in one file, or inside; else as they were, or by size
    #[arg(long, value_enum, value_name = "WHERE")]
    external_data: Option<ExternalData>,
    /// Split into files with at most this many bytes of tensors: 5GB, 5GiB, 500MB or bytes
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_shard_size: Option<u64>,
    /// What becomes of values that are no tensors where the format has no place for them
    #[arg(long, value_enum, default_value_t = Values::Keep)]
    values: Values,
    /// Give leave to lose what the format cannot hold; each loss is told
    #[arg(long)]
    pub(crate) allow_loss: bool,
    /// Add an entry to the file's text metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) metadata: Vec<(String, String)>,
    /// The pickle protocol, where the format has pickles
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=5))]
    pickle_protocol: Option<u8>,
    /// Write a manifest of the result with the hashes of the source: weighbridge.json in a folder, or
    /// FILE.weighbridge.json beside a file. Of a whole model one is written without this too, and the source not hashed
    #[arg(long)]
    pub(crate) manifest: bool,
    /// Write no manifest of a whole model
    #[arg(long, conflicts_with = "manifest")]
    pub(crate) no_manifest: bool,
    #[command(flatten)]
    topics: topics::ConvertArgs,
    /// Do not wait until the files are on the disk
    #[arg(long)]
    pub(crate) no_fsync: bool,
    /// Threads that copy and cast
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Permissions of the files, in octal; else those that the umask leaves, and 600 where the source is encrypted
    #[arg(long, value_name = "MODE", value_parser = keys::parse_mode)]
    pub(crate) mode: Option<u32>,
    #[command(flatten)]
    keys: Keys,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) force: bool,
    /// Print errors, warnings and losses only
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    fn common(&self) -> topics::Common<'_> {
        topics::Common {
            src: &self.src,
            dst: &self.dst,
            force: self.force,
            quiet: self.quiet,
            json: self.json,
            fsync: !self.no_fsync,
            allow_loss: self.allow_loss,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ExternalData {
    /// In a file beside the model
    Always,
    /// In the model's own file
    Never,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Overflow {
    /// Refuse to write the file
    Error,
    /// The largest finite number
    Saturate,
    /// Infinity, else NaN, else the largest finite number: as torch casts
    Infinity,
    /// Leave a tensor that has such numbers in its dtype
    KeepWide,
}

impl From<Overflow> for OnOverflow {
    fn from(choice: Overflow) -> Self {
        match choice {
            Overflow::Error => Self::Error,
            Overflow::Saturate => Self::Saturate,
            Overflow::Infinity => Self::Infinity,
            Overflow::KeepWide => Self::KeepWide,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Values {
    /// Keep them in a form that reading restores; an error where that is impossible
    Keep,
    /// Leave them out
    Drop,
}

fn parse_dtype(text: &str) -> std::result::Result<DType, String> {
    DType::parse(text).ok_or_else(|| {
        let names: Vec<_> = DType::ALL.iter().map(|d| d.name().to_lowercase()).collect();
        format!("the dtypes are {}", names.join(", "))
    })
}

fn parse_rule(text: &str) -> std::result::Result<(String, Option<DType>), String> {
    let (pattern, dtype) = parse_pair(text)?;
    if dtype.eq_ignore_ascii_case("keep") {
        return Ok((pattern, None));
    }
    Ok((pattern, Some(parse_dtype(&dtype)?)))
}

pub(crate) fn parse_pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() => Ok((left.to_owned(), right.to_owned())),
        _ => Err("a text, `=` and another text are wanted".into()),
    }
}

fn precision(args: &Args) -> Precision {
    let mut precision = args.dtype.map_or_else(Precision::unchanged, Precision::to);
    for (pattern, dtype) in &args.dtype_for {
        precision = precision.rule(pattern, *dtype);
    }
    precision.on_overflow(args.overflow.into())
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let encrypted = args.keys.apply_to(&args.src);
    let whole = !encrypted && args.into.is_none() && model::is_whole(args);
    if args.manifest && encrypted {
        let what = "a manifest of what was encrypted would not be the owner's alone";
        return Err(weighbridge::Error::invalid_options(what).with_hint(
            "convert without it, and make one where it may be read (`weighbridge hash --write`)",
        ));
    }
    if args.manifest && !whole {
        manifest::check_free(args)?;
    }
    if !encrypted && let Some(exit) = topics::convert(&args.topics, &args.common(), args.to.is_none())? {
        if args.manifest {
            let progress = Progress::new(args.quiet || args.json);
            manifest::write(args, manifest::provenance(args, &progress)?, &progress)?;
        }
        return Ok(exit);
    }
    let progress = Progress::new(args.quiet || args.json);
    let mut options = ConvertOptions::default();
    options.read = crate::limits::read_options();
    options.write.limits = crate::limits::limits();
    options.format.clone_from(&args.to);
    options.precision = precision(args);
    options.select.clone_from(&args.select);
    options.drop.clone_from(&args.drop);
    options.renames.clone_from(&args.rename);
    options.strip_prefixes.clone_from(&args.strip_prefix);
    options.write.max_shard_size = args.max_shard_size;
    options.into.clone_from(&args.into);
    options.cast_into = args.cast;
    options.write.external_data = args.external_data.map(|w| matches!(w, ExternalData::Always));
    options.write.values = match args.values {
        Values::Keep => ValuesPolicy::Keep,
        Values::Drop => ValuesPolicy::Drop,
    };
    options.write.allow_loss = args.allow_loss;
    options.write.metadata.clone_from(&args.metadata);
    options.write.pickle_protocol = args.pickle_protocol;
    options.fsync = !args.no_fsync;
    options.threads = args.threads.map(usize::from);
    options.overwrite = args.force;
    options.mode = args.mode;
    if whole {
        return model::run(args, &options, progress);
    }
    options.observer = Some(&progress);
    let report = if encrypted {
        // What was secret is written for its owner alone.
        options.mode = args.mode.or(Some(0o600));
        weighbridge::save_with(&args.dst, &*args.keys.open(&args.src)?, &options)?
    } else if args.manifest {
        manifest::convert(args, &options, &progress)?
    } else {
        weighbridge::convert_with(&args.src, &args.dst, &options)?
    };
    drop(progress);
    if args.json {
        output::emit(format!("{}\n", json(&report)).as_bytes())?;
    } else if args.quiet {
        let mut out = String::new();
        output::push_notes(&mut out, &grave(&report.notes));
        eprint!("{out}");
    } else {
        output::emit(text(&report).as_bytes())?;
    }
    Ok(Exit::Success)
}

/// The notes that are told even when nothing else is.
pub(crate) fn grave(notes: &[Note]) -> Vec<Note> {
    let grave = |n: &&Note| matches!(n.kind, NoteKind::Warning | NoteKind::Lost);
    notes.iter().filter(grave).cloned().collect()
}

pub(crate) fn stats_json(s: &CastStats) -> serde_json::Value {
    serde_json::json!({
        "elements": s.elements,
        "overflow": s.overflow,
        "underflow": s.underflow,
        "nan": s.nan,
        "nan_lost": s.nan_lost,
        "inf": s.inf,
        "inf_lost": s.inf_lost,
        "max_abs": s.max_abs,
        "max_relative": s.max_relative,
    })
}

pub(crate) fn cast_json(c: &TensorCast) -> serde_json::Value {
    serde_json::json!({
        "name": &*c.name, "from": c.from.name(), "to": c.to.name(), "stats": stats_json(&c.stats),
    })
}

pub(crate) fn kept_json(kept: &[KeptWide]) -> serde_json::Value {
    let one = |k: &KeptWide| {
        serde_json::json!({
            "name": k.name, "dtype": k.dtype.name(), "overflow": k.overflow, "max_abs": k.max_abs,
        })
    };
    kept.iter().map(one).collect()
}

fn json(report: &ConvertReport) -> serde_json::Value {
    let path = |p: &PathBuf| p.to_string_lossy().into_owned();
    serde_json::json!({
        "source": {
            "format": report.source_format,
            "variety": report.source_variety,
            "files": report.source_files.iter().map(path).collect::<Vec<_>>(),
            "bytes": report.bytes_in,
        },
        "target": {
            "format": report.target_format,
            "files": report.files.iter()
                .map(|(p, bytes)| serde_json::json!({ "path": path(p), "bytes": bytes }))
                .collect::<Vec<_>>(),
            "bytes": report.bytes_out,
        },
        "tensors": report.tensors,
        "parameters": report.parameters,
        "parts": report.parts.iter()
            .map(|(name, tensors)| serde_json::json!({ "name": name, "tensors": tensors }))
            .collect::<Vec<_>>(),
        "casts": report.casts.iter().map(cast_json).collect::<Vec<_>>(),
        "cast_total": stats_json(&report.cast_total),
        "kept_wide": kept_json(&report.kept_wide),
        "notes": output::notes_json(&report.notes),
        "seconds": report.seconds,
    })
}

fn text(report: &ConvertReport) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "read    {}: {} ({})",
        report.source_format,
        size(report.bytes_in),
        one_line(&report.source_variety)
    );
    let tensors = (report.tensors, report.parameters, report.bytes_out);
    push_written(&mut out, report.target_format, tensors, report.seconds, &report.files);
    push_casts(&mut out, &report.casts, &report.cast_total, &report.kept_wide);
    if !report.parts.is_empty() {
        let parts: Vec<_> =
            report.parts.iter().map(|(n, t)| format!("{} ({})", one_line(n), count(*t, "tensor"))).collect();
        let _ = writeln!(
            out,
            "note: the source holds {}; all are written under dotted names, and `--select {}` takes one part",
            parts.join(", "),
            one_line(&report.parts[0].0)
        );
    }
    output::push_notes(&mut out, &report.notes);
    out
}

/// What was written: of a format the tensors, parameters and bytes, then each file with its length.
pub(crate) fn push_written(
    out: &mut String,
    format: &str,
    (tensors, parameters, bytes): (u64, u64, u64),
    seconds: f64,
    files: &[(PathBuf, u64)],
) {
    let (tensors, parameters) = (count(tensors, "tensor"), count(parameters, "parameter"));
    let bytes = size(bytes);
    let _ = writeln!(out, "wrote   {format}: {tensors}, {parameters}, {bytes} in {seconds:.2} s");
    for (path, bytes) in files {
        let _ = writeln!(out, "  {}  {}", one_line(&path.to_string_lossy()), grouped(*bytes));
    }
}

/// What the casts met, and line by line those in which more than rounding happened.
pub(crate) fn push_casts(out: &mut String, casts: &[TensorCast], total: &CastStats, kept: &[KeptWide]) {
    if total.elements > 0 {
        let _ = writeln!(out, "cast    {}", cast_line(total));
        for cast in casts.iter().filter(|c| !c.stats.is_clean()) {
            let name = one_line(&cast.name);
            let _ = writeln!(out, "  {name}  {} -> {}  {}", cast.from, cast.to, cast_line(&cast.stats));
        }
    }
    for tensor in kept {
        let (name, dtype, most) = (one_line(&tensor.name), tensor.dtype, tensor.max_abs);
        let beyond = count(tensor.overflow, "element");
        let _ = writeln!(out, "kept    {name} as {dtype}: {beyond} beyond the range, up to {most:e}");
    }
}

/// What a cast met, without what it did not.
fn cast_line(stats: &CastStats) -> String {
    let mut parts = vec![count(stats.elements, "element")];
    let events = [
        (stats.overflow, "beyond the range"),
        (stats.underflow, "became zero"),
        (stats.nan_lost, "NaN lost"),
        (stats.inf_lost, "infinity lost"),
    ];
    parts.extend(events.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))));
    if stats.max_relative > 0.0 {
        parts.push(format!("worst relative error {:.2e}", stats.max_relative));
    }
    parts.join(", ")
}
