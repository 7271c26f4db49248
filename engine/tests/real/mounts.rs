//! File systems of a test's own. They need root, and a kernel that has them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::ioctl::{Setter, ioctl, opcode};

use crate::say;

/// A mounted file system, unmounted when the test is done with it.
pub(crate) struct Mount {
    point: tempfile::TempDir,
    /// What `mount` gets to see, without the mount point.
    source: Vec<String>,
}

impl Mount {
    pub(crate) fn tmpfs(options: &str) -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// A fresh ext4 on a loop device over a file.
    pub(crate) fn ext4(image: &Path, bytes: u64, options: &str) -> Option<Self> {
        File::create(image).and_then(|file| file.set_len(bytes)).expect("makes an image");
        let image = image.to_str().expect("a path in UTF-8");
        if let Err(text) = run("mkfs.ext4", &["-q", "-F", image]) {
            return skip(&text);
        }
        Self::new(&["-t", "ext4", "-o", &format!("loop,{options}"), image])
    }

    /// A fresh btrfs on a loop device over a file.
    pub(crate) fn btrfs(image: &Path, bytes: u64) -> Option<Self> {
        File::create(image).and_then(|file| file.set_len(bytes)).expect("makes an image");
        let image = image.to_str().expect("a path in UTF-8");
        if let Err(text) = run("mkfs.btrfs", &["-q", "-f", image]) {
            return skip(&text);
        }
        Self::new(&["-t", "btrfs", "-o", "loop", image])
    }

    fn new(source: &[&str]) -> Option<Self> {
        let mount = Self {
            point: tempfile::tempdir().expect("a directory"),
            source: source.iter().map(|&word| word.to_owned()).collect(),
        };
        match mount.mount() {
            Ok(()) => Some(mount),
            Err(text) => skip(&text),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }

    /// Where a store goes.
    pub(crate) fn home(&self) -> PathBuf {
        self.path().join("db")
    }

    fn mount(&self) -> Result<(), String> {
        let point = self.path().to_str().expect("a path in UTF-8");
        let words: Vec<&str> = self.source.iter().map(String::as_str).chain([point]).collect();
        run("mount", &words)
    }

    /// Unmounts and mounts again: what was only in the kernel's memory is gone.
    pub(crate) fn turn_off_and_on(&self) {
        self.unmount();
        self.mount().expect("mounts again");
    }

    /// Whether `e2fsck` finds nothing wrong with the ext4 of this image, which was mounted since it
    /// was last written to. It is unmounted for that.
    pub(crate) fn is_sound(&self) -> bool {
        self.unmount();
        let image = self.source.last().expect("it has a source");
        let answer = run("e2fsck", &["-f", "-n", image]);
        self.mount().expect("mounts again");
        answer.is_ok()
    }

    fn unmount(&self) {
        let point = self.path().to_str().expect("a path in UTF-8");
        // A process that another test starts just now has this one's open files for a moment.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(text) = run("umount", &[point]) {
            assert!(Instant::now() < deadline, "{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything goes to the device, and what was removed can be used again.
    pub(crate) fn sync(&self) {
        let point = self.path().to_str().expect("a path in UTF-8");
        run("sync", &["-f", point]).expect("syncs");
    }

    /// More space for a tmpfs.
    pub(crate) fn resize(&self, options: &str) {
        let point = self.path().to_str().expect("a path in UTF-8");
        run("mount", &["-o", &format!("remount,{options}"), point]).expect("remounts");
    }

    /// From now on nothing reaches the device, not even the file system's own journal.
    pub(crate) fn cut_power(&self) {
        /// `EXT4_IOC_SHUTDOWN`, and its argument for leaving the journal as it is.
        const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
        const WITHOUT_FLUSH: u32 = 2;
        let root = File::open(self.path()).expect("opens the mount point");
        // SAFETY: the call reads one u32 behind its pointer, which is what `Setter` passes, and
        // keeps none of it.
        let result = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH)) };
        result.expect("shuts the file system down");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let point = self.path().to_str().expect("a path in UTF-8");
        if run("umount", &[point]).is_err() {
            // Somebody still has a file open there.
            let _ = run("umount", &["-l", point]);
        }
    }
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", words.join(" "), text.trim()))
}

fn skip(text: &str) -> Option<Mount> {
    say(&format!("SKIPPED: a test needs a file system of its own: {text}"));
    None
}
