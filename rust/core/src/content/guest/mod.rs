//! What a guest makes of a layer's content, a tar archive: would it unpack it, and if not, why not.
//!
//! A guest unpacks with rules of its own, those of image-rs and its reader, astral-tokio-tar 0.6: it
//! reads on behind the end blocks, forgives no field that it reads, and gives up the image at the
//! first entry that it cannot write (tests/recordings/guest.json, "tar form", and guest-tar.json).
//! Its reader unpacks where it reads, and pulls from a stream where this one is pushed.

mod header;
mod refusal;
mod tree;

use std::borrow::Cow;

use header::{BLOCK, Header, Pax, SparseMap};
use refusal::{Found, refuse};
use tree::{Tree, parts_of};

/// Why a guest would refuse a layer's content. It names no file: names are part of what is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The entry's first block of 512 bytes; none where it is about the archive as a whole.
    pub block: Option<u64>,
    /// What is wrong with it: half a sentence.
    pub why: Cow<'static, str>,
}

/// How much of one layer is judged.
#[derive(Clone, Copy)]
struct Bounds {
    /// Entries; judging so many takes some seconds.
    entries: u64,
    /// Names of files; about 75 MB of memory, beside that of long names.
    names: usize,
    /// Bytes of names and of links' targets.
    bytes: usize,
    /// Parts of names and of links' targets that are followed; some seconds.
    steps: u64,
}

const BOUNDS: Bounds =
    Bounds { entries: 1_000_000, names: 500_000, bytes: 64 << 20, steps: 20_000_000 };

/// Bytes of one long name or pax header; Go's reader of archives takes no more either.
const MOST_RECORD: u64 = 1 << 20;

/// Bytes: Linux takes less than 4096 (`PATH_MAX`), and a guest puts a directory in front.
const LONGEST_NAME: usize = 4096 - 256;

/// Bytes between two slashes that file systems take (`NAME_MAX`).
const LONGEST_PART: usize = 255;

const GZIP_CHECKSUM: u8 = 2; // FHCRC, of a header's flags (RFC 1952, 2.3.1)
const WHITEOUT: &[u8] = b".wh."; // image-spec layer.md, "Whiteouts"
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Judges a layer's content that passes by in pieces, as a guest would that unpacks it.
///
/// Names are held in memory; content is not.
pub(super) struct GuestTar {
    fault: Option<Fault>,
    most_entries: u64,
    tree: Tree,
    said: Extensions,
    entries: u64,
    offset: u64,
    /// Of the last header.
    start: u64,
    /// Bytes of content and padding.
    skip: u128,
    held: Vec<u8>,
    wanted: usize,
    next: Next,
}

/// What takes the bytes that are held, once there are enough.
enum Next {
    Header,
    Extension { kind: Extension, size: usize },
    Sparse { header: Box<Header>, map: SparseMap },
}

impl Default for GuestTar {
    fn default() -> Self {
        Self::bounded(BOUNDS)
    }
}

impl GuestTar {
    fn bounded(bounds: Bounds) -> Self {
        Self {
            fault: None,
            most_entries: bounds.entries,
            tree: Tree::new(bounds.names, bounds.bytes, bounds.steps),
            said: Extensions::default(),
            entries: 0,
            offset: 0,
            start: 0,
            skip: 0,
            held: Vec::new(),
            wanted: BLOCK,
            next: Next::Header,
        }
    }

    /// Takes the next piece of the content.
    pub(super) fn update(&mut self, data: &[u8]) {
        if self.fault.is_none()
            && let Err(why) = self.take(data)
        {
            self.fault = Some(Fault { block: Some(self.start / BLOCK as u64), why });
        }
    }

    /// Ends the layer; `gzip_flags` are those of all its gzip headers, 0 if it has none.
    pub(super) fn finish(self, gzip_flags: u8) -> Option<Fault> {
        if self.fault.is_some() {
            return self.fault;
        }
        self.check_end(gzip_flags).err().map(|why| Fault { block: None, why })
    }

    fn check_end(&self, gzip_flags: u8) -> Found<()> {
        if gzip_flags & GZIP_CHECKSUM != 0 {
            return refuse("has a gzip header with a checksum (FHCRC)");
        }
        if self.skip > 0 || !self.held.is_empty() || !matches!(self.next, Next::Header) {
            return refuse("ends early");
        }
        self.said.check_none()?;
        self.tree.finish()
    }

