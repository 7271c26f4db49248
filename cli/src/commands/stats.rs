//! `stats`.

use std::io::{self, Write};

use caskade::{ShardStats, Stats};

use super::open_to_read;
use crate::args::StatsArgs;
use crate::fault::Outcome;
use crate::term::{self, Paint};
use crate::units;

const BAR_COLUMNS: u32 = 30;

/// Prints the figures of a store.
pub(crate) fn stats(args: &StatsArgs) -> Outcome {
    let db = open_to_read(&args.store)?;
    let stats = db.stats();
    let mut out = io::stdout().lock();
    if args.json {
        let value = serde_json::to_value(&stats).map_err(io::Error::from)?;
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    print_total(&mut out, &stats)?;
    if args.shards {
        print_shards(&mut out, &stats.shards)?;
    }
    Ok(())
}

fn print_total(out: &mut impl Write, stats: &Stats) -> Outcome {
    let paint = Paint::stdout();
    let total = &stats.total;
    let rows = [
        ("keys", units::count(total.keys), "expired ones that were not cleaned up included"),
        ("live", units::bytes(total.live_bytes), "the newest records of all keys"),
        ("dead", units::bytes(total.dead_bytes), "old records, tombstones, headers"),
        ("space amplification", format!("{:.2}", total.space_amp()), "segments over live bytes"),
        ("segments", units::count(total.segments_sealed), "sealed"),
        ("", units::count(total.segments_open), "not sealed yet"),
        ("tombstones", units::bytes(total.tombstone_bytes), "in sealed segments"),
        ("merge debt", units::bytes(total.merge_debt_bytes), "to be freed by merging"),
        ("keydir", units::bytes(total.keydir_bytes), "memory of the process that has it open"),
        ("shards", stats.shards.len().to_string(), ""),
        ("opened in", units::time(std::time::Duration::from_millis(stats.open_millis)), ""),
    ];
    for (name, value, note) in rows {
        writeln!(out, "{name:<20}{} {}", paint.bold(format!("{value:>12}")), paint.dim(note))?;
    }
    Ok(())
}

fn print_shards(out: &mut impl Write, shards: &[ShardStats]) -> Outcome {
    let paint = Paint::stdout();
    let most = shards.iter().map(|shard| shard.total_bytes).max().unwrap_or(0).max(1);
    writeln!(
        out,
        "\n{:>5} {:>12} {:>10} {:>10} {:>5}  live and dead",
        "shard", "keys", "live", "dead", "amp"
    )?;
    for (id, shard) in shards.iter().enumerate() {
        let share = |bytes: u64| units::as_f64(bytes) / units::as_f64(most);
        let bar = |bytes: u64| {
            if bytes == 0 { String::new() } else { term::bar(share(bytes), BAR_COLUMNS) }
        };
        writeln!(
            out,
            "{id:>5} {:>12} {:>10} {:>10} {:>5.2}  {}{}",
            units::count(shard.keys),
            units::bytes(shard.live_bytes),
            units::bytes(shard.dead_bytes),
            shard.space_amp(),
            paint.chart(bar(shard.live_bytes)),
            paint.dim(term::dead_bar(share(shard.dead_bytes), BAR_COLUMNS)),
        )?;
    }
    Ok(())
}
