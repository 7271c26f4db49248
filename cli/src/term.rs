//! The terminal: colours and a progress bar, both only where somebody looks.
//!
//! Without a terminal, with `NO_COLOR`, or with `TERM=dumb`, no control character is written.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::fault::Outcome;
use crate::{interrupt, units};

/// Tells something on stderr.
macro_rules! note {
    ($($text:tt)*) => { $crate::term::tell(format_args!($($text)*)) };
}

/// Where even stderr is gone there is nobody left to tell.
pub(crate) fn tell(text: Arguments) {
    let _ = writeln!(io::stderr(), "caskade: {text}");
}

/// Whether control characters may be written to a stream.
fn may_control(is_terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    is_terminal && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether characters beyond ASCII are a safe bet.
pub(crate) fn has_unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(std::env::var_os);
    set.into_iter()
        .find(|value| !value.is_empty())
        .is_none_or(|value| value != "C" && value != "POSIX")
}

/// How stdout is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    is_on: bool,
}

impl Paint {
    /// For stdout.
    pub(crate) fn stdout() -> Self {
        Self { is_on: may_control(io::stdout().is_terminal()) }
    }

    /// Whether control characters may be written.
    pub(crate) fn is_on(self) -> bool {
        self.is_on
    }

    fn wrap(self, code: &str, text: impl Display) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Headings and what matters.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.wrap("2", text)
    }

    /// Good news.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.wrap("32", text)
    }

    /// Bad news.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.wrap("31;1", text)
    }

    /// Charts.
    pub(crate) fn chart(self, text: impl Display) -> String {
        self.wrap("36", text)
    }
}

/// How often a bar is drawn anew.
const REDRAW: Duration = Duration::from_millis(80);
const BAR_COLUMNS: u64 = 20;

/// Records between two looks at Ctrl-C and at the bar.
pub(crate) const STRIDE: u64 = 1024;

/// A progress bar on stderr. Silent unless stderr is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    begun: Instant,
    is_on: bool,
    is_unicode: bool,
    drawn: Mutex<Option<Instant>>,
    has_rate: bool,
    show: fn(u64) -> String,
}

impl Progress {
    /// A bar that counts things.
    pub(crate) fn new(label: &str) -> Self {
        Self::with_unit(label, units::count)
    }

    /// A bar that counts bytes.
    pub(crate) fn of_bytes(label: &str) -> Self {
        Self::with_unit(label, units::bytes)
    }

    /// A bar for work that ends by the clock: milliseconds.
    pub(crate) fn of_time(label: &str) -> Self {
        let show = |ms| units::time(Duration::from_millis(ms));
        let mut bar = Self::with_unit(label, show);
        bar.has_rate = false;
        bar
    }

    fn with_unit(label: &str, show: fn(u64) -> String) -> Self {
        Self {
            label: label.to_owned(),
            begun: Instant::now(),
            is_on: may_control(io::stderr().is_terminal()),
            is_unicode: has_unicode(),
            drawn: Mutex::new(None),
            has_rate: true,
            show,
        }
    }

    /// For each record of a long work: shows now and then how far it is, and fails once somebody asked to
    /// stop.
    pub(crate) fn step(&self, done: u64, total: u64) -> Outcome {
        if done.is_multiple_of(STRIDE) {
            interrupt::check()?;
            self.set(done, total);
        }
        Ok(())
    }

