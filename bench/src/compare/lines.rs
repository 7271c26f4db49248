//! The lines of the comparison: what is measured, and what it has to be.

use std::fmt::Write;

use bench::measure::median;

use super::args::CEILINGS;
use super::plan::Family;
use super::results::Results;

/// What a line has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    None,
    /// So many times the best peer.
    OverBest(f64),
    /// So many times another figure: a ceiling's.
    Over(&'static str, f64),
    AtMost(f64),
    AtLeast(f64),
}

/// A line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) family: Family,
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) target: Target,
    /// Ceilings to show beside it.
    pub(crate) ceilings: &'static [(&'static str, &'static str)],
}

/// How a figure is written, and which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Operations a second: the more the better.
    Rate,
    /// So many times the figure with one thread: the more the better.
    Scaling,
    /// Less is better, from here on.
    Millis,
    /// The longest of a run, of which the longest of all repetitions counts.
    Longest,
    Bytes,
    Times,
}

impl Unit {
    pub(crate) fn text(self, figure: f64) -> String {
        match self {
            Self::Rate => rate(figure),
            Self::Millis | Self::Longest if figure < 10.0 => format!("{figure:.2} ms"),
            Self::Millis | Self::Longest => format!("{figure:.0} ms"),
            Self::Bytes => format!("{figure:.1} B"),
            Self::Scaling => format!("{figure:.2} ×"),
            Self::Times => format!("{figure:.2}"),
        }
    }

    fn is_more_better(self) -> bool {
        matches!(self, Self::Rate | Self::Scaling)
    }

    fn best(self, figures: impl Iterator<Item = (String, f64)>) -> Option<(String, f64)> {
        let is_more = self.is_more_better();
        figures.max_by(|a, b| if is_more { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) })
    }

    /// What stands for several repetitions.
    fn of_all(self, repetitions: &[f64]) -> Option<f64> {
        match self {
            _ if repetitions.is_empty() => None,
            Self::Longest => repetitions.iter().copied().max_by(f64::total_cmp),
            _ => Some(median(repetitions)),
        }
    }
}

fn rate(figure: f64) -> String {
    match figure {
        ..1e3 => format!("{figure:.0}"),
        ..1e4 => format!("{:.1}k", figure / 1e3),
        ..1e6 => format!("{:.0}k", figure / 1e3),
        ..1e7 => format!("{:.2}M", figure / 1e6),
        _ => format!("{:.1}M", figure / 1e6),
    }
}

const fn line(
    family: Family,
    id: &'static str,
    name: &'static str,
    unit: Unit,
    target: Target,
    ceilings: &'static [(&'static str, &'static str)],
) -> Line {
    Line { family, id, name, unit, target, ceilings }
}

