//! What a run's figures say of each line.

use std::fmt::Write;

use bench::measure::median;

use super::args::CEILINGS;
use super::lines::{LINES, Line, Source, Target, Unit};
use super::plan::Family;
use super::results::Results;

/// This store.
pub(crate) const OWN: &str = "caskade";

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

/// Whether a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Held,
    /// By what stands for all repetitions, but not in each of them.
    Barely,
    Missed,
}

impl Word {
    fn new(is_held: bool, is_each: bool) -> Self {
        match (is_held, is_each) {
            (true, true) => Self::Held,
            (true, false) => Self::Barely,
            (false, _) => Self::Missed,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Barely => "held, barely",
            Self::Missed => "🔴 missed",
        }
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
    /// None if nothing is wanted of the line.
    pub(crate) word: Option<Word>,
}

/// A store's figure in a line.
pub(crate) fn of_line(results: &Results, store: &str, line: Line) -> Option<f64> {
    line.unit.of_all(&repetitions(results, store, line))
}

/// A store's figures in a line, by repetition.
fn repetitions(results: &Results, store: &str, line: Line) -> Vec<f64> {
    match line.source {
        Source::Plain => figures(results, store, line.id).to_vec(),
        // Of loads, single puts over single puts: batches are another kind of work.
        Source::Over(over) => {
            let over = results.repetitions(store, over);
            results
                .repetitions(store, line.id)
                .iter()
                .zip(over)
                .map(|(of, over)| of / over)
                .collect()
        }
        Source::GreatestOfSizes => {
            let sizes = results.by_keys(store, line.id);
            let all = sizes.iter().flat_map(|(_, figures)| figures.iter().copied());
            all.max_by(f64::total_cmp).into_iter().collect()
        }
        Source::NanosAKey => match &results.by_keys(store, line.id)[..] {
            [(fewest, least), .., (keys, most)] => {
                let nanos = |(most, least): (&f64, &f64)| 1e6 * (most - least) / (keys - fewest);
                most.iter().zip(*least).map(nanos).collect()
            }
            _ => Vec::new(),
        },
    }
}

/// A store's figure.
pub(crate) fn figure(results: &Results, store: &str, id: &str) -> Option<f64> {
    Unit::Rate.of_all(figures(results, store, id))
}

/// A store's figure by repetition. Loads count in batches where that is quicker and how one would do it.
fn figures<'r>(results: &'r Results, store: &str, id: &str) -> &'r [f64] {
    let single = results.repetitions(store, id);
    let batched = match id.strip_prefix("load.") {
        Some(threads) => results.repetitions(store, &format!("load_batched.{threads}")),
        None => &[],
    };
    if Unit::Rate.of_all(batched) > Unit::Rate.of_all(single) { batched } else { single }
}

/// The peers that took part.
pub(crate) fn peers(results: &Results) -> impl Iterator<Item = &str> {
    let names = results.stores.iter().map(|(name, _)| name.as_str());
    names.filter(|name| *name != OWN && *name != CEILINGS)
}

/// Whether a store does what the line is about: durably, or as much of it as the others.
pub(crate) fn counts(results: &Results, store: &str, line: Line) -> bool {
    match line.family {
        Family::Durable => results.of(store).is_some_and(|of| !of.is_durable_weaker),
        Family::Space => rounds_short(results, store).is_none(),
        _ => true,
    }
}

/// How often a store overwrote its keys in the time that it had, if that was not often enough.
pub(crate) fn rounds_short(results: &Results, store: &str) -> Option<f64> {
    let wanted = results.figure(OWN, "overwritten")?;
    results.figure(store, "overwritten").filter(|rounds| *rounds < 0.99 * wanted)
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
    let best = best(line.unit, of_peers);
    let over = match line.target {
        Target::Over(id, _) => Some(results.repetitions(CEILINGS, id).to_vec()),
        _ => best.as_ref().map(|(peer, _)| repetitions(results, peer, line)),
    };
    // Differences may be nothing, or less.
    let over = over.filter(|over| own.iter().chain(over).all(|figure| *figure > 0.0));
    let ratio = over.and_then(|over| Ratio::new(&own, &over, line.unit));
    let word = match line.target {
        Target::None => None,
        Target::OverBest(wanted) | Target::Over(_, wanted) => {
            ratio.map(|ratio| Word::new(ratio.median >= wanted, ratio.least >= wanted))
        }
        Target::AtMost(bound) => {
            Some(Word::new(figure <= bound, own.iter().all(|each| *each <= bound)))
        }
        Target::AtLeast(bound) => {
            Some(Word::new(figure >= bound, own.iter().all(|each| *each >= bound)))
        }
    };
    Some(Verdict { line, own: figure, best, ratio, word })
}

fn best(unit: Unit, figures: impl Iterator<Item = (String, f64)>) -> Option<(String, f64)> {
    let is_more = unit.is_more_better();
    figures.max_by(|a, b| if is_more { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) })
}

