//! Integration tests of the engine: one binary.

mod api;
mod basics;
mod failing_calls;
mod faults;
mod features;
mod history;
mod model;
mod rig;
mod scenarios;
mod stress;
mod upkeep;
