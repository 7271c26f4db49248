//! Why a file's header or payload was refused.

/// Why bytes are not the file they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The input is shorter or longer than its own lengths say.
    #[error("wrong length")]
    Length,
    /// The first bytes are not this file type's.
    #[error("wrong magic bytes")]
    Magic,
    /// Intact, but of a format version that this code does not know.
    #[error("format version {0} is not supported")]
    Version(u32),
    /// The bytes changed after they were written.
    #[error("checksum mismatch")]
    Checksum,
    /// Intact, but a field holds a value that no writer produces.
    #[error("field `{0}` holds an impossible value")]
    Field(&'static str),
}
