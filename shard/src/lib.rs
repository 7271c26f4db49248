//! One shard of a Caskade store: its directory, its log and its keydir.
//!
//! [`storage`] is the boundary to the operating system. Nothing outside it touches the file system,
//! memory maps, file locks or the clock.

pub mod storage;
