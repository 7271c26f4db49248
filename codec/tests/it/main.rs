//! The format from outside: golden bytes, damage, round trips.

mod damage;
mod embedded;
mod forged;
mod golden;
mod round_trip;
mod samples;
