//! Bugs on purpose, to see that the tests find them.
//!
//! With the feature `planted`, the environment variable `CASKADE_PLANTED` names one of [`BUGS`],
//! and the code then has that bug. Without the feature [`planted!`](crate::planted) is a constant
//! `false` that leaves nothing behind. `scripts/planted-bugs` runs the tests against each.

// Whoever builds for use builds without debug assertions: such a build must not carry bugs.
#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` is for tests: it breaks the store on purpose");

/// The bugs: a name, and what goes wrong. The numbers are those of the scenarios in the tests.
#[rustfmt::skip]
pub const BUGS: &[(&str, &str)] = &[
    // What a merge may forget.
    ("tombstone-dropped", "a merge drops tombstones that still hide something (1, 2)"),
    ("merged-not-older", "a merge takes only log segments for places of older records (2)"),
    ("expiry-uncovers", "a merge drops an expired record that hides an older one (4)"),
    ("merge-revives", "a merge installs its copy of a key that was written or deleted meanwhile (7, 8)"),
    ("expiry-removes-newer", "a merge removes an expired key that was put again meanwhile (9)"),
    ("merge-before-settle", "a merge commits before the log is durable (12)"),
    ("outputs-unsynced", "a merge commits outputs that were not synced (12)"),
    ("damage-merged-away", "a merge drops what follows a damaged record (5)"),
    ("ids-reused", "the number after the last segment is given out again (14)"),
    ("dead-bytes-off", "an overwritten record goes on counting as live (13)"),
    // What recovery may believe.
    ("newest-by-file", "recovery takes the record of the highest segment for the newest (3)"),
    ("damage-uncovers", "recovery takes an unreadable record for one of another key (5)"),
    ("half-batch-kept", "recovery keeps the records of a batch that is cut off (27)"),
    ("batches-unresolved", "recovery keeps a batch of which another shard lacks its part (28)"),
    ("cut-unsynced", "recovery does not sync what it kept of a log that it cut (23, 29)"),
    ("cut-before-manifest", "recovery cuts sealed segments before the manifest says so (28)"),
    ("hint-unbound", "a hint of another segment is taken (19)"),
    ("hint-without-tombstones", "a hint's tombstones are left out (20)"),
    ("snapshot-keeps-merged", "a keydir snapshot still names merged segments (18)"),
    ("missing-segment", "an open segment that is gone counts as never made"),
    ("error-as-missing", "an open segment that cannot be opened counts as never made (25)"),
    ("foreign-files-removed", "recovery removes files that are not ours"),
    ("manifest-trusted", "recovery builds on a manifest whose name may not be durable"),
    ("empty-segment-shadows", "a segment that was found empty stays in the table"),
    ("rubbish-ends-log", "what the device held before behind a segment's end ends the log"),
    ("sealed-behind-cut-kept", "sealed segments behind a broken batch stay (28)"),
    ("header-counts", "a missing segment of which the journal has only the header is a loss"),
    ("evidence-ignored", "damage below what a marker vouches for counts as a torn tail"),
    ("read-only-repairs", "a read-only open repairs the store"),
    // What is durable when.
    ("older-file-unsynced", "a sync leaves out all but the newest file of a log (24)"),
    ("journal-hole", "the journal leaves out all but the newest file of a log (24)"),
    ("batch-synced-alone", "a sync leaves out the other shards of a batch (28)"),
    ("failure-unties", "a failed commit forgets which shards share a batch (28)"),
    ("sync-retried", "a log file is synced again after its sync failed"),
    ("poison-forgotten", "writes go on after a failed sync"),
    ("names-unsynced", "the names of new log files are never synced"),
    ("store-name-unsynced", "opening does not sync what an earlier life created"),
    ("seal-unsynced", "a segment is sealed before it is durable (24)"),
    ("rename-unsynced", "a manifest's new name is not synced"),
    ("contents-unsynced", "a manifest takes its name before its contents are durable"),
    ("journal-reused-early", "the journal is written over before the segments are durable"),
    ("absence-not-durable", "a durable delete of what is gone waits for nothing"),
    ("stain-forgotten", "what was taken back from the log is not synced away (26)"),
    ("interval-forgotten", "the sync by time never comes"),
    // What fails.
    ("failed-write-stays", "a record whose write failed stays in the file (26)"),
    ("failed-batch-counts", "a batch that failed uses up sequence numbers (26)"),
    ("space-unchecked", "a store through the map goes where no space was allocated"),
    ("full-for-good", "a store that was full stays full"),
    ("panic-unheard", "a panic in the background goes unnoticed"),
    // What is read.
    ("checksum-unchecked", "a read does not look at the checksum (5)"),
    ("damage-taken-first", "a change replaces what is damaged in place of the key's own record (5)"),
    ("look-then-lock", "a conditional write looks first and takes the lock later (7)"),
];

/// Whether the bug `name` is planted.
///
/// # Panics
/// When there is no bug of that name.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let is_known = |name: &str| BUGS.iter().any(|(bug, _)| *bug == name);
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("CASKADE_PLANTED").ok();
        assert!(chosen.as_deref().is_none_or(is_known), "CASKADE_PLANTED names no bug");
        chosen
    });
    assert!(is_known(name), "{name} is not in the list of bugs");
    chosen.as_deref() == Some(name)
}

/// Whether the bug `name` is planted: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[inline]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}

/// Whether a bug is planted here. See [`planted`](crate::planted).
#[macro_export]
#[doc(hidden)]
macro_rules! planted {
    ($name:literal) => {
        $crate::planted::is($name)
    };
}