/// All lines, in their order.
pub(crate) const LINES: &[Line] = {
    use Family::{Durable, Get, Load, Open, Scan, Space, Values, Ycsb};
    use Target::{AtLeast, AtMost, None, Over, OverBest};
    use Unit::{Bytes, Longest, Millis, Rate, Scaling, Times};
    &[
        line(Load, "load.1", "load, 1 thread", Rate, OverBest(6.0), &[("append", "append.load.1")]),
        line(
            Load,
            "load.2",
            "load, 2 threads",
            Rate,
            OverBest(9.0),
            &[("append", "append.load.2")],
        ),
        line(Load, "load.2", "load, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(Load, "stall.1", "worst stall of 64 puts", Longest, AtMost(2.0), &[]),
        line(Load, "stall.2", "worst stall of 64 puts, 2 threads", Longest, None, &[]),
        line(
            Get,
            "get.1",
            "get, uniform, 1 thread",
            Rate,
            OverBest(5.0),
            &[
                ("hashbrown", "hashbrown.get.1"),
                ("mapped", "mapped.get.1"),
                ("mapped, crc32c", "mapped_crc.get.1"),
            ],
        ),
        line(
            Get,
            "get.2",
            "get, uniform, 2 threads",
            Rate,
            OverBest(4.0),
            &[
                ("hashbrown", "hashbrown.get.2"),
                ("mapped", "mapped.get.2"),
                ("mapped, crc32c", "mapped_crc.get.2"),
            ],
        ),
        line(Get, "get.2", "get, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(Get, "held.1", "get without a copy, 1 thread", Rate, None, &[]),
        line(Get, "held.2", "get without a copy, 2 threads", Rate, None, &[]),
        line(
            Get,
            "zipf.2",
            "get, zipf, 2 threads",
            Rate,
            OverBest(4.0),
            &[("hashbrown", "hashbrown.zipf.2"), ("mapped, crc32c", "mapped_crc.zipf.2")],
        ),
        line(Get, "zipf.2", "get, zipf, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(
            Get,
            "miss.1",
            "get of an absent key, 1 thread",
            Rate,
            OverBest(2.0),
            &[("hashbrown", "hashbrown.miss.1")],
        ),
        line(
            Get,
            "miss.2",
            "get of an absent key, 2 threads",
            Rate,
            OverBest(4.0),
            &[("hashbrown", "hashbrown.miss.2")],
        ),
        line(Get, "miss.2", "absent, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(
            Get,
            "many.1",
            "64 gets at once, copied",
            Rate,
            Over("hashbrown.get.1", 1.5),
            &[("hashbrown, singly", "hashbrown.get.1")],
        ),
        line(
            Get,
            "many_held.1",
            "64 gets at once, to keep",
            Rate,
            Over("hashbrown.get.1", 1.5),
            &[("hashbrown, singly", "hashbrown.get.1")],
        ),
        line(
            Get,
            "many.2",
            "64 gets at once, copied, 2 threads over 1",
            Scaling,
            AtLeast(1.8),
            &[],
        ),
        line(Get, "many_held.2", "the same, to keep", Scaling, AtLeast(1.8), &[]),
        line(
            Values,
            "get1k.1",
            "get of 1 KiB",
            Rate,
            OverBest(2.5),
            &[("mapped", "mapped.get1k.1"), ("mapped, crc32c", "mapped_crc.get1k.1")],
        ),
        line(Values, "get1k.2", "get of 1 KiB, 2 threads", Rate, None, &[]),
        line(Values, "get1k.2", "get of 1 KiB, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(
            Values,
            "get16k.1",
            "get of 16 KiB",
            Rate,
            OverBest(1.0),
            &[("mapped", "mapped.get16k.1"), ("mapped, crc32c", "mapped_crc.get16k.1")],
        ),
        line(Values, "get16k.2", "get of 16 KiB, 2 threads", Rate, None, &[]),
        line(Values, "get16k.2", "get of 16 KiB, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(Ycsb, "ycsb_a.2", "YCSB A, zipf, 2 threads", Rate, OverBest(5.0), &[]),
        line(Ycsb, "ycsb_a.2", "YCSB A, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(Ycsb, "ycsb_b.2", "YCSB B, zipf, 2 threads", Rate, OverBest(4.0), &[]),
        line(Ycsb, "ycsb_b.2", "YCSB B, 2 threads over 1", Scaling, AtLeast(1.8), &[]),
        line(
            Durable,
            "durable.1",
            "durable put, 1 thread",
            Rate,
            OverBest(1.0),
            &[("fdatasync", "fdatasync.durable.1")],
        ),
        line(Durable, "durable.8", "durable put, 8 threads", Rate, OverBest(1.9), &[]),
        line(Durable, "durable.32", "durable put, 32 threads", Rate, OverBest(2.5), &[]),
        line(
            Durable,
            "batches.1",
            "durable batches of 100, records, 1 thread",
            Rate,
            OverBest(3.0),
            &[],
        ),
        line(
            Durable,
            "batches.8",
            "durable batches of 100, records, 8 threads",
            Rate,
            OverBest(6.0),
            &[],
        ),
        line(Open, "open_clean", "open after a close, to the first get", Millis, AtMost(30.0), &[]),
        line(
            Open,
            "open_killed",
            "open after kill -9, to the first get",
            Millis,
            AtMost(150.0),
            &[],
        ),
        line(Load, "memory", "memory a key, mapped index included", Bytes, AtMost(17.0), &[]),
        line(Load, "disk_loaded", "disk over logical, loaded", Times, AtMost(1.3), &[]),
        line(
            Space,
            "disk_settled",
            "disk over logical, overwritten 3 times",
            Times,
            AtMost(1.4),
            &[],
        ),
        line(Space, "disk_peak", "disk over logical, most meanwhile", Times, AtMost(2.0), &[]),
        line(Space, "overwrites", "overwrites meanwhile", Rate, None, &[]),
        line(Scan, "scan", "full scan, records", Rate, AtLeast(10e6), &[]),
    ]
};

/// How many times better this store is than another, or a figure than one that it has to be over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// Of the repetitions', each by itself: what the machine was up to meanwhile falls out.
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Ratio {
    fn new(of: &[f64], over: &[f64], unit: Unit) -> Option<Self> {
        let ratio =
            |(of, over): (&f64, &f64)| if unit.is_more_better() { of / over } else { over / of };
        let ratios: Vec<_> = if of.len() == over.len() {
            of.iter().zip(over).map(ratio).collect()
        } else {
            // A step failed in one of the repetitions.
            vec![ratio((&unit.of_all(of)?, &unit.of_all(over)?))]
        };
        let least = ratios.iter().copied().min_by(f64::total_cmp)?;
        let most = ratios.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(&ratios), least, most })
    }
}

/// A line with this run's figures.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) line: Line,
    pub(crate) own: f64,
    /// The best peer and its figure.
    pub(crate) best: Option<(String, f64)>,
    /// The ratio that the target is about, or this store's over the best peer's.
    pub(crate) ratio: Option<Ratio>,
    pub(crate) is_held: Option<bool>,
}

/// This store.
pub(crate) const OWN: &str = "caskade";

/// A store's figure in a line.
pub(crate) fn of_line(results: &Results, store: &str, line: Line) -> Option<f64> {
    line.unit.of_all(&repetitions(results, store, line))
}

/// A store's figures in a line, by repetition.
fn repetitions(results: &Results, store: &str, line: Line) -> Vec<f64> {
    if line.unit != Unit::Scaling {
        return figures(results, store, line.id).to_vec();
    }
    // Of single puts both: batches are another kind of work.
    let one = plain_figures(results, store, &line.id.replace(".2", ".1"));
    let two = plain_figures(results, store, line.id);
    two.iter().zip(one).map(|(two, one)| two / one).collect()
}

/// A store's figure.
pub(crate) fn figure(results: &Results, store: &str, id: &str) -> Option<f64> {
    Unit::Rate.of_all(figures(results, store, id))
}

/// A store's figure by repetition. Loads count in batches where that is quicker and how one would do it.
fn figures<'r>(results: &'r Results, store: &str, id: &str) -> &'r [f64] {
    let single = plain_figures(results, store, id);
    let batched = match id.strip_prefix("load.") {
        Some(threads) => plain_figures(results, store, &format!("load_batched.{threads}")),
        None => &[],
    };
    if Unit::Rate.of_all(batched) > Unit::Rate.of_all(single) { batched } else { single }
}

