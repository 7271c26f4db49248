//! The results as Markdown, for the README to take in.

use std::fmt::Write;

use super::args::CEILINGS;
use super::plan::Family;
use super::results::{READ, Results};
use super::verdict::{OWN, Verdict, counts, of_line, peers, rounds_short, verdicts};

/// A table of all lines and stores, and below it how each store was configured.
pub(crate) fn document(results: &Results) -> String {
    let mut out = String::new();
    let quick = if results.is_quick { " (a quick look, not for quoting)" } else { "" };
    let _ = writeln!(
        out,
        "{} keys of 16 B with incompressible values of 100 B, medians of {} interleaved repetitions{quick}, \
         but the longest of all for stalls; {}. Rates are operations a second; each operation is a call, and a \
         transaction, of its own. A load counts in batches of 10,000 where a store has them and they are quicker, \
         an overwrite in batches of 1,000; {OWN}'s are single puts. Best peer of a line in bold; in brackets what \
         does not count, for it keeps a weaker promise, or overwrote fewer than three times in its 40 seconds (how \
         often stands beside it); `–` where a store has no such operation, or failed. The ratio says how many \
         times better {OWN} is, the median of the repetitions' ratios, and the least and the greatest; a line is \
         held barely if it is by the median, but not in each repetition. Memory has the stores' own caches in it, \
         where they keep data too, but not LMDB's tree and {OWN}'s records, which lie in the pages of their \
         files.\n",
        results.keys,
        results.reps,
        results.machine.text()
    );
    let peers: Vec<_> = peers(results).collect();
    let _ = writeln!(
        out,
        "| work | {OWN} | {} | without a store | ratio | target | |",
        peers.join(" | ")
    );
    let _ = writeln!(out, "|---|---:|{}---|---:|---|---|", "---:|".repeat(peers.len()));
    for verdict in verdicts(results) {
        out.push_str(&row(results, &peers, &verdict));
    }
    out.push('\n');
    let read = read_from_disk(results);
    if !read.is_empty() {
        let _ = writeln!(out, "Steps of reads that waited for the disk: {}.\n", read.join(", "));
    }
    for (name, of) in &results.stores {
        if name != CEILINGS {
            let _ = writeln!(out, "- **{name} {}**: {}.", of.version, of.settings);
        }
        for failure in &of.failures {
            let _ = writeln!(out, "  - Failed: {failure}.");
        }
    }
    out
}

/// The lines of which something is wanted, and how they fare.
pub(crate) fn targets(results: &Results) -> String {
    let machine = &results.machine;
    let options = &machine.options;
    let space = if options.is_empty() { "" } else { " " };
    let mut out = format!(
        "{}, `bench compare{space}{options}`, {} keys, medians of {} repetitions; {}.\n\n\
         | line | {OWN} | best peer | without a store | ratio (least and greatest) | wanted | |\n\
         |---|---:|---|---|---:|---|---|\n",
        machine.date,
        results.keys,
        results.reps,
        machine.text()
    );
    for verdict in verdicts(results).iter().filter(|verdict| verdict.word.is_some()) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            verdict.line.name,
            verdict.line.unit.text(verdict.own),
            verdict.best(),
            verdict.ceilings(results).join("; "),
            verdict.ratio(),
            verdict.target(),
            verdict.word()
        );
    }
    let versions = results.stores.iter().filter(|(name, _)| name != CEILINGS);
    let versions = versions.map(|(name, of)| format!("{name} {}", of.version));
    let _ = writeln!(out, "\nVersions: {}.", versions.collect::<Vec<_>>().join(", "));
    out
}

/// The steps that read more from the disk than what a store has for itself, though all fits into memory.
fn read_from_disk(results: &Results) -> Vec<String> {
    const UNNOTICED: f64 = 1e6;
    let is_read =
        |id: &str| id.starts_with("Get") || id.starts_with("Scan") || id.starts_with("Ycsb");
    let mut found = Vec::new();
    for (name, of) in &results.stores {
        for (id, bytes) in &of.figures {
            let most = bytes.iter().copied().fold(0.0, f64::max);
            if let Some(step) = id.strip_prefix(READ)
                && is_read(step)
                && most > UNNOTICED
            {
                found.push(format!("{step} of {name} ({:.0} MB)", most / 1e6));
            }
        }
    }
    found
}

fn row(results: &Results, peers: &[&str], verdict: &Verdict) -> String {
    let line = verdict.line;
    let cell = |peer: &&str| {
        let Some(found) = of_line(results, peer, line) else { return "–".to_owned() };
        let text = line.unit.text(found);
        if !counts(results, peer, line) {
            let rounds = rounds_short(results, peer).filter(|_| line.family == Family::Space);
            return match rounds {
                Some(rounds) => format!("({text}; {rounds:.1} times)"),
                None => format!("({text})"),
            };
        }
        let is_best = verdict.best.as_ref().is_some_and(|(best, _)| best == peer);
        if is_best { format!("**{text}**") } else { text }
    };
    let cells: Vec<_> = peers.iter().map(cell).collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        line.name,
        line.unit.text(verdict.own),
        cells.join(" | "),
        verdict.ceilings(results).join("; "),
        verdict.ratio(),
        verdict.target(),
        verdict.word()
    )
}
