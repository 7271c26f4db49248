//! Bytes as text and back.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use crate::fault::{Fault, Outcome};

/// How bytes stand on the command line and in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Form {
    /// Text as it is; all else, and the backslash, as `\n`, `\t`, `\\`, `\x00`
    #[default]
    Escaped,
    /// As they are
    Raw,
    /// Two hexadecimal digits a byte
    Hex,
}

impl Form {
    /// Refuses the form that JSON has no place for.
    pub(crate) fn for_json(self) -> Outcome {
        if self == Self::Raw {
            return Err(Fault::Usage("JSON holds text only: use --out escaped or hex".to_owned()));
        }
        Ok(())
    }

    /// Bytes for the output.
    pub(crate) fn show(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Raw => bytes.to_vec(),
            Self::Escaped => escape(bytes).into_bytes(),
            Self::Hex => hex(bytes).into_bytes(),
        }
    }

    /// Bytes for JSON, which holds text only.
    pub(crate) fn text(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex(bytes),
            Self::Raw | Self::Escaped => escape(bytes),
        }
    }

    /// Bytes from the command line.
    pub(crate) fn parse(self, text: &OsStr) -> Outcome<Vec<u8>> {
        let bytes = text.as_bytes();
        let parsed = match self {
            Self::Raw => Some(bytes.to_vec()),
            Self::Escaped => unescape(bytes),
            Self::Hex => unhex(bytes),
        };
        parsed.ok_or_else(|| {
            let shown = text.display();
            Fault::Usage(match self {
                Self::Hex => format!("'{shown}' is not pairs of hexadecimal digits"),
                _ => format!(
                    "'{shown}' has a backslash that is none of \\\\ \\n \\r \\t \\x00; \
                     write \\\\ for a backslash, or use --in raw"
                ),
            })
        })
    }
}

/// Printable text stays, everything else becomes an escape sequence.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                char if char.is_control() => {
                    push_hex(&mut out, char.encode_utf8(&mut [0; 4]).as_bytes(), "\\x");
                }
                char => out.push(char),
            }
        }
        push_hex(&mut out, chunk.invalid(), "\\x");
    }
    out
}

fn push_hex(out: &mut String, bytes: &[u8], before_each: &str) {
    for byte in bytes {
        write!(out, "{before_each}{byte:02x}").expect("writing to a string");
    }
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    push_hex(&mut out, bytes, "");
    out
}

/// Back from [`hex`].
pub(crate) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|pair| hex_byte(*pair)).collect()
}

fn hex_byte([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

/// Back from [`escape`].
pub(crate) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let (&kind, after) = rest.split_first()?;
        rest = after;
        out.push(match kind {
            b'\\' => b'\\',
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let (digits, after) = rest.split_first_chunk()?;
                rest = after;
                hex_byte(*digits)?
            }
            _ => return None,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_survive_each_form() {
        let all: Vec<u8> = (0..=255).chain(*b"\xf0\x9f\xa6\x80 \xc3\xa9 a\\x00b").collect();
        for form in [Form::Escaped, Form::Raw, Form::Hex] {
            let shown = form.show(&all);
            assert_eq!(form.parse(OsStr::from_bytes(&shown)).unwrap(), all, "{form:?}");
        }
        assert!(escape(&all).chars().all(|char| !char.is_control()));
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("user:é 🦀".as_bytes()), "user:é 🦀");
        assert_eq!(escape(b"a\\b\x00\xff\n"), "a\\\\b\\x00\\xff\\n");
        assert_eq!(hex(b"\x00\xff"), "00ff");
    }

    #[test]
    fn half_sequences_are_refused() {
        for text in ["\\", "\\x", "\\x0", "\\xg0", "\\q"] {
            assert!(Form::Escaped.parse(OsStr::new(text)).is_err(), "{text}");
        }
        for text in ["0", "0g", "zz"] {
            assert!(Form::Hex.parse(OsStr::new(text)).is_err(), "{text}");
        }
    }
}