fn plain_figures<'r>(results: &'r Results, store: &str, id: &str) -> &'r [f64] {
    results.of(store).and_then(|of| of.figures.get(id)).map_or(&[], Vec::as_slice)
}

/// The peers that took part.
pub(crate) fn peers(results: &Results) -> impl Iterator<Item = &str> {
    let names = results.stores.iter().map(|(name, _)| name.as_str());
    names.filter(|name| *name != OWN && *name != CEILINGS)
}

/// Whether a store does what the line is about.
pub(crate) fn counts(results: &Results, store: &str, line: Line) -> bool {
    line.family != Family::Durable || results.of(store).is_some_and(|of| !of.is_durable_weaker)
}

/// All lines of which this store has a figure.
pub(crate) fn verdicts(results: &Results) -> Vec<Verdict> {
    LINES.iter().filter_map(|line| verdict(results, *line)).collect()
}

fn verdict(results: &Results, line: Line) -> Option<Verdict> {
    let own = repetitions(results, OWN, line);
    let figure = line.unit.of_all(&own)?;
    let of_peers = peers(results)
        .filter(|peer| counts(results, peer, line))
        .filter_map(|peer| Some((peer.to_owned(), of_line(results, peer, line)?)));
    let best = line.unit.best(of_peers);
    let over = match line.target {
        Target::Over(id, _) => Some(figures(results, CEILINGS, id).to_vec()),
        _ => best.as_ref().map(|(peer, _)| repetitions(results, peer, line)),
    };
    let ratio = over.and_then(|over| Ratio::new(&own, &over, line.unit));
    let is_held = match line.target {
        Target::None => None,
        Target::OverBest(wanted) | Target::Over(_, wanted) => {
            ratio.map(|ratio| ratio.median >= wanted)
        }
        Target::AtMost(bound) => Some(figure <= bound),
        Target::AtLeast(bound) => Some(figure >= bound),
    };
    Some(Verdict { line, own: figure, best, ratio, is_held })
}

