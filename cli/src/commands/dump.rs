//! The two dump formats: JSON lines, and what LMDB's `mdb_dump` writes and `mdb_load` reads.

use std::io::{BufRead, Write};

use caskade::Entry;
use serde_json::{Map, Value, json};

use crate::escape::{self, Form};
use crate::fault::{Fault, Outcome};

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) expires_at_unix_ms: Option<u64>,
}

/// Writes an entry as a JSON object on a line. The names of hexadecimal fields say so.
pub(super) fn write_json(out: &mut impl Write, entry: &Entry, form: Form) -> Outcome {
    let mut object = json!({});
    set_bytes(&mut object, "key", &entry.key, form);
    set_bytes(&mut object, "value", &entry.value, form);
    if let Some(expiry) = entry.value.expires_at_unix_ms() {
        object["expires_at_unix_ms"] = expiry.into();
    }
    writeln!(out, "{object}")?;
    Ok(())
}

/// Sets a field of a JSON object. Its name says so if it is hexadecimal.
pub(super) fn set_bytes(object: &mut Value, name: &str, bytes: &[u8], form: Form) {
    let name = if form == Form::Hex { format!("{name}_hex") } else { name.to_owned() };
    object[name] = form.text(bytes).into();
}

/// What LMDB wants before the data. Its map never grows by itself, so that its size has to be
/// enough for `bytes` of records.
pub(super) fn write_lmdb_head(out: &mut impl Write, keys: u64, bytes: u64) -> Outcome {
    // Pages are half full at worst, and large values are rounded up to pages of their own.
    let map_bytes = (bytes * 3 + keys * 128 + (64 << 20)).next_multiple_of(1 << 20);
    write!(
        out,
        "VERSION=3\nformat=bytevalue\ntype=btree\nmapsize={map_bytes}\nmaxreaders=126\n\
         HEADER=END\n"
    )?;
    Ok(())
}

/// A key on a line, its value on the next.
pub(super) fn write_lmdb(out: &mut impl Write, entry: &Entry) -> Outcome {
    writeln!(out, " {}\n {}", escape::hex(&entry.key), escape::hex(&entry.value))?;
    Ok(())
}

pub(super) fn write_lmdb_end(out: &mut impl Write) -> Outcome {
    writeln!(out, "DATA=END")?;
    Ok(())
}

/// Reads a dump of either kind.
pub(super) struct Reader<R> {
    input: R,
    /// What it is called in messages.
    name: String,
    kind: Kind,
    line: Vec<u8>,
    line_number: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    /// Bytes as two digits each, or as text with escapes.
    Lmdb {
        is_print: bool,
    },
    /// Behind the data.
    Ended,
}

impl<R: BufRead> Reader<R> {
    /// Sees by the first bytes what it is.
    pub(super) fn new(mut input: R, name: String) -> Outcome<Self> {
        let first = input.fill_buf().map_err(|fault| unreadable(&name, fault))?.first().copied();
        let kind = match first {
            Some(b'V') => Kind::Lmdb { is_print: false },
            Some(b'{' | b'\n' | b' ') => Kind::Json,
            None => Kind::Ended,
            Some(_) => {
                return Err(Fault::Usage(format!(
                    "{name} is neither JSON lines, which begin with '{{', nor a dump of LMDB, which \
                     begins with 'VERSION='"
                )));
            }
        };
        let mut reader = Self { input, name, kind, line: Vec::new(), line_number: 0, bytes: 0 };
        if kind != Kind::Json && first.is_some() {
            reader.head()?;
        }
        Ok(reader)
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next pair.
    pub(super) fn next_pair(&mut self) -> Outcome<Option<Pair>> {
        match self.kind {
            Kind::Json => self.json(),
            Kind::Lmdb { is_print } => self.lmdb(is_print),
            Kind::Ended => Ok(None),
        }
    }

    /// Says where it went wrong.
    fn wrong(&self, what: &str) -> Fault {
        Fault::Usage(format!("line {} of {}: {what}", self.line_number, self.name))
    }

    /// Reads a line without its end. False where there is none.
    fn read_line(&mut self) -> Outcome<bool> {
        self.line.clear();
        let len = self.input.read_until(b'\n', &mut self.line);
        let len = len.map_err(|fault| unreadable(&self.name, fault))?;
        self.bytes += len as u64;
        self.line_number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        Ok(len > 0)
    }

    fn head(&mut self) -> Outcome {
        let mut is_print = false;
        loop {
            if !self.read_line()? {
                return Err(self.wrong("the dump ends before HEADER=END"));
            }
            match self.line.as_slice() {
                b"HEADER=END" => break,
                b"format=print" => is_print = true,
                b"duplicates=1" | b"dupsort=1" => {
                    return Err(self.wrong(
                        "the database has several values for a key; Caskade keeps one value for a key",
                    ));
                }
                b"VERSION=3" => {}
                line if line.starts_with(b"VERSION=") => {
                    return Err(self.wrong("only VERSION=3 of the dump format is known"));
                }
                line if line.contains(&b'=') => {}
                _ => return Err(self.wrong("this is no line of a dump's head")),
            }
        }
        self.kind = Kind::Lmdb { is_print };
        Ok(())
    }

    fn lmdb(&mut self, is_print: bool) -> Outcome<Option<Pair>> {
        if !self.read_line()? {
            return Err(self.wrong("the dump ends before DATA=END; it is not whole"));
        }
        if self.line == b"DATA=END" {
            self.kind = Kind::Ended;
            while self.read_line()? {
                if !self.line.is_empty() {
                    return Err(self.wrong(
                        "a second database begins; dump one at a time with mdb_dump -s NAME",
                    ));
                }
            }
            return Ok(None);
        }
        let key = self.lmdb_bytes(is_print)?;
        if !self.read_line()? {
            return Err(self.wrong("a key without a value"));
        }
        let value = self.lmdb_bytes(is_print)?;
        Ok(Some(Pair { key, value, expires_at_unix_ms: None }))
    }

    fn lmdb_bytes(&self, is_print: bool) -> Outcome<Vec<u8>> {
        let text = self
            .line
            .strip_prefix(b" ")
            .ok_or_else(|| self.wrong("a line of data begins with a space"))?;
        if is_print {
            let what = "a backslash that begins no escape: some versions of mdb_dump do not escape it \
                        with -p; dump without -p";
            return unprint(text).ok_or_else(|| self.wrong(what));
        }
        escape::unhex(text).ok_or_else(|| self.wrong("not pairs of hexadecimal digits"))
    }

    fn json(&mut self) -> Outcome<Option<Pair>> {
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let parsed = serde_json::from_slice::<Map<String, Value>>(&self.line);
            let object =
                // Each line is parsed on its own, so that its number there is always 1.
                parsed.map_err(|error| {
                    let what = error.to_string().replace(" at line 1 column ", " at column ");
                    self.wrong(&format!("not a JSON object: {what}"))
                })?;
            // The last line of a scan that has more to come.
            if object.contains_key("next_cursor") {
                continue;
            }
            let key = self.field(&object, "key", "key_hex")?;
            let value = self.field(&object, "value", "value_hex")?;
            let expires_at_unix_ms = match object.get("expires_at_unix_ms") {
                None | Some(Value::Null) => None,
                Some(at) => Some(at.as_u64().ok_or_else(|| {
                    self.wrong("\"expires_at_unix_ms\" is a number of milliseconds since 1970")
                })?),
            };
            return Ok(Some(Pair { key, value, expires_at_unix_ms }));
        }
    }