    fn take(&mut self, mut data: &[u8]) -> Found<()> {
        while !data.is_empty() {
            let count = if self.skip > 0 {
                let count = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
                self.skip -= count as u128;
                count
            } else {
                let count = (self.wanted - self.held.len()).min(data.len());
                self.held.extend_from_slice(&data[..count]);
                count
            };
            self.offset += count as u64;
            data = &data[count..];
            if self.held.len() == self.wanted {
                let held = std::mem::take(&mut self.held);
                self.wanted = BLOCK;
                self.take_held(&held)?;
                self.held = held;
                self.held.clear();
                self.held.shrink_to(BLOCK);
            }
        }
        Ok(())
    }

    fn take_held(&mut self, held: &[u8]) -> Found<()> {
        let block = held.first_chunk().expect("no less than a block is wanted");
        match std::mem::replace(&mut self.next, Next::Header) {
            Next::Header => self.header(block),
            Next::Extension { kind, size } => self.said.take(kind, &held[..size]),
            Next::Sparse { header, mut map } => {
                map.extend(block)?;
                self.sparse(header, map)
            }
        }
    }

    fn header(&mut self, block: &[u8; BLOCK]) -> Found<()> {
        if block == &[0; BLOCK] {
            return self.said.check_none();
        }
        self.start = self.offset - BLOCK as u64;
        self.entries += 1;
        if self.entries > self.most_entries {
            let most = self.most_entries;
            return refuse(format!("is the one too many: no more than {most} are judged"));
        }
        let header = Header::parse(block)?;
        if let Some(kind) = Extension::of(&header)? {
            self.extension(kind, header.size()?)
        } else if header.kind() == b'S' {
            let map = header.sparse_map()?;
            self.sparse(Box::new(header), map)
        } else {
            self.entry(&header)
        }
    }

    fn extension(&mut self, kind: Extension, size: u64) -> Found<()> {
        if size > MOST_RECORD {
            return refuse(format!(
                "is a name or pax header of {size} bytes: {MOST_RECORD} are read"
            ));
        }
        let size = usize::try_from(size).expect("it was bounded");
        if size == 0 {
            return self.said.take(kind, b"");
        }
        self.wanted = size.next_multiple_of(BLOCK);
        self.next = Next::Extension { kind, size };
        Ok(())
    }

    fn sparse(&mut self, header: Box<Header>, map: SparseMap) -> Found<()> {
        if map.goes_on {
            self.next = Next::Sparse { header, map };
            return Ok(());
        }
        map.finish()?;
        self.entry(&header)
    }

    fn entry(&mut self, header: &Header) -> Found<()> {
        let Extensions { name, target, pax } = std::mem::take(&mut self.said);
        let pax = pax.unwrap_or_default();
        let size = header.size()?;
        if header.kind() == b'g' {
            self.skip = padded(size); // it describes others
        } else {
            self.skip = padded(pax.number(b"size").unwrap_or(size));
            if pax.is_sparse() {
                return refuse("is a sparse file in pax form, whose holes guests do not make");
            }
        }
        let (uid, gid) = (header.uid()?, header.gid()?);
        let owners = [pax.number(b"uid").unwrap_or(uid), pax.number(b"gid").unwrap_or(gid)];
        if owners.iter().any(|&owner| owner > u64::from(u32::MAX)) {
            return refuse("has an owner that is no number of 32 bits");
        }
        let name = name.or_else(|| pax.text(b"path").map(<[u8]>::to_vec));
        let target = target.or_else(|| pax.text(b"linkpath").map(<[u8]>::to_vec));
        self.unpack(
            header,
            &name.unwrap_or_else(|| header.name()),
            &target.unwrap_or_else(|| header.target().to_vec()),
        )
    }

    fn unpack(&mut self, header: &Header, name: &[u8], target: &[u8]) -> Found<()> {
        let mtime = header.mtime()?;
        let parts = name_parts(name)?;
        let Some(&last) = parts.last() else { return Ok(()) }; // the layer's own directory
        let (kind, tree) = (Kind::of(header, name)?, &mut self.tree);
        if last == OPAQUE {
            return tree.make_opaque(&parts);
        }
        if let Some(hidden) = last.strip_prefix(WHITEOUT) {
            return tree.add_whiteout(&parts, hidden);
        }
        match kind {
            Kind::Directory => tree.add_directory(&parts),
            Kind::HardLink => tree.add_hard_link(&parts, checked_target(target)?),
            Kind::GlobalHeader => tree.find(&parts), // a guest takes it for a file that is there
            _ if mtime >= 1 << 63 => refuse("has a time that is out of range"),
            Kind::SymbolicLink => tree.add_symbolic_link(&parts, checked_target(target)?),
            Kind::File => tree.add_file(&parts),
        }
    }
}

