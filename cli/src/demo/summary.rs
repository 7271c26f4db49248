//! What the demo measured: tables, charts, JSON.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::crash::Check;
use crate::fault::Outcome;
use crate::load::data::{KEY_LEN, VALUE_LEN};
use crate::load::measure::Disk;
use crate::load::parallel::Measured;
use crate::term::{self, Paint};
use crate::units;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) records: u64,
    pub(crate) file_system: Option<String>,
    pub(crate) clock_cost: Duration,
    pub(crate) measured: Vec<Measured>,
    pub(crate) memory: Memory,
    pub(crate) space: Space,
    pub(crate) recovery: Recovery,
    pub(crate) elapsed: Duration,
}

/// Memory after the load.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) keydir_bytes: u64,
    /// How much the process's anonymous memory grew.
    pub(crate) anonymous: Option<u64>,
}

/// Bytes on disk.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Bytes of segments over bytes of live records, in the course of the overwriting.
    pub(crate) while_overwriting: Vec<f64>,
    pub(crate) before_compaction: f64,
    pub(crate) after_compaction: f64,
    pub(crate) keys: u64,
    /// The most that the files took while all records were overwritten.
    pub(crate) peak_bytes: u64,
    /// After compaction, and closed.
    pub(crate) at_rest: Disk,
}

impl Space {
    fn peak(&self) -> f64 {
        self.while_overwriting.iter().copied().fold(1.0, f64::max)
    }

    /// Blocks on disk over the bytes of keys and values.
    fn on_disk(&self) -> f64 {
        units::as_f64(self.at_rest.total()) / units::as_f64(self.logical_bytes().max(1))
    }

    /// All keys of the demo have the same length, and all values.
    fn logical_bytes(&self) -> u64 {
        self.keys * (KEY_LEN + VALUE_LEN) as u64
    }
}

/// The kill and what came after.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) clean_open: Duration,
    pub(crate) after_kill: Duration,
    pub(crate) bytes_scanned: u64,
    pub(crate) acknowledged: u64,
    pub(crate) check: Check,
}

const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
/// The chart of latencies goes from 2^6 ns on, two columns for each doubling.
const CHART_FROM: u32 = 6;
const CHART_COLUMNS: usize = 40;
const NAME_COLUMNS: usize = 25;

impl Report {
    pub(crate) fn new(records: u64) -> Self {
        Self { records, ..Self::default() }
    }

    /// Acknowledged writes that are missing.
    pub(crate) fn lost(&self) -> u64 {
        self.recovery.check.lost
    }

    /// For people.
    pub(crate) fn print(&self, out: &mut impl Write, paint: Paint) -> Outcome {
        self.print_latencies(out, paint)?;
        self.print_rates(out, paint)?;
        self.print_space(out, paint)?;
        self.print_figures(out, paint)
    }

    fn print_latencies(&self, out: &mut impl Write, paint: Paint) -> Outcome {
        writeln!(out, "\n{}", paint.bold("Latency of one call"))?;
        write!(out, "  {:NAME_COLUMNS$}", "")?;
        for (name, _) in PERCENTILES {
            write!(out, "{name:>9}")?;
        }
        writeln!(out, "{:>9}", "max")?;
        for measured in &self.measured {
            write!(out, "  {:NAME_COLUMNS$}", measured.name)?;
            for (_, share) in PERCENTILES {
                write!(out, "{:>9}", units::time(measured.latencies.percentile(share)))?;
            }
            writeln!(out, "{:>9}", units::time(measured.latencies.max()))?;
        }
        writeln!(
            out,
            "\n  {}",
            paint.dim("How many calls took how long (heights are logarithmic)")
        )?;
        for measured in &self.measured {
            let spread = measured.latencies.spread(CHART_FROM, CHART_COLUMNS);
            let heights: Vec<f64> =
                spread.iter().map(|&count| units::as_f64(count + 1).ln()).collect();
            let columns = paint.chart(term::columns(&heights));
            writeln!(out, "  {:NAME_COLUMNS$}{columns}", measured.name)?;
        }
        writeln!(out, "  {:NAME_COLUMNS$}{}", "", paint.dim(axis()))?;
        Ok(())
    }

    fn print_rates(&self, out: &mut impl Write, paint: Paint) -> Outcome {
        let rate = |measured: &Measured| units::per_second(measured.keys, measured.elapsed);
        let best = self.measured.iter().map(rate).fold(1.0, f64::max);
        writeln!(out, "\n{}", paint.bold("Keys a second, all threads together"))?;
        for measured in &self.measured {
            let share = rate(measured) / best;
            writeln!(
                out,
                "  {:NAME_COLUMNS$}{:>9} {}",
                measured.name,
                units::rate(measured.keys, measured.elapsed),
                paint.chart(term::bar(share, 30)),
            )?;
        }
        Ok(())
    }

