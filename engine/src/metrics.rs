//! Statistics through the `metrics` facade, for whatever recorder the program installed.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::stats::{ShardStats, Stats};

/// A figure that goes up and down: its name, what it is, and where it stands.
type Gauge = (&'static str, Unit, &'static str, fn(&ShardStats) -> u64);

const GAUGES: [Gauge; 9] = [
    ("caskade_keys", Unit::Count, "Keys, expired ones included", |s| s.keys),
    ("caskade_live_bytes", Unit::Bytes, "Newest records of all keys", |s| s.live_bytes),
    ("caskade_dead_bytes", Unit::Bytes, "Segments without what lives", |s| s.dead_bytes),
    ("caskade_total_bytes", Unit::Bytes, "Length of all segments", |s| s.total_bytes),
    ("caskade_tombstone_bytes", Unit::Bytes, "Tombstones", |s| s.tombstone_bytes),
    ("caskade_keydir_bytes", Unit::Bytes, "Memory of the keydir", |s| s.keydir_bytes),
    ("caskade_merge_debt_bytes", Unit::Bytes, "What merging should free", |s| s.merge_debt_bytes),
    ("caskade_segments_sealed", Unit::Count, "Sealed segments", |s| s.segments_sealed),
    ("caskade_segments_open", Unit::Count, "Segments not sealed yet", |s| s.segments_open),
];

/// A figure that only goes up while the store is open.
type Counter = (&'static str, Unit, &'static str, fn(&Stats) -> u64);

const COUNTERS: [Counter; 10] = [
    ("caskade_gets_total", Unit::Count, "Keys read", |s| s.gets),
    ("caskade_puts_total", Unit::Count, "Writes", |s| s.puts),
    ("caskade_commits_total", Unit::Count, "Commits of durable writes", |s| s.commits),
    ("caskade_commit_waiters_total", Unit::Count, "Waits for a commit", |s| s.commit_waiters),
    ("caskade_journal_bytes_total", Unit::Bytes, "Bytes through the journal", |s| s.journal_bytes),
    ("caskade_merges_total", Unit::Count, "Merges", |s| s.total.merges),
    ("caskade_merged_bytes_total", Unit::Bytes, "Bytes that merges wrote", |s| {
        s.total.merged_bytes
    }),
    ("caskade_freed_bytes_total", Unit::Bytes, "Bytes that merges freed", |s| s.total.freed_bytes),
    ("caskade_sealed_total", Unit::Count, "Segments sealed", |s| s.total.sealed),
    ("caskade_background_errors_total", Unit::Count, "Failures of background work", |s| {
        s.background_errors
    }),
];

impl Stats {
    /// Gives these figures to the recorder that the program installed, with `store` as the label of
    /// that name. To be called now and then, as by the task that serves the metrics.
    ///
    /// All are sums over the shards. Those named `_total` count since the store was opened.
    pub fn record(&self, store: &str) {
        for (name, unit, description, figure) in GAUGES {
            describe_gauge!(name, unit, description);
            gauge!(name, "store" => store.to_owned()).set(figure(&self.total) as f64);
        }
        for (name, unit, description, figure) in COUNTERS {
            describe_counter!(name, unit, description);
            counter!(name, "store" => store.to_owned()).absolute(figure(self));
        }
        let flags = [
            ("caskade_brake_micros", "How long writers rest for every 64 KiB", self.brake_micros),
            ("caskade_poisoned", "1 if the store takes no more writes", self.is_poisoned.into()),
        ];
        for (name, description, value) in flags {
            describe_gauge!(name, description);
            gauge!(name, "store" => store.to_owned()).set(value as f64);
        }
    }
}