    fn field(&self, object: &Map<String, Value>, escaped: &str, hex: &str) -> Outcome<Vec<u8>> {
        let text = |name| object.get(name).and_then(Value::as_str);
        let bytes = match (text(escaped), text(hex)) {
            (Some(text), None) => escape::unescape(text.as_bytes()),
            (None, Some(text)) => escape::unhex(text.as_bytes()),
            _ => {
                return Err(
                    self.wrong(&format!("one of \"{escaped}\" and \"{hex}\" must be a string"))
                );
            }
        };
        bytes.ok_or_else(|| {
            self.wrong(&format!(
                "\"{escaped}\" has a backslash that is none of \\\\ \\n \\r \\t \\x00 (doubled in JSON), \
                 or \"{hex}\" is not pairs of hexadecimal digits"
            ))
        })
    }
}

fn unreadable(name: &str, source: std::io::Error) -> Fault {
    Fault::System { action: format!("read {name}"), source }
}

/// The text form of LMDB: `\\` and two digits behind a backslash.
fn unprint(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = after;
        } else {
            let (digits, after) = rest.split_at_checked(2)?;
            out.extend(escape::unhex(digits)?);
            rest = after;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<Vec<Pair>> {
        let mut reader = Reader::new(text.as_bytes(), "the input".to_owned())?;
        let mut pairs = Vec::new();
        while let Some(pair) = reader.next_pair()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }

    #[track_caller]
    fn refuses(text: &str, why: &str) {
        let Err(Fault::Usage(message)) = read(text) else { panic!("it is read: {text}") };
        assert!(message.contains(why), "{message}");
    }

    #[test]
    fn lmdb_is_read_in_both_formats() {
        let pair = |key: &[u8], value: &[u8]| Pair {
            key: key.to_vec(),
            value: value.to_vec(),
            expires_at_unix_ms: None,
        };
        let hex =
            "VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\n 6b00\n 76\n 6c\n \nDATA=END\n";
        assert_eq!(read(hex).unwrap(), [pair(b"k\0", b"v"), pair(b"l", b"")]);
        let print = "VERSION=3\nformat=print\nHEADER=END\n k\\00\\\\a\n v \\ff\nDATA=END\n";
        assert_eq!(read(print).unwrap(), [pair(b"k\0\\a", b"v \xff")]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        refuses("hello", "neither");
        refuses("VERSION=2\n", "line 1 of the input: only VERSION=3");
        refuses("VERSION=3\nduplicates=1\nHEADER=END\n", "several values");
        refuses("VERSION=3\nHEADER=END\n 6b\n", "line 4 of the input: a key without a value");
        refuses("VERSION=3\nHEADER=END\n 6b\n 7\n", "line 4 of the input: not pairs");
        refuses("VERSION=3\nformat=print\nHEADER=END\n a\\slash\n", "dump without -p");
        refuses("VERSION=3\nHEADER=END\n 6b\n 76\n", "line 5 of the input: the dump ends");
        refuses("VERSION=3\nHEADER=END\nDATA=END\nVERSION=3\n", "one at a time");
        refuses("{\"key\":\"a\",\"value\":\"b\"}\n{\n", "line 2 of the input: not a JSON object");
        refuses("{\"key\":\"a\"}\n", "\"value\" and \"value_hex\"");
        refuses("{\"key\":\"a\\\\q\",\"value\":\"\"}\n", "backslash");
        refuses("{\"key\":\"a\",\"value\":\"\",\"expires_at_unix_ms\":\"x\"}\n", "milliseconds");
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("\n\n").unwrap(), []);
    }
}
