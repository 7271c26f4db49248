//! Recovering all shards: looking at them, settling their batches, repairing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caskade_codec::ids::{SegmentId, ShardId};
use caskade_shard::context::Context;
use caskade_shard::journal::JournalScan;
use caskade_shard::recovery::{
    ListedSegments, Loss, Progress, RecoveryMode, Request, ShardReport, ShardScan, resolve_batches,
};
use caskade_shard::shard::Shard;
use rayon::prelude::*;

use crate::options::{Background, Builder, OpenProgress};
use crate::stats::OpenReport;
use crate::{Error, Result};

/// The shards, what was found, and the journal's next turn.
type Recovered = (Box<[Shard]>, OpenReport, u64);

/// Reads all shards in parallel, settles their batches, and repairs them.
pub(crate) fn recover(ctx: &Arc<Context>, options: &Builder) -> Result<Recovered> {
    let (stop, progress) = (AtomicBool::new(false), Progress::default());
    let request = Request {
        mode: options.recovery,
        read_only: options.read_only,
        stop: &stop,
        progress: &progress,
    };
    let tell = || {
        if let Some(callback) = &options.progress {
            let now = OpenProgress {
                segments_done: progress.segments_done.load(Ordering::Relaxed),
                segments_total: progress.segments_total.load(Ordering::Relaxed),
            };
            if !callback(now) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let look = || look(ctx, &request, &tell);
    let pause = || {
        // Who sets the pace of the background work, as simulations do, sets this one too.
        if options.background == Background::Thread {
            std::thread::sleep(BETWEEN_LOOKS);
        }
    };
    let found = if request.read_only { look_until_sure(look, pause) } else { look() }?;
    if request.mode == RecoveryMode::Strict {
        // Before anything is repaired.
        found.shards.iter().try_for_each(ShardScan::refuse_any_doubt)?;
    }
    let finished = found.shards.into_par_iter().map(|scan| {
        tell();
        scan.finish(ctx, &request)
    });
    let (shards, reports): (Vec<Shard>, Vec<ShardReport>) =
        finished.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    if options.read_only {
        // All leaves are made.
        ctx.reclaim.collect();
        ctx.leaf_memory.expect(0);
    }
    let report = OpenReport { shards: reports, ..OpenReport::default() };
    Ok((shards.into_boxed_slice(), report, found.next_turn))
}

/// What a look at the store found.
struct Look {
    shards: Vec<ShardScan>,
    next_turn: u64,
}

/// Reads everything, and changes nothing but what the journal restores.
fn look(ctx: &Context, request: &Request<'_>, tell: &(impl Fn() + Sync)) -> Result<Look> {
    request.progress.begin();
    let journal = JournalScan::read(ctx)?;
    // Beside a writer, the order counts. All logs are read after all manifests, so that a batch that
    // one of these knows to be whole is found whole. And the horizon of a batch's coordinator, its
    // lowest shard, rises first, so that it is read last.
    let mut manifests = (0..ctx.shards)
        .rev()
        .map(|shard| ListedSegments::read(ctx, ShardId(shard)))
        .collect::<Result<Vec<_>>>()?;
    manifests.reverse();
    ctx.leaf_memory.expect(manifests.iter().map(ListedSegments::records).sum());
    let mut shards = manifests
        .into_par_iter()
        .map(|listed| {
            tell();
            let scan = ShardScan::read(ctx, listed, request, &journal);
            tell();
            scan
        })
        .collect::<Result<Vec<_>>>()?;
    resolve_batches(&mut shards);
    Ok(Look { shards, next_turn: journal.next_turn() })
}

/// How many looks an open takes at most while each finds something else wrong.
const LOOKS_MAX: usize = 50;
/// Time for a writer that was about to write something to do it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Looks at a store that a living writer may be changing meanwhile. What is wrong may be the writer's
/// doing: a record half written, a segment merged away. It counts if the next look finds it again.
fn look_until_sure(look: impl Fn() -> Result<Look>, pause: impl Fn()) -> Result<Look> {
    let mut answer = look();
    let mut known = Vec::new();
    for _ in 1..LOOKS_MAX {
        let (doubtful, was_read) = (Place::doubtful(&answer), answer.is_ok());
        if doubtful.is_empty() {
            break;
        }
        known.extend(doubtful);
        drop(answer);
        pause();
        answer = look();
        if let (true, Ok(found)) = (was_read, &mut answer) {
            // Other losses are where the writer was this time.
            for shard in &mut found.shards {
                shard.retain_losses(|loss| known.contains(&Place::of(loss)));
            }
            break;
        }
        if Place::doubtful(&answer).iter().all(|place| known.contains(place)) {
            break;
        }
    }
    answer
}

/// Where something was found wrong.
#[derive(PartialEq)]
struct Place(ShardId, SegmentId, u64);

impl Place {
    fn of(loss: &Loss) -> Self {
        Self(ShardId(loss.shard), SegmentId(loss.segment), loss.offset)
    }

    /// All that a writer may have caused.
    fn doubtful(answer: &Result<Look>) -> Vec<Self> {
        match answer {
            Ok(found) => {
                let losses = found.shards.iter().flat_map(ShardScan::losses).map(Self::of);
                // A snapshot that was written since the manifest was read does not fit it.
                let ignored = found.shards.iter().filter(|shard| shard.has_ignored());
                losses.chain(ignored.map(|shard| Self(shard.id, SegmentId(0), 0))).collect()
            }
            Err(Error::Corrupt { shard, segment, offset, .. }) => {
                vec![Self(*shard, *segment, *offset)]
            }
            Err(Error::MissingSegment { shard, segment, .. }) => vec![Self(*shard, *segment, 0)],
            Err(_) => Vec::new(),
        }
    }
}
