//! One directory, one log, one keydir.
//!
//! `#![forbid(unsafe_code)]` cannot stand here: the keydir reads memory that other threads write.
//! The unsafe blocks live in [`keydir`]'s `leaf`, `scan`, `directory` and `prefetch` modules alone.
#![deny(unsafe_code)]

pub mod keydir;
pub mod location;
pub mod reclaim;
mod sync;
