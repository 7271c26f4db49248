//! The lines of the comparison: what is measured, and what it has to be.

use bench::measure::median;

use super::plan::Family;

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

/// How a line's figures come from those that the steps found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// They are those of the line's name.
    Plain,
    /// They are divided by another figure of the same repetition.
    Over(&'static str),
    /// The greatest of those at all numbers of keys.
    GreatestOfSizes,
    /// Nanoseconds that each key more takes, of milliseconds at the least and the greatest number of keys.
    NanosAKey,
}

/// A line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) family: Family,
    pub(crate) id: &'static str,
    pub(crate) source: Source,
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
    Nanos,
    Bytes,
    Times,
}

impl Unit {
    pub(crate) fn text(self, figure: f64) -> String {
        match self {
            Self::Rate => rate(figure),
            Self::Millis | Self::Longest if figure < 10.0 => format!("{figure:.2} ms"),
            Self::Millis | Self::Longest => format!("{figure:.0} ms"),
            Self::Nanos => format!("{figure:.1} ns"),
            Self::Bytes => format!("{figure:.1} B"),
            Self::Scaling => format!("{figure:.2} ×"),
            Self::Times => format!("{figure:.2}"),
        }
    }

    pub(crate) fn is_more_better(self) -> bool {
        matches!(self, Self::Rate | Self::Scaling)
    }

    /// What stands for several repetitions.
    pub(crate) fn of_all(self, repetitions: &[f64]) -> Option<f64> {
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
) -> Line {
    Line { family, id, source: Source::Plain, name, unit, target, ceilings: &[] }
}

impl Line {
    const fn beside(self, ceilings: &'static [(&'static str, &'static str)]) -> Self {
        Self { ceilings, ..self }
    }

