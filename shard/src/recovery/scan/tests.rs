//! Reading a file that a living writer cuts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::storage::Map;

/// A file that a living writer cuts when it is read for the first time, or that cannot be read.
#[derive(Debug)]
struct Cut {
    len: AtomicU64,
    read_fault: Option<io::ErrorKind>,
}

impl File for Cut {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Relaxed))
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(kind) = self.read_fault {
            return Err(kind.into());
        }
        let len = self.len.swap(100, Ordering::Relaxed).min(100);
        if offset + out.len() as u64 > len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(7);
        Ok(())
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn sync_all(&self) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn map(&self, _len: u64, _mode: MapMode) -> io::Result<Map> {
        unreachable!("it is only read")
    }
}

#[test]
fn a_file_that_is_cut_meanwhile_is_read_to_its_new_end() {
    let file = |read_fault| Cut { len: 500.into(), read_fault };
    assert_eq!(read_what_is_there(&file(None), 300).unwrap(), [7; 100]);
    assert_eq!(read_what_is_there(&file(None), 80).unwrap(), [7; 80]);
    let kind = io::ErrorKind::Other;
    assert_eq!(read_what_is_there(&file(Some(kind)), 300).unwrap_err().kind(), kind);
}
