//! What ends a command early: the message, the advice and the exit code.

use std::io;
use std::path::Path;

use caskade::Error;
use caskade_codec::names;

/// What a command answers.
pub(crate) type Outcome<T = ()> = Result<T, Fault>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The store's own error.
    Store(Error),
    /// The key is not there, or is there where it should not be. The command has said so.
    KeyMissing,
    /// What was asked for makes no sense.
    Usage(String),
    /// Data is damaged; the command has listed where.
    Damaged(String),
    /// The system refused something outside the store.
    System { action: String, source: io::Error },
    /// The system refused the output.
    Stdout(io::Error),
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads stdout any more, as with `caskade scan … | head`.
    PipeClosed,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if matches!(error, Error::Stopped) { Self::Interrupted } else { Self::Store(error) }
    }
}

/// Errors without a context come from writing to stdout.
impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::Stdout(source)
        }
    }
}

impl Fault {
    /// A refusal of the system, while doing `action` to `path`.
    pub(crate) fn system(action: &str, path: &Path, source: io::Error) -> Self {
        Self::System { action: format!("{action} {}", path.display()), source }
    }

    fn code(&self) -> u8 {
        match self {
            Self::PipeClosed => 0,
            Self::KeyMissing => 1,
            Self::Usage(_) => 2,
            Self::Damaged(_) => 3,
            Self::System { .. } | Self::Stdout(_) => 5,
            Self::Interrupted => 130,
            Self::Store(error) => code_of(error),
        }
    }

    /// Says what happened on stderr, and answers the exit code.
    pub(crate) fn tell(&self) -> u8 {
        let message = match self {
            Self::PipeClosed | Self::KeyMissing => return self.code(),
            Self::Usage(message) | Self::Damaged(message) => message.clone(),
            Self::System { action, source } => format!("{action}: {source}"),
            Self::Stdout(source) => format!("write to stdout: {source}"),
            Self::Interrupted => "interrupted".to_owned(),
            Self::Store(error) => error.to_string(),
        };
        match self {
            Self::Store(error) if let Some(advice) = advice(error) => {
                note!("{message}\n  {advice}");
            }
            _ => note!("{message}"),
        }
        self.code()
    }
}

fn code_of(error: &Error) -> u8 {
    match error {
        Error::Corrupt { .. } | Error::Damaged { .. } | Error::MissingSegment { .. } => 3,
        Error::Locked { .. } => 4,
        Error::NotAStore { .. }
        | Error::UnknownFormat { .. }
        | Error::ShardCount { .. }
        | Error::KeyTooLarge { .. }
        | Error::ValueTooLarge { .. }
        | Error::BatchTooLarge { .. }
        | Error::InvalidOption { .. }
        | Error::NotACounter { .. }
        | Error::Compression { .. } => 2,
        _ => 5,
    }
}

/// What to do about it, where that is not plain.
fn advice(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Corrupt { .. } => {
            "`caskade repair` lists what is lost, and saves the rest elsewhere."
        }
        Error::Damaged { path, .. } if !path.ends_with(names::MANIFEST) => {
            "It cannot be read so. Go back to a backup with `caskade restore`."
        }
        Error::Damaged { .. } | Error::MissingSegment { .. } => {
            "Go back to a backup with `caskade restore`, or see what `caskade repair` can save."
        }
        Error::Locked { .. } => {
            "Stop that process, or only read: get, scan, count, stats, verify and export need no lock."
        }
        Error::NotAStore { .. } => {
            "Is the path right? `put --create` and `import --create` make a new store."
        }
        Error::UnknownFormat { .. } => "A newer version of caskade wrote it; use that one.",
        Error::NoSpace { .. } => {
            "What was refused left nothing half-written. Make space, and try again."
        }
        Error::NeedsRecovery { .. } => {
            "`caskade repair --in-place` does that. (Reading commands never write to a store.)"
        }
        Error::Poisoned { .. } | Error::Indeterminate { .. } => {
            "The disk reported a failure; look at the system's log before you go on."
        }
        _ => return None,
    })
}
