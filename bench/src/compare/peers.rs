//! The stores, how each is configured, and why.

#[cfg(feature = "peers")]
mod candystore;
mod caskade;
#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod lmdb;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "peer-rocksdb")]
mod rocksdb;
#[cfg(feature = "peers")]
mod sled;

use std::path::Path;

use super::store::{Mode, Store};
use crate::Outcome;

/// What the stores with a cache of their own get for it: all data of a default run fits.
#[cfg(feature = "peers")]
const CACHE_BYTES: usize = 512 << 20;

/// A store that takes part.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The package in `Cargo.lock` that has its version.
    package: &'static str,
    /// How it is configured, for people who want to object.
    pub(crate) settings: &'static str,
    /// Whether someone who knows the store would load it in batches.
    pub(crate) loads_batched: bool,
    /// Whether its durable writes are not: they are shown, but nobody is measured by them.
    pub(crate) is_durable_weaker: bool,
    pub(crate) open: fn(&Path, Mode, u64) -> Outcome<Box<dyn Store>>,
}

/// All that were built in, this store first.
pub(crate) fn all() -> Vec<Peer> {
    vec![
        caskade::PEER,
        #[cfg(feature = "peers")]
        candystore::PEER,
        #[cfg(feature = "peers")]
        fjall::PEER,
        #[cfg(feature = "peers")]
        redb::PEER,
        #[cfg(feature = "peers")]
        lmdb::PEER,
        #[cfg(feature = "peers")]
        sled::PEER,
        #[cfg(feature = "peer-rocksdb")]
        rocksdb::PEER,
    ]
}

/// The store of that name.
pub(crate) fn find(name: &str) -> Outcome<Peer> {
    let found = all().into_iter().find(|peer| peer.name == name);
    found.ok_or_else(|| format!("no store {name:?} was built in").into())
}

impl Peer {
    /// The version that this program was built with.
    pub(crate) fn version(&self) -> &'static str {
        const LOCK: &str = include_str!("../../../Cargo.lock");
        let head = format!("name = \"{}\"\nversion = \"", self.package);
        let from = LOCK.find(&head).map_or(0, |at| at + head.len());
        LOCK[from..].split('"').next().unwrap_or("?")
    }
}
