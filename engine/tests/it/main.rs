//! Integration tests of the engine: one binary.

mod basics;
mod failing_calls;
mod features;
mod rig;
mod scenarios;
mod stress;
