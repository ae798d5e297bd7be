//! Headers of tar archives, read as a guest's reader (astral-tokio-tar 0.6 `header.rs`) reads them.
//!
//! Formats: "ustar Interchange Format" and "pax Extended Header" of pax in POSIX.1-2017, "Basic Tar
//! Format" and "GNU Extensions to the Archive Format" of GNU tar's manual.

use std::collections::HashMap;
use std::ops::Range;

use super::refusal::{Found, refuse};

/// Bytes that each header has, and that an archive is a multiple of.
pub(super) const BLOCK: usize = 512;

const USTAR: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \x00";
const NUL_VERSION: &[u8] = b"ustar\x00\x00\x00";
const CHECKSUM: Range<usize> = 148..156;

/// A header, whose checksum is right. Its numbers are read when they are asked for.
pub(super) struct Header {
    block: [u8; BLOCK],
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Found<Self> {
        let Ok(checksum) = octal(&block[CHECKSUM]) else {
            return refuse("is no header of a tar archive");
        };
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        if checksum != sum(block) - sum(&block[CHECKSUM]) + 8 * u64::from(b' ') {
            return refuse("has a wrong checksum");
        }
        let header = Self { block: *block };
        if header.magic() == NUL_VERSION {
            return refuse("has a format that two readers understand differently");
        }
        Ok(header)
    }

    /// The type flag.
    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn is_ustar(&self) -> bool {
        self.magic() == USTAR
    }

    pub(super) fn is_gnu(&self) -> bool {
        self.magic() == GNU
    }

    /// What it has of the name itself, not in an extension before it; of two parts where it was too
    /// long for one.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = if self.is_ustar() { text(&self.block[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// A link's target, likewise.
    pub(super) fn target(&self) -> &[u8] {
        text(&self.block[157..257])
    }

    pub(super) fn uid(&self) -> Found<u64> {
        number(&self.block[108..116])
    }

    pub(super) fn gid(&self) -> Found<u64> {
        number(&self.block[116..124])
    }

    /// Bytes of content.
    pub(super) fn size(&self) -> Found<u64> {
        number(&self.block[124..136])
    }

    /// Seconds since 1970; what was negative is 2^63 or more.
    pub(super) fn mtime(&self) -> Found<u64> {
        number(&self.block[136..148])
    }

    /// Where the content of a sparse file belongs, as far as this header says.
    pub(super) fn sparse_map(&self) -> Found<SparseMap> {
        if !self.is_gnu() {
            return refuse("is a sparse file in another format than GNU's");
        }
        let size = self.size()?;
        let real_size = number(&self.block[483..495])?;
        let mut map = SparseMap { size, real_size, left: size, end: 0, goes_on: false };
        map.add(&self.block, 386..482)?;
        Ok(map)
    }

    fn magic(&self) -> &[u8] {
        &self.block[257..265]
    }
}

/// Where the content of a sparse file belongs; `goes_on` while another block of it follows.
pub(super) struct SparseMap {
    size: u64,
    real_size: u64,
    left: u64,
    end: u128,
    pub(super) goes_on: bool,
}

impl SparseMap {
    /// Takes a further block of the map.
    pub(super) fn extend(&mut self, block: &[u8; BLOCK]) -> Found<()> {
        self.add(block, 0..504)
    }

    /// Takes the places in a block: offset and length, of 12 bytes each.
    fn add(&mut self, block: &[u8; BLOCK], places: Range<usize>) -> Found<()> {
        self.goes_on = block[places.end] == 1;
        for place in block[places].chunks_exact(24) {
            let (offset, length) = place.split_at(12);
            if offset[0] == 0 && length[0] == 0 {
                continue;
            }
            let (offset, length) = (number(offset)?, number(length)?);
            let aligned = length == 0 || (self.size - self.left).is_multiple_of(BLOCK as u64);
            if !aligned || u128::from(offset) < self.end || length > self.left {
                return refuse(WRONG_MAP);
            }
            self.end = u128::from(offset) + u128::from(length);
            self.left -= length;
        }
        Ok(())
    }

    /// Fails unless the map, which ends here, covers the file.
    pub(super) fn finish(&self) -> Found<()> {
        if self.left != 0 || self.end != u128::from(self.real_size) {
            return refuse(WRONG_MAP);
        }
        Ok(())
    }
}

const WRONG_MAP: &str = "is a sparse file with a wrong map";

/// What a pax header says: the last value for each key.
#[derive(Default)]
pub(super) struct Pax(HashMap<Vec<u8>, Vec<u8>>);

impl Pax {
    /// Reads records (`length key=value\n`), of which no value is empty, and sizes and owners are
    /// decimal.
    pub(super) fn parse(mut content: &[u8]) -> Found<Self> {
        let mut records = HashMap::new();
        while !content.is_empty() {
            let Some((record, rest)) = first_record(content) else {
                return refuse("has a malformed pax header");
            };
            let Some(equals) = record.iter().position(|&byte| byte == b'=') else {
                return refuse("has a malformed pax header");
            };
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if value.is_empty() {
                return refuse("has an empty value in its pax header");
            }
            if [b"size", &b"uid"[..], b"gid"].contains(&key) && decimal(value).is_none() {
                return refuse("has a number in its pax header that is none");
            }
            records.insert(key.to_vec(), value.to_vec());
            content = rest;
        }
        Ok(Self(records))
    }

    pub(super) fn text(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }

    pub(super) fn number(&self, key: &[u8]) -> Option<u64> {
        decimal(self.text(key)?)
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.0.keys().any(|key| key.starts_with(b"GNU.sparse."))
    }
}

/// The first record without its length and its end, and what follows it.
fn first_record(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = content.iter().take(22).position(|&byte| byte == b' ')?;
    let digits = &content[..space];
    let length = decimal(digits.strip_prefix(b"+").unwrap_or(digits))?;
    let (record, rest) = content.split_at_checked(usize::try_from(length).ok()?)?;
    Some((record.strip_suffix(b"\n")?.get(space + 1..)?, rest))
}

/// A number of 1 to 20 digits and 64 bits.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// What stands before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Reads a number that is octal, or binary where the first bit is set.
fn number(field: &[u8]) -> Found<u64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let mut bytes: [u8; 8] = *field.last_chunk().expect("numbers have 8 or 12 bytes");
    if field.len() == bytes.len() {
        bytes[0] ^= 0x80; // in longer ones, the first bytes do not count
    }
    Ok(u64::from_be_bytes(bytes))
}

fn octal(field: &[u8]) -> Found<u64> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let digits = text(field);
    let start = digits.iter().position(|byte| !is_space(byte)).unwrap_or(digits.len());
    let end = digits.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    let digits = &digits[start..end];
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    if digits.is_empty() || !digits.iter().all(|byte| (b'0'..=b'7').contains(byte)) {
        return refuse("has a number in its header that is none");
    }
    Ok(digits.iter().fold(0, |sum, digit| sum << 3 | u64::from(digit - b'0')))
}
