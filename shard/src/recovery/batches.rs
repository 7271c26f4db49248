//! Which batches are whole, over all shards.
//!
//! A batch is resolved when its coordinator's part is at or below the coordinator's horizon:
//! horizons are raised only after all parts were made durable, and the coordinator, the lowest
//! shard of the batch, is raised first. Any other batch is whole if all its parts are in the logs.
//! One that is not ends the log of each shard that has a part of it, which may cut off parts of
//! other batches: so look again until nothing changes.

use std::collections::{HashMap, HashSet};

use caskade_codec::ids::{Seqno, ShardId};

use super::scan::ShardScan;

/// Cuts every shard's log before its first part of an incomplete batch.
pub fn resolve_batches(shards: &mut [ShardScan]) {
    let horizons: Vec<Seqno> = shards.iter().map(ShardScan::horizon).collect();
    let is_resolved = |coordinator: ShardId, seqno: Seqno| {
        horizons.get(usize::from(coordinator.0)).is_some_and(|horizon| seqno <= *horizon)
    };
    loop {
        let mut parts: HashMap<(ShardId, Seqno), HashSet<ShardId>> = HashMap::new();
        for shard in &*shards {
            for head in shard.batch_heads() {
                let name = (head.coordinator, head.coordinator_seqno);
                parts.entry(name).or_default().insert(shard.id);
            }
        }
        let mut changed = false;
        for shard in &mut *shards {
            let broken = shard
                .batch_heads()
                .find(|head| {
                    let found = parts[&(head.coordinator, head.coordinator_seqno)].len();
                    !is_resolved(head.coordinator, head.coordinator_seqno)
                        && found < usize::from(head.parts)
                })
                .copied();
            if let Some(head) = broken.filter(|_| !planted!("batches-unresolved")) {
                shard.cut_before_batch(&head);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}