impl Verdict {
    pub(crate) fn target(&self) -> String {
        let unit = self.line.unit;
        match self.line.target {
            Target::None => String::new(),
            Target::OverBest(wanted) => format!("≥ {wanted} ×"),
            Target::Over(_, wanted) => format!("≥ {wanted} × hashbrown"),
            Target::AtMost(bound) => format!("≤ {}", unit.text(bound)),
            Target::AtLeast(bound) => format!("≥ {}", unit.text(bound)),
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self.is_held {
            None => "",
            Some(true) => "held",
            Some(false) => "🔴 missed",
        }
    }

    pub(crate) fn ratio(&self) -> String {
        match self.ratio {
            None => "–".to_owned(),
            Some(Ratio { median, least, most }) if least < most => {
                format!("{median:.2} × ({least:.2}–{most:.2})")
            }
            Some(Ratio { median, .. }) => format!("{median:.2} ×"),
        }
    }

    pub(crate) fn best(&self) -> String {
        let unit = self.line.unit;
        let text = |(name, figure): &(String, f64)| format!("{name} {}", unit.text(*figure));
        self.best.as_ref().map_or("–".to_owned(), text)
    }
}

/// All lines for a terminal.
pub(crate) fn table(results: &Results) -> String {
    let mut out =
        format!("{:<44} {:>9}  {:<22} {:>20}  {:<20}\n", "", OWN, "best peer", "ratio", "target");
    for verdict in verdicts(results) {
        let _ = writeln!(
            out,
            "{:<44} {:>9}  {:<22} {:>20}  {:<20} {}",
            verdict.line.name,
            verdict.line.unit.text(verdict.own),
            verdict.best(),
            verdict.ratio(),
            verdict.target(),
            verdict.word()
        );
        for (name, id) in verdict.line.ceilings {
            if let Some(ceiling) = results.figure(CEILINGS, id) {
                let _ = writeln!(out, "    ceiling: {name} {}", verdict.line.unit.text(ceiling));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::OfStore;

    #[test]
    fn ratios_are_of_repetitions_and_more_is_better() {
        let ratio = Ratio::new(&[6.0, 2.0, 9.0], &[3.0, 2.0, 3.0], Unit::Rate).unwrap();
        assert_eq!(ratio, Ratio { median: 2.0, least: 1.0, most: 3.0 });
        let ratio = Ratio::new(&[10.0, 20.0, 10.0], &[40.0], Unit::Millis).unwrap();
        assert_eq!(ratio, Ratio { median: 4.0, least: 4.0, most: 4.0 });
        assert_eq!(Ratio::new(&[1.0], &[], Unit::Rate), None);
    }

    #[test]
    fn the_longest_stall_of_all_repetitions_counts() {
        assert_eq!(Unit::Longest.of_all(&[1.0, 9.0, 2.0]), Some(9.0));
        assert_eq!(Unit::Millis.of_all(&[1.0, 9.0, 2.0]), Some(2.0));
    }

    #[test]
    fn a_peer_that_promises_less_is_not_the_best() {
        let store = |figure: f64, is_durable_weaker| {
            let figures =
                [("durable.1".to_owned(), vec![figure, 2.0 * figure, 4.0 * figure])].into();
            OfStore { is_durable_weaker, figures, ..OfStore::default() }
        };
        let stores = [(OWN, 20.0, false), ("slow", 10.0, false), ("weak", 40.0, true)]
            .map(|(name, figure, is_weak)| (name.to_owned(), store(figure, is_weak)));
        let results = Results { stores: stores.into(), ..Results::default() };
        let verdicts = verdicts(&results);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].best, Some(("slow".to_owned(), 20.0)));
        let twice = Ratio { median: 2.0, least: 2.0, most: 2.0 };
        assert_eq!((verdicts[0].ratio, verdicts[0].is_held), (Some(twice), Some(true)));
    }
}
