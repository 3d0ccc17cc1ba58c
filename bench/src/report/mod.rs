//! The tables of `docs/benchmarks.md` and the plots beside it, from raw data.

mod plots;
mod svg;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::measure::{
    contention, fanout, handover, latency, payload, publish, recovery, throughput, wake,
};
use crate::record::Results;
use crate::registry::Transports;
use crate::session::Options;
use crate::table::{Table, bytes, number};
use crate::transport::Wait;
use crate::transports::SHMBUS_NAME;

type Measure = fn(Transports, &Options) -> Result<Results>;
type MakeTable = fn(&Results) -> Table;

/// All of them, in the order in which they are run.
const ALL: [(&str, Measure, MakeTable); 9] = [
    ("latency", latency::measure, latency::table),
    ("throughput", throughput::measure, throughput::table),
    ("fanout", fanout::measure, fanout::table),
    ("payload", payload::measure, payload::table),
    ("wake", wake::measure, wake::table),
    ("handover", handover::measure, handover::table),
    ("contention", contention::measure, contention::table),
    ("publish", publish::measure, publish::table),
    ("recovery", recovery::measure, recovery::table),
];

/// Runs all measurements, keeps their raw data in `directory`, and writes the report. `resume`: those whose raw data is there are not run again.
pub(crate) fn all(
    transports: Transports,
    options: &Options,
    directory: &Path,
    document: &Path,
    resume: bool,
) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
    for (name, measure, table) in ALL {
        let file = directory.join(format!("{name}.json"));
        if resume && file.exists() {
            println!("{name}: {} is there", file.display());
            continue;
        }
        let results = measure(transports, options)?;
        // Written when it is complete: what is there can be relied on.
        results.write(&file)?;
        print!("{}", table(&results).markdown());
    }
    report(directory, document)
}

/// Writes the tables of `document`, between its marks, and the plots in `directory`, from the raw data there.
pub(crate) fn report(directory: &Path, document: &Path) -> Result<()> {
    let mut text =
        crate::record::read_text(document).with_context(|| format!("{}", document.display()))?;
    let mut found = 0;
    for (name, _, table) in ALL {
        let file = directory.join(format!("{name}.json"));
        if !file.exists() {
            println!("{name}: there is no {}", file.display());
            continue;
        }
        found += 1;
        let results = Results::read(&file)?;
        text = filled(&text, name, &section(&results, &table(&results)))?;
        if let Some(table) = factors(&results) {
            text = filled(&text, &format!("{name}-factors"), &table.markdown())?;
        }
        if let Some((file, svg)) = plots::of(&results) {
            let file = directory.join(file);
            fs::write(&file, svg).with_context(|| format!("{}", file.display()))?;
        }
    }
    ensure!(found > 0, "there is no raw data in {}", directory.display());
    // In one step: an interrupted report leaves the old one.
    let scratch = document.with_extension("md.new");
    fs::write(&scratch, text).with_context(|| format!("{}", scratch.display()))?;
    fs::rename(&scratch, document).with_context(|| format!("{}", document.display()))?;
    println!("written: {}, and plots in {}", document.display(), directory.display());
    Ok(())
}

fn section(results: &Results, table: &Table) -> String {
    let Results { machine, effort, left_out, version, records, .. } = results;
    let moved = records.iter().filter(|record| record.class == crate::probe::Class::Moved).count();
    let mut text = format!(
        "{}; {}; shmbus {version}; {effort}, {} runs, of which {moved} left out because the cores moved meanwhile.\n\n{}",
        machine.name(),
        machine.placement,
        records.len(),
        table.markdown(),
    );
    if !left_out.is_empty() {
        text += &format!("\nNot run: {}.\n", left_out.join("; "));
    }
    text
}

/// `text` with what stands between the marks of `name` replaced.
fn filled(text: &str, name: &str, content: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let missing = || format!("the document has no mark {}", begin.trim());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) =
        rest.split_once(&end).with_context(|| format!("the document has no mark {end}"))?;
    Ok(format!("{before}{begin}\n{content}\n{end}{after}"))
}

/// How many times the rate of each transport shmbus has, where rates by length or by number of receivers were measured.
fn factors(results: &Results) -> Option<Table> {
    let is_ours = |name: &str| name.starts_with(SHMBUS_NAME) || name.starts_with("bare");
    let by_receivers = match results.measurement.as_str() {
        "fanout" => true,
        "payload" => false,
        _ => return None,
    };
    let mut rows: Vec<(usize, Wait)> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for record in &results.records {
        let case = &record.case;
        let by = if by_receivers { case.receivers } else { case.payload };
        if !rows.contains(&(by, case.wait)) {
            rows.push((by, case.wait));
        }
        if !is_ours(&case.transport)
            && case.transport != payload::MEMCPY
            && !names.contains(&case.transport.as_str())
        {
            names.push(&case.transport);
        }
    }
    rows.sort_unstable();
    let first = if by_receivers { "receivers" } else { "bytes" };
    let heading = [first, "wait", "shmbus, messages/s"].into_iter().chain(names.iter().copied());
    let mut table = vec![heading.map(str::to_owned).collect::<Vec<_>>()];
    for (by, wait) in rows {
        let rate = |name: &str, variant: Option<&str>| {
            let is_it = |case: &crate::record::Case| {
                let this = if by_receivers { case.receivers } else { case.payload };
                (this, case.wait) == (by, wait)
                    && case.transport == name
                    && variant.is_none_or(|variant| case.variant == variant)
            };
            results.median(is_it, "rate_per_s")
        };
        let ours = rate(SHMBUS_NAME, (!by_receivers).then_some(payload::IN_PLACE))?;
        let label = if by_receivers { by.to_string() } else { bytes(by) };
        let mut row = vec![label, wait.name().to_owned(), number(ours, 0)];
        row.extend(names.iter().map(|name| {
            rate(name, None).map_or_else(|| "-".to_owned(), |rate| number(ours / rate, 1))
        }));
        table.push(row);
    }
    Some(Table(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_what_stood_between_its_marks_and_nothing_else() {
        let text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb <!-- begin y -->\n<!-- end y -->";
        let filled = filled(text, "x", "new\n").unwrap();
        assert_eq!(
            filled,
            "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb <!-- begin y -->\n<!-- end y -->"
        );
        assert_eq!(super::filled(&filled, "x", "new\n").unwrap(), filled);
        assert!(super::filled(text, "z", "").unwrap_err().to_string().contains("begin z"));
    }

    #[test]
    fn the_document_has_a_place_for_every_measurement() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");
        let mut text = fs::read_to_string(document).unwrap();
        for name in
            ALL.map(|(name, ..)| name).into_iter().chain(["fanout-factors", "payload-factors"])
        {
            text = filled(&text, name, "").unwrap();
        }
    }
}