/// What a guest takes an entry for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Directory,
    GlobalHeader,
}

impl Kind {
    /// In old formats a last slash makes a directory.
    fn of(header: &Header, name: &[u8]) -> Found<Self> {
        let kind = match header.kind() {
            b'1' => Self::HardLink,
            b'2' => Self::SymbolicLink,
            b'5' => Self::Directory,
            b'g' => Self::GlobalHeader,
            _ => Self::File,
        };
        let slash = name.ends_with(b"/");
        if kind == Self::Directory || !(slash || name.ends_with(b"/.")) {
            return Ok(kind);
        }
        if kind == Self::File && !header.is_ustar() && slash {
            return Ok(Self::Directory);
        }
        refuse("is no directory, but its name ends as one's")
    }
}

/// A header that says something of the entry behind it.
#[derive(Clone, Copy)]
enum Extension {
    /// GNU's long name.
    Name,
    /// GNU's long target of a link.
    Target,
    Pax,
}

impl Extension {
    /// None for the header of an entry.
    fn of(header: &Header) -> Found<Option<Self>> {
        let (ustar, gnu) = (header.is_ustar(), header.is_gnu());
        let (kind, fits) = match header.kind() {
            b'L' => (Self::Name, ustar || gnu),
            b'K' => (Self::Target, ustar || gnu),
            b'x' => (Self::Pax, ustar),
            b'X' if ustar => (Self::Pax, true), // Solaris
            _ => return Ok(None),
        };
        if fits { Ok(Some(kind)) } else { refuse("is an extension in a header of another format") }
    }
}

/// What the headers before an entry say of it.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Extensions {
    /// Fails where an entry has yet to come.
    fn check_none(&self) -> Found<()> {
        if self.name.is_some() || self.target.is_some() || self.pax.is_some() {
            return refuse("announces an entry that does not come");
        }
        Ok(())
    }

    fn take(&mut self, kind: Extension, content: &[u8]) -> Found<()> {
        let text = || content.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            Extension::Name if self.name.is_some() => return refuse("has two names"),
            Extension::Target if self.target.is_some() => return refuse("has two targets"),
            Extension::Pax if self.pax.is_some() => return refuse("has two pax headers"),
            Extension::Name => self.name = Some(text()),
            Extension::Target => self.target = Some(text()),
            Extension::Pax => self.pax = Some(Pax::parse(content)?),
        }
        let in_pax = |key: &[u8]| self.pax.as_ref().is_some_and(|pax| pax.text(key).is_some());
        if self.name.is_some() && in_pax(b"path") {
            return refuse("has two names");
        }
        if self.target.is_some() && in_pax(b"linkpath") {
            return refuse("has two targets");
        }
        Ok(())
    }
}

/// The parts of an entry's name, none for the layer's own directory.
fn name_parts(name: &[u8]) -> Found<Vec<&[u8]>> {
    let parts = parts_of(name);
    if name.starts_with(b"/") {
        return refuse("has an absolute name");
    }
    if parts.contains(&&b".."[..]) {
        return refuse("has '..' in its name");
    }
    let too_long = |part: &&[u8]| part.len() > LONGEST_PART;
    if name.contains(&0) || name.len() > LONGEST_NAME || parts.iter().any(too_long) {
        return refuse("has a name that no file can have");
    }
    if str::from_utf8(parts.last().unwrap_or(&&b""[..])).is_err() {
        return refuse("has a name that is not UTF-8");
    }
    Ok(parts)
}

fn checked_target(target: &[u8]) -> Found<&[u8]> {
    if target.is_empty() || target.contains(&0) || target.len() > LONGEST_NAME {
        return refuse("is a link to what no file can be called");
    }
    Ok(target)
}

fn padded(size: u64) -> u128 {
    u128::from(size).next_multiple_of(BLOCK as u128)
}

#[cfg(test)]
mod tests;