    fn print_space(&self, out: &mut impl Write, paint: Paint) -> Outcome {
        let samples = &self.space.while_overwriting;
        if samples.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{}",
            paint.bold("Space amplification while overwriting (segments over live bytes)")
        )?;
        let above_one: Vec<f64> =
            thin_out(samples, 48).iter().map(|amp| (amp - 1.0).max(0.001)).collect();
        writeln!(
            out,
            "  {}  peak {:.2}, at the end {:.2}",
            paint.chart(term::columns(&above_one)),
            self.space.peak(),
            samples.last().copied().unwrap_or(1.0),
        )?;
        Ok(())
    }

    fn print_figures(&self, out: &mut impl Write, paint: Paint) -> Outcome {
        writeln!(out, "\n{}", paint.bold("Memory, disk, recovery"))?;
        let mut line = |name: &str, value: String, note: String| {
            writeln!(out, "  {name:<26}{}  {}", paint.bold(format!("{value:>10}")), paint.dim(note))
        };
        let keys = units::as_f64(self.records);
        line(
            "keydir",
            format!("{:.1} B", units::as_f64(self.memory.keydir_bytes) / keys),
            "a key, as the store counts it".to_owned(),
        )?;
        if let Some(anonymous) = self.memory.anonymous {
            line(
                "memory",
                format!("{:.1} B", units::as_f64(anonymous) / keys),
                "a key: growth of RssAnon over the load".to_owned(),
            )?;
        }
        let Disk { segments, index, fixed } = self.space.at_rest;
        line(
            "disk, compacted, closed",
            format!("{:.2} x", self.space.on_disk()),
            format!("files over {} of keys and values", units::bytes(self.space.logical_bytes())),
        )?;
        line(
            "",
            units::bytes(self.space.at_rest.total()),
            format!(
                "segments {}, index {}, fixed {}",
                units::bytes(segments),
                units::bytes(index),
                units::bytes(fixed)
            ),
        )?;
        line(
            "disk, most",
            units::bytes(self.space.peak_bytes),
            "while overwriting, space ahead included".to_owned(),
        )?;
        line(
            "space amplification",
            format!("{:.2}", self.space.after_compaction),
            format!("after compaction; {:.2} before", self.space.before_compaction),
        )?;
        line("open after a clean close", units::time(self.recovery.clean_open), String::new())?;
        line(
            "open after the kill",
            units::time(self.recovery.after_kill),
            format!("{} of log read", units::bytes(self.recovery.bytes_scanned)),
        )?;
        line(
            "acknowledged writes lost",
            self.recovery.check.lost.to_string(),
            format!("of {}", units::count(self.recovery.acknowledged)),
        )?;
        writeln!(
            out,
            "\n{}",
            paint.dim(format!(
                "One run of {} on this machine, with a warm page cache, on {}. Each latency\n\
                 includes about {} for reading the clock; percentiles are exact to 6%.\n\
                 Keys a second include making the data and comparing it. A kill is not a\n\
                 power cut: buffered writes survive the first, durable ones both.",
                units::time(self.elapsed),
                self.file_system.as_deref().unwrap_or("an unknown file system"),
                units::time(self.clock_cost),
            ))
        )?;
        Ok(())
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> Value {
        let ns = |time: Duration| time.as_nanos() as u64;
        let operations: Vec<Value> = self
            .measured
            .iter()
            .map(|measured| {
                json!({
                    "name": measured.name,
                    "threads": measured.threads,
                    "calls": measured.calls,
                    "keys": measured.keys,
                    "elapsed_ns": ns(measured.elapsed),
                    "keys_per_second": units::per_second(measured.keys, measured.elapsed),
                    "p50_ns": ns(measured.latencies.percentile(0.5)),
                    "p99_ns": ns(measured.latencies.percentile(0.99)),
                    "p999_ns": ns(measured.latencies.percentile(0.999)),
                    "max_ns": ns(measured.latencies.max()),
                })
            })
            .collect();
        json!({
            "records": self.records,
            "key_bytes": KEY_LEN,
            "value_bytes": VALUE_LEN,
            "file_system": self.file_system,
            "clock_cost_ns": ns(self.clock_cost),
            "elapsed_ns": ns(self.elapsed),
            "operations": operations,
            "memory": {
                "keydir_bytes": self.memory.keydir_bytes,
                "rss_anon_growth_bytes": self.memory.anonymous,
            },
            "space": {
                "amplification_peak": self.space.peak(),
                "amplification_before_compaction": self.space.before_compaction,
                "amplification_after_compaction": self.space.after_compaction,
                "logical_bytes": self.space.logical_bytes(),
                "segment_bytes": self.space.at_rest.segments,
                "index_bytes": self.space.at_rest.index,
                "journal_and_reserve_bytes": self.space.at_rest.fixed,
                "peak_bytes": self.space.peak_bytes,
            },
            "recovery": {
                "clean_open_ns": ns(self.recovery.clean_open),
                "after_kill_ns": ns(self.recovery.after_kill),
                "bytes_scanned": self.recovery.bytes_scanned,
                "acknowledged": self.recovery.acknowledged,
                "keys_compared": self.recovery.check.keys,
                "lost": self.recovery.check.lost,
                "unacknowledged_kept": self.recovery.check.unacknowledged_kept,
            },
        })
    }
}

/// Marks under the chart of latencies.
fn axis() -> String {
    let mut line = String::new();
    for (label, ns) in
        [("100ns", 1e2), ("1µs", 1e3), ("10µs", 1e4), ("100µs", 1e5), ("1ms", 1e6), ("10ms", 1e7)]
    {
        #[expect(clippy::cast_sign_loss, reason = "all lie right of the first column")]
        let column = (2.0 * (f64::log2(ns) - f64::from(CHART_FROM))) as usize;
        while line.chars().count() < column {
            line.push(' ');
        }
        line.push('|');
        line.push_str(label);
    }
    line
}

/// At most `columns` values, each the greatest of its stretch.
fn thin_out(values: &[f64], columns: usize) -> Vec<f64> {
    let stretch = values.len().div_ceil(columns).max(1);
    values.chunks(stretch).map(|chunk| chunk.iter().copied().fold(0.0, f64::max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks() {
        let values: Vec<f64> = (0..1_000).map(|i| if i == 777 { 9.0 } else { 1.0 }).collect();
        let thin = thin_out(&values, 60);
        assert!(thin.len() <= 60);
        assert_eq!(thin.iter().filter(|value| **value > 8.0).count(), 1);
    }

    #[test]
    fn the_axis_fits_the_chart() {
        assert!(axis().chars().count() <= CHART_COLUMNS + 5);
        assert!(axis().starts_with(" |100ns"));
    }
}
