//! What the steps say, and what comes of it.

use std::collections::BTreeMap;

use bench::measure::median;
use serde::{Deserialize, Serialize};

use super::drive::Phase;
use super::machine::Machine;

/// Shares of the operations for which latencies are told; 1 is the longest.
pub(crate) const QUANTILES: [f64; 7] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0];

/// So many operations have to be beyond a quantile, but the longest, for it to say something.
const BEYOND: f64 = 10.0;

/// How figures begin that tell what a step read from the disk, in bytes.
pub(crate) const READ: &str = "read.";

/// What one step found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) figures: BTreeMap<String, f64>,
    /// Nanoseconds at [`QUANTILES`]; none where fewer than [`BEYOND`] took longer.
    pub(crate) latency: BTreeMap<String, Vec<Option<f64>>>,
    pub(crate) series: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Found {
    pub(crate) fn figure(&mut self, id: &str, figure: f64) {
        self.figures.insert(id.to_owned(), figure);
    }

    /// What one thread did, and two.
    pub(crate) fn one_and_two(&mut self, id: &str, phases: &[Phase; 2]) {
        for (threads, phase) in (1..).zip(phases) {
            self.figure(&format!("{id}.{threads}"), phase.rate());
            self.latency(&format!("{id}.{threads}"), &phase.latency);
        }
    }

    pub(crate) fn latency(&mut self, id: &str, latency: &bench::histogram::Histogram) {
        let nanos = |share: f64| {
            let beyond = (1.0 - share) * latency.count() as f64;
            (share >= 1.0 || beyond >= BEYOND).then(|| latency.quantile(share) as f64)
        };
        self.latency.insert(id.to_owned(), QUANTILES.map(nanos).to_vec());
    }
}

/// Of one store, by repetition.
#[derive(Debug, Default)]
pub(crate) struct OfStore {
    pub(crate) version: String,
    pub(crate) settings: String,
    /// As the [`Peer`](super::peers::Peer) says.
    pub(crate) is_durable_weaker: bool,
    pub(crate) figures: BTreeMap<String, Vec<f64>>,
    pub(crate) latency: BTreeMap<String, Vec<Vec<Option<f64>>>>,
    /// Of the last repetition that had it.
    pub(crate) series: BTreeMap<String, Vec<(f64, f64)>>,
    /// Steps that failed, and why.
    pub(crate) failures: Vec<String>,
}

impl OfStore {
    pub(crate) fn take(&mut self, found: Found) {
        for (id, figure) in found.figures {
            self.figures.entry(id).or_default().push(figure);
        }
        for (id, nanos) in found.latency {
            self.latency.entry(id).or_default().push(nanos);
        }
        self.series.extend(found.series);
    }

    /// The median of the repetitions.
    pub(crate) fn figure(&self, id: &str) -> Option<f64> {
        self.figures.get(id).map(|figures| median(figures))
    }

    /// The median of the repetitions at each of [`QUANTILES`] that all of them have.
    pub(crate) fn latency(&self, id: &str) -> Option<Vec<Option<f64>>> {
        let reps = self.latency.get(id)?;
        let at = |index: usize| {
            let nanos = reps.iter().map(|rep| rep[index]).collect::<Option<Vec<_>>>();
            nanos.map(|nanos| median(&nanos))
        };
        Some((0..QUANTILES.len()).map(at).collect())
    }
}

/// A whole run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) keys: u64,
    pub(crate) reps: usize,
    pub(crate) is_quick: bool,
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    /// This store first, then its peers, then the ceilings, in the order of the command line.
    pub(crate) stores: Vec<(String, OfStore)>,
}

impl Results {
    pub(crate) fn of(&self, store: &str) -> Option<&OfStore> {
        self.stores.iter().find(|(name, _)| name == store).map(|(_, of)| of)
    }

    pub(crate) fn figure(&self, store: &str, id: &str) -> Option<f64> {
        self.of(store)?.figure(id)
    }

    /// A store's figure by repetition.
    pub(crate) fn repetitions(&self, store: &str, id: &str) -> &[f64] {
        self.of(store).and_then(|of| of.figures.get(id)).map_or(&[], Vec::as_slice)
    }

    /// A store's figure by numbers of keys, the fewest first, and by repetition.
    pub(crate) fn by_keys(&self, store: &str, id: &str) -> Vec<(f64, &[f64])> {
        let figures = self.of(store).into_iter().flat_map(|of| &of.figures);
        let mut sizes: Vec<_> = figures
            .filter_map(|(name, figures)| {
                let keys = name.strip_prefix(id)?.strip_prefix('@')?.parse::<f64>().ok()?;
                Some((keys, &figures[..]))
            })
            .collect();
        sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
        sizes
    }
}
