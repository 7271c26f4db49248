//! The faults that a store must survive, one by one, and what its user gets.
//!
//! Torn tails, short writes, and damaged hints and snapshots are told in `scenarios`.

mod damage;
mod durability;
mod interrupts;
mod limits;
mod opening;
mod readers;
mod refusals;
