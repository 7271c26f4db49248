//! Kills a writer in mid-flight, and checks what is there afterwards.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caskade::Db;

use super::writer::{self, KEYS, THREADS};
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::Progress;

/// How long the child may write.
const LIFE: Duration = Duration::from_millis(1_500);

/// How far each thread of the child had come, by its acknowledgements.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Acknowledged {
    by_thread: [u64; THREADS as usize],
}

impl Acknowledged {
    /// Operations that the child was told are done.
    pub(crate) fn total(&self) -> u64 {
        self.by_thread.iter().sum()
    }
}

/// What was found after the kill.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Check {
    /// Keys that were looked at.
    pub(crate) keys: u64,
    /// Keys without the newest acknowledged write.
    pub(crate) lost: u64,
    /// Writes that were under way when the child died, and are there, whole.
    pub(crate) unacknowledged_kept: u64,
}

/// Starts a writer on the store and kills it with SIGKILL.
pub(crate) fn kill_a_writer(store: &Path) -> Outcome<Acknowledged> {
    let exe = std::env::current_exe().map_err(|source| Fault::System {
        action: "find the caskade program".to_owned(),
        source,
    })?;
    let mut child = Command::new(&exe)
        .arg("demo-writer")
        .arg(store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| Fault::system("start", &exe, source))?;
    let mut pipe = child.stdout.take().expect("stdout is a pipe");
    let listener = std::thread::spawn(move || listen(&mut pipe));
    let progress = Progress::of_time("a child process writes");
    let begun = Instant::now();
    while begun.elapsed() < LIFE && !interrupt::is_asked() && !listener.is_finished() {
        progress.set(begun.elapsed().as_millis() as u64, LIFE.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(progress);
    // On Unix, this is SIGKILL: the child runs not one instruction more.
    child.kill().map_err(|source| Fault::system("kill", &exe, source))?;
    let status = child.wait().map_err(|source| Fault::system("wait for", &exe, source))?;
    let acknowledged = listener.join().expect("the listener does not panic")?;
    interrupt::check()?;
    if status.code().is_some() {
        return Err(Fault::Damaged(format!("the child ended by itself, with {status}")));
    }
    Ok(acknowledged)
}

/// Reads acknowledgements until the pipe is closed, which the kill does.
fn listen(pipe: &mut impl Read) -> Outcome<Acknowledged> {
    let mut acknowledged = Acknowledged::default();
    let mut buffer = vec![0; 64 << 10];
    let mut held = 0;
    loop {
        let read = pipe.read(&mut buffer[held..])?;
        if read == 0 {
            return Ok(acknowledged);
        }
        held += read;
        let (whole, _) = buffer[..held].as_chunks::<8>();
        for bytes in whole {
            let (thread, n) = writer::parse_acknowledgement(*bytes);
            acknowledged.by_thread[thread as usize] = n;
        }
        let taken = whole.len() * 8;
        buffer.copy_within(taken..held, 0);
        held -= taken;
    }
}

/// Compares every key of the child with its last acknowledged write. Each thread may have been in
/// the middle of one more, which may be there or not, but only whole.
pub(crate) fn check(db: &Db, acknowledged: &Acknowledged) -> Outcome<Check> {
    let mut check = Check::default();
    for (thread, &last) in (0..).zip(&acknowledged.by_thread) {
        for slot in 0..KEYS {
            let expected = writer::left_by(thread, newest(last, slot));
            let found = db.get(&writer::key(thread, slot))?;
            check.keys += 1;
            if found.as_deref() == expected.as_ref().map(<[u8; _]>::as_slice) {
                continue;
            }
            let in_flight = writer::left_by(thread, last + 1);
            let is_its_key = (last + 1) % KEYS == slot;
            if is_its_key && found.as_deref() == in_flight.as_ref().map(<[u8; _]>::as_slice) {
                check.unacknowledged_kept += 1;
            } else {
                check.lost += 1;
            }
        }
    }
    Ok(check)
}

/// The last operation up to `last` about the key `slot`; 0 if there was none.
fn newest(last: u64, slot: u64) -> u64 {
    if last < slot { 0 } else { last - (last - slot) % KEYS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_operation_of_a_key() {
        assert_eq!(newest(5, 7), 0);
        assert_eq!(newest(7, 7), 7);
        assert_eq!(newest(KEYS + 6, 7), 7);
        assert_eq!(newest(KEYS + 7, 7), KEYS + 7);
        assert_eq!(newest(KEYS - 1, 0), 0);
        assert_eq!(newest(KEYS, 0), KEYS);
    }

    #[test]
    fn acknowledgements_survive_odd_reads() {
        struct Odd(Vec<u8>);
        impl Read for Odd {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let n = self.0.len().min(3);
                out[..n].copy_from_slice(&self.0[..n]);
                self.0.drain(..n);
                Ok(n)
            }
        }
        let raw = [(0, 1), (1, 1), (0, 2)]
            .map(|(thread, n): (u64, u64)| (thread << 48 | n).to_le_bytes());
        let heard = listen(&mut Odd(raw.concat())).unwrap();
        assert_eq!(heard.by_thread, [2, 1]);
        assert_eq!(heard.total(), 3);
    }
}
