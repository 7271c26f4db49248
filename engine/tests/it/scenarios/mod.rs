//! What went wrong in stores of this kind, each as a story that must end well here.
//!
//! Stories about merges of chosen segments, and about writes in the middle of a merge, are told in
//! `shard/src/merge/tests.rs`, where the segments can be chosen.

mod frames;
mod indexes;
mod lifecycle;
mod merging;
mod resurrection;
