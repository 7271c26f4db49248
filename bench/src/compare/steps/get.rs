//! Reading a store that is there.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bench::measure::anonymous_bytes;
use bench::workload::{LOGICAL_LEN, Uniform, Values, absent_key, key};
use bench::zipf::Zipf;

use super::{check, open};
use crate::Outcome;
use crate::compare::drive::{
    Load, Phase, SAMPLE, by_one_and_two, drive, fill, load, there_and_back,
};
use crate::compare::plan::Job;
use crate::compare::results::Found;
use crate::compare::store::{Mode, Store, touch};

/// Keys of one `get_many`.
const GROUP: usize = 64;
/// Numbers that are drawn ahead for each thread.
pub(crate) const DRAWN: usize = 1 << 23;
/// Values of another size fill at most this much.
const VALUES_BYTES_MAX: u64 = 256 << 20;

/// Gets of keys that are there, uniform: into a buffer, and as the store hands them out.
pub(super) fn hits(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let values = Values::new();
    let before = anonymous_bytes();
    let store = open(job, Mode::Buffered)?;
    warm(job, &*store)?;
    let held = |threads: usize, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let mut order = Uniform::new(40 + thread as u64, job.keys);
            let store = &*store;
            move || {
                let is_there = store.get_held(&key(order.draw()), &mut touch)?;
                if is_there { Ok(()) } else { Err("a key is gone".into()) }
            }
        })
    };
    // In turn, for one is measured by the other.
    let cases = [(false, 1), (true, 1), (true, 2), (false, 2)];
    let [get_1, held_1, held_2, get_2] =
        there_and_back(cases, job.stretch, |(is_held, threads), stretch| {
            if is_held {
                held(threads, stretch)
            } else {
                uniform(job, &*store, &values, threads, stretch)
            }
        })?;
    found.one_and_two("get", &[get_1, get_2]);
    found.one_and_two("held", &[held_1, held_2]);
    let memory = anonymous_bytes().saturating_sub(before) + store.mapped_index_bytes();
    found.figure("memory_opened", memory as f64 / job.keys as f64);
    store.close()?;
    Ok(found)
}

/// Goes through the whole store and then reads its keys one by one, for two seconds at most, so that
/// what is measured begins with warm caches.
pub(super) fn warm(job: &Job, store: &dyn Store) -> Outcome<()> {
    pass(job, store)?;
    let mut out = Vec::new();
    let begun = Instant::now();
    for i in 0..job.keys {
        if !store.get_into(&key(i), &mut out)? {
            return Err(format!("key {i} is gone").into());
        }
        if i % 1024 == 0 && begun.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    Ok(())
}

/// Looks at every record once. Answers how many there were.
fn pass(job: &Job, store: &dyn Store) -> Outcome<u64> {
    let (mut records, mut bytes) = (0, 0);
    store.scan(&mut |key, value| {
        records += 1;
        bytes += key.len() + value.len();
        touch(key);
        touch(value);
    })?;
    if records == job.keys {
        return Ok(bytes as u64);
    }
    Err(format!("a scan saw {records} keys").into())
}

fn uniform(
    job: &Job,
    store: &dyn Store,
    values: &Values,
    threads: usize,
    stretch: Duration,
) -> Outcome<Phase> {
    drive(threads, stretch, SAMPLE, |thread| {
        let mut order = Uniform::new(20 + thread as u64, job.keys);
        let mut out = Vec::new();
        let mut count = 0_u64;
        move || {
            let i = order.draw();
            if !store.get_into(&key(i), &mut out)? {
                return Err("a key is gone".into());
            }
            count += 1;
            if count.is_multiple_of(64) {
                check(values, i, &out)?;
            }
            black_box(&out);
            Ok(())
        }
    })
}

/// Gets of keys that are there, a few of them very often.
pub(super) fn zipf(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let (store, values) = (open(job, Mode::Buffered)?, Values::new());
    warm(job, &*store)?;
    let zipf = Zipf::new(job.keys);
    let drawn = [zipf.draw_many(1, DRAWN), zipf.draw_many(2, DRAWN)];
    let phases = by_one_and_two(job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let (mut at, mut out) = (0, Vec::new());
            let (store, values, drawn) = (&*store, &values, &drawn[thread]);
            move || {
                let i = u64::from(drawn[at % DRAWN]);
                at += 1;
                if !store.get_into(&key(i), &mut out)? {
                    return Err("a key is gone".into());
                }
                if at.is_multiple_of(64) {
                    check(values, i, &out)?;
                }
                black_box(&out);
                Ok(())
            }
        })
    })?;
    found.one_and_two("zipf", &phases);
    store.close()?;
    Ok(found)
}