impl Verdict {
    pub(crate) fn is_missed(&self) -> bool {
        self.word == Some(Word::Missed)
    }

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
        self.word.map_or("", Word::text)
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

    /// What the machine gives, in the line's unit.
    pub(crate) fn ceilings(&self, results: &Results) -> Vec<String> {
        let ceiling = |(name, id): &(&str, &'static str)| {
            let figure = of_line(results, CEILINGS, Line { id, ..self.line })?;
            Some(format!("{name} {}", self.line.unit.text(figure)))
        };
        self.line.ceilings.iter().filter_map(ceiling).collect()
    }
}

/// All lines for a terminal.
pub(crate) fn table(results: &Results) -> String {
    let mut out =
        format!("{:<56} {:>9}  {:<22} {:>20}  {:<20}\n", "", OWN, "best peer", "ratio", "target");
    for verdict in verdicts(results) {
        let _ = writeln!(
            out,
            "{:<56} {:>9}  {:<22} {:>20}  {:<20} {}",
            verdict.line.name,
            verdict.line.unit.text(verdict.own),
            verdict.best(),
            verdict.ratio(),
            verdict.target(),
            verdict.word()
        );
        for ceiling in verdict.ceilings(results) {
            let _ = writeln!(out, "    ceiling: {ceiling}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::OfStore;

    fn results<const N: usize>(stores: [(&str, OfStore); N]) -> Results {
        let stores = stores.map(|(name, of)| (name.to_owned(), of));
        Results { stores: stores.into(), ..Results::default() }
    }

    fn store<const N: usize>(figures: [(&str, &[f64]); N]) -> OfStore {
        let figures = figures.map(|(id, reps)| (id.to_owned(), reps.to_vec()));
        OfStore { figures: figures.into(), ..OfStore::default() }
    }

    fn of_name(results: &Results, name: &str) -> Verdict {
        verdicts(results).into_iter().find(|verdict| verdict.line.name == name).unwrap()
    }

    #[test]
    fn ratios_are_of_repetitions_and_more_is_better() {
        let ratio = Ratio::new(&[6.0, 2.0, 9.0], &[3.0, 2.0, 3.0], Unit::Rate).unwrap();
        assert_eq!(ratio, Ratio { median: 2.0, least: 1.0, most: 3.0 });
        let ratio = Ratio::new(&[10.0, 20.0, 10.0], &[40.0], Unit::Millis).unwrap();
        assert_eq!(ratio, Ratio { median: 4.0, least: 4.0, most: 4.0 });
        assert_eq!(Ratio::new(&[1.0], &[], Unit::Rate), None);
    }

    #[test]
    fn a_peer_that_promises_less_is_not_the_best() {
        let of = |figure: f64| store([("durable.1", &[figure, 2.0 * figure, 4.0 * figure])]);
        let weak = OfStore { is_durable_weaker: true, ..of(40.0) };
        let results = results([(OWN, of(20.0)), ("slow", of(10.0)), ("weak", weak)]);
        let verdicts = verdicts(&results);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].best, Some(("slow".to_owned(), 20.0)));
        let twice = Ratio { median: 2.0, least: 2.0, most: 2.0 };
        assert_eq!((verdicts[0].ratio, verdicts[0].word), (Some(twice), Some(Word::Held)));
    }

    #[test]
    fn a_peer_that_overwrote_less_is_not_the_best() {
        let of = |space: f64, rounds: f64| {
            store([("disk_settled", &[space]), ("overwritten", &[rounds])])
        };
        let stores = [(OWN, of(1.3, 3.0)), ("slow", of(1.1, 1.0)), ("fat", of(1.9, 3.0))];
        let verdict = of_name(&results(stores), "disk over logical, overwritten 3 times");
        assert_eq!(verdict.best, Some(("fat".to_owned(), 1.9)));
    }

    #[test]
    fn a_line_that_one_repetition_misses_is_barely_held() {
        let own = store([("scan.1", &[11e6, 12e6, 9e6]), ("open_clean", &[10.0, 40.0, 50.0])]);
        let results = results([(OWN, own)]);
        assert_eq!(of_name(&results, "full scan, records").word, Some(Word::Barely));
        assert!(of_name(&results, "open after a close, to the first get").is_missed());
    }

    #[test]
    fn lines_of_several_sizes_and_of_two_figures() {
        let own = store([
            ("open_clean@200000", &[4.0, 5.0]),
            ("open_clean@1000000", &[12.0, 9.0]),
            ("memory@200000", &[16.0, 18.0]),
            ("memory@1000000", &[17.0, 15.0]),
            ("get.1", &[6.0, 3.0]),
            ("held.1", &[4.0, 3.0]),
        ]);
        let results = results([(OWN, own)]);
        let own = [
            "memory a key, over an empty store's, greatest of 3 sizes",
            "open after a close, for each key more",
            "time of a get to keep over one into a buffer, 1 thread",
        ]
        .map(|name| Some(of_name(&results, name).own));
        // Of two repetitions, the lower one counts.
        assert_eq!(own, [18.0, 5.0, 1.0].map(Some));
    }
}
