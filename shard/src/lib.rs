//! One shard of a Caskade store: its directory, its log and its keydir.
//!
//! - [`storage`] is the boundary to the operating system. Nothing outside it touches the file
//!   system, memory maps, file locks or the clock.
//! - [`keydir`] maps hash bits to locations, [`segment`] turns locations into frames.
//! - [`shard`] is the whole: its work lies in the modules named for it (`write_path`, `read_path`,
//!   `seal`, `merge`, `recovery`).
//! - [`commit`] makes writes of several shards durable together.
//!
//! `#![forbid(unsafe_code)]` cannot stand here: the keydir reads memory that other threads write,
//! and segments are mapped files. The unsafe blocks live in the files that `scripts/check-boundaries`
//! lists, nowhere else.
#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("Caskade runs on Linux with 64 bits");

#[macro_use]
mod trace;
#[macro_use]
pub mod planted;

mod ahead;
mod apart;
pub mod catalog;
pub mod checkpoint;
pub mod commit;
pub mod context;
pub mod error;
mod extension;
pub mod journal;
pub mod keydir;
#[cfg(test)]
mod life;
pub mod location;
pub mod log_file;
pub mod merge;
pub mod merge_policy;
pub mod read_path;
pub mod reclaim;
pub mod recovery;
mod seal;
#[expect(unsafe_code, reason = "reads and writes mapped files; each block has its proof")]
pub mod segment;
#[expect(unsafe_code, reason = "shares segments with readers that take no lock")]
pub mod segment_table;
pub mod shard;
pub mod shard_set;
pub mod snapshot;
pub mod storage;
mod sync;
pub mod turns;
pub mod verify;
pub mod view;
pub mod write_path;

pub use error::{Error, Result};
