//! Ctrl-C: commands look now and then whether they should stop, and tidy up.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::fault::{Fault, Outcome};

static STOP: AtomicBool = AtomicBool::new(false);

/// Begins to listen for Ctrl-C and the request to terminate. The second one ends the process at once.
pub(crate) fn listen() -> Outcome {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Fault::System {
        action: "listen for Ctrl-C".to_owned(),
        source: std::io::Error::other(error),
    })
}

/// Whether the command should stop.
pub(crate) fn is_asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Ends the command if it should stop.
pub(crate) fn check() -> Outcome {
    if is_asked() { Err(Fault::Interrupted) } else { Ok(()) }
}
