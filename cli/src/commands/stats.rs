//! `stats`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use caskade::{Db, SegmentStats, ShardStats, Stats};

use super::{open_to_read, plot};
use crate::args::StatsArgs;
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::{self, Paint};
use crate::units;

const BAR_COLUMNS: u32 = 30;

/// Prints the figures of a store, once or again and again.
pub(crate) fn stats(args: &StatsArgs) -> Outcome {
    let mut db = open_to_read(&args.store)?;
    if let Some(path) = &args.plot {
        plot(&db, path, &args.store)?;
    }
    let Some(pause) = args.watch else {
        // A plot is the answer, unless figures were asked for too.
        if args.plot.is_none() || args.json || args.shards || args.segments {
            print(args, &db, args.json)?;
        }
        return Ok(());
    };
    let is_screen = !args.json && Paint::stdout().is_on();
    loop {
        if is_screen {
            // To the top, and clear: each look takes the place of the last.
            write!(io::stdout(), "\x1b[H\x1b[2J")?;
        }
        print(args, &db, false)?;
        if !args.json {
            writeln!(
                io::stdout(),
                "\n{}",
                Paint::stdout().dim(format!("every {}; Ctrl-C ends it", units::time(pause)))
            )?;
        }
        if !interrupt::sleep(pause) {
            return Ok(());
        }
        db = match db.refresh() {
            // Ctrl-C is how a watch ends, also while it reads.
            Err(_) if interrupt::is_asked() => return Ok(()),
            answer => answer?,
        };
    }
}

fn print(args: &StatsArgs, db: &Db, is_pretty: bool) -> Outcome {
    let stats = db.stats();
    let mut out = io::stdout().lock();
    if args.json {
        let mut value = serde_json::to_value(&stats).map_err(io::Error::from)?;
        if args.segments {
            let segments = serde_json::to_value(db.segment_stats()).map_err(io::Error::from)?;
            value["segments"] = segments;
        }
        // One object a line where there are many.
        if is_pretty {
            writeln!(out, "{value:#}")?;
        } else {
            writeln!(out, "{value}")?;
        }
        return Ok(());
    }
    print_total(&mut out, &stats)?;
    if args.shards {
        print_shards(&mut out, &stats.shards)?;
    }
    if args.segments {
        print_segments(&mut out, &db.segment_stats())?;
    }
    out.flush()?;
    Ok(())
}

fn plot(db: &Db, path: &Path, store: &Path) -> Outcome {
    let title = store.file_name().unwrap_or(store.as_os_str()).to_string_lossy();
    let svg = plot::draw(&title, &db.stats().shards, &db.segment_stats());
    fs::write(path, svg).map_err(|source| Fault::system("write", path, source))?;
    note!("drawn into {}", path.display());
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

fn print_segments(out: &mut impl Write, segments: &[SegmentStats]) -> Outcome {
    let paint = Paint::stdout();
    let most = segments.iter().map(|one| one.bytes).max().unwrap_or(0).max(1);
    writeln!(
        out,
        "\n{:>5} {:>10} {:>8} {:>10} {:>10}  live and dead",
        "shard", "segment", "", "live", "dead"
    )?;
    for one in segments {
        let dead = one.bytes.saturating_sub(one.live_bytes);
        let share = |bytes: u64| units::as_f64(bytes) / units::as_f64(most);
        let live_bar = if one.live_bytes == 0 {
            String::new()
        } else {
            term::bar(share(one.live_bytes), BAR_COLUMNS)
        };
        writeln!(
            out,
            "{:>5} {:>10} {:>8} {:>10} {:>10}  {}{}",
            one.shard,
            one.segment,
            if one.is_sealed { "sealed" } else { "open" },
            units::bytes(one.live_bytes),
            units::bytes(dead),
            paint.chart(live_bar),
            paint.dim(term::dead_bar(share(dead), BAR_COLUMNS)),
        )?;
    }
    Ok(())
}
