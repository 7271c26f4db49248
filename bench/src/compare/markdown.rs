//! The results as Markdown, for the README to take in.

use std::fmt::Write;

use super::args::CEILINGS;
use super::lines::{OWN, Verdict, counts, of_line, peers, verdicts};
use super::results::Results;

/// A table of all lines and stores, and below it how each store was configured.
pub(crate) fn document(results: &Results) -> String {
    let mut out = String::new();
    let quick = if results.is_quick { " (a quick look, not for quoting)" } else { "" };
    let _ = writeln!(
        out,
        "{} keys of 16 B with incompressible values of 100 B, medians of {} interleaved repetitions{quick}; \
         {}. Rates are operations a second. Best peer of a line in bold; in brackets what keeps a \
         weaker promise and does not count; `–` where a store has no such operation, or failed. Memory has the \
         stores' own caches in it, but not LMDB's tree, which lies in the pages of its file.\n",
        results.keys, results.reps, results.machine
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

fn row(results: &Results, peers: &[&str], verdict: &Verdict) -> String {
    let line = verdict.line;
    let cell = |peer: &&str| {
        let Some(found) = of_line(results, peer, line) else { return "–".to_owned() };
        let text = line.unit.text(found);
        if !counts(results, peer, line) {
            return format!("({text})");
        }
        let is_best = verdict.best.as_ref().is_some_and(|(best, _)| best == peer);
        if is_best { format!("**{text}**") } else { text }
    };
    let cells: Vec<_> = peers.iter().map(cell).collect();
    let ceilings: Vec<_> = line
        .ceilings
        .iter()
        .filter_map(|(name, id)| {
            let ceiling = results.figure(CEILINGS, id)?;
            Some(format!("{name} {}", line.unit.text(ceiling)))
        })
        .collect();
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        line.name,
        line.unit.text(verdict.own),
        cells.join(" | "),
        ceilings.join("; "),
        verdict.ratio(),
        verdict.target(),
        verdict.word()
    )
}
