//! `weighbridge formats`: the registry as a table.

use std::fmt::Write as _;

use weighbridge::Result;

use crate::exit::Exit;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weighbridge formats
  weighbridge formats --json")]
pub(crate) struct Args {
    /// Print one JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let registry = weighbridge::registry();
    if args.json {
        let rows: serde_json::Value = registry
            .formats()
            .iter()
            .map(|f| {
                serde_json::json!({
                    "id": f.info.id,
                    "name": f.info.name,
                    "extensions": f.info.extensions,
                    "feature": f.info.feature,
                    "compiled": f.compiled,
                    "reads": f.reads(),
                    "writes": f.writes(),
                    "sharded": f.info.index_name.is_some(),
                    "shared_storage": f.info.holds_sharing,
                    "values": f.info.holds_values,
                    "about": f.info.about,
                })
            })
            .collect();
        output::emit(format!("{rows}\n").as_bytes())?;
        return Ok(Exit::Success);
    }
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut rows =
        vec![["id", "name", "extensions", "feature", "compiled in", "reads", "writes"].map(str::to_owned)];
    rows.extend(registry.formats().iter().map(|f| {
        [
            f.info.id.to_owned(),
            f.info.name.to_owned(),
            f.info.extensions.iter().map(|e| format!(".{e}")).collect::<Vec<_>>().join(" "),
            f.info.feature.to_owned(),
            yes_no(f.compiled),
            yes_no(f.reads()),
            yes_no(f.writes()),
        ]
    }));
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let line: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
    output::emit(out.as_bytes())?;
    Ok(Exit::Success)
}