    /// Shows how far it is, of `total`; 0 stands for "nobody knows".
    pub(crate) fn set(&self, done: u64, total: u64) {
        if !self.is_on {
            return;
        }
        let Ok(mut drawn) = self.drawn.try_lock() else { return };
        if drawn.is_some_and(|at| at.elapsed() < REDRAW) {
            return;
        }
        *drawn = Some(Instant::now());
        let bar = self.bar(done, total);
        let mut tail = self.tail(done, total);
        // A line that wraps could not be drawn over.
        let columns =
            terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0);
        let taken = self.label.chars().count() + BAR_COLUMNS as usize + 5;
        if let Some((cut, _)) = tail.char_indices().nth(usize::from(columns).saturating_sub(taken))
        {
            tail.truncate(cut);
        }
        let line = format!("\r\x1b[K  {} \x1b[36m{bar}\x1b[0m {tail}", self.label);
        // A bar that cannot be drawn is no reason to stop.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn bar(&self, done: u64, total: u64) -> String {
        if total == 0 {
            return String::new();
        }
        let filled = (done.min(total) * BAR_COLUMNS / total) as usize;
        let (full, empty) = if self.is_unicode { ("━", "─") } else { ("#", "-") };
        full.repeat(filled) + &empty.repeat(BAR_COLUMNS as usize - filled)
    }

    /// What stands behind the bar.
    fn tail(&self, done: u64, total: u64) -> String {
        let elapsed = self.begun.elapsed();
        if total == 0 && !self.has_rate {
            return (self.show)(done);
        }
        let rate = (self.show)(units::per_second(done, elapsed) as u64);
        if total == 0 {
            return format!("{}  {rate}/s", (self.show)(done));
        }
        let share = (units::as_f64(done) / units::as_f64(total)).min(1.0);
        let so_far =
            format!("{:3.0}%  {} of {}", share * 100.0, (self.show)(done), (self.show)(total));
        if !self.has_rate || done == 0 {
            return so_far;
        }
        let left = elapsed.mul_f64(((1.0 - share) / share).clamp(0.0, 1e6));
        format!("{so_far}  {rate}/s  {} left", units::time_left(left))
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        let drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if drawn.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Does what nobody knows the length of, and shows how long it has taken.
pub(crate) fn wait<T: Send>(label: &str, work: impl FnOnce() -> T + Send) -> T {
    let progress = Progress::of_time(label);
    std::thread::scope(|scope| {
        let worker = scope.spawn(work);
        while !worker.is_finished() {
            progress.set(progress.begun.elapsed().as_millis() as u64, 0);
            std::thread::sleep(Duration::from_millis(10));
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One column for each value, from nothing to the greatest.
pub(crate) fn columns(values: &[f64]) -> String {
    let marks: &[char] = if has_unicode() {
        &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &['.', ':', '-', '=', '+', '*', '%', '#']
    };
    let greatest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let mark = |value: &f64| {
        if *value <= 0.0 {
            ' '
        } else {
            let steps = marks.len();
            #[expect(clippy::cast_sign_loss, reason = "a share of a positive number")]
            let step = (value / greatest * steps as f64).ceil() as usize;
            marks[step.clamp(1, steps) - 1]
        }
    };
    values.iter().map(mark).collect()
}

/// A bar of up to `width` columns.
pub(crate) fn bar(share: f64, width: u32) -> String {
    (if has_unicode() { "█" } else { "#" }).repeat(columns_of(share, width).max(1))
}

/// The rest of a bar: what does not count. Nothing if it is less than half a column.
pub(crate) fn dead_bar(share: f64, width: u32) -> String {
    (if has_unicode() { "░" } else { "." }).repeat(columns_of(share, width))
}

fn columns_of(share: f64, width: u32) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "clamped")]
    let columns = (share.clamp(0.0, 1.0) * f64::from(width)).round() as usize;
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_from_nothing_to_the_greatest() {
        let drawn: Vec<char> = columns(&[0.0, 0.001, 4.0, 8.0]).chars().collect();
        assert_eq!(drawn.len(), 4);
        assert_eq!(drawn[0], ' ');
        assert_ne!(drawn[1], ' ', "a little is not nothing");
        assert_ne!(drawn[2], drawn[3]);
    }

    #[test]
    fn waiting_has_neither_an_end_nor_a_rate() {
        assert_eq!(Progress::of_time("closing").tail(1500, 0), "1.50 s");
        assert_eq!(Progress::of_time("writing").tail(750, 1500), " 50%  750 ms of 1.50 s");
        assert_eq!(wait("closing", || 7), 7);
    }

    #[test]
    fn bars_never_vanish() {
        assert_eq!(bar(0.0, 10).chars().count(), 1);
        assert_eq!(bar(1.0, 10).chars().count(), 10);
    }
}
