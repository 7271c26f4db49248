//! Plots, one file for each family of workloads, in colours for light and for dark surroundings.

mod canvas;
mod chart;

use bench::measure::median;

use super::args::CEILINGS;
use super::lines::Unit;
use super::plan::Family;
use super::results::{QUANTILES, Results};
use super::verdict::{OWN, figure, peers};
use canvas::sheet;
use chart::{Bar, Chart, Curve, Scale};

/// The plots for which there are figures: names of files, and what is in them.
pub(crate) fn plots(results: &Results) -> Vec<(&'static str, String)> {
    let families = Family::ALL.into_iter().filter_map(|family| {
        let charts: Vec<_> = charts(results, family).into_iter().flatten().collect();
        let names: Vec<_> = std::iter::once(OWN).chain(peers(results)).collect();
        let is_any = !charts.is_empty();
        is_any.then(|| (family.name(), sheet(&title(results, family), &names, &charts)))
    });
    let memory = bars(results, "Memory a key", "memory", Unit::Bytes, Some((17.0, "target")));
    let names: Vec<_> = std::iter::once(OWN).chain(peers(results)).collect();
    let memory = memory.map(|chart| {
        ("memory", sheet("Memory a key, anonymous and mapped index", &names, &[chart]))
    });
    families.chain(memory).collect()
}

fn title(results: &Results, family: Family) -> String {
    let keys = Unit::Rate.text(results.keys as f64);
    match family {
        Family::Load => format!("Loading {keys} records of 16 B and 100 B"),
        Family::Get => format!("Reading one of {keys} records"),
        Family::Values => "Reading longer values".to_owned(),
        Family::Ycsb => "Reading and writing, Zipf's law".to_owned(),
        Family::Durable => "Writes that survive a power cut".to_owned(),
        Family::Open => "From opening to the first value".to_owned(),
        Family::Space => {
            "Space on disk while keys are overwritten, 3 times each in 40 s at most".to_owned()
        }
        Family::Scan => "All records, in no order that matters".to_owned(),
    }
}

fn charts(results: &Results, family: Family) -> Vec<Option<Chart>> {
    let threads =
        |title, id, counts: &[u32], ceiling| by_threads(results, title, id, counts, ceiling);
    match family {
        Family::Load => vec![
            threads("Puts a second by threads", "load", &[1, 2], "append.load"),
            latency(results, "Latency of a put, 1 thread", "put.1"),
        ],
        Family::Get => vec![
            threads("Gets a second by threads, uniform", "get", &[1, 2], "hashbrown.get"),
            threads("Gets a second of absent keys", "miss", &[1, 2], "hashbrown.miss"),
            latency(results, "Latency of a get, 1 thread", "get.1"),
            latency(results, "Latency of a get, Zipf's law, 2 threads", "zipf.2"),
        ],
        Family::Values => vec![
            threads("Gets a second, 1 KiB", "get1k", &[1, 2], "mapped_crc.get1k"),
            threads("Gets a second, 16 KiB", "get16k", &[1, 2], "mapped_crc.get16k"),
            latency(results, "Latency of a get of 16 KiB, 1 thread", "get16k.1"),
        ],
        Family::Ycsb => vec![
            threads("YCSB A: half gets, half puts, a second", "ycsb_a", &[1, 2], ""),
            threads("YCSB B: 95% gets, a second", "ycsb_b", &[1, 2], ""),
            threads("YCSB D: gets of the newest, 5% inserts", "ycsb_d", &[1, 2], ""),
            threads("YCSB F: gets, half of them put again", "ycsb_f", &[1, 2], ""),
            latency(results, "Latency, YCSB A, 2 threads", "ycsb_a.2"),
            latency(results, "Latency, YCSB B, 2 threads", "ycsb_b.2"),
        ],
        Family::Durable => vec![
            threads(
                "Durable puts a second by threads",
                "durable",
                &[1, 2, 8, 32],
                "fdatasync.durable",
            ),
            threads("Records a second in durable batches of 100", "batches", &[1, 2, 8], ""),
            latency(results, "Latency of a durable put, 1 thread", "durable.1"),
            latency(results, "Latency of a durable put, 32 threads", "durable.32"),
        ],
        Family::Open => vec![
            by_keys(results, "After kill -9, by keys", "open_killed"),
            by_keys(results, "After a close, by keys", "open_clean"),
        ],
        Family::Space => vec![space(results)],
        Family::Scan => vec![threads("Records a second by threads", "scan", &[1, 2], "")],
    }
}

