//! The results for machines.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::results::{QUANTILES, Results};
use super::verdict::verdicts;

/// Everything: each figure with its repetitions, latencies, curves, and the lines with their verdicts.
pub(crate) fn document(results: &Results) -> Value {
    let stores: BTreeMap<_, _> = results
        .stores
        .iter()
        .map(|(name, of)| {
            let figures: BTreeMap<_, _> = of
                .figures
                .iter()
                .map(|(id, reps)| (id, json!({ "median": of.figure(id), "repetitions": reps })))
                .collect();
            let latency: BTreeMap<_, _> =
                of.latency.keys().map(|id| (id, of.latency(id))).collect();
            let store = json!({
                "version": of.version,
                "settings": of.settings,
                "figures": figures,
                "latency_ns": latency,
                "series": of.series,
                "failures": of.failures,
            });
            (name, store)
        })
        .collect();
    let lines: Vec<_> = verdicts(results)
        .iter()
        .map(|verdict| {
            json!({
                "id": verdict.line.id,
                "family": verdict.line.family.name(),
                "name": verdict.line.name,
                "figure": verdict.own,
                "best_peer": verdict.best.as_ref().map(|best| &best.0),
                "best_figure": verdict.best.as_ref().map(|best| best.1),
                "ratio": verdict.ratio.map(|ratio| ratio.median),
                "ratio_least": verdict.ratio.map(|ratio| ratio.least),
                "ratio_most": verdict.ratio.map(|ratio| ratio.most),
                "target": verdict.target(),
                "word": verdict.word.map(|word| format!("{word:?}").to_lowercase()),
            })
        })
        .collect();
    json!({
        "keys": results.keys,
        "repetitions": results.reps,
        "is_quick": results.is_quick,
        "machine": results.machine,
        "seconds": results.seconds.round(),
        "latency_shares": QUANTILES,
        "stores": stores,
        "lines": lines,
    })
}
