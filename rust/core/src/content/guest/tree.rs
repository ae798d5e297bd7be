//! The names that a layer's entries leave behind in a guest, which unpacks each layer on its own.
//!
//! A guest writes an entry where the entries before it let it: not below a file, not over a
//! directory, and through a symbolic link only where that leads to a directory of the same layer.
//! The order counts (image-rs `unpack.rs` and astral-tokio-tar 0.6 `entry.rs`;
//! tests/recordings/guest-tar.json).

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use super::refusal::{Found, refuse};

/// Links on the way to one name, as Linux follows them (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A directory, by its place in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Directory(u32);

#[derive(Clone, PartialEq, Eq)]
enum Node {
    Directory(Directory),
    /// Of any kind.
    File,
    /// What a whiteout left: nothing can be found there.
    Hidden,
    /// A symbolic link, with its target, which hard links to it share.
    Link(Arc<[u8]>),
}

/// A layer's files by name. Names come as [`parts_of`] has them, without `..`.
pub(super) struct Tree {
    /// By [`key`]: one table takes half the memory of one for each directory.
    nodes: HashMap<Box<[u8]>, Node>,
    directories: u32,
    steps: Cell<u64>,
    /// Of names and links' targets that were put in so far.
    bytes: usize,
    most_names: usize,
    most_bytes: usize,
    most_steps: u64,
    directory_behind_link: bool,
    link_replaced: bool,
}

impl Tree {
    const ROOT: Directory = Directory(0);

    pub(super) fn new(most_names: usize, most_bytes: usize, most_steps: u64) -> Self {
        Self {
            nodes: HashMap::new(),
            directories: 1,
            steps: Cell::new(0),
            bytes: 0,
            most_names,
            most_bytes,
            most_steps,
            directory_behind_link: false,
            link_replaced: false,
        }
    }

    /// Makes a directory, or keeps one that is there.
    pub(super) fn add_directory(&mut self, parts: &[&[u8]]) -> Found<()> {
        let (walk, name) = self.parent(parts, false)?;
        let (directory, links) = (walk.directory(), walk.links);
        match self.get(directory, name) {
            None => self.make_directory(directory, name)?,
            Some(Node::Directory(_)) => {}
            Some(_) => return refuse("is a directory where a file or link stands already"),
        }
        self.directory_behind_link |= links > 0;
        Ok(())
    }

    /// Makes a file of any kind, which takes the place of another.
    pub(super) fn add_file(&mut self, parts: &[&[u8]]) -> Found<()> {
        self.replace(parts, Node::File)
    }

    /// Makes a link to a target that need not be there.
    pub(super) fn add_symbolic_link(&mut self, parts: &[&[u8]], target: &[u8]) -> Found<()> {
        self.bytes += target.len();
        self.replace(parts, Node::Link(target.into()))
    }

    /// Makes another name of a file that is there: below the layer, if `target` is absolute.
    pub(super) fn add_hard_link(&mut self, parts: &[&[u8]], target: &[u8]) -> Found<()> {
        let (walk, name) = self.parent(parts, false)?;
        let directory = walk.directory();
        let mut way: Vec<_> = way(target).collect();
        let last = way.pop().unwrap_or_default();
        let mut walk = Walk::new(target.starts_with(b"/"));
        walk.enter(self, &way)?;
        // A link is not followed, but must lead to something.
        let found = self.get(walk.directory(), last).cloned();
        let found = match (walk.follow(self, &[last])?, found) {
            (true, None | Some(Node::Directory(_))) => {
                return refuse("is a hard link to a directory");
            }
            (_, found) => found.unwrap_or(Node::File),
        };
        if self.get(directory, name).is_some() {
            return refuse("is a hard link whose name is taken");
        }
        self.put(directory, name, found)?;
        self.find(parts)
    }

    /// Hides the file `hidden` of the layers below, beside the entry that says so.
    pub(super) fn add_whiteout(&mut self, parts: &[&[u8]], hidden: &[u8]) -> Found<()> {
        let (walk, _) = self.parent(parts, true)?;
        let directory = walk.directory();
        if [b"", &b"."[..], b".."].contains(&hidden) {
            return refuse("is a whiteout of nothing");
        }
        if self.get(directory, hidden).is_some() {
            return refuse("is a whiteout of what the layer itself has");
        }
        self.put(directory, hidden, Node::Hidden)
    }

    /// Hides all of the directory that the entry says so in that is in the layers below.
    pub(super) fn make_opaque(&self, parts: &[&[u8]]) -> Found<()> {
        match parts.split_last() {
            Some((_, directory)) if !directory.is_empty() => {
                Walk::new(true).follow(self, directory).map(drop)
            }
            _ => refuse("makes the whole layer opaque"),
        }
    }

    /// Follows a name to the file that it leads to.
    pub(super) fn find(&self, parts: &[&[u8]]) -> Found<()> {
        Walk::new(false).follow(self, parts).map(drop)
    }