/// Gets of keys that were never there.
pub(super) fn misses(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let store = open(job, Mode::Buffered)?;
    warm(job, &*store)?;
    let phases = by_one_and_two(job.stretch, |threads, stretch| {
        drive(threads, stretch, SAMPLE, |thread| {
            let mut order = Uniform::new(60 + thread as u64, 1 << 40);
            let mut out = Vec::new();
            let store = &*store;
            move || {
                if store.get_into(&absent_key(order.draw()), &mut out)? {
                    return Err("an absent key is there".into());
                }
                Ok(())
            }
        })
    })?;
    found.one_and_two("miss", &phases);
    store.close()?;
    Ok(found)
}

/// Gets of 64 keys at once: copied one after the other, and all of them to keep.
pub(super) fn many(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let store = open(job, Mode::Buffered)?;
    warm(job, &*store)?;
    let copied = by_one_and_two(job.stretch, |threads, stretch| {
        drive(threads, stretch, 1, |thread| {
            let mut order = Uniform::new(80 + 2 * thread as u64, job.keys);
            let mut out = Vec::new();
            let store = &*store;
            move || {
                let group: [_; GROUP] = std::array::from_fn(|_| key(order.draw()));
                let mut count = 0;
                store.get_many(&group, &mut |value| {
                    if let Some(value) = value {
                        out.clear();
                        out.extend_from_slice(value);
                        black_box(&out);
                        count += 1;
                    }
                })?;
                if count == GROUP { Ok(()) } else { Err("a key is gone".into()) }
            }
        })
    })?;
    let mut note = |id: &str, phases: &[Phase; 2]| {
        for (threads, phase) in (1..).zip(phases) {
            found.figure(&format!("{id}.{threads}"), phase.rate() * GROUP as f64);
        }
    };
    note("many", &copied);
    if store.get_many_held(&[key(0)]).is_some() {
        let held = by_one_and_two(job.stretch, |threads, stretch| {
            drive(threads, stretch, 1, |thread| {
                let mut order = Uniform::new(81 + 2 * thread as u64, job.keys);
                let store = &*store;
                move || {
                    let group: [_; GROUP] = std::array::from_fn(|_| key(order.draw()));
                    match store.get_many_held(&group) {
                        Some(Ok(GROUP)) => Ok(()),
                        Some(Err(error)) => Err(error),
                        _ => Err("a key is gone".into()),
                    }
                }
            })
        })?;
        note("many_held", &held);
    }
    store.close()?;
    Ok(found)
}

/// All records, over and over, by one thread and by two, each of which goes through all.
pub(super) fn scan(job: &Job) -> Outcome<Found> {
    let mut found = Found::default();
    let store = open(job, Mode::Buffered)?;
    let whole = || {
        let bytes = pass(job, &*store)?;
        let is_all = bytes == job.keys * LOGICAL_LEN;
        if is_all { Ok(()) } else { Err(format!("the scan saw {bytes} bytes").into()) }
    };
    // Warms up.
    whole()?;
    let phases =
        by_one_and_two(job.stretch, |threads, stretch| drive(threads, stretch, 1, |_| whole))?;
    for (threads, phase) in (1..).zip(&phases) {
        found.figure(&format!("scan.{threads}"), phase.rate() * job.keys as f64);
    }
    store.close()?;
    Ok(found)
}

/// How many keys with values of this length are loaded.
pub(crate) fn keys_of_len(keys: u64, len: usize) -> u64 {
    (keys * 256).min(VALUES_BYTES_MAX) / len as u64
}

/// Puts and gets of longer values, in a store of their own. `name` says how long they are.
pub(super) fn values(job: &Job, name: &str, len: usize) -> Outcome<Found> {
    let mut found = Found::default();
    let values = Values::of_len(len);
    let job = Job { keys: keys_of_len(job.keys, len), ..job.clone() };
    let store = open(&job, Mode::Buffered)?;
    let (threads, is_batched, limit) = (1, false, job.stretch / 2);
    let puts = load(&*store, Load { values: &values, threads, keys: job.keys, is_batched, limit })?;
    found.figure(&format!("put{name}.1"), puts.rate());
    fill(&*store, &values, puts.ops, job.keys)?;
    store.settle()?;
    warm(&job, &*store)?;
    let gets = |threads, stretch| uniform(&job, &*store, &values, threads, stretch);
    found.one_and_two(&format!("get{name}"), &by_one_and_two(job.stretch, gets)?);
    store.close()?;
    Ok(found)
}
