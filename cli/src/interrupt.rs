//! Ctrl-C: commands look now and then whether they should stop, and tidy up.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fault::{Fault, Outcome};

static STOP: AtomicBool = AtomicBool::new(false);

/// Reads of stdin that began and ended: odd while one waits.
static READS: AtomicU64 = AtomicU64::new(0);

/// How long a wait goes without a look at Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// One that comes sooner after the first is the same wish: `timeout` sends each signal twice.
const ECHO: Duration = Duration::from_millis(300);

/// Begins to listen for Ctrl-C and the request to terminate. The second one ends the process at once.
pub(crate) fn listen() -> Outcome {
    let mut first: Option<Instant> = None;
    let handler = move || {
        STOP.store(true, Ordering::Relaxed);
        if first.get_or_insert_with(Instant::now).elapsed() > ECHO {
            std::process::exit(130);
        }
        std::thread::spawn(end_a_wait);
    };
    ctrlc::set_handler(handler).map_err(|error| Fault::System {
        action: "listen for Ctrl-C".to_owned(),
        source: std::io::Error::other(error),
    })
}

/// Who waits for input does not look whether to stop, and has nothing half done.
fn end_a_wait() {
    let reads = READS.load(Ordering::Relaxed);
    std::thread::sleep(ECHO);
    if !reads.is_multiple_of(2) && READS.load(Ordering::Relaxed) == reads {
        std::process::exit(i32::from(Fault::Interrupted.tell()));
    }
}

/// Stdin, from which Ctrl-C ends a read that waits.
#[derive(Debug)]
pub(crate) struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        READS.fetch_add(1, Ordering::Relaxed);
        let outcome = io::stdin().read(buffer);
        READS.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

/// Whether the command should stop.
pub(crate) fn is_asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Waits. Answers whether the command should go on.
pub(crate) fn sleep(time: Duration) -> bool {
    let until = Instant::now() + time;
    while !is_asked() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
    false
}

/// Ends the command if it should stop.
pub(crate) fn check() -> Outcome {
    if is_asked() { Err(Fault::Interrupted) } else { Ok(()) }
}