    /// Ends the layer: a guest sets the times of directories last, by their names.
    pub(super) fn finish(&self) -> Found<()> {
        if self.directory_behind_link && self.link_replaced {
            return refuse("has a directory behind a link, and a link that was replaced");
        }
        Ok(())
    }

    /// Walks to the directory that has the name, making what is missing of it.
    fn parent<'a>(&mut self, parts: &[&'a [u8]], rooted: bool) -> Found<(Walk, &'a [u8])> {
        let mut walk = Walk::new(rooted);
        let Some((name, way)) = parts.split_last() else { return refuse("has no name") };
        for part in way {
            if self.get(walk.directory(), part).is_none() {
                self.make_directory(walk.directory(), part)?;
            }
            walk.enter(self, &[part])?;
        }
        Ok((walk, name))
    }

    fn replace(&mut self, parts: &[&[u8]], node: Node) -> Found<()> {
        let (walk, name) = self.parent(parts, false)?;
        match self.get(walk.directory(), name) {
            Some(Node::Directory(_)) => {
                return refuse("is a file or link where a directory stands already");
            }
            Some(link @ Node::Link(_)) if *link != node => self.link_replaced = true,
            _ => {}
        }
        self.put(walk.directory(), name, node)
    }

    fn get(&self, directory: Directory, name: &[u8]) -> Option<&Node> {
        self.nodes.get(&key(directory, name)[..])
    }

    fn make_directory(&mut self, directory: Directory, name: &[u8]) -> Found<()> {
        self.put(directory, name, Node::Directory(Directory(self.directories)))?;
        self.directories += 1;
        Ok(())
    }

    fn put(&mut self, directory: Directory, name: &[u8], node: Node) -> Found<()> {
        self.nodes.insert(key(directory, name).into(), node);
        self.bytes += name.len();
        if self.bytes > self.most_bytes {
            let most = self.most_bytes >> 20;
            return refuse(format!("is one too many: no more than {most} MiB of names are judged"));
        }
        if self.nodes.len() > self.most_names {
            let most = self.most_names;
            return refuse(format!("is the one too many: no more than {most} names are judged"));
        }
        Ok(())
    }

    /// Counts a part that is followed.
    fn step(&self) -> Found<()> {
        self.steps.update(|steps| steps + 1);
        if self.steps.get() > self.most_steps {
            return refuse("is one too many: its names and links take too long to follow");
        }
        Ok(())
    }
}

/// A way through the tree. `rooted`: as if the layer were the whole file system.
///
/// Otherwise what is absolute, or leads above the layer, leads out of it.
struct Walk {
    way: Vec<Directory>,
    rooted: bool,
    links: usize,
}

impl Walk {
    fn new(rooted: bool) -> Self {
        Self { way: vec![Tree::ROOT], rooted, links: 0 }
    }

    fn directory(&self) -> Directory {
        *self.way.last().expect("it begins with the root, which is never left")
    }

    /// Follows `parts` to a directory.
    fn enter(&mut self, tree: &Tree, parts: &[&[u8]]) -> Found<()> {
        if self.follow(tree, parts)? { Ok(()) } else { refuse("lies below what is no directory") }
    }

    /// Follows `parts` to a file or directory; gives whether it is a directory.
    fn follow(&mut self, tree: &Tree, parts: &[&[u8]]) -> Found<bool> {
        let mut left: Vec<_> = parts.iter().rev().copied().collect();
        while let Some(part) = left.pop() {
            tree.step()?;
            match part {
                b".." => self.up()?,
                b"." => {}
                name => match tree.get(self.directory(), name) {
                    None | Some(Node::Hidden) => {
                        return refuse("leads to what the layer does not have by then");
                    }
                    Some(Node::Directory(directory)) => self.way.push(*directory),
                    Some(Node::File) if left.is_empty() => return Ok(false),
                    Some(Node::File) => return refuse("lies below what is no directory"),
                    Some(Node::Link(target)) => {
                        self.through(target)?;
                        left.extend(way(target).rev());
                    }
                },
            }
        }
        Ok(true)
    }

    fn up(&mut self) -> Found<()> {
        if self.way.len() > 1 {
            self.way.pop();
        } else if !self.rooted {
            return refuse("leads out of the layer");
        }
        Ok(())
    }

    fn through(&mut self, target: &[u8]) -> Found<()> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return refuse("leads through too many links");
        }
        if target.starts_with(b"/") {
            if !self.rooted {
                return refuse("leads out of the layer");
            }
            self.way.truncate(1);
        }
        Ok(())
    }
}

/// What a directory has under a name.
fn key(directory: Directory, name: &[u8]) -> Vec<u8> {
    [&directory.0.to_le_bytes(), name].concat()
}

/// What a name has between its slashes, `..` included.
pub(super) fn parts_of(name: &[u8]) -> Vec<&[u8]> {
    name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect()
}

/// The way to a link's target; one that ends in a slash must be a directory.
fn way(target: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    target.split(|&byte| byte == b'/').map(|part| if part.is_empty() { &b"."[..] } else { part })
}