    const fn from(self, source: Source) -> Self {
        Self { source, ..self }
    }
}

/// What two threads do over what one does.
const fn two_over_one(
    family: Family,
    two: &'static str,
    one: &'static str,
    name: &'static str,
) -> Line {
    line(family, two, name, Unit::Scaling, Target::AtLeast(1.8)).from(Source::Over(one))
}

/// How much longer a value to keep takes than one that is copied into a buffer.
const fn to_keep(copied: &'static str, held: &'static str, name: &'static str) -> Line {
    line(Family::Get, copied, name, Unit::Times, Target::AtMost(1.25)).from(Source::Over(held))
}

/// All lines, in their order.
pub(crate) const LINES: &[Line] = {
    use Family::{Durable, Get, Load, Open, Scan, Space, Values, Ycsb};
    use Source::{GreatestOfSizes, NanosAKey};
    use Target::{AtLeast, AtMost, None, Over, OverBest};
    use Unit::{Bytes, Longest, Millis, Nanos, Rate, Times};
    &[
        line(Load, "load.1", "load, 1 thread", Rate, OverBest(6.0))
            .beside(&[("append", "append.load.1")]),
        line(Load, "load.2", "load, 2 threads", Rate, OverBest(9.0))
            .beside(&[("append", "append.load.2")]),
        two_over_one(Load, "load.2", "load.1", "load, 2 threads over 1"),
        line(Load, "stall.1", "worst stall of 64 puts", Longest, AtMost(2.0)),
        line(Load, "stall.2", "worst stall of 64 puts, 2 threads", Longest, None),
        line(Get, "get.1", "get, uniform, 1 thread", Rate, OverBest(5.0)).beside(&[
            ("hashbrown", "hashbrown.get.1"),
            ("mapped", "mapped.get.1"),
            ("mapped, crc32c", "mapped_crc.get.1"),
        ]),
        line(Get, "get.2", "get, uniform, 2 threads", Rate, OverBest(4.0)).beside(&[
            ("hashbrown", "hashbrown.get.2"),
            ("mapped", "mapped.get.2"),
            ("mapped, crc32c", "mapped_crc.get.2"),
        ]),
        two_over_one(Get, "get.2", "get.1", "get, 2 threads over 1"),
        line(Get, "held.1", "get without a copy, 1 thread", Rate, None),
        line(Get, "held.2", "get without a copy, 2 threads", Rate, None),
        to_keep("get.1", "held.1", "time of a get to keep over one into a buffer, 1 thread"),
        to_keep("get.2", "held.2", "time of a get to keep over one into a buffer, 2 threads"),
        line(Get, "zipf.1", "get, zipf, 1 thread", Rate, None)
            .beside(&[("mapped, crc32c", "mapped_crc.zipf.1")]),
        line(Get, "zipf.2", "get, zipf, 2 threads", Rate, OverBest(4.0))
            .beside(&[("hashbrown", "hashbrown.zipf.2"), ("mapped, crc32c", "mapped_crc.zipf.2")]),
        two_over_one(Get, "zipf.2", "zipf.1", "get, zipf, 2 threads over 1"),
        line(Get, "miss.1", "get of an absent key, 1 thread", Rate, OverBest(2.0))
            .beside(&[("hashbrown", "hashbrown.miss.1")]),
        line(Get, "miss.2", "get of an absent key, 2 threads", Rate, OverBest(4.0))
            .beside(&[("hashbrown", "hashbrown.miss.2")]),
        two_over_one(Get, "miss.2", "miss.1", "absent, 2 threads over 1"),
        line(Get, "many.1", "64 gets at once, copied", Rate, Over("hashbrown.get.1", 1.5))
            .beside(&[("hashbrown, singly", "hashbrown.get.1")]),
        line(Get, "many_held.1", "64 gets at once, to keep", Rate, Over("hashbrown.get.1", 1.5))
            .beside(&[("hashbrown, singly", "hashbrown.get.1")]),
        two_over_one(Get, "many.2", "many.1", "64 gets at once, copied, 2 threads over 1"),
        two_over_one(
            Get,
            "many_held.2",
            "many_held.1",
            "64 gets at once, to keep, 2 threads over 1",
        ),
        line(Values, "get1k.1", "get of 1 KiB", Rate, OverBest(2.5))
            .beside(&[("mapped", "mapped.get1k.1"), ("mapped, crc32c", "mapped_crc.get1k.1")]),
        line(Values, "get1k.2", "get of 1 KiB, 2 threads", Rate, None),
        two_over_one(Values, "get1k.2", "get1k.1", "get of 1 KiB, 2 threads over 1"),
        line(Values, "get16k.1", "get of 16 KiB", Rate, OverBest(1.0))
            .beside(&[("mapped", "mapped.get16k.1"), ("mapped, crc32c", "mapped_crc.get16k.1")]),
        line(Values, "get16k.2", "get of 16 KiB, 2 threads", Rate, None),
        two_over_one(Values, "get16k.2", "get16k.1", "get of 16 KiB, 2 threads over 1"),
        line(Values, "get1m.1", "get of 1 MiB", Rate, None)
            .beside(&[("mapped", "mapped.get1m.1"), ("mapped, crc32c", "mapped_crc.get1m.1")]),
        line(Values, "put1k.1", "put of 1 KiB", Rate, None),
        line(Values, "put16k.1", "put of 16 KiB", Rate, None),
        line(Values, "put1m.1", "put of 1 MiB", Rate, None),
        line(Ycsb, "ycsb_a.2", "YCSB A, zipf, 2 threads", Rate, OverBest(5.0)),
        two_over_one(Ycsb, "ycsb_a.2", "ycsb_a.1", "YCSB A, 2 threads over 1"),
        line(Ycsb, "ycsb_b.2", "YCSB B, zipf, 2 threads", Rate, OverBest(4.0)),
        two_over_one(Ycsb, "ycsb_b.2", "ycsb_b.1", "YCSB B, 2 threads over 1"),
        line(Ycsb, "ycsb_c.2", "YCSB C (gets alone), zipf, 2 threads", Rate, None),
        line(Ycsb, "ycsb_d.2", "YCSB D (gets of the newest, inserts), 2 threads", Rate, None),
        line(Ycsb, "ycsb_f.2", "YCSB F (gets, get and put), zipf, 2 threads", Rate, None),
        line(Durable, "durable.1", "durable put, 1 thread", Rate, OverBest(1.0))
            .beside(&[("fdatasync", "fdatasync.durable.1")]),
        line(Durable, "durable.2", "durable put, 2 threads", Rate, None),
        two_over_one(Durable, "durable.2", "durable.1", "durable put, 2 threads over 1"),
        line(Durable, "durable.8", "durable put, 8 threads", Rate, OverBest(1.9)),
        line(Durable, "durable.32", "durable put, 32 threads", Rate, OverBest(2.5)),
        line(
            Durable,
            "batches.1",
            "durable batches of 100, records, 1 thread",
            Rate,
            OverBest(3.0),
        ),
        line(Durable, "batches.2", "durable batches of 100, records, 2 threads", Rate, None),
        two_over_one(Durable, "batches.2", "batches.1", "durable batches, 2 threads over 1"),
        line(
            Durable,
            "batches.8",
            "durable batches of 100, records, 8 threads",
            Rate,
            OverBest(6.0),
        ),
        line(Open, "open_clean", "open after a close, to the first get", Millis, AtMost(30.0)),
        line(Open, "open_clean", "open after a close, for each key more", Nanos, AtMost(0.5))
            .from(NanosAKey),
        line(Open, "open_killed", "open after kill -9, to the first get", Millis, AtMost(150.0)),
        line(Load, "memory", "memory a key, mapped index included", Bytes, AtMost(17.0)),
        line(
            Open,
            "memory",
            "memory a key, over an empty store's, greatest of 3 sizes",
            Bytes,
            AtMost(17.0),
        )
        .from(GreatestOfSizes),
        line(Get, "memory_opened", "memory a key, after an open and reads", Bytes, AtMost(17.0)),
        line(Load, "disk_loaded", "disk over logical, loaded", Times, AtMost(1.3)),
        line(Space, "disk_settled", "disk over logical, overwritten 3 times", Times, AtMost(1.4)),
        line(Space, "disk_peak", "disk over logical, most meanwhile", Times, AtMost(2.0)),
        line(Space, "overwrites", "overwrites meanwhile", Rate, None),
        line(Scan, "scan.1", "full scan, records", Rate, AtLeast(10e6)),
        two_over_one(Scan, "scan.2", "scan.1", "full scans, 2 threads over 1"),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_of_all_repetitions_counts() {
        assert_eq!(Unit::Longest.of_all(&[1.0, 9.0, 2.0]), Some(9.0));
        assert_eq!(Unit::Millis.of_all(&[1.0, 9.0, 2.0]), Some(2.0));
    }
}