/// This store, its peers, and last the ceilings, which lie behind.
fn stores(results: &Results) -> impl Iterator<Item = &str> {
    std::iter::once(OWN).chain(peers(results))
}

fn by_threads(
    results: &Results,
    title: &str,
    id: &str,
    counts: &[u32],
    ceiling: &str,
) -> Option<Chart> {
    let points = |of: &dyn Fn(u32) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |(at, threads): (usize, &u32)| Some((at as f64, of(*threads)?));
        counts.iter().enumerate().filter_map(point).collect()
    };
    let mut curves: Vec<_> = stores(results)
        .map(|store| {
            let of = |threads| figure(results, store, &format!("{id}.{threads}"));
            Curve { store: store.to_owned(), points: points(&of) }
        })
        .collect();
    let of = |threads| results.figure(CEILINGS, &format!("{ceiling}.{threads}"));
    curves.push(Curve { store: CEILINGS.to_owned(), points: points(&of) });
    let x = counts.iter().map(|threads| match threads {
        1 => "1 thread".to_owned(),
        _ => format!("{threads} threads"),
    });
    Chart::lines(title, Scale::Names(x.collect()), Scale::log(Unit::Rate), curves)
}

fn latency(results: &Results, title: &str, id: &str) -> Option<Chart> {
    let curves = stores(results).chain([CEILINGS]).map(|store| {
        let nanos = results.of(store).and_then(|of| of.latency(id)).unwrap_or_default();
        let nanos = nanos.into_iter().enumerate();
        let points = nanos.filter_map(|(at, nanos)| Some((at as f64, nanos? / 1e6))).collect();
        Curve { store: store.to_owned(), points }
    });
    let name = |share: &f64| match share {
        1.0.. => "most".to_owned(),
        _ => format!("{}%", (share * 1e5).round() / 1e3),
    };
    let x = Scale::Names(QUANTILES.iter().map(name).collect());
    Chart::lines(title, x, Scale::log(Unit::Millis), curves.collect())
}

fn by_keys(results: &Results, title: &str, id: &str) -> Option<Chart> {
    let curves = stores(results).map(|store| {
        let sizes = results.by_keys(store, id);
        let points = sizes.iter().map(|(keys, figures)| (*keys, median(figures))).collect();
        Curve { store: store.to_owned(), points }
    });
    Chart::lines(title, Scale::log(Unit::Rate), Scale::log(Unit::Millis), curves.collect())
}

fn space(results: &Results) -> Option<Chart> {
    let curves = stores(results).map(|store| {
        let series = results.of(store).and_then(|of| of.series.get("space"));
        Curve { store: store.to_owned(), points: series.cloned().unwrap_or_default() }
    });
    let title = "Disk over logical bytes by seconds; the last point is settled";
    Chart::lines(title, Scale::Linear, Scale::log(Unit::Times), curves.collect())
}

fn bars(
    results: &Results,
    title: &str,
    id: &str,
    unit: Unit,
    mark: Option<(f64, &'static str)>,
) -> Option<Chart> {
    let bars: Vec<_> = stores(results)
        .filter_map(|store| {
            let value = results.figure(store, id)?;
            Some(Bar { store: store.to_owned(), value, text: unit.text(value) })
        })
        .collect();
    (!bars.is_empty()).then(|| Chart::Bars { title: title.to_owned(), bars, mark })
}
